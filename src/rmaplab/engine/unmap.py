# SPDX-License-Identifier: GPL-2.0-only
"""What walks of the reverse map are for, on rows: :mod:`rmaplab.kernel.unmap`, and the walks of ``walk``.

There are four walks: one looks for use of a folio, one puts swap entries in
its place, one migration entries, and one takes these out again.
"""

from __future__ import annotations

from rmaplab.engine.folio import folio_add_anon_rmap_pte, folio_remove_rmap_pte, folio_try_share_anon_rmap_pte
from rmaplab.engine.interval_tree import range_first, range_next, vma_last_pgoff
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import MM, PAGES, PARAMS, Avcs, Rows
from rmaplab.engine.pagetable import MIGRATION, leaf_at, waits_for
from rmaplab.engine.rmap import rwsem
from rmaplab.engine.services import crash, lock, unlock
from rmaplab.engine.walk import vma_address
from rmaplab.kernel.flags import VM_LOCKED, VM_STACK_INCOMPLETE_SETUP

__all__ = [
    "folio_get_anon_vma",
    "folio_referenced",
    "remove_migration_ptes",
    "try_to_migrate",
    "try_to_unmap",
]

REFERENCED, UNMAP, MIGRATE, RESTORE = range(4)
EVERYTHING = 1 << 62


# --- the pairs of what is done and the walk ----------------------------------------------------


@compiled
def folio_referenced(m: Rows, c: Avcs, folio: int) -> bool:
    """Look for use of a locked folio; whether reclaim must not touch it."""
    m[PAGES].walk_left = m[folio].mapcount
    m[PAGES].walk_locked = 0
    if m[folio].mapcount:
        _rmap_walk(m, c, folio, REFERENCED)
    return m[PAGES].walk_locked != 0


@compiled
def try_to_unmap(m: Rows, c: Avcs, folio: int) -> None:
    """Replace the entries of a locked folio in the swap cache by swap entries."""
    _rmap_walk(m, c, folio, UNMAP)


@compiled
def try_to_migrate(m: Rows, c: Avcs, folio: int) -> None:
    """Replace the entries of a locked folio by migration entries, but not in exec's temporary stack."""
    _rmap_walk(m, c, folio, MIGRATE)


@compiled
def remove_migration_ptes(m: Rows, c: Avcs, src: int, dst: int) -> None:
    """Map ``dst``, which names what ``src`` named, wherever an entry waits for ``src``."""
    m[PAGES].waiting = src
    _rmap_walk(m, c, dst, RESTORE)


# --- the anon_vma of a folio -------------------------------------------------------------------


@compiled
def folio_get_anon_vma(m: Rows, folio: int) -> int:
    """A reference to the anon_vma of a mapped folio, or 0; not for pages of KSM's."""
    anon_vma = m[folio].mapping
    if not anon_vma or m[folio].stable_node or m[folio].mapcount == 0:
        return 0
    if m[anon_vma].freed:
        crash(m)
        return 0
    if m[anon_vma].refcount == 0:
        return 0
    m[anon_vma].refcount += 1
    return anon_vma


@compiled
def _anon_vma_lock_read(m: Rows, anon_vma: int) -> bool:
    """Lock the whole tree of an anon_vma for reading; False if one of the two is freed, which is a crash."""
    owner = rwsem(m, anon_vma)
    if m[anon_vma].freed or m[owner].freed:
        crash(m)
        return False
    lock(m, owner, m[PARAMS].lists == 1)
    return True


# --- walks -------------------------------------------------------------------------------------


@compiled
def _rmap_walk(m: Rows, c: Avcs, folio: int, what: int) -> None:
    if m[folio].stable_node:
        _rmap_walk_ksm(m, c, folio, what)
    else:
        _walk_anon_vma(m, c, folio, what)


@compiled
def _walk_anon_vma(m: Rows, c: Avcs, folio: int, what: int) -> None:
    """Where entries wait nothing is mapped: the caller has a reference to the anon_vma."""
    anon_vma, index = m[folio].mapping, m[folio].index
    if not anon_vma or (what != RESTORE and m[folio].mapcount == 0):
        return
    if not _anon_vma_lock_read(m, anon_vma):
        return
    first, last = (0, 0) if m[PARAMS].lists else (index, index)
    goes_on = True
    place = range_first(m, anon_vma, first, last)
    while place and goes_on:
        avc = m[place].head
        while avc and goes_on:
            vma = c[avc].vma
            if m[vma].anon_pgoff <= index <= vma_last_pgoff(m, vma):
                goes_on = _visit(m, folio, vma, vma_address(m, vma, index), what)
            avc = c[avc].later
        place = range_next(m, place, first, last)
    unlock(m, rwsem(m, anon_vma))


@compiled
def _rmap_walk_ksm(m: Rows, c: Avcs, folio: int, what: int) -> None:
    """Each place that ksmd has merged, first in the mm where it did, then in all others."""
    for new_forks in range(2):
        item = m[m[folio].stable_node].items
        while item:
            anon_vma = m[item].item_anon_vma
            if not _anon_vma_lock_read(m, anon_vma):
                return
            goes_on = _walk_ksm_item(m, c, folio, item, new_forks, what)
            unlock(m, rwsem(m, anon_vma))
            if not goes_on:
                return
            item = m[item].next_item


@compiled
def _walk_ksm_item(m: Rows, c: Avcs, folio: int, item: int, new_forks: int, what: int) -> bool:
    """One item's turn in one of the two rounds; whether the walk goes on."""
    mm, address, pgoff = m[item].item_mm, m[item].address, m[item].item_pgoff
    anon_vma, by_offset = m[item].item_anon_vma, m[PARAMS].ksm_walks_offset != 0
    first, last = (pgoff, pgoff) if by_offset else (0, EVERYTHING)
    place = range_first(m, anon_vma, first, last)
    while place:
        avc = m[place].head
        while avc:
            vma = c[avc].vma
            looks = (m[vma].vm_mm == mm) != (new_forks == 1)
            if by_offset:
                looks &= m[vma].anon_pgoff <= pgoff <= vma_last_pgoff(m, vma)
            if looks and m[vma].key <= address < m[vma].vm_end and not _visit(m, folio, vma, address, what):
                return False
            avc = c[avc].later
        place = range_next(m, place, first, last)
    return True


@compiled
def _visit(m: Rows, folio: int, vma: int, address: int, what: int) -> bool:
    """One place of a walk; whether to go on."""
    temporary = m[vma].vm_flags & VM_STACK_INCOMPLETE_SETUP == VM_STACK_INCOMPLETE_SETUP
    if what == MIGRATE and temporary and not m[folio].stable_node:
        return True
    mm = m[vma].vm_mm
    leaf = leaf_at(m, mm, address) if m[mm].kind == MM else 0
    at = address >> 12 & 15
    entry = m[leaf].pte[at] if leaf else 0
    if what == RESTORE:
        if waits_for(entry) == m[PAGES].waiting:
            m[leaf].pte[at] = 2 * folio + (-entry >> 1 & 1)
            m[PAGES].number_waiting -= 1
            folio_add_anon_rmap_pte(m, folio, vma, address, -entry & 1 == 1)
        return True
    found = entry > 0 and entry >> 1 == folio
    if what == REFERENCED:
        if found and m[vma].vm_flags & VM_LOCKED:
            m[PAGES].walk_locked = 1
            return False
        m[PAGES].walk_left -= found
        return m[PAGES].walk_left > 0
    if found and not _unmap_one(m, folio, vma, leaf, at, what):
        return False
    return m[folio].mapcount != 0


@compiled
def _unmap_one(m: Rows, folio: int, vma: int, leaf: int, at: int, what: int) -> bool:
    """Take one place out; False if it must stay.  An exclusive page's entry remembers it."""
    if what == UNMAP and m[vma].vm_flags & VM_LOCKED:
        return False
    writable, exclusive = m[leaf].pte[at] & 1, m[folio].exclusive
    if exclusive and not folio_try_share_anon_rmap_pte(m, folio):
        return False
    if what == UNMAP:
        slot = m[folio].slot
        m[slot].swap_count += 1
        m[leaf].pte[at] = -(2 * slot + exclusive)
    else:
        m[PAGES].number_waiting += 1
        m[leaf].pte[at] = -(MIGRATION + 4 * folio + 2 * writable + exclusive)
    folio_remove_rmap_pte(m, folio)
    return True
