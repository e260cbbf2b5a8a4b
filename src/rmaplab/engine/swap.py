# SPDX-License-Identifier: GPL-2.0-only
"""Swap-out and swap-in of anonymous pages on rows: :mod:`rmaplab.kernel.swap`."""

from __future__ import annotations

from errno import EBUSY, EFAULT, EINVAL

from rmaplab.engine.folio import (
    folio_add_anon_rmap_pte,
    folio_add_new_anon_rmap,
    folio_alloc_swap,
    folio_free_swap,
    free_swapped_folio,
    linear_page_index,
    new_folio,
    swap_cache_add_folio,
    swap_cache_del_folio,
    swap_free,
)
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import LOCKS, PARAMS, Avcs, Rows
from rmaplab.engine.pagetable import is_anon, is_present, is_swap, pte_get, pte_set, slot_of
from rmaplab.engine.rows import report
from rmaplab.engine.services import crash
from rmaplab.engine.unmap import folio_referenced, try_to_unmap
from rmaplab.kernel.flags import VM_LOCKED, VM_WRITE

__all__ = ["do_swap_page", "reclaim_page", "reuse_swap_page"]


# --- out -----------------------------------------------------------------------------------------


@compiled
def reclaim_page(m: Rows, c: Avcs, mm: int, address: int, cached: bool) -> int:
    """Swap out the page at an address (bytes), wherever it is mapped; ``cached``: keep it in the swap cache."""
    entry = pte_get(m, mm, address)
    if is_swap(entry):
        folio = m[slot_of(entry)].cached
        return shrink_folio(m, c, folio, cached) if folio else 0
    if not is_present(entry):
        return -EFAULT
    return shrink_folio(m, c, entry >> 1, cached) if is_anon(entry) else -EINVAL


@compiled
def shrink_folio(m: Rows, c: Avcs, folio: int, cached: bool) -> int:
    """shrink_folio_list for a list of one; 0 or -EBUSY.  Where pins go unnoticed a pinned page stays cached."""
    pins = m[folio].pins
    if pins:
        if not m[PARAMS].pins_unnoticed:
            return -EBUSY
        m[folio].pins = 0
    rc = _shrink(m, c, folio, cached or pins > 0)
    if pins:
        m[folio].pins = pins
    return rc


@compiled
def _shrink(m: Rows, c: Avcs, folio: int, cached: bool) -> int:
    m[LOCKS].folio_locks += 1
    if folio_referenced(m, c, folio):
        return -EBUSY
    folio_alloc_swap(m, folio)
    try_to_unmap(m, c, folio)
    if m[folio].mapcount:
        folio_free_swap(m, folio)
        return -EBUSY
    if not cached:
        swap_cache_del_folio(m, folio)
        free_swapped_folio(m, folio)
    return 0


# --- in ------------------------------------------------------------------------------------------


@compiled
def do_swap_page(m: Rows, vma: int, address: int, entry: int, write: bool) -> None:
    """Map the page that a swap entry stands for: writable if it is exclusive."""
    slot = slot_of(entry)
    swapcache = m[slot].cached
    if not swapcache:
        swapcache = new_folio(m)
        swap_cache_add_folio(m, swapcache, slot)
    m[LOCKS].folio_locks += 1
    folio = _ksm_might_need_to_copy(m, swapcache, vma, address)
    _map_swapped_page(m, vma, address, entry, folio, write)
    swap_free(m, slot)


@compiled
def _ksm_might_need_to_copy(m: Rows, folio: int, vma: int, address: int) -> int:
    """The folio itself if it may be mapped here, else a copy: what was KSM's may belong to another tree by now."""
    mapping, own = m[folio].mapping, m[vma].anon_vma
    if m[folio].stable_node or not mapping:
        return folio
    if not own:
        crash(m)
    if m[folio].index == linear_page_index(m, vma, address) and m[mapping].root == m[own].root:
        return folio
    return new_folio(m)


@compiled
def _map_swapped_page(m: Rows, vma: int, address: int, entry: int, folio: int, write: bool) -> None:
    """The part of do_swap_page that decides what the folio names and whether it is exclusive."""
    slot = slot_of(entry)
    copied = folio != m[slot].cached
    merged = m[folio].stable_node != 0
    if m[PARAMS].no_exclusive:
        alone = write and (copied or reuse_swap_page(m, folio))
        own = (copied or alone) and m[PARAMS].swapin_names_own == 1
    else:
        if m[folio].exclusive:
            report(m, 39)
        alone = not merged and (copied or -entry & 1 == 1 or _swapin_sole_reference(m, folio, vma, write))
        own = alone
    if m[folio].mapping == 0 and not merged:
        folio_add_new_anon_rmap(m, folio, vma, address, own)
    else:
        folio_add_anon_rmap_pte(m, folio, vma, address, alone)
    pte_set(m, m[vma].vm_mm, address, 2 * folio + (alone and m[vma].vm_flags & VM_WRITE != 0))


@compiled
def reuse_swap_page(m: Rows, folio: int) -> bool:
    """v5.7 and before: whether a page has one user at most, an entry of a page table or of swap."""
    if m[folio].stable_node:
        return False
    slot = m[folio].slot
    return m[folio].mapcount + (m[slot].swap_count if slot else 0) <= 1


@compiled
def _swapin_sole_reference(m: Rows, folio: int, vma: int, write: bool) -> bool:
    """Whether nobody else refers to the folio, where its slot could be given up first."""
    slot = m[folio].slot
    if not m[PARAMS].swapin_sole_reference or m[folio].mapcount or m[folio].pins or not slot:
        return False
    return m[slot].swap_count == 1 and (write or m[vma].vm_flags & VM_LOCKED != 0)
