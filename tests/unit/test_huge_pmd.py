# SPDX-License-Identifier: GPL-2.0-only
"""Folios of 2 MiB mapped by one entry: who gets them, who shares them, what splits the entry."""

import pytest
from huge_parts import ALL, FIRST, PAGES, holds, huge, machine, pmd, pte, small_entries, wanted
from machine_parts import chain, counters, vma

from rmaplab.kernel.flags import PAGE_SIZE, PMD_ORDER, PMD_SIZE


@pytest.fixture(name="kernel")
def _kernel():
    kernel, _ = machine(PMD_ORDER)
    yield kernel
    assert holds(kernel)


@pytest.fixture(name="parent")
def _parent(kernel):
    return kernel.processes["P0"]


# --- faults ----------------------------------------------------------------------------------------------


def test_a_write_maps_one_folio_by_one_entry(kernel, parent):
    area = wanted(parent)
    parent.write(area, 77)
    entry = pmd(parent)
    folio = entry.folio
    assert (folio.order, folio.mapping, folio.index) == (PMD_ORDER, vma(parent).anon_vma, FIRST // PAGE_SIZE)
    assert (folio.mapcount, folio.exclusive, entry.writable) == (1, ALL, True)
    assert small_entries(parent) == 0
    parent.write(area)
    assert list(parent.mm.page_table.pmds.values()) == [entry]
    assert kernel.slab.counts["page"] == 1


def test_only_ranges_that_lie_inside_the_vma_are_huge(parent):
    area = wanted(parent, PAGES + 2, FIRST - PAGE_SIZE)
    for page in (0, 1, PAGES + 1):
        parent.write(area, page)
    assert list(parent.mm.page_table.pmds) == [FIRST]
    assert small_entries(parent) == 2


def test_a_vma_one_page_short_gets_small_pages(parent):
    for area in (wanted(parent, PAGES - 1), wanted(parent, PAGES, FIRST + 8 * PMD_SIZE + PAGE_SIZE)):
        parent.write(area)
        assert pte(parent, area).folio.order == 0
    assert not parent.mm.page_table.pmds


@pytest.mark.parametrize("advice", [None, "nohugepage"])
def test_a_vma_that_did_not_ask_gets_small_pages(parent, advice):
    area = parent.mmap(PAGES, at=FIRST)
    if advice:
        parent.madvise(area, advice)
    parent.write(area, 0)
    assert pte(parent, area).folio.order == 0


@pytest.mark.parametrize("how", [{"shared": True}, {"file": "f"}, {"file": "f", "shared": True}])
def test_files_and_shared_memory_get_small_pages(parent, how):
    area = parent.mmap(PAGES, at=FIRST, **how)
    parent.madvise(area, "hugepage")
    parent.write(area, 0)
    assert small_entries(parent) == 1
    assert not parent.mm.page_table.pmds


def test_a_range_with_one_small_entry_stays_small(parent):
    area = wanted(parent)
    parent.read(area, 5)
    parent.write(area, 6)
    assert pte(parent, area, 6).folio.order == 0
    assert not parent.mm.page_table.pmds


def test_without_a_huge_page_the_fault_takes_a_small_one(kernel, parent):
    area = wanted(parent)
    kernel.slab.plan(1, kind="page")
    parent.write(area, 3)
    assert kernel.slab.failed == 1
    assert pte(parent, area, 3).folio.order == 0
    assert not parent.mm.page_table.pmds


@pytest.mark.parametrize("kind", ["table", "rmap"])
def test_without_a_table_to_set_aside_or_an_anon_vma_the_fault_fails(kernel, parent, kind):
    area = wanted(parent)
    kernel.slab.plan(1, kind=kind)
    with pytest.raises(OSError, match="memory"):
        parent.write(area, 0)
    assert small_entries(parent) == 0
    assert not parent.mm.page_table.pmds
    assert (vma(parent).anon_vma is None) == (kind == "rmap")
    kernel.slab.disarm()
    parent.write(area, 0)
    assert pmd(parent).folio.mapcount == 1


# --- fork and copy on write ------------------------------------------------------------------------------


def test_fork_shares_the_entry_and_no_page_stays_exclusive(kernel, parent):
    area = huge(parent)
    (root,) = chain(parent)
    child = parent.fork()
    folio = pmd(parent).folio
    assert pmd(child).folio is folio
    assert (folio.mapping, folio.mapcount, folio.exclusive) == (root, 2, 0)
    assert not pmd(parent).writable
    assert not pmd(child).writable
    parent.read(area, 9)
    assert folio.mapcount == 2
    assert holds(kernel)


def test_a_child_that_writes_splits_its_entry_and_copies_one_page(kernel, parent):
    area = huge(parent)
    child = parent.fork()
    folio = pmd(parent).folio
    child.write(area, 9)
    assert holds(kernel)
    assert not child.mm.page_table.pmds
    assert folio.mapcount == 1 + PAGES - 1
    copy = pte(child, area, 9).folio
    assert (copy.order, copy.mapping, copy.index) == (0, vma(child).anon_vma, folio.index + 9)
    assert (pte(child, area, 10).folio, pte(child, area, 10).page) == (folio, 10)
    assert pmd(parent).folio is folio


def test_the_last_mapper_of_the_entry_reuses_the_folio_which_moves_to_it(kernel, parent):
    area = huge(parent)
    (root,) = chain(parent)
    child = parent.fork()
    folio = pmd(child).folio
    parent.exit()
    assert folio.mapping is root
    child.write(area, 100)
    assert pmd(child).folio is folio
    assert (folio.mapping, folio.exclusive, folio.mapcount) == (vma(child).anon_vma, ALL, 1)
    assert folio.mapping is not root
    assert pmd(child).writable
    assert kernel.locks.held == []


def test_an_exclusive_entry_becomes_writable_and_the_folio_does_not_move(parent):
    area = huge(parent)
    parent.mprotect(area, "r")
    assert not pmd(parent).writable
    parent.mprotect(area, "rw")
    mapping = pmd(parent).folio.mapping
    parent.write(area, 1)
    assert pmd(parent).writable
    assert (pmd(parent).folio.mapping, pmd(parent).folio.exclusive) == (mapping, ALL)


def test_a_pinned_folio_that_is_not_exclusive_is_not_reused(parent):
    area = huge(parent)
    child = parent.fork()
    folio = pmd(child).folio
    folio.pins = 1
    parent.exit()
    child.write(area, 2)
    assert not child.mm.page_table.pmds
    assert pte(child, area, 2).folio is not folio
    assert folio.mapcount == PAGES - 1


def test_unsharing_takes_the_folio_over_but_leaves_the_entry_read_only(kernel, parent):
    area = huge(parent)
    child = parent.fork()
    parent.exit()
    assert kernel.handle_mm_fault(child.mm, area.start, write=False, unshare=True) == 0
    assert (pmd(child).folio.exclusive, pmd(child).writable) == (ALL, False)
    assert pmd(child).folio.mapping is vma(child).anon_vma


def test_unsharing_a_folio_that_others_map_splits_the_entry_and_copies_one_page(kernel, parent):
    area = huge(parent)
    child = parent.fork()
    assert kernel.handle_mm_fault(child.mm, area.start, write=False, unshare=True) == 0
    assert (pte(child, area).folio.order, pte(child, area).writable) == (0, False)
    assert pte(child, area, 1).folio is pmd(parent).folio


def test_fork_copies_what_may_be_pinned_page_by_page(kernel, parent):
    area = huge(parent)
    folio = pmd(parent).folio
    folio.pins, parent.mm.has_pinned = 1, True
    child = parent.fork()
    assert not parent.mm.page_table.pmds
    assert not child.mm.page_table.pmds
    assert (folio.mapcount, folio.exclusive) == (PAGES, ALL)
    assert pte(parent, area, 3).writable
    copy = pte(child, area, 3).folio
    assert (copy.mapping, copy.order, copy.exclusive) == (vma(child).anon_vma, 0, 1)
    assert copy.index == folio.index + 3
    assert small_entries(child) == PAGES
    assert holds(kernel)


def test_a_pin_from_before_the_mm_did_not_make_does_not_matter_to_fork(parent):
    huge(parent)
    pmd(parent).folio.pins = 1  # somebody else's: this mm has never pinned anything
    child = parent.fork()
    assert pmd(child).folio is pmd(parent).folio


def test_a_fork_that_finds_no_table_fails_and_the_entry_is_the_parents_alone(kernel, parent):
    area = huge(parent)
    before = counters(vma(parent).anon_vma)
    kernel.slab.plan(1, kind="table")
    with pytest.raises(OSError, match="memory"):
        parent.fork()
    assert list(kernel.processes) == ["P0"]
    assert pmd(parent).folio.mapcount == 1
    assert counters(vma(parent).anon_vma) == before
    parent.write(area, 0)


# --- what splits an entry, and what does not -----------------------------------------------------------------


def split_in(process, area, folio, missing=()):
    """Whether small entries map what is left of the folio."""
    present = [page for page in range(area.pages) if (e := pte(process, area, page)) and e.folio is folio]
    assert present == [page for page in range(area.pages) if page not in missing]
    return all(pte(process, area, page).page == page for page in present)


def test_a_partial_munmap_splits_the_entry_and_leaves_the_folio_whole(kernel, parent):
    area = huge(parent)
    folio = pmd(parent).folio
    mapping, index = folio.mapping, folio.index
    parent.munmap(area.part(10, 19))
    assert not parent.mm.page_table.pmds
    assert split_in(parent, area, folio, range(10, 20))
    assert (folio.order, folio.mapping, folio.index, folio.mapcount) == (PMD_ORDER, mapping, index, PAGES - 10)
    assert pte(parent, area, 20).writable
    assert holds(kernel)


def test_a_munmap_of_everything_needs_no_split(kernel, parent):
    area = huge(parent, 2)
    folio = pmd(parent).folio
    parent.munmap(area)
    assert (folio.mapcount, small_entries(parent)) == (0, 0)
    assert not kernel.live_anon_vmas


def test_a_boundary_between_two_entries_splits_neither(parent):
    area = huge(parent, 2)
    parent.munmap(area.part(0, PAGES - 1))
    assert list(parent.mm.page_table.pmds) == [FIRST + PMD_SIZE]
    assert small_entries(parent) == 0


def test_mprotect_of_a_part_splits_the_entry_and_each_side_has_its_own_rights(kernel, parent):
    area = huge(parent)
    folio = pmd(parent).folio
    parent.mprotect(area.part(0, 99), "r")
    assert split_in(parent, area, folio)
    assert [pte(parent, area, page).writable for page in (0, 99, 100, PAGES - 1)] == [False, False, True, True]
    assert (folio.mapcount, folio.exclusive) == (PAGES, ALL)
    assert holds(kernel)
    parent.mprotect(area.part(0, 99), "rw")
    assert len(parent.mm.vmas) == 1
    parent.write(area, 50)
    assert folio.mapcount == PAGES


def test_a_huge_folio_may_be_one_entry_here_and_small_ones_there(kernel, parent):
    area = huge(parent)
    child = parent.fork()
    folio = pmd(parent).folio
    child.munmap(area.part(0, 0))
    assert folio.mapcount == 1 + PAGES - 1
    assert pmd(parent).folio is folio
    assert split_in(child, area, folio, [0])
    parent.write(area, 0)  # only the parent maps page 0, but the child maps others
    assert pte(parent, area, 0).folio is not folio
    assert folio.mapcount == 2 * (PAGES - 1)
    assert holds(kernel)


def test_a_copy_of_the_machine_has_the_entry(kernel, parent):
    area = huge(parent)
    parent.fork()
    copy = kernel.copy()
    assert copy.snapshot() == kernel.snapshot()
    copy.processes["P1"].write(area, 0)
    assert pmd(parent).folio.mapcount == 2
