# SPDX-License-Identifier: GPL-2.0-only
"""Page faults, copying and zapping page tables on rows: :mod:`rmaplab.kernel.memory`."""

from __future__ import annotations

from errno import EFAULT, ENOMEM

from rmaplab.engine.folio import (
    folio_free_swap,
    folio_move_anon_rmap,
    folio_remove_rmap_pte,
    linear_page_index,
    map_new_folio,
    swap_free,
)
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import LOCKS, MACHINE, PARAMS, Avcs, Rows
from rmaplab.engine.pagetable import (
    FILE_PAGE,
    GUARD,
    ZERO_PAGE,
    first_leaf,
    folio_of,
    is_anon,
    is_present,
    is_swap,
    leaf_for,
    pte_get,
    pte_put,
    pte_set,
    slot_of,
)
from rmaplab.engine.reached import COPIED
from rmaplab.engine.rmap import anon_vma_prepare, vma_lookup
from rmaplab.engine.rows import report
from rmaplab.engine.services import crash, reach
from rmaplab.engine.swap import do_swap_page, reuse_swap_page
from rmaplab.engine.trees import tree_next
from rmaplab.kernel.flags import VM_ACCESS_FLAGS, VM_MAYBE_GUARD, VM_SHARED, VM_WRITE

__all__ = [
    "change_protection",
    "copy_page_range",
    "fault_in",
    "handle_mm_fault",
    "handle_pte_fault",
    "move_entries",
    "zap_page_range",
]


# --- faults --------------------------------------------------------------------------------------


@compiled
def handle_mm_fault(m: Rows, c: Avcs, mm: int, address: int, write: bool, force: bool) -> int:
    """Touch one page: 0, -EFAULT where the VMA forbids it or is missing, or -ENOMEM."""
    m[LOCKS].mmap_locks += 1
    return fault_in(m, c, mm, address >> 12 << 12, write, force, False)


@compiled
def fault_in(m: Rows, c: Avcs, mm: int, address: int, write: bool, force: bool, unshare: bool) -> int:
    """The same for a caller that holds the mmap lock already; ``unshare`` makes the page exclusive, not writable."""
    vma = vma_lookup(m, mm, address)
    if not vma or not (force or m[vma].vm_flags & (VM_WRITE if write else VM_ACCESS_FLAGS)):
        return -EFAULT
    return handle_pte_fault(m, c, vma, address, write, unshare)


@compiled
def handle_pte_fault(m: Rows, c: Avcs, vma: int, address: int, write: bool, unshare: bool) -> int:
    """Bring a page in, or make it writable."""
    mm = m[vma].vm_mm
    entry = pte_get(m, mm, address)
    if entry == 0:
        return do_pte_missing(m, c, vma, address, write)
    if not is_present(entry):
        if not is_swap(entry):
            if entry < 0:  # a migration that has ended
                crash(m)
            return -EFAULT
        do_swap_page(m, vma, address, entry, write)
        entry = pte_get(m, mm, address)
    if (write or unshare) and not entry & 1:
        return do_wp_page(m, c, vma, address, entry, unshare)
    return 0


@compiled
def do_pte_missing(m: Rows, c: Avcs, vma: int, address: int, write: bool) -> int:
    """Nothing is mapped yet."""
    mm, anonymous = m[vma].vm_mm, m[vma].file == 0
    if m[vma].vm_flags & VM_SHARED:
        pte_set(m, mm, address, 2 * FILE_PAGE + write)
        return 0
    if write:
        return wp_page_copy(m, c, vma, address, False)
    pte_set(m, mm, address, 2 * (ZERO_PAGE if anonymous else FILE_PAGE))
    return 0


@compiled
def wp_page_copy(m: Rows, c: Avcs, vma: int, address: int, unshare: bool) -> int:
    """A private page, fresh or a copy (do_anonymous_page, wp_page_copy); 0 or -ENOMEM."""
    if anon_vma_prepare(m, c, vma) != 0:
        return -ENOMEM
    map_new_folio(m, vma, address, not unshare and m[vma].vm_flags & VM_WRITE != 0)
    return 0


@compiled
def do_wp_page(m: Rows, c: Avcs, vma: int, address: int, entry: int, unshare: bool) -> int:
    """Write to a write-protected page: reuse it if it is this process's alone, else copy."""
    folio, mm = folio_of(entry), m[vma].vm_mm
    anon = is_anon(entry)
    writable = not unshare and m[vma].vm_flags & VM_WRITE != 0
    if m[vma].vm_flags & VM_SHARED:
        pte_set(m, mm, address, 2 * folio + (not unshare))
        return 0
    if anon and _reused(m, folio, vma, address):
        pte_set(m, mm, address, 2 * folio + writable)
        if not writable:
            reach(m, COPIED)
        return 0
    rc = wp_page_copy(m, c, vma, address, unshare)
    if rc == 0 and anon:
        folio_remove_rmap_pte(m, folio)
        reach(m, COPIED)
    return rc


@compiled
def _reused(m: Rows, folio: int, vma: int, address: int) -> bool:
    """Whether the writer is alone with a page."""
    if m[folio].stable_node and m[PARAMS].reuses_ksm_pages and _reuse_ksm_page(m, folio, vma, address):
        return True
    return m[folio].exclusive != 0 or wp_can_reuse_anon_folio(m, folio, vma)


@compiled
def _reuse_ksm_page(m: Rows, folio: int, vma: int, address: int) -> bool:
    """v5.1 to v5.8: a page of KSM's without another user becomes an ordinary one; its node is stale from here on."""
    if m[folio].slot or m[folio].mapcount != 1 or m[folio].pins:
        return False
    m[LOCKS].folio_locks += 1
    m[folio].stable_node = 0
    folio_move_anon_rmap(m, folio, vma)
    m[folio].index = linear_page_index(m, vma, address)
    return True


@compiled
def wp_can_reuse_anon_folio(m: Rows, folio: int, vma: int) -> bool:
    """Whether the writer is the last user of a page, which then moves to its anon_vma."""
    if m[folio].stable_node:
        return False
    if not m[PARAMS].no_exclusive:
        if m[folio].mapcount > 1 or m[folio].pins:
            return False
        m[LOCKS].folio_locks += 1
        if m[folio].slot and not folio_free_swap(m, folio):
            return False
    else:
        m[LOCKS].folio_locks += 1
        if not reuse_swap_page(m, folio):
            return False
    folio_move_anon_rmap(m, folio, vma)
    if m[folio].mapping != m[vma].anon_vma:
        report(m, 53)
    return True


# --- fork ----------------------------------------------------------------------------------------


@compiled
def _check_linked(m: Rows, c: Avcs, dst: int, src: int) -> None:
    """AV-022: links first, pages after; children behind their parents in the trees."""
    avc = m[src].head
    while avc:
        own = m[dst].head
        while own and (c[own].anon_vma != c[avc].anon_vma or c[own].range <= 0):
            own = c[own].after
        if not own or c[avc].range <= 0 or m[c[own].range].key < m[c[avc].range].key:
            report(m, 22)
        avc = c[avc].after


@compiled
def copy_page_range(m: Rows, c: Avcs, dst: int, src: int) -> int:
    """Share the parent's pages with the child, write-protected in both; 0 or -ENOMEM."""
    if m[MACHINE].watched and m[src].anon_vma:
        _check_linked(m, c, dst, src)
    if not m[src].anon_vma and not m[src].vm_flags & VM_MAYBE_GUARD:
        return 0
    mm, child = m[src].vm_mm, m[dst].vm_mm
    start, end = m[src].key, m[src].vm_end
    leaf = first_leaf(m, mm, start)
    while leaf and m[leaf].key << 16 < end:
        base = m[leaf].key << 16
        low = max(start - base, 0) >> 12
        high = min(end - base, 1 << 16) >> 12
        copied = 0
        for at in range(low, high):
            entry = m[leaf].pte[at]
            if entry == 0:
                continue
            if not copied:
                copied = leaf_for(m, child, base)
            if is_present(entry):
                if is_anon(entry):
                    folio = folio_of(entry)
                    if m[folio].pins and m[folio].exclusive and _needs_cow_for_dma(m, mm):
                        map_new_folio(m, dst, base + (at << 12), m[dst].vm_flags & VM_WRITE != 0)
                        continue
                    m[folio].exclusive = 0
                    m[folio].mapcount += 1
                entry &= ~1
                m[leaf].pte[at] = entry
            elif entry < 0:
                entry = _copy_nonpresent_pte(m, entry)
                m[leaf].pte[at] = entry
            pte_put(m, child, copied, at, entry)
        leaf = tree_next(m, leaf)
    return 0


@compiled
def _needs_cow_for_dma(m: Rows, mm: int) -> bool:
    """Whether a device may be writing to an exclusive page that is pinned: the child gets a copy of its own."""
    return m[mm].has_pinned != 0 and not m[PARAMS].pins_unnoticed


@compiled
def _copy_nonpresent_pte(m: Rows, entry: int) -> int:
    """A swap or migration entry, exclusive to nobody from now on."""
    if is_swap(entry):
        m[slot_of(entry)].swap_count += 1
        return entry + (-entry & 1)
    return entry + (-entry & 3)


# --- ranges --------------------------------------------------------------------------------------


@compiled
def zap_page_range(m: Rows, vma: int, start: int, end: int, keep_guards: bool) -> None:
    """Remove the entries of [start, end) (bytes) and their claim on pages."""
    mm = m[vma].vm_mm
    leaf = first_leaf(m, mm, start)
    while leaf and m[leaf].key << 16 < end:
        base = m[leaf].key << 16
        behind = tree_next(m, leaf)
        low = max(start - base, 0) >> 12
        high = min(end - base, 1 << 16) >> 12
        for at in range(low, high):
            entry = m[leaf].pte[at]
            if entry == 0 or (keep_guards and folio_of(entry) == GUARD):
                continue
            if is_anon(entry):
                folio_remove_rmap_pte(m, folio_of(entry))
            elif is_swap(entry):
                swap_free(m, slot_of(entry))
            last = m[leaf].present == 1
            pte_put(m, mm, leaf, at, 0)
            if last:
                break
        leaf = behind


@compiled
def change_protection(m: Rows, vma: int, start: int, end: int) -> None:
    """Follow a VMA's new rights in its page table."""
    may_write = m[vma].vm_flags & VM_WRITE != 0
    leaf = first_leaf(m, m[vma].vm_mm, start)
    while leaf and m[leaf].key << 16 < end:
        base = m[leaf].key << 16
        low = max(start - base, 0) >> 12
        high = min(end - base, 1 << 16) >> 12
        for at in range(low, high):
            entry = m[leaf].pte[at]
            if not is_present(entry):
                if not may_write and entry < 0 and not is_swap(entry):
                    m[leaf].pte[at] = entry + (-entry & 2)
                continue
            if not may_write:
                m[leaf].pte[at] = entry & ~1
            elif is_anon(entry) and m[folio_of(entry)].exclusive:
                m[leaf].pte[at] = entry | 1
        leaf = tree_next(m, leaf)


@compiled
def move_entries(m: Rows, mm: int, old: int, new: int, extent: int) -> None:
    """Take entries out and put them in elsewhere, unchanged (bytes)."""
    leaf = first_leaf(m, mm, old)
    while leaf and m[leaf].key << 16 < old + extent:
        base = m[leaf].key << 16
        behind = tree_next(m, leaf)
        low = max(old - base, 0) >> 12
        high = min(old + extent - base, 1 << 16) >> 12
        for at in range(low, high):
            entry = m[leaf].pte[at]
            if entry == 0:
                continue
            last = m[leaf].present == 1
            pte_put(m, mm, leaf, at, 0)
            pte_set(m, mm, new + base - old + (at << 12), entry)
            if last:
                break
        leaf = behind
