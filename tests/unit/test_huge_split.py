# SPDX-License-Identifier: GPL-2.0-only
"""Splitting a large folio into pages: what they inherit, what is freed, what refuses."""

from errno import EBUSY

import pytest
from huge_parts import FIRST, PAGES, holds, huge, machine, pmd, pte, small_entries
from machine_parts import chain, counters, vma

from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, PMD_ORDER
from rmaplab.kernel.locking import ANON_VMA_LOCK, FOLIO_LOCK, MMAP_LOCK, WRITE
from rmaplab.kernel.objects import SwapSlot
from rmaplab.kernel.pagetable import Pte


@pytest.fixture(name="kernel")
def _kernel():
    kernel, _ = machine(PMD_ORDER)
    yield kernel
    assert holds(kernel)


@pytest.fixture(name="parent")
def _parent(kernel):
    return kernel.processes["P0"]


def pages_of(process, area):
    return [entry.folio for page in range(area.pages) if (entry := pte(process, area, page)) is not None]


def test_each_page_inherits_the_mapping_and_has_an_index_of_its_own(parent):
    area = huge(parent)
    old = pmd(parent).folio
    parent.split_folio(area.part(200, 200))
    pages = pages_of(parent, area)
    assert len(set(pages)) == PAGES
    assert {page.mapping for page in pages} == {old.mapping} == {vma(parent).anon_vma}
    assert [page.index for page in pages] == list(range(old.index, old.index + PAGES))
    assert {(page.order, page.mapcount, page.exclusive) for page in pages} == {(0, 1, 1)}
    assert old.mapcount == 0
    assert {pte(parent, area, page).page for page in range(PAGES)} == {0}
    assert pte(parent, area, 3).writable


def test_pages_keep_an_ancestors_mapping_and_are_shared_as_the_folio_was(kernel, parent):
    area = huge(parent)
    (root,) = chain(parent)
    child = parent.fork()
    child.split_folio(area)
    assert not parent.mm.page_table.pmds
    assert not child.mm.page_table.pmds
    assert pages_of(parent, area) == pages_of(child, area)
    assert {(page.mapping, page.mapcount, page.exclusive) for page in pages_of(child, area)} == {(root, 2, 0)}
    assert not pte(parent, area, 3).writable
    assert holds(kernel)
    child.write(area, 3)
    assert pte(child, area, 3).folio.mapping is vma(child).anon_vma
    assert pte(parent, area, 3).folio.mapcount == 1


def test_the_same_walk_finds_an_entry_here_and_small_ones_there(kernel, parent):
    area = huge(parent)
    child = parent.fork()
    child.munmap(area.part(0, 255))
    parent.split_folio(area)
    assert [page.mapcount for page in pages_of(parent, area)] == [1] * 256 + [2] * 256
    assert len(pages_of(child, area)) == 256
    assert pages_of(parent, area)[256:] == pages_of(child, area)


def test_exclusive_is_inherited_page_by_page(kernel, parent):
    area = huge(parent)
    child = parent.fork()
    child.munmap(area.part(1, PAGES - 1))
    parent.write(area.part(0, 1))  # splits the entry and copies: the child maps page 0
    child.exit()
    parent.write(area.part(7, 8))  # the rest is the parent's alone: reused in place
    folio = pte(parent, area, 2).folio
    assert folio.exclusive == 0b110000000
    parent.split_folio(area.part(2, 2))
    exclusive = [number for number, page in enumerate(pages_of(parent, area)) if page.exclusive]
    assert exclusive == [0, 1, 7, 8]
    assert holds(kernel)


def test_pages_that_nobody_maps_are_freed(parent):
    area = huge(parent)
    old = pmd(parent).folio
    parent.munmap(area.part(100, 109))
    parent.split_folio(area.part(0, 0))
    assert len(pages_of(parent, area)) == PAGES - 10
    assert pte(parent, area, 110).folio.index == old.index + 110


def test_splitting_twice_splits_once(kernel, parent):
    area = huge(parent)
    parent.split_folio(area)
    before = kernel.snapshot()
    taken = kernel.locks.acquisitions[ANON_VMA_LOCK]
    parent.split_folio(area)
    assert kernel.snapshot() == before
    assert kernel.locks.acquisitions[ANON_VMA_LOCK] == taken


def test_holes_and_small_pages_are_passed_over(parent):
    area = parent.mmap(4)
    parent.write(area, 0)
    parent.read(area, 1)
    parent.split_folio(area)
    assert small_entries(parent) == 2


# --- refusals -----------------------------------------------------------------------------------------------


def test_a_pinned_folio_stays_whole(kernel, parent):
    area = huge(parent)
    pmd(parent).folio.pins = 1
    before = kernel.snapshot()
    with pytest.raises(OSError, match="temporarily"):
        parent.split_folio(area)
    assert kernel.snapshot() == before


def test_an_unmapped_folio_cannot_be_locked(kernel, parent):
    area = huge(parent)
    folio = pmd(parent).folio
    parent.munmap(area)
    kernel.locks.acquire(FOLIO_LOCK, folio)
    assert kernel.split_folio(folio) == -EBUSY
    kernel.locks.release(FOLIO_LOCK, folio)


def test_a_folio_in_the_swap_cache_stays_whole(kernel, parent):
    area = huge(parent)
    folio = pmd(parent).folio
    folio.slot = SwapSlot(1)
    with pytest.raises(OSError, match="busy"):
        parent.split_folio(area)
    assert pmd(parent).folio is folio
    folio.slot = None


def test_a_mapping_that_the_walk_misses_keeps_the_folio_whole(parent):
    area = huge(parent)
    folio = pmd(parent).folio
    kernel, elsewhere = parent.kernel, FIRST + (PAGES << PAGE_SHIFT)
    parent.mm.page_table.set(elsewhere, Pte(folio, False, 5))  # as a broken move would leave it
    folio.mapcount += 1
    with pytest.raises(OSError, match="temporarily"):
        parent.split_folio(area)
    assert folio.mapcount == PAGES + 1
    assert folio.exclusive.bit_count() == PAGES
    assert set(pages_of(parent, area)) == {folio}
    assert [pte(parent, area, page).page for page in range(PAGES)] == list(range(PAGES))
    assert kernel.locks.held == []
    parent.mm.page_table.clear(elsewhere)
    folio.mapcount -= 1


# --- locks and references ---------------------------------------------------------------------------------


def test_the_roots_lock_is_held_for_writing_and_the_anon_vma_pinned(kernel, parent):
    area = huge(parent)
    child = parent.fork()
    parent.exit()
    child.write(area, 0)  # moves the folio to the child's anon_vma
    own, root = vma(child).anon_vma, chain(child)[-1]
    folio, before, seen = pmd(child).folio, counters(own), []
    assert folio.mapping is own is not root
    kernel.events.listeners.append(
        lambda event: (
            seen.append((event.verb, event.object, event.detail, own.refcount))
            if event.verb in ("lock", "unlock")
            else None
        )
    )
    child.split_folio(area)
    kernel.events.listeners.clear()
    assert [entry for entry in seen if "anon" in entry[2]] == [
        ("lock", str(root), "anon_vma write", before[0] + 1),
        ("unlock", str(root), "anon_vma", before[0] + 1),
    ]
    assert [entry[2].split()[0] for entry in seen][:3] == ["mmap_lock", "folio_lock", "anon_vma"]
    assert counters(own) == before


@pytest.mark.parametrize("lock", [MMAP_LOCK, FOLIO_LOCK, ANON_VMA_LOCK])
def test_nothing_stays_locked(kernel, parent, lock):
    area = huge(parent)
    parent.split_folio(area)
    assert not [owner for kind, owner, _ in kernel.locks.held if kind is lock]
    assert not kernel.locks.holds(ANON_VMA_LOCK, vma(parent).anon_vma.root, WRITE)


def test_after_a_move_the_index_still_fits_the_vma(kernel, parent):
    """A page's index is the folio's plus its number, not its address."""
    area = huge(parent)
    index = pmd(parent).folio.index
    parent.munmap(area.part(0, 9))
    parent.split_folio(area.part(10, 10))
    assert pte(parent, area, 10).folio.index == index + 10 == area.page(10) // PAGE_SIZE
    assert holds(kernel)
