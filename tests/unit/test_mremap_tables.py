# SPDX-License-Identifier: GPL-2.0-only
"""The move of page-table entries: which locks it holds, how it fails and goes back, what becomes of huge entries."""

import errno

import pytest
from allocation_events import Recorder
from machine_parts import BASE, chain, folio, vma, written

from rmaplab.check.invariants import violations
from rmaplab.check.state import graph
from rmaplab.kernel.flags import PAGE_SIZE, PMD_ORDER, PMD_SHIFT, PMD_SIZE
from rmaplab.kernel.objects import Folio
from rmaplab.kernel.pagetable import Pte

pytestmark = pytest.mark.parametrize("series", ["v7.0"])
FAR = BASE + 64 * PMD_SIZE
LOCKED, FREE = ["[", "]"], []


def moves(kernel, *functions):
    """Record the lock that each of the functions takes."""
    return [Recorder(kernel, function) for function in functions]


def sparse(process, pages, start=BASE):
    """An area that spans tables, with some of its pages written."""
    last = max(pages)
    area = process.mmap(last + 1, at=start)
    for page in pages:
        process.write(area, page)
    return area


# --- locks -------------------------------------------------------------------------------------------------


def test_a_move_to_a_new_vma_needs_no_lock(kernel, parent):
    # It stands behind the old one in the trees: a walk meets the new place after the old.
    area, order = written(parent, at=BASE), []
    (root,) = chain(parent)
    recorder = Recorder(kernel, "move_ptes")
    move = recorder.function
    recorder.function = lambda *arguments: order.extend(avc.vma.vm_start for avc in root.rb_root) or move(*arguments)
    parent.mremap(area, at=FAR)
    assert recorder.events == FREE
    assert order == [BASE, FAR]


def test_a_move_into_an_older_vma_with_an_offset_no_higher_needs_the_lock(kernel, parent):
    # It may stand before the old place in the trees: a walk could miss the page at both.
    area = written(parent, 3, at=BASE)
    away = parent.mremap(area.part(1, 2), at=FAR)
    (recorder,) = moves(kernel, "move_ptes")
    parent.mremap(away.part(0, 0), at=area.page(1))
    assert len(parent.mm.vmas) == 2
    assert recorder.events == LOCKED


def test_a_move_into_a_vma_with_a_higher_offset_needs_no_lock(kernel, parent):
    area = written(parent, 4, at=BASE)
    parent.mremap(area.part(3, 3), at=FAR + 3 * PAGE_SIZE)
    (recorder,) = moves(kernel, "move_ptes")
    parent.mremap(area.part(2, 2), at=FAR + 2 * PAGE_SIZE)
    assert len(parent.mm.vmas) == 2
    assert vma(parent, 1).vm_pgoff > vma(parent, 0).vm_pgoff
    assert recorder.events == FREE


def test_a_whole_table_moves_under_the_lock_even_to_a_new_vma(kernel, parent):
    area = sparse(parent, [3, 511, 512])
    whole, small = moves(kernel, "move_normal_pmd", "move_ptes")
    recorder = Recorder(kernel, "move_pgt_entry")
    parent.mremap(area, at=FAR)
    assert recorder.events == LOCKED
    assert (whole.results, len(small.results)) == ([True], 1)
    assert small.events == FREE


def test_a_range_that_lies_differently_in_its_tables_moves_entry_by_entry(kernel, parent):
    area = sparse(parent, [0, 300, 511, 600])
    pages = [folio(parent, area, page) for page in (0, 300, 511, 600)]
    whole, small = moves(kernel, "move_normal_pmd", "move_ptes")
    moved = parent.mremap(area, at=FAR + 5 * PAGE_SIZE)
    assert whole.results == []
    assert len(small.results) == 3  # up to the new table's end, up to the old one's, and beyond
    assert [folio(parent, moved, page) for page in (0, 300, 511, 600)] == pages


# --- failure -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("dontunmap", [False, True])
def test_a_move_without_a_table_takes_all_entries_back(kernel, parent, n, dontunmap):
    area = sparse(parent, [0, 1, 515, 1030, 1100])
    before = list(parent.mm.page_table), graph(kernel), [(part.vm_start, part.vm_flags) for part in parent.mm.vmas]
    recorder = Recorder(kernel, "move_page_tables")
    kernel.slab.plan(n, kind="table")
    with pytest.raises(OSError, match="allocate") as error:
        parent.mremap(area, at=FAR + 5 * PAGE_SIZE, dontunmap=dontunmap)
    assert error.value.errno == errno.ENOMEM
    assert list(parent.mm.page_table) == before[0]
    assert graph(kernel) == before[1]
    assert [(part.vm_start, part.vm_flags) for part in parent.mm.vmas] == before[2]
    forth, back = recorder.results
    assert forth == back < area.pages * PAGE_SIZE


def test_whole_tables_move_without_a_new_one(kernel, parent):
    area = sparse(parent, [0, 511, 512, 1023])
    kernel.slab.plan(1, kind="table")
    parent.mremap(area, at=FAR)
    assert kernel.slab.counts["table"] == 0


def test_going_back_is_locked_even_from_a_new_vma(kernel, parent):
    area = sparse(parent, [0, 515])
    kernel.slab.plan(2, kind="table")
    recorder = Recorder(kernel, "move_ptes")
    with pytest.raises(OSError, match="allocate"):
        parent.mremap(area, at=FAR + PAGE_SIZE)
    assert recorder.events == LOCKED
    assert len(recorder.results) == 2  # forth and back


@pytest.mark.parametrize("n", [1, 2])
def test_a_failed_move_takes_its_range_off_the_neighbour_that_grew_and_leaves_it_the_links(kernel, parent, n):
    area = sparse(parent, [0, 515])
    (root,) = chain(parent)
    low = parent.mmap(1, at=FAR)
    away = parent.mremap(area, at=FAR + PAGE_SIZE + (8 << PMD_SHIFT))
    parent.mmap(1, at=BASE - PAGE_SIZE)
    kernel.slab.plan(n, kind="table")
    with pytest.raises(OSError, match="allocate"):
        parent.mremap(away, at=BASE)
    assert (vma(parent).vm_start, vma(parent).vm_end) == (BASE - PAGE_SIZE, BASE)
    assert vma(parent).anon_vma is root
    assert [address for address, _ in parent.mm.page_table] == [away.page(0), away.page(515)]
    assert parent.mm.lookup(low.start).anon_vma is None


# --- huge entries --------------------------------------------------------------------------------------------


@pytest.fixture(name="huge")
def _huge(parent):
    """An area of two huge pages, the first of which is mapped."""
    area = parent.mmap(2 << PMD_ORDER, at=BASE)
    parent.write(area, 600)
    large = Folio(100, PMD_ORDER)
    large.mapping, large.index, large.mapcount = vma(parent).anon_vma, vma(parent).vm_pgoff, 1
    large.exclusive = (1 << (1 << PMD_ORDER)) - 1
    parent.mm.page_table.pmds[BASE] = Pte(large, True)
    return area, large


def test_a_huge_entry_moves_whole_between_aligned_addresses(kernel, parent, huge):
    area, large = huge
    parent.mremap(area, at=FAR)
    assert list(parent.mm.page_table.pmds) == [FAR]
    assert large.mapcount == 1
    assert violations(kernel) == []


@pytest.mark.parametrize(("part", "to"), [((0, 1023), FAR + PAGE_SIZE), ((0, 510), FAR), ((1, 512), FAR)])
def test_a_huge_entry_is_split_if_it_cannot_move_whole(kernel, parent, huge, part, to):
    area, large = huge
    parent.mremap(area.part(*part), at=to)
    assert parent.mm.page_table.pmds == {}
    assert large.mapcount == 1 << PMD_ORDER
    assert {pte.page for _, pte in parent.mm.page_table if pte.folio is large} == set(range(1 << PMD_ORDER))
    assert violations(kernel) == []


@pytest.mark.parametrize("new_below", [False, True])
def test_a_boundary_inside_a_huge_page_splits_its_entry_under_the_lock(kernel, parent, huge, new_below):
    area, large = huge
    recorder = Recorder(kernel, "vma_adjust_trans_huge")
    held = []
    split = kernel.split_huge_pmd
    kernel.split_huge_pmd = lambda *arguments: held.append(kernel.locks.anon_vma_held) or split(*arguments)
    parent.mprotect(area.part(0, 99) if new_below else area.part(100, 1023), "r")
    assert held == [1]
    assert len(recorder.results) == 1
    assert large.mapcount == 1 << PMD_ORDER
    assert violations(kernel) == []


def test_a_boundary_between_huge_pages_splits_none(kernel, parent, huge):
    area, large = huge
    parent.munmap(area.part(512, 1023))
    assert list(parent.mm.page_table.pmds) == [BASE]
    assert large.mapcount == 1
