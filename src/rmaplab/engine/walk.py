# SPDX-License-Identifier: GPL-2.0-only
"""Walks of the reverse map on rows: :mod:`rmaplab.kernel.walk`."""

from __future__ import annotations

from rmaplab.engine.interval_tree import range_first, range_next, vma_last_pgoff
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import LOCKS, PARAMS, Avcs, Rows
from rmaplab.engine.pagetable import pte_get
from rmaplab.engine.rmap import rwsem
from rmaplab.engine.services import crash, lock, unlock

__all__ = ["rmap_walk_anon", "vma_address"]


@compiled
def vma_address(m: Rows, vma: int, pgoff: int) -> int:
    """Address (bytes) of a page in a VMA that has it."""
    return m[vma].key + ((pgoff - m[vma].anon_pgoff) << 12)


@compiled
def rmap_walk_anon(m: Rows, c: Avcs, folio: int, visited: Rows) -> tuple[int, int]:
    """Visit every VMA that may map a folio: how many there are, and how many of them map it.

    ``visited`` (int64, n x 3) is told VMA, address in bytes and whether it
    maps the folio, as far as there is room.
    """
    lists = m[PARAMS].lists
    if not m[PARAMS].unlocked_walk:
        m[LOCKS].folio_locks += 1
    anon_vma, index = m[folio].mapping, m[folio].index
    if not anon_vma or m[folio].mapcount == 0:
        return 0, 0
    if m[anon_vma].freed or m[rwsem(m, anon_vma)].freed:
        crash(m)
        return 0, 0
    lock(m, rwsem(m, anon_vma), lists == 1)
    visits = maps = useful = 0
    first, last = (0, 0) if lists else (index, index)
    place = range_first(m, anon_vma, first, last)
    while place:
        avc = m[place].head
        while avc:
            vma = c[avc].vma
            covers = m[vma].anon_pgoff <= index <= vma_last_pgoff(m, vma)
            if covers or lists:
                address = vma_address(m, vma, index)
                found = covers and pte_get(m, m[vma].vm_mm, address) >> 1 == folio
                if visits < len(visited):
                    visited[visits, 0] = vma
                    visited[visits, 1] = address
                    visited[visits, 2] = found
                visits += 1
                useful += covers
                maps += found
            avc = c[avc].later
        place = range_next(m, place, first, last)
    unlock(m, rwsem(m, anon_vma))
    return (visits, maps) if useful else (0, 0)
