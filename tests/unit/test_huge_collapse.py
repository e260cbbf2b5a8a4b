# SPDX-License-Identifier: GPL-2.0-only
"""Collapse: the new folio belongs to the VMA's own anon_vma, the old pages to whoever still maps them."""

import pytest
from huge_parts import ALL, FIRST, PAGES, holds, huge, machine, pmd, pte, small_entries
from machine_parts import chain, descendants, vma

from rmaplab.kernel.flags import PAGE_SIZE, PMD_ORDER, PMD_SIZE
from rmaplab.kernel.locking import ANON_VMA_LOCK
from rmaplab.kernel.pagetable import GuardMarker


@pytest.fixture(name="kernel")
def _kernel():
    kernel, _ = machine()
    yield kernel
    assert holds(kernel)


@pytest.fixture(name="parent")
def _parent(kernel):
    return kernel.processes["P0"]


@pytest.fixture(name="area")
def _area(parent):
    """A range of 2 MiB with three small pages in it."""
    area = parent.mmap(PAGES, at=FIRST)
    for page in (0, 7, 511):
        parent.write(area, page)
    return area


def test_small_pages_become_one_huge_one(kernel, parent, area):
    old = [pte(parent, area, page).folio for page in (0, 7, 511)]
    parent.madvise(area, "collapse")
    new = pmd(parent).folio
    assert (new.order, new.mapping, new.index) == (PMD_ORDER, vma(parent).anon_vma, FIRST // PAGE_SIZE)
    assert (new.mapcount, new.exclusive, pmd(parent).writable) == (1, ALL, True)
    assert [page.mapcount for page in old] == [0, 0, 0]
    assert small_entries(parent) == 0
    assert kernel.slab.counts["table"] == 1  # of the small pages: it is kept for a split


def test_a_grandchild_collapses_to_its_own_anon_vma_and_the_rest_is_its_relatives(kernel, parent, area):
    _, child, grandchild = descendants(parent, 2)
    (root,) = chain(parent)
    shared = pte(parent, area, 7).folio
    grandchild.madvise(area, "collapse")
    assert pmd(grandchild).folio.mapping is vma(grandchild).anon_vma
    assert (shared.mapping, shared.mapcount, shared.exclusive) == (root, 2, 0)
    assert pte(child, area, 7).folio is shared
    assert holds(kernel)


def test_the_roots_lock_is_held_for_writing_while_the_table_is_out(kernel, parent, area):
    child, seen = parent.fork(), []
    root = str(chain(parent)[0])
    tables = child.mm.page_table.tables
    kernel.events.listeners.append(
        lambda event: (
            seen.append((event.verb, event.object, event.detail, bool(tables)))
            if event.detail.startswith("anon_vma")
            else None
        )
    )
    child.madvise(area, "collapse")
    kernel.events.listeners.clear()
    assert seen == [("lock", root, "anon_vma write", True), ("unlock", root, "anon_vma", False)]
    assert not kernel.locks.holds(ANON_VMA_LOCK, chain(parent)[0])


def test_zero_pages_and_holes_are_filled_and_swapped_pages_fetched(kernel, parent, area):
    parent.read(area, 1)
    parent.swapout(area.part(7, 7))
    parent.madvise(area, "collapse")
    assert pmd(parent).folio.mapcount == 1
    assert holds(kernel)


def test_a_page_in_the_swap_cache_stays_there_for_those_who_wait_for_it(kernel, parent, area):
    child = parent.fork()
    parent.swapout(area.part(7, 7), cached=True)
    slot = pte(parent, area, 7).slot
    child.madvise(area, "collapse")
    assert pte(parent, area, 7).slot is slot
    assert (slot.count, slot.folio.mapcount) == (1, 0)
    assert holds(kernel)
    parent.exit()
    assert slot.count == 0


def test_without_memory_for_a_swapped_page_there_is_no_collapse(kernel, parent, area):
    parent.swapout(area.part(7, 7))
    kernel.slab.plan(2, kind="page")  # the first is the huge one
    before = kernel.snapshot()
    with pytest.raises(OSError, match="Invalid"):
        parent.madvise(area, "collapse")
    assert kernel.slab.failed == 1
    assert kernel.snapshot() == before


def test_a_huge_page_stays_what_it_is(parent, area):
    parent.madvise(area, "collapse")
    new = pmd(parent).folio
    parent.madvise(area, "collapse")
    assert pmd(parent).folio is new


def test_a_split_folio_can_be_put_together_again(kernel, parent, area):
    parent.madvise(area, "collapse")
    first = pmd(parent).folio
    parent.split_folio(area)
    assert small_entries(parent) == PAGES
    parent.madvise(area, "collapse")
    assert pmd(parent).folio is not first
    assert first.mapcount == 0
    assert holds(kernel)


def test_an_entry_that_was_split_is_replaced_by_a_new_folio():
    kernel, parent = machine(PMD_ORDER)
    area = huge(parent)
    child = parent.fork()
    child.write(area, 3)
    old = pmd(parent).folio
    child.madvise(area, "collapse")
    assert pmd(child).folio.mapping is vma(child).anon_vma
    assert (old.mapcount, pmd(parent).folio) == (1, old)
    assert holds(kernel)


def test_only_whole_aligned_ranges_are_collapsed(parent):
    area = parent.mmap(3 * PAGES, at=FIRST - PAGE_SIZE)
    parent.write(area, 0)
    parent.write(area, 1)
    parent.write(area, PAGES + 1)
    parent.madvise(area, "collapse")
    assert sorted(parent.mm.page_table.pmds) == [FIRST, FIRST + PMD_SIZE]
    assert small_entries(parent) == 1


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        ("pin", "temporarily"),
        ("page", "memory"),
        ("guard", "Invalid"),
        ("nohugepage", "Invalid"),
        ("empty", "Invalid"),
        ("zero", "Invalid"),
    ],
)
def test_a_range_that_cannot_be_collapsed_stays_as_it_is(kernel, parent, area, spoil, error):
    match spoil:
        case "pin":
            pte(parent, area, 7).folio.pins = 1
        case "page":
            kernel.slab.plan(1, kind="page")
        case "guard":
            parent.mm.page_table.set(area.page(3), GuardMarker())
        case "nohugepage":
            parent.madvise(area, "nohugepage")
        case "empty" | "zero":
            parent.munmap(area)
            parent.mmap(PAGES, at=FIRST)
            if spoil == "zero":
                parent.read(area, 0)
    before = kernel.snapshot()
    with pytest.raises(OSError, match=error):
        parent.madvise(area, "collapse")
    assert kernel.snapshot() == before


@pytest.mark.parametrize("how", [{"shared": True}, {"file": "f"}])
def test_files_and_shared_memory_are_not_collapsed(parent, how):
    area = parent.mmap(PAGES, at=FIRST, **how)
    parent.write(area, 0)
    with pytest.raises(OSError, match="Invalid"):
        parent.madvise(area, "collapse")
