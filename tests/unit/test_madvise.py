# SPDX-License-Identifier: GPL-2.0-only
"""Advice that changes flags, and advice that zaps."""

import errno

import pytest
from call_failures import failures, picture, refused, spans
from machine_parts import BASE, Delta, chain, counters, vma, written

from rmaplab.kernel.area import Area
from rmaplab.kernel.flags import PAGE_SIZE, TASK_SIZE, flags_name
from rmaplab.kernel.locking import MMAP_LOCK, READ, WRITE
from rmaplab.kernel.madvise import ADVICE, SINCE
from rmaplab.kernel.pagetable import GuardMarker
from rmaplab.series import SERIES

PAIRS = [  # advice, what smaps then shows, advice that takes it back
    ("dontfork", "rd wr dc ac", "dofork"),
    ("wipeonfork", "rd wr ac wf", "keeponfork"),
    ("dontdump", "rd wr ac dd", "dodump"),
    ("mergeable", "rd wr ac mg", "unmergeable"),
]


def flags(process):
    return [flags_name(part.vm_flags) for part in process.mm.vmas]


# --- flags -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("advice", "shown", "back"), PAIRS)
@pytest.mark.parametrize("page", [0, 1, 2])
def test_advice_splits_a_part_off_and_its_opposite_closes_the_cut(kernel, parent, advice, shown, back, page):
    area = written(parent, 3)
    before = picture(parent)
    added = Delta(kernel)
    parent.madvise(area.part(page, page), advice)
    pieces = 3 if page == 1 else 2
    assert sorted(flags(parent)) == sorted([shown] + ["rd wr ac"] * (pieces - 1))
    assert added() == (0, pieces - 1)
    assert counters(vma(parent).anon_vma) == (1, 1, pieces)
    parent.madvise(area.part(page, page), back)
    assert spans(parent) == before[1]
    assert picture(parent)[2] == before[2]
    assert added() == (0, 1 - pieces)


def test_a_flip_leaves_account_alone_where_mprotect_would_not(kernel, parent):
    # mprotect takes VM_ACCOUNT from what was never written to; madvise does not look.
    low = parent.mmap(1, at=BASE)
    high = written(parent, at=BASE + PAGE_SIZE)
    assert len(parent.mm.vmas) == 1
    for area in (low, high):
        parent.madvise(area, "dontdump")
    assert flags(parent) == ["rd wr ac dd"]
    assert flags_name(vma(parent).vm_flags & ~0x4000000) == "rd wr ac"


def test_huge_page_advice_excludes_its_opposite(kernel, parent):
    area = parent.mmap(1)
    parent.madvise(area, "hugepage")
    assert flags(parent) == ["rd wr ac hg"]
    parent.madvise(area, "nohugepage")
    assert flags(parent) == ["rd wr ac nh"]


def test_the_same_advice_again_is_no_work(kernel, parent):
    area = written(parent)
    parent.madvise(area, "dontfork")
    before = picture(parent)
    kernel.slab.plan(1, kind="tree")
    parent.madvise(area, "dontfork")
    assert not kernel.slab.counts["tree"]
    kernel.slab.disarm()
    assert picture(parent) == before


def test_advice_goes_on_behind_a_hole_and_says_so_at_the_end(kernel, parent):
    written(parent, at=BASE)
    written(parent, at=BASE + 3 * PAGE_SIZE)
    assert refused(parent.madvise, Area(BASE, 4), "dontdump") == errno.ENOMEM
    assert flags(parent) == ["rd wr ac dd"] * 2
    assert refused(parent.madvise, Area(BASE - PAGE_SIZE, 2), "dodump") == errno.ENOMEM
    assert flags(parent) == ["rd wr ac", "rd wr ac dd"]
    assert refused(parent.madvise, Area(BASE + 8 * PAGE_SIZE, 2), "dodump") == errno.ENOMEM
    assert refused(parent.madvise, Area(TASK_SIZE, 1), "dodump") == errno.ENOMEM
    parent.madvise(Area(BASE, 0), "dontdump")
    assert flags(parent) == ["rd wr ac", "rd wr ac dd"]


def test_advice_that_is_refused_in_the_middle_keeps_what_was_done_before(kernel, parent):
    parent.mmap(1, at=BASE)
    parent.mmap(1, at=BASE + PAGE_SIZE, file="f")
    parent.mmap(1, at=BASE + 2 * PAGE_SIZE)
    assert refused(parent.madvise, Area(BASE, 3), "wipeonfork") == errno.EINVAL
    assert flags(parent) == ["rd wr ac wf", "rd wr ac", "rd wr ac"]


@pytest.mark.parametrize("options", [{"file": "f"}, {"shared": True}, {"file": "f", "shared": True}])
def test_only_private_anonymous_memory_is_wiped_on_fork(kernel, parent, options):
    area = parent.mmap(1, **options)
    assert refused(parent.madvise, area, "wipeonfork") == errno.EINVAL
    parent.madvise(area, "keeponfork")  # which is what it does anyway
    assert "wf" not in flags(parent)[0]


def test_ksm_ignores_shared_memory(kernel, parent):
    area = parent.mmap(1, shared=True)
    parent.madvise(area, "mergeable")
    parent.madvise(area, "unmergeable")
    assert flags(parent) == ["rd wr sh"]


def test_what_is_no_longer_mergeable_gets_its_pages_back(kernel, parent):
    area = parent.mmap(2)
    parent.madvise(area, "mergeable")
    parent.write(area)
    parent.ksm_merge(area, "same")
    table = parent.mm.page_table
    assert table.get(area.page(0)).folio is table.get(area.page(1)).folio
    parent.madvise(area.part(1, 1), "unmergeable")
    assert [table.get(area.page(page)).folio.stable_node is None for page in (0, 1)] == [False, True]
    assert table.get(area.page(1)).folio.mapping is vma(parent, 1).anon_vma


# --- what fork makes of it -------------------------------------------------------------------------------


def test_fork_wipes_leaves_out_and_copies_as_it_was_advised(kernel, parent):
    area = written(parent, 3)
    parent.madvise(area.part(0, 0), "wipeonfork")
    parent.madvise(area.part(1, 1), "dontfork")
    added = Delta(kernel)
    child = parent.fork()
    assert [(part.vm_start, len(part.anon_vma_chain)) for part in child.mm.vmas] == [
        (area.page(0), 0),
        (area.page(2), 2),
    ]
    assert added() == (1, 2)
    assert [address for address, _ in child.mm.page_table] == [area.page(2)]
    # What is wiped on fork is wiped for the grandchild too, and gets a root of its own.
    child.write(area.part(0, 0))
    assert len(chain(child)) == 1
    grandchild = child.fork()
    assert vma(grandchild).anon_vma is None
    parent.madvise(area.part(0, 0), "keeponfork")
    parent.madvise(area.part(1, 1), "dofork")
    assert len(parent.mm.vmas) == 1
    assert len(parent.fork().mm.page_table.range(area.start, area.end)) == 3


# --- zapping ---------------------------------------------------------------------------------------------


def test_dontneed_drops_pages_of_every_kind_and_keeps_the_anon_vma(kernel, parent):
    area = written(parent, 4)
    parent.swapout(area.part(1, 1))
    parent.swapout(area.part(2, 2), cached=True)
    folio = parent.mm.page_table.get(area.page(0)).folio
    child = parent.fork()
    before = counters(vma(parent).anon_vma)
    parent.madvise(area.part(0, 2), "dontneed")
    assert [address for address, _ in parent.mm.page_table] == [area.page(3)]
    assert folio.mapcount == 1
    assert child.mm.page_table.get(area.page(1)).slot.count == 1
    assert counters(vma(parent).anon_vma) == before
    parent.write(area)
    assert parent.mm.page_table.get(area.page(0)).folio is not folio


def test_locked_memory_is_always_needed(kernel, parent):
    area = written(parent)
    parent.mlock(area)
    before = picture(parent)
    assert refused(parent.madvise, area, "dontneed") == errno.EINVAL
    assert picture(parent) == before


# --- releases, locks, failures ---------------------------------------------------------------------------


def release(name):
    return tuple(int(part) for part in name.removeprefix("v").split("+")[0].split("."))


@pytest.mark.parametrize("advice", ADVICE)
@pytest.mark.parametrize("name", [name for name in SERIES if "v2" not in name.split("+")[1:]])
def test_advice_is_known_since_its_release(name, advice):
    # A series before that release answers EINVAL and does nothing.
    since = next((begin for begin, advices in SINCE.items() if advice in advices), "v2.6.32")
    kernel = SERIES[name]()
    process = kernel.spawn()
    area = written(process)
    before = picture(process)
    if release(name) >= release(since):
        process.madvise(area, advice)
    else:
        assert refused(process.madvise, area, advice) == errno.EINVAL
        assert picture(process) == before


def test_flags_take_the_mmap_lock_for_writing_and_ranges_for_reading(kernel, parent):
    taken = []
    acquire = kernel.locks.acquire
    kernel.locks.acquire = lambda lock, owner, mode=WRITE: (taken.append((lock, mode)), acquire(lock, owner, mode))[1]
    area = parent.mmap(1)
    taken.clear()
    for advice, mode in (("dontfork", WRITE), ("dontneed", READ)):
        parent.madvise(area, advice)
        assert taken.pop(0) == (MMAP_LOCK, mode)
        assert MMAP_LOCK not in dict(taken)
        taken.clear()


@pytest.mark.parametrize("page", [0, 1, 2])
def test_a_flip_that_fails_is_to_be_tried_again(page):
    # EAGAIN, where mprotect says ENOMEM.  In the middle a first cut may be made and stay.
    for failed in failures(
        lambda process: (process, written(process, 3)),
        lambda prepared: prepared[0].madvise(prepared[1].part(page, page), "dontfork"),
    ):
        assert failed.errno == errno.EAGAIN
        assert flags(failed.process) == ["rd wr ac"] * len(failed.vmas)
        assert failed.unchanged or (page == 1 and len(failed.vmas) == 2)


def test_a_page_of_ksm_that_cannot_be_copied_keeps_the_vma_mergeable():
    def prepare(process):
        area = process.mmap(2)
        process.madvise(area, "mergeable")
        process.write(area)
        process.ksm_merge(area, "same")
        return process, area

    points = failures(prepare, lambda prepared: prepared[0].madvise(prepared[1], "unmergeable"))
    assert [failed.point for failed in points] == [("page", 1), ("page", 2)]
    for failed in points:
        assert failed.errno == errno.EAGAIN
        assert flags(failed.process) == ["rd wr ac mg"]


def test_a_guard_is_no_page_that_dontneed_drops(kernel, parent, series):
    if "guard-install" in SERIES[series].unknown_advice:
        return
    area = written(parent, 2)
    parent.madvise(area.part(0, 0), "guard-install")
    parent.madvise(area, "dontneed")
    assert [type(entry) for _, entry in parent.mm.page_table] == [GuardMarker]
