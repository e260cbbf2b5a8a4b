# SPDX-License-Identifier: GPL-2.0-only
"""mlock: a flag like any other, and faults that make pages anonymous."""

import errno

import pytest
from call_failures import failures, picture, refused
from machine_parts import BASE, Delta, counters, vma, written

from rmaplab.kernel.area import Area
from rmaplab.kernel.flags import PAGE_SIZE, TASK_SIZE, VM_LOCKED, flags_name
from rmaplab.kernel.objects import FILE_PAGE, ZERO_PAGE


def flags(process):
    return [flags_name(part.vm_flags) for part in process.mm.vmas]


def pages(process):
    return [entry.folio for _, entry in process.mm.page_table]


def test_what_is_private_and_writable_is_written_to(kernel, parent):
    area = parent.mmap(3)
    parent.read(area.part(0, 0))
    added = Delta(kernel)
    parent.mlock(area)
    assert added() == (1, 1)
    assert [folio.mapping for folio in pages(parent)] == [vma(parent).anon_vma] * 3
    assert flags(parent) == ["rd wr lo ac"]


@pytest.mark.parametrize(
    ("options", "stand_in"),
    [({"prot": "r"}, ZERO_PAGE), ({"prot": "r", "file": "f"}, FILE_PAGE), ({"shared": True}, FILE_PAGE)],
)
def test_what_is_shared_or_read_only_is_read_and_takes_no_anon_vma(kernel, parent, options, stand_in):
    parent.mlock(parent.mmap(2, **options))
    assert pages(parent) == [stand_in] * 2
    assert not kernel.live_anon_vmas


def test_a_page_shared_with_a_child_is_copied_now(kernel, parent):
    area = written(parent)
    child = parent.fork()
    shared = pages(parent)[0]
    child.mlock(area)
    assert pages(child) != [shared]
    assert pages(child)[0].mapping is vma(child).anon_vma
    assert shared.mapcount == 1


def test_a_part_is_split_off_and_joins_again_with_its_pages(kernel, parent):
    area = written(parent, 3)
    before = picture(parent)
    added = Delta(kernel)
    parent.mlock(area.part(1, 1))
    assert flags(parent) == ["rd wr ac", "rd wr lo ac", "rd wr ac"]
    assert added() == (0, 2)
    assert counters(vma(parent).anon_vma) == (1, 1, 3)
    parent.munlock(area)
    assert picture(parent)[1:] == before[1:]
    assert added() == (0, -2)


def test_a_child_inherits_no_lock(kernel, parent):
    # So what was kept apart by the flag alone can be merged there, if it could at all.
    area = written(parent, 2)
    parent.mlock(area)
    child = parent.fork()
    assert flags(parent) == ["rd wr lo ac"]
    assert flags(child) == ["rd wr ac"]
    child.madvise(area, "dontneed")
    assert pages(child) == []


def test_a_hole_ends_it_and_nothing_is_faulted_in(kernel, parent):
    parent.mmap(1, at=BASE)
    parent.mmap(1, at=BASE + 2 * PAGE_SIZE)
    for call in (parent.mlock, parent.munlock):
        assert refused(call, Area(BASE, 3)) == errno.ENOMEM
        assert refused(call, Area(BASE - PAGE_SIZE, 2)) == errno.ENOMEM
        assert refused(call, Area(TASK_SIZE, 1)) == errno.ENOMEM
    parent.mlock(Area(BASE, 0))
    assert flags(parent) == ["rd wr ac", "rd wr ac"]
    assert refused(parent.mlock, Area(BASE, 3)) == errno.ENOMEM
    assert flags(parent) == ["rd wr lo ac", "rd wr ac"]
    assert pages(parent) == []


def test_what_cannot_be_accessed_is_locked_all_the_same(kernel, parent):
    low = parent.mmap(1, at=BASE)
    parent.mmap(1, at=BASE + PAGE_SIZE, prot="none")
    assert refused(parent.mlock, Area(BASE, 2)) == errno.ENOMEM
    assert [part.vm_flags & VM_LOCKED for part in parent.mm.vmas] == [VM_LOCKED] * 2
    assert [address for address, _ in parent.mm.page_table] == [low.start]


def test_locking_what_is_locked_is_no_work(kernel, parent):
    area = written(parent)
    parent.mlock(area)
    before = picture(parent)
    parent.mlock(area)
    assert picture(parent) == before


def test_a_lock_that_fails_may_be_set_already():
    # ENOMEM before, EAGAIN while pages are faulted in: then the flag stays, and what there was memory for.
    area = Area(BASE, 3)

    def prepare(process):
        process.mmap(3, at=BASE)
        return process

    for failed in failures(prepare, lambda process: process.mlock(area.part(1, 2))):
        process = failed.process
        if failed.kind in ("vma", "tree"):
            assert failed.errno == errno.ENOMEM
            assert failed.unchanged
            continue
        assert failed.errno == errno.EAGAIN
        assert flags(process) == ["rd wr ac", "rd wr lo ac"]
        assert len(pages(process)) == (1 if failed.point == ("page", 2) else 0)
        assert (vma(process, 1).anon_vma is None) == (failed.kind in ("rmap", "table"))
    assert failures(prepare, lambda process: process.mlock(area), kinds=("rmap", "page", "table"))
