# SPDX-License-Identifier: GPL-2.0-only
"""Folios and swap slots on rows: :mod:`rmaplab.kernel.folio` and :mod:`rmaplab.kernel.swapfile`.

Folios are single pages: no machine here has large ones.  A folio's row lives
as long as a page-table entry, a slot, a pin or a node of KSM's refers to it,
and a slot's as long as an entry or a folio does.
"""

from __future__ import annotations

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import FOLIO, IDS, MACHINE, PARAMS, SLOT, Rows
from rmaplab.engine.pagetable import pte_set
from rmaplab.engine.reached import MOVED_UP, REUSED
from rmaplab.engine.rows import free_row, new_row, report
from rmaplab.engine.services import crash, reach

__all__ = [
    "folio_add_anon_rmap_pte",
    "folio_add_new_anon_rmap",
    "folio_alloc_swap",
    "folio_free_swap",
    "folio_move_anon_rmap",
    "folio_put",
    "folio_remove_rmap_pte",
    "folio_try_share_anon_rmap_pte",
    "free_swapped_folio",
    "linear_page_index",
    "map_new_folio",
    "new_folio",
    "swap_cache_add_folio",
    "swap_cache_del_folio",
    "swap_free",
]


@compiled
def linear_page_index(m: Rows, vma: int, address: int) -> int:
    """Page offset by which an anonymous page at an address (bytes) is found."""
    return m[vma].anon_pgoff + ((address - m[vma].key) >> 12)


# --- folios --------------------------------------------------------------------------------------


@compiled
def new_folio(m: Rows) -> int:
    """A page that nothing refers to and that names nothing."""
    m[IDS].folio_ids += 1
    return new_row(m, FOLIO)


@compiled
def folio_put(m: Rows, folio: int) -> None:
    """Free a page that nobody refers to, if it is one; with it the node that only it still names."""
    if m[folio].mapcount or m[folio].slot or m[folio].pins or m[folio].holders:
        return
    node = m[folio].stable_node
    if node and m[node].freed:
        free_row(m, node)
    free_row(m, folio)


@compiled
def folio_add_new_anon_rmap(m: Rows, folio: int, vma: int, address: int, exclusive: bool) -> None:
    """First mapping of a page that names nothing yet: it names the VMA's own anon_vma, or its root."""
    own = m[vma].anon_vma
    if not own:
        crash(m)
    m[folio].mapping = own if exclusive or m[PARAMS].young_names else m[own].root
    m[folio].index = linear_page_index(m, vma, address)
    m[folio].mapcount = 1
    m[folio].exclusive = exclusive and not m[PARAMS].no_exclusive


@compiled
def map_new_folio(m: Rows, vma: int, address: int, writable: bool) -> None:
    """A fresh page of the VMA's alone, and its entry."""
    folio = new_folio(m)
    folio_add_new_anon_rmap(m, folio, vma, address, True)
    pte_set(m, m[vma].vm_mm, address, 2 * folio + writable)


@compiled
def folio_add_anon_rmap_pte(m: Rows, folio: int, vma: int, address: int, exclusive: bool) -> None:
    """Map an anonymous page again; what it names does not change."""
    if not m[folio].stable_node:
        mapping, own = m[folio].mapping, m[vma].anon_vma
        if not mapping or not own or m[mapping].root != m[own].root:
            report(m, 39)
        if m[folio].index != linear_page_index(m, vma, address):
            report(m, 39)
    m[folio].mapcount += 1
    if exclusive and not m[PARAMS].no_exclusive:
        m[folio].exclusive = 1
    if m[folio].mapcount > 1 and m[folio].exclusive:
        report(m, 39)


@compiled
def folio_try_share_anon_rmap_pte(m: Rows, folio: int) -> bool:
    """Give up that a page is exclusive; False if it is pinned."""
    if m[PARAMS].pins_unnoticed:
        return True
    if m[folio].pins > 0:
        return False
    m[folio].exclusive = 0
    return True


@compiled
def folio_remove_rmap_pte(m: Rows, folio: int) -> None:
    """One mapping of a page less."""
    m[folio].mapcount -= 1
    if m[folio].mapcount == 0:
        folio_put(m, folio)


@compiled
def folio_move_anon_rmap(m: Rows, folio: int, vma: int) -> None:
    """The last mapper writes: from now on only this VMA's own relatives can map the folio."""
    old, own = m[folio].mapping, m[vma].anon_vma
    if not m[PARAMS].move_keeps_mapping:
        m[folio].mapping = own
    m[folio].exclusive = not m[PARAMS].no_exclusive
    if not m[MACHINE].watched:
        return
    reach(m, REUSED)
    while old and old != m[old].root and old != own:
        old = m[old].parent
        if old == own:
            reach(m, MOVED_UP)


# --- swap slots ----------------------------------------------------------------------------------


@compiled
def _slot_put(m: Rows, slot: int) -> None:
    if not m[slot].swap_count and not m[slot].cached:
        free_row(m, slot)


@compiled
def folio_alloc_swap(m: Rows, folio: int) -> int:
    """The folio's slot in the swap cache: a new one unless it has one."""
    if not m[folio].slot:
        swap_cache_add_folio(m, folio, new_row(m, SLOT))
    return m[folio].slot


@compiled
def swap_cache_add_folio(m: Rows, folio: int, slot: int) -> None:
    """From now on the folio is found for the slot."""
    m[folio].slot = slot
    m[slot].cached = folio


@compiled
def swap_cache_del_folio(m: Rows, folio: int) -> None:
    """Take a folio out of the swap cache; whoever does it sees to the folio."""
    slot = m[folio].slot
    m[slot].cached = m[folio].slot = 0
    _slot_put(m, slot)


@compiled
def swap_free(m: Rows, slot: int) -> None:
    """One entry less; with the last the slot is free, and the cached folio if nobody maps it."""
    m[slot].swap_count -= 1
    folio = m[slot].cached
    if m[slot].swap_count == 0:
        if not folio:
            free_row(m, slot)
            return
        swap_cache_del_folio(m, folio)
        if m[folio].mapcount == 0:
            free_swapped_folio(m, folio)


@compiled
def folio_free_swap(m: Rows, folio: int) -> bool:
    """Take a folio out of the swap cache if no entry names its slot; whether it was done."""
    slot = m[folio].slot
    if not slot or m[slot].swap_count > 0:
        return False
    swap_cache_del_folio(m, folio)
    return True


@compiled
def free_swapped_folio(m: Rows, folio: int) -> None:
    """Free a folio that neither a page table nor the swap cache refers to: it names nothing any more."""
    m[folio].mapping = m[folio].stable_node = 0
    folio_put(m, folio)
