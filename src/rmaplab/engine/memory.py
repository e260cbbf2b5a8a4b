# SPDX-License-Identifier: GPL-2.0-only
"""Page faults, copying and zapping page tables on rows: :mod:`rmaplab.kernel.memory` and :mod:`rmaplab.kernel.folio`.

Folios are single pages: no machine here has large ones.
"""

from __future__ import annotations

from errno import EFAULT, ENOMEM

from rmaplab.engine.jit import compiled
from rmaplab.engine.pagetable import (
    FILE_PAGE,
    GUARD,
    ZERO_PAGE,
    first_leaf,
    folio_of,
    is_anon,
    is_present,
    leaf_for,
    pte_get,
    pte_put,
    pte_set,
)
from rmaplab.engine.reached import COPIED, MOVED_UP, REUSED
from rmaplab.engine.rmap import anon_vma_prepare, vma_lookup
from rmaplab.engine.rows import FOLIO, IDS, LOCKS, MACHINE, PARAMS, Avcs, Rows, free_row, new_row, report
from rmaplab.engine.services import crash, reach
from rmaplab.engine.trees import tree_next

__all__ = [
    "change_protection",
    "copy_page_range",
    "handle_mm_fault",
    "linear_page_index",
    "move_entries",
    "zap_page_range",
]

VM_WRITE, VM_SHARED, VM_ACCESS_FLAGS, VM_MAYBE_GUARD = 0x2, 0x8, 0x7, 0x800


@compiled
def linear_page_index(m: Rows, vma: int, address: int) -> int:
    """Page offset by which an anonymous page at an address (bytes) is found."""
    return m[vma].anon_pgoff + ((address - m[vma].key) >> 12)


# --- folios --------------------------------------------------------------------------------------


@compiled
def _new_folio(m: Rows, vma: int, address: int, writable: bool) -> None:
    """folio_add_new_anon_rmap of a fresh page, and its entry."""
    folio = new_row(m, FOLIO)
    m[IDS].folio_ids += 1
    if not m[vma].anon_vma:
        crash(m)
    m[folio].mapping = m[vma].anon_vma
    m[folio].index = linear_page_index(m, vma, address)
    m[folio].mapcount = 1
    m[folio].exclusive = not m[PARAMS].no_exclusive
    pte_set(m, m[vma].vm_mm, address, 2 * folio + writable)


@compiled
def folio_remove_rmap_pte(m: Rows, folio: int) -> None:
    """One mapping of a page less; the last frees it."""
    m[folio].mapcount -= 1
    if m[folio].mapcount == 0:
        free_row(m, folio)


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


# --- faults --------------------------------------------------------------------------------------


@compiled
def handle_mm_fault(m: Rows, c: Avcs, mm: int, address: int, write: bool, force: bool) -> int:
    """Touch one page: 0, -EFAULT where the VMA forbids it or is missing, or -ENOMEM."""
    m[LOCKS].mmap_locks += 1
    address = address >> 12 << 12
    vma = vma_lookup(m, mm, address)
    if not vma or not (force or m[vma].vm_flags & (VM_WRITE if write else VM_ACCESS_FLAGS)):
        return -EFAULT
    entry = pte_get(m, mm, address)
    if entry == 0:
        return do_pte_missing(m, c, vma, address, write)
    if not is_present(entry):
        return -EFAULT
    if write and not entry & 1:
        return do_wp_page(m, c, vma, address, entry)
    return 0


@compiled
def do_pte_missing(m: Rows, c: Avcs, vma: int, address: int, write: bool) -> int:
    """Nothing is mapped yet."""
    mm, anonymous = m[vma].vm_mm, m[vma].file == 0
    if m[vma].vm_flags & VM_SHARED:
        pte_set(m, mm, address, 2 * FILE_PAGE + write)
        return 0
    if write:
        return wp_page_copy(m, c, vma, address)
    pte_set(m, mm, address, 2 * (ZERO_PAGE if anonymous else FILE_PAGE))
    return 0


@compiled
def wp_page_copy(m: Rows, c: Avcs, vma: int, address: int) -> int:
    """A private page, fresh or a copy (do_anonymous_page, wp_page_copy); 0 or -ENOMEM."""
    if anon_vma_prepare(m, c, vma) != 0:
        return -ENOMEM
    _new_folio(m, vma, address, m[vma].vm_flags & VM_WRITE != 0)
    return 0


@compiled
def do_wp_page(m: Rows, c: Avcs, vma: int, address: int, entry: int) -> int:
    """Write to a write-protected page: reuse it if it is this process's alone, else copy."""
    folio, mm = folio_of(entry), m[vma].vm_mm
    anon = is_anon(entry)
    writable = 1 if m[vma].vm_flags & VM_WRITE else 0
    if m[vma].vm_flags & VM_SHARED:
        pte_set(m, mm, address, 2 * folio + 1)
        return 0
    if anon and (m[folio].exclusive or wp_can_reuse_anon_folio(m, folio, vma)):
        pte_set(m, mm, address, 2 * folio + writable)
        return 0
    rc = wp_page_copy(m, c, vma, address)
    if rc == 0 and anon:
        folio_remove_rmap_pte(m, folio)
        reach(m, COPIED)
    return rc


@compiled
def wp_can_reuse_anon_folio(m: Rows, folio: int, vma: int) -> bool:
    """Whether the writer is the last user of a page, which then moves to its anon_vma."""
    if not m[PARAMS].no_exclusive:
        if m[folio].mapcount > 1:
            return False
        m[LOCKS].folio_locks += 1
    else:
        m[LOCKS].folio_locks += 1
        if m[folio].mapcount > 1:
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
            if is_present(entry):
                entry &= ~1
                m[leaf].pte[at] = entry
                if is_anon(entry):
                    folio = folio_of(entry)
                    m[folio].exclusive = 0
                    m[folio].mapcount += 1
            if not copied:
                copied = leaf_for(m, child, base)
            pte_put(m, child, copied, at, entry)
        leaf = tree_next(m, leaf)
    return 0


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
