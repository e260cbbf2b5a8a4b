# SPDX-License-Identifier: GPL-2.0-only
"""Page migration on rows: :mod:`rmaplab.kernel.migrate`."""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINVAL

from rmaplab.engine.folio import folio_put, new_folio
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import FIRST, LOCKS, PAGES, Avcs, Rows
from rmaplab.engine.pagetable import is_present, is_swap, pte_get, slot_of
from rmaplab.engine.rmap import put_anon_vma
from rmaplab.engine.unmap import folio_get_anon_vma, remove_migration_ptes, try_to_migrate
from rmaplab.kernel.flags import PAGE_SIZE

__all__ = ["migrate_pages"]


@compiled
def migrate_pages(m: Rows, c: Avcs, mm: int, start: int, end: int) -> int:
    """Migrate each folio of [start, end) (bytes) once, up to the first that fails; 0 or a negative errno."""
    m[PAGES].migrations += 1
    for address in range(start, end, PAGE_SIZE):
        folio = _folio_at(m, mm, address)
        if folio < FIRST:
            return -EINVAL if folio else -EFAULT
        if m[folio].key == m[PAGES].migrations:
            continue
        rc = _migrate_folio(m, c, folio)
        if rc != 0:
            return rc
    return 0


@compiled
def _folio_at(m: Rows, mm: int, address: int) -> int:
    """The folio mapped at an address (bytes), or in the swap cache for it; 0 if there is none."""
    entry = pte_get(m, mm, address)
    if is_swap(entry):
        return m[slot_of(entry)].cached
    return entry >> 1 if is_present(entry) else 0


@compiled
def _migrate_folio(m: Rows, c: Avcs, src: int) -> int:
    """migrate_folio_unmap and migrate_folio_move: two passes over the reverse map; 0 or -EAGAIN."""
    dst = new_folio(m)
    m[src].holders += 1
    m[dst].holders += 1
    m[LOCKS].folio_locks += 2
    m[PAGES].number_waiting = 0
    anon_vma = folio_get_anon_vma(m, src)
    was_mapped, rc = m[src].mapcount > 0, 0
    if was_mapped:
        try_to_migrate(m, c, src)
    if m[src].mapcount > 0 or m[src].pins > 0:  # pins: a reference more than mappings and swap cache account for
        rc = -EAGAIN
    else:
        _folio_migrate_mapping(m, dst, src)
    if was_mapped:
        remove_migration_ptes(m, c, src, src if rc else dst)
    if anon_vma:
        put_anon_vma(m, anon_vma)
    m[dst].key = m[PAGES].migrations
    m[dst].holders -= 1
    folio_put(m, dst)
    if m[PAGES].number_waiting == 0:
        m[src].holders -= 1
        folio_put(m, src)
    return rc


@compiled
def _folio_migrate_mapping(m: Rows, dst: int, src: int) -> None:
    """The new folio takes over what the old one names, its place in the swap cache, and its stable node."""
    m[dst].mapping, m[dst].index = m[src].mapping, m[src].index
    slot, node = m[src].slot, m[src].stable_node
    if slot:
        m[src].slot = 0
        m[dst].slot = slot
        m[slot].cached = dst
    if node:
        m[dst].stable_node = node
        m[dst].holders += 1
        m[node].kfolio = dst
        m[src].holders -= 1
    m[src].mapping = m[src].stable_node = 0
