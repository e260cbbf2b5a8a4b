# SPDX-License-Identifier: GPL-2.0-only
"""Guard pages (MADV_GUARD_INSTALL, v6.13): an anon_vma without a page, and entries that fork must copy."""

import errno

import pytest
from call_failures import failures, picture, refused
from machine_parts import BASE, SINCE_6_0, Delta, counters, vma, written

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.kernel.area import Area
from rmaplab.kernel.flags import PAGE_SIZE, PMD_SIZE, VM_MAYBE_GUARD, flags_name
from rmaplab.kernel.pagetable import GuardMarker, SwapPte
from rmaplab.series import SERIES

GUARDING = [name for name in SINCE_6_0 if "guard-install" not in SERIES[name].unknown_advice]
FLAGGED = ("v7.0", "v7.3")
EDGE = -(-BASE // PMD_SIZE) * PMD_SIZE  # where one page table ends and the next begins


@pytest.fixture(name="kernel", params=GUARDING)
def _kernel(request):
    kernel = monitored(SERIES[request.param])()
    kernel.spawn()
    yield kernel
    assert violations(kernel) == []


@pytest.fixture(name="flagged")
def _flagged(kernel):
    return kernel.name in FLAGGED


def kinds(process, area):
    """The classes of the entries of an area, None for a page without one."""
    return [type(process.mm.page_table.get(area.page(page))).__name__[:5] for page in range(area.pages)]


def test_an_untouched_vma_gets_an_anon_vma_before_it_has_a_page(kernel, parent):
    area = parent.mmap(2)
    added = Delta(kernel)
    parent.madvise(area.part(0, 0), "guard-install")
    assert added() == (1, 1)
    assert counters(vma(parent).anon_vma) == (1, 1, 1)
    assert kinds(parent, area) == ["Guard", "NoneT"]
    for call in (parent.read, parent.write):
        assert refused(call, area, 0) == errno.EFAULT
        assert refused(call, area, 1) is None
    assert added() == (0, 0)


def test_a_guard_borrows_a_neighbours_root_as_a_page_would(kernel, parent):
    low = written(parent, at=BASE)
    parent.mprotect(low, "rwx")
    high = parent.mmap(1, at=BASE + PAGE_SIZE)
    added = Delta(kernel)
    parent.madvise(high, "guard-install")
    assert added() == (0, 1)
    assert vma(parent, 1).anon_vma is vma(parent, 0).anon_vma


def test_pages_in_the_way_are_zapped_and_guards_there_already_stay(kernel, parent):
    area = written(parent, 4)
    folio = parent.mm.page_table.get(area.page(0)).folio
    parent.swapout(area.part(1, 1))
    slot = parent.mm.page_table.get(area.page(1)).slot
    parent.madvise(area.part(2, 2), "guard-install")
    guard = parent.mm.page_table.get(area.page(2))
    parent.madvise(area.part(0, 2), "guard-install")
    assert kinds(parent, area) == ["Guard", "Guard", "Guard", "Pte"]
    assert parent.mm.page_table.get(area.page(2)) is guard
    assert (folio.mapcount, slot.count) == (0, 0)


def test_removing_guards_leaves_pages_alone_and_the_anon_vma_where_it_is(kernel, parent):
    area = parent.mmap(3)
    parent.write(area.part(2, 2))
    parent.madvise(area.part(0, 1), "guard-install")
    owner = vma(parent).anon_vma
    parent.madvise(area, "guard-remove")
    assert kinds(parent, area) == ["NoneT", "NoneT", "Pte"]
    assert vma(parent).anon_vma is owner
    parent.write(area)


def test_munmap_takes_guards_with_it_and_mremap_carries_them(kernel, parent):
    area = parent.mmap(2)
    parent.madvise(area, "guard-install")
    moved = parent.mremap(area, at=BASE)
    assert kinds(parent, moved) == ["Guard", "Guard"]
    parent.munmap(moved.part(0, 0))
    assert [address for address, _ in parent.mm.page_table] == [moved.page(1)]
    parent.munmap(moved.part(1, 1))
    assert not list(parent.mm.page_table)


def test_fork_copies_guards_as_the_child_could_not_fault_them_in(kernel, parent):
    area = parent.mmap(2)
    parent.madvise(area.part(0, 0), "guard-install")
    child = parent.fork()
    assert kinds(child, area) == ["Guard", "NoneT"]
    assert child.mm.page_table.get(area.page(0)) is not parent.mm.page_table.get(area.page(0))
    child.madvise(area, "guard-remove")
    assert kinds(parent, area) == ["Guard", "NoneT"]


@pytest.mark.parametrize("options", [{"file": "f"}, {"shared": True}, {"file": "f", "shared": True}])
def test_a_files_guards_take_an_anon_vma_only_until_a_flag_tells_fork_of_them(kernel, parent, options, flagged):
    # Before v6.19 even a shared mapping gets one: it is what makes fork copy the page table.
    area = parent.mmap(2, **options)
    parent.read(area)
    parent.madvise(area.part(0, 0), "guard-install")
    assert kinds(parent, area) == ["Guard", "Pte"]
    assert (vma(parent).anon_vma is None) == flagged
    assert bool(vma(parent).vm_flags & VM_MAYBE_GUARD) == flagged
    child = parent.fork()
    assert kinds(child, area)[0] == "Guard"
    assert len(vma(child).anon_vma_chain) == (0 if flagged else 2)


@pytest.mark.parametrize("middle", [0, 1, 2])
def test_a_merged_vma_may_have_guards_if_any_of_its_parts_may(kernel, parent, middle, flagged):
    # Else fork would lose the guards of a file.
    area = parent.mmap(3, at=BASE, file="f")
    parent.mprotect(area.part(1, 1), "r")
    parent.madvise(area.part(middle, middle), "guard-install")
    parent.mprotect(area.part(1, 1), "rw")
    if flagged:
        assert [flags_name(part.vm_flags) for part in parent.mm.vmas] == ["rd wr gu ac"]
    assert kinds(parent.fork(), area)[middle] == "Guard"


def test_the_flag_goes_to_both_halves_of_a_split_and_to_what_grows(kernel, parent, flagged):
    area = parent.mmap(2, at=BASE)
    parent.madvise(area.part(0, 0), "guard-install")
    parent.madvise(area.part(1, 1), "dontdump")
    assert all(bool(part.vm_flags & VM_MAYBE_GUARD) == flagged for part in parent.mm.vmas)
    parent.madvise(area.part(1, 1), "dodump")
    parent.mmap(1, at=BASE + 2 * PAGE_SIZE)
    assert len(parent.mm.vmas) == 1
    assert bool(vma(parent).vm_flags & VM_MAYBE_GUARD) == flagged


def test_locked_memory_gets_no_guards_but_may_lose_them(kernel, parent):
    area = parent.mmap(2)
    parent.madvise(area.part(0, 0), "guard-install")
    assert refused(parent.mlock, area) == errno.ENOMEM  # a guard cannot be faulted in
    before = picture(parent)
    assert refused(parent.madvise, area, "guard-install") == errno.EINVAL
    assert picture(parent) == before
    parent.madvise(area, "guard-remove")
    assert "Guard" not in kinds(parent, area)


@pytest.mark.parametrize("present", [False, True], ids=["empty", "written"])
def test_what_fails_leaves_an_anon_vma_or_some_guards(present):
    # Two page tables: the guards of the first are there, the pages of the second are not lost.
    area = Area(EDGE - 2 * PAGE_SIZE, 4)

    def prepare(process):
        mapped = process.mmap(5, at=area.start)
        for page in (2, 4) if present else ():  # the last is not to become a guard
            process.write(mapped.part(page, page))
        return process

    points = failures(prepare, lambda process: process.madvise(area, "guard-install"))
    assert {failed.point for failed in points} == (
        {("table", 1)} if present else {("rmap", 1), ("rmap", 2), ("table", 1), ("table", 2)}
    )
    for failed in points:
        assert failed.errno == errno.ENOMEM
        assert bool(failed.vmas[0][4]) == (present or failed.kind == "table")
        found = kinds(failed.process, area)
        if failed.point == ("table", 2):
            assert found == ["Guard", "Guard", "NoneT", "NoneT"]
        else:
            assert found == ["NoneT", "NoneT", "Pte" if present else "NoneT", "NoneT"]


def test_swapped_pages_are_in_the_way_as_well(kernel, parent):
    area = written(parent)
    parent.swapout(area, cached=True)
    entry = parent.mm.page_table.get(area.start)
    assert isinstance(entry, SwapPte)
    parent.madvise(area, "guard-install")
    assert isinstance(parent.mm.page_table.get(area.start), GuardMarker)
    assert entry.slot.count == 0
