# SPDX-License-Identifier: GPL-2.0-only
"""Page tables on rows: leaves of 16 entries in a tree by address.

An entry is ``2 * folio + writable``, 0 where nothing is mapped; the zero
page, a page of a file and a guard have folios of their own that are no rows
of objects.  A swap entry is ``-(2 * slot + exclusive)``, and a migration entry
``-(MIGRATION + 4 * folio + 2 * writable + exclusive)``.  A page table of the
kernel (2 MiB) is there as long as one of its leaves is.
"""

from __future__ import annotations

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import FIRST, LEAF, Rows
from rmaplab.engine.rows import free_row, new_row
from rmaplab.engine.trees import tree_first, tree_floor, tree_insert, tree_next, tree_remove

__all__ = [
    "FILE_PAGE",
    "GUARD",
    "MIGRATION",
    "ZERO_PAGE",
    "first_leaf",
    "folio_of",
    "has_table",
    "is_anon",
    "is_present",
    "is_swap",
    "leaf_at",
    "leaf_for",
    "pte_clear",
    "pte_get",
    "pte_put",
    "pte_set",
    "slot_of",
    "waits_for",
]

ZERO_PAGE, FILE_PAGE, GUARD = 1, 2, 3
MIGRATION = 1 << 30


@compiled
def folio_of(entry: int) -> int:
    """What an entry maps."""
    return entry >> 1


@compiled
def is_present(entry: int) -> bool:
    """Whether an entry maps a page."""
    return entry > 0 and entry >> 1 != GUARD


@compiled
def is_anon(entry: int) -> bool:
    """Whether it maps an anonymous folio."""
    return entry >> 1 >= FIRST


@compiled
def is_swap(entry: int) -> bool:
    """Whether it is a swap entry; what else is below zero is a migration entry."""
    return -MIGRATION < entry < 0


@compiled
def slot_of(entry: int) -> int:
    """What a swap entry names."""
    return -entry >> 1


@compiled
def waits_for(entry: int) -> int:
    """The folio that a migration entry waits for, 0 for any other entry."""
    return (-entry - MIGRATION) >> 2 if entry <= -MIGRATION else 0


@compiled
def leaf_at(m: Rows, mm: int, address: int) -> int:
    """The leaf of an address (bytes), or 0."""
    leaf = tree_floor(m, m[mm].leaves, address >> 16)
    return leaf if leaf and m[leaf].key == address >> 16 else 0


@compiled
def leaf_for(m: Rows, mm: int, address: int) -> int:
    """The leaf of an address, made if there is none."""
    leaf = leaf_at(m, mm, address)
    if not leaf:
        leaf = new_row(m, LEAF)
        m[leaf].key = address >> 16
        m[mm].leaves = tree_insert(m, m[mm].leaves, leaf)
        m[mm].number_of_leaves += 1
    return leaf


@compiled
def first_leaf(m: Rows, mm: int, address: int) -> int:
    """The first leaf that has something at or behind an address, or 0."""
    leaf = tree_floor(m, m[mm].leaves, address >> 16)
    if not leaf:
        return tree_first(m, m[mm].leaves)
    return leaf if m[leaf].key == address >> 16 else tree_next(m, leaf)


@compiled
def has_table(m: Rows, mm: int, address: int) -> bool:
    """Whether there is a page table for the 2 MiB around an address."""
    leaf = tree_floor(m, m[mm].leaves, address >> 21 << 5 | 31)
    return leaf != 0 and m[leaf].key >> 5 == address >> 21


@compiled
def pte_get(m: Rows, mm: int, address: int) -> int:
    """The entry of a page, or 0."""
    leaf = leaf_at(m, mm, address)
    return m[leaf].pte[address >> 12 & 15] if leaf else 0


@compiled
def pte_put(m: Rows, mm: int, leaf: int, at: int, entry: int) -> None:
    """Replace an entry of a leaf, perhaps by nothing; the leaf goes with its last one."""
    was = m[leaf].pte[at]
    m[leaf].pte[at] = entry
    m[leaf].present += (entry != 0) - (was != 0)
    if not m[leaf].present:
        m[mm].leaves = tree_remove(m, m[mm].leaves, leaf)
        m[mm].number_of_leaves -= 1
        free_row(m, leaf)


@compiled
def pte_set(m: Rows, mm: int, address: int, entry: int) -> None:
    """Install an entry."""
    pte_put(m, mm, leaf_for(m, mm, address), address >> 12 & 15, entry)


@compiled
def pte_clear(m: Rows, mm: int, address: int) -> None:
    """Remove an entry that is there."""
    pte_put(m, mm, leaf_at(m, mm, address), address >> 12 & 15, 0)
