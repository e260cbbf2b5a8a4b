# SPDX-License-Identifier: GPL-2.0-only
"""The index of an anon_vma: its AVCs by the page offsets of their VMAs (mm/interval_tree.c).

Forked VMAs have the same range, so entries that begin at one offset are one
row, a *range*, with a list of them in order of insertion, and ranges are in a
tree.  Visited is in the kernel's order: by first offset, then by insertion.

Before v3.7 there was a list: all entries are in one range that covers everything.
"""

from __future__ import annotations

from rmaplab.engine.jit import compiled, inlined
from rmaplab.engine.layout import PARAMS, RANGE, Avcs, Rows
from rmaplab.engine.rows import free_row, new_row
from rmaplab.engine.trees import lower_top, raise_top, tree_floor, tree_insert, tree_remove

__all__ = [
    "interval_tree_insert",
    "interval_tree_remove",
    "move_to_head",
    "range_first",
    "range_next",
    "vma_last_pgoff",
]

EVERYTHING = 1 << 62


@compiled
def vma_last_pgoff(m: Rows, vma: int) -> int:
    """Last page offset of a VMA, inclusive."""
    return m[vma].anon_pgoff + ((m[vma].vm_end - m[vma].key) >> 12) - 1


@inlined
def interval_tree_insert(m: Rows, c: Avcs, avc: int, anon_vma: int, near: int) -> None:
    """Insert behind the entries with an equal start; ``near`` is a range of the index that may be theirs, or none."""
    vma = c[avc].vma
    first = 0 if m[PARAMS].lists else m[vma].anon_pgoff
    last = EVERYTHING if m[PARAMS].lists else vma_last_pgoff(m, vma)
    place = near if near > 0 and m[near].key == first else tree_floor(m, m[anon_vma].ranges, first)
    if not place or m[place].key != first:
        place = new_row(m, RANGE)
        m[place].key = first
        m[place].owner = anon_vma
        m[place].last = last
        m[place].at_last = 1
        m[anon_vma].ranges = tree_insert(m, m[anon_vma].ranges, place)
    elif m[place].last < last:
        m[place].last = last
        m[place].at_last = 1
        raise_top(m, place)
    elif m[place].last == last:
        m[place].at_last += 1
    tail = m[place].tail
    c[avc].range = place
    c[avc].earlier = tail
    c[avc].later = 0
    if tail:
        c[tail].later = avc
    else:
        m[place].head = avc
    m[place].tail = avc
    m[place].length += 1
    m[anon_vma].entries += 1


@inlined
def interval_tree_remove(m: Rows, c: Avcs, avc: int, anon_vma: int) -> None:
    """Remove an entry that is there."""
    place = c[avc].range
    earlier, later = c[avc].earlier, c[avc].later
    if earlier:
        c[earlier].later = later
    else:
        m[place].head = later
    if later:
        c[later].earlier = earlier
    else:
        m[place].tail = earlier
    c[avc].range = -1
    c[avc].earlier = c[avc].later = 0
    m[place].length -= 1
    m[anon_vma].entries -= 1
    if not m[place].head:
        m[anon_vma].ranges = tree_remove(m, m[anon_vma].ranges, place)
        free_row(m, place)
    elif not m[PARAMS].lists and vma_last_pgoff(m, c[avc].vma) == m[place].last:
        m[place].at_last -= 1
        if m[place].at_last == 0:
            _find_last(m, c, place)


@compiled
def _find_last(m: Rows, c: Avcs, place: int) -> None:
    """The entries that end last were removed: look which ones do now."""
    last, number = -1, 0
    avc = m[place].head
    while avc:
        own = vma_last_pgoff(m, c[avc].vma)
        if own > last:
            last, number = own, 0
        number += own == last
        avc = c[avc].later
    m[place].last = last
    m[place].at_last = number
    lower_top(m, place)


@compiled
def move_to_head(m: Rows, c: Avcs, avc: int) -> None:
    """Make an entry the first of its range."""
    place = c[avc].range
    if m[place].head == avc:
        return
    earlier, later = c[avc].earlier, c[avc].later
    c[earlier].later = later
    if later:
        c[later].earlier = earlier
    else:
        m[place].tail = earlier
    c[avc].earlier = 0
    c[avc].later = m[place].head
    c[m[place].head].earlier = avc
    m[place].head = avc


@compiled
def _leftmost(m: Rows, place: int, first: int, last: int) -> int:
    """The first range that meets [first, last] in a part of the tree with one that ends at ``first`` or later."""
    while True:
        left = m[place].left
        if left and m[left].top >= first:
            place = left
            continue
        if m[place].key > last:
            return 0
        if m[place].last >= first:
            return place
        place = m[place].right
        if not place or m[place].top < first:
            return 0


@compiled
def range_first(m: Rows, anon_vma: int, first: int, last: int) -> int:
    """The first range that may hold entries that meet [first, last] (page offsets), or 0."""
    tree = m[anon_vma].ranges
    if not tree or m[tree].top < first:
        return 0
    return _leftmost(m, tree, first, last)


@compiled
def range_next(m: Rows, place: int, first: int, last: int) -> int:
    """The next one, or 0."""
    while True:
        right = m[place].right
        if right and m[right].top >= first:
            return _leftmost(m, right, first, last)
        below = place
        place = m[place].up
        while place and m[place].right == below:
            below = place
            place = m[place].up
        if not place or m[place].key > last:
            return 0
        if m[place].last >= first:
            return place
