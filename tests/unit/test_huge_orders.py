# SPDX-License-Identifier: GPL-2.0-only
"""Large folios mapped by small entries (multi-size THP, v6.8): sizes, sharing and writing page by page."""

import pytest
from huge_parts import PAGES, holds, huge, machine, pmd, pte, wanted
from machine_parts import chain, vma

from rmaplab.kernel.flags import PAGE_SIZE, PMD_ORDER

ORDER = 2  # 16 KiB


@pytest.fixture(name="kernel")
def _kernel():
    kernel, _ = machine(ORDER)
    yield kernel
    assert holds(kernel)


@pytest.fixture(name="parent")
def _parent(kernel):
    return kernel.processes["P0"]


def orders(process, area):
    """Order of the folio at each page, None where nothing is mapped."""
    return [None if (entry := pte(process, area, page)) is None else entry.folio.order for page in range(area.pages)]


# --- faults ----------------------------------------------------------------------------------------------


def test_a_write_maps_the_aligned_pages_around_it(parent):
    area = wanted(parent, 12)
    parent.write(area, 6)
    assert orders(parent, area) == [None] * 4 + [2] * 4 + [None] * 4
    folio = pte(parent, area, 6).folio
    assert {pte(parent, area, page).folio for page in range(4, 8)} == {folio}
    assert [pte(parent, area, page).page for page in range(4, 8)] == [0, 1, 2, 3]
    assert (folio.mapping, folio.index) == (vma(parent).anon_vma, area.page(4) // PAGE_SIZE)
    assert (folio.mapcount, folio.exclusive) == (4, 0b1111)
    assert all(pte(parent, area, page).writable for page in range(4, 8))


def test_pages_at_the_edge_of_a_vma_are_small(parent):
    area = wanted(parent, 6, at=0x40000000 + 3 * PAGE_SIZE)
    parent.write(area)
    assert orders(parent, area) == [0, 2, 2, 2, 2, 0]


def test_a_range_that_is_not_empty_gets_the_next_smaller_size():
    kernel, process = machine(2, 3)
    area = wanted(process, 16)
    process.read(area, 1)
    process.write(area, 4)
    process.write(area, 8)
    process.write(area, 2)
    assert orders(process, area) == [None, 0, 0, None, 2, 2, 2, 2, *[3] * 8]
    assert holds(kernel)


@pytest.mark.parametrize(("fails", "order"), [(1, 2), (2, 3)])
def test_a_size_that_cannot_be_had_gives_way_to_a_smaller_one(fails, order):
    kernel, process = machine(2, 3)
    area = wanted(process, 32)
    kernel.slab.plan(fails, kind="page")
    process.write(area, 0)
    process.write(area, 16)
    assert orders(process, area)[0] == (2 if fails == 1 else 3)
    assert orders(process, area)[16] == (3 if fails == 1 else 2)
    assert kernel.slab.failed == 1
    assert order in orders(process, area)


def test_only_a_vma_that_asked_gets_large_folios(parent):
    area = parent.mmap(8)
    parent.write(area, 0)
    assert orders(parent, area) == [0] + [None] * 7


def test_pmd_and_smaller_sizes_go_together():
    kernel, process = machine(ORDER, PMD_ORDER)
    area = huge(process)
    process.munmap(area.part(0, 3))
    assert pte(process, area, 4).folio.order == PMD_ORDER
    tail = wanted(process, 8, at=0x50000000)
    process.write(tail, 0)
    assert orders(process, tail) == [2] * 4 + [None] * 4
    assert holds(kernel)


# --- sharing and writing ---------------------------------------------------------------------------------


@pytest.fixture(name="shared")
def _shared(kernel, parent):
    """An area of one large folio, and the child that shares it."""
    area = wanted(parent, 4)
    parent.write(area, 0)
    return area, pte(parent, area).folio, parent.fork()


def test_fork_shares_each_page(kernel, parent, shared):
    area, folio, child = shared
    assert (folio.mapcount, folio.exclusive, folio.mapping) == (8, 0, chain(parent)[0])
    assert [pte(child, area, page).page for page in range(4)] == [0, 1, 2, 3]
    assert not pte(parent, area, 2).writable


def test_a_write_to_a_shared_page_copies_that_page_only(kernel, parent, shared):
    area, folio, child = shared
    child.write(area, 2)
    copy = pte(child, area, 2).folio
    assert (copy.order, copy.mapping, copy.index) == (0, vma(child).anon_vma, folio.index + 2)
    assert (folio.mapcount, folio.exclusive) == (7, 0)
    assert orders(child, area) == [2, 2, 0, 2]
    parent.write(area, 2)  # the child maps other pages of the folio: copied, though page 2 is the parent's alone
    assert pte(parent, area, 2).folio not in (folio, copy)
    assert folio.mapcount == 6


def test_the_last_process_writes_in_place_and_the_mapping_stays_an_ancestors(kernel, parent, shared):
    area, folio, child = shared
    (root,) = chain(parent)
    parent.exit()
    child.write(area, 1)
    assert pte(child, area, 1).folio is folio
    assert folio.mapping is root is not vma(child).anon_vma
    assert folio.exclusive == 0b0010
    assert [pte(child, area, page).writable for page in range(4)] == [False, True, False, False]
    child.write(area, 3)
    assert (folio.exclusive, folio.mapcount) == (0b1010, 4)


def test_the_last_page_of_a_folio_is_copied_so_that_the_folio_can_go(parent, shared):
    area, folio, child = shared
    parent.exit()
    child.munmap(area.part(0, 2))
    child.write(area, 3)
    assert (orders(child, area), folio.mapcount) == ([None, None, None, 0], 0)
    assert pte(child, area, 3).folio.mapping is vma(child).anon_vma


def test_a_pin_keeps_a_folio_from_being_written_in_place(parent, shared):
    area, folio, child = shared
    parent.exit()
    folio.pins = 1
    child.write(area, 1)
    assert pte(child, area, 1).folio is not folio


def test_reuse_counts_entries_of_every_vma_of_the_mm(kernel, parent, shared):
    area, folio, child = shared
    child.mprotect(area.part(0, 0), "r")
    child.madvise(area.part(3, 3), "nohugepage")
    assert len(child.mm.vmas) == 3
    assert kernel.folio_mapcount_in(folio, child.mm) == 4
    assert kernel.folio_mapcount_in(folio, parent.mm) == 4
    parent.exit()
    child.write(area, 1)
    assert pte(child, area, 1).folio is folio


def test_fork_of_a_pinned_folio_copies_its_exclusive_pages_only(kernel, parent, shared):
    area, folio, child = shared
    parent.exit()
    child.write(area, 1)
    folio.pins, child.mm.has_pinned = 1, True
    grandchild = child.fork()
    assert orders(grandchild, area) == [2, 0, 2, 2]
    assert pte(grandchild, area, 1).folio.mapping is vma(grandchild).anon_vma
    assert (folio.exclusive, folio.mapcount) == (0b0010, 7)
    assert pte(child, area, 1).writable


# --- what happens to parts -------------------------------------------------------------------------------


def test_a_partial_munmap_takes_pages_from_the_folio(kernel, parent, shared):
    area, folio, _ = shared
    parent.munmap(area.part(1, 2))
    assert folio.mapcount == 6
    assert orders(parent, area) == [2, None, None, 2]
    assert holds(kernel)


def test_a_split_folio_has_pages_for_each_process(kernel, parent, shared):
    area, folio, child = shared
    parent.munmap(area.part(0, 0))
    child.munmap(area.part(0, 1))
    parent.split_folio(area.part(3, 3))
    assert orders(parent, area) == [None, 0, 0, 0]
    assert orders(child, area) == [None, None, 0, 0]
    assert [pte(parent, area, page).folio.mapcount for page in (1, 2, 3)] == [1, 2, 2]
    assert [pte(parent, area, page).folio.index - folio.index for page in (1, 2, 3)] == [1, 2, 3]
    assert folio.mapcount == 0


def test_everything_unmapped_leaves_nothing(kernel, parent, shared):
    _, folio, child = shared
    parent.exit()
    child.exit()
    assert folio.mapcount == 0
    assert not kernel.live_anon_vmas
    kernel.spawn()


def test_the_page_numbers_of_a_huge_folio_survive_two_generations():
    kernel, process = machine(PMD_ORDER)
    area = huge(process)
    folio = pmd(process).folio
    child = process.fork()
    child.write(area, 0)
    grandchild = child.fork()
    assert folio.mapcount == 1 + 2 * (PAGES - 1)
    assert (pte(grandchild, area, 511).folio, pte(grandchild, area, 511).page) == (folio, 511)
    assert holds(kernel)
