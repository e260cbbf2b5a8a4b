# SPDX-License-Identifier: GPL-2.0-only
"""Trees of rows sorted by ``key``: VMAs and page tables of an mm, ranges of an anon_vma.

A treap (Seidel and Aragon, 1996): sorted by key from left to right, by a hash
of the row's number from top to bottom, hence balanced as if by chance.
Nothing that can be observed depends on its shape.  In a tree of ranges
``top`` is the highest ``last`` of the part below, as in the kernel's
interval trees.

A tree is the number of its uppermost row, 0 if it is empty; what changes
one returns the new number.  All take the logarithm of its size.
"""

from __future__ import annotations

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import RANGE, Rows

__all__ = [
    "lower_top",
    "raise_top",
    "tree_first",
    "tree_floor",
    "tree_insert",
    "tree_last",
    "tree_next",
    "tree_prev",
    "tree_remove",
]


@compiled
def _rank(row: int) -> int:
    """A hash of a row's number: those with higher ones stand above."""
    mixed = (row * 0x9E3779B1) & 0xFFFF_FFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x85EBCA77) & 0xFFFF_FFFF
    return mixed ^ (mixed >> 13)


@compiled
def _sum_up(m: Rows, row: int) -> None:
    top = m[row].last
    if m[row].left:
        top = max(top, m[m[row].left].top)
    if m[row].right:
        top = max(top, m[m[row].right].top)
    m[row].top = top


@compiled
def _rotate_up(m: Rows, row: int) -> None:
    """Exchange a row with the one above it."""
    above = m[row].up
    over = m[above].up
    if m[above].left == row:
        moved = m[row].right
        m[above].left = moved
        m[row].right = above
    else:
        moved = m[row].left
        m[above].right = moved
        m[row].left = above
    if moved:
        m[moved].up = above
    m[above].up = row
    m[row].up = over
    if over:
        if m[over].left == above:
            m[over].left = row
        else:
            m[over].right = row
    if m[row].kind == RANGE:
        _sum_up(m, above)
        _sum_up(m, row)


@compiled
def raise_top(m: Rows, row: int) -> None:
    """A range's ``last`` has grown: so may have those above it."""
    last = m[row].last
    while row and m[row].top < last:
        m[row].top = last
        row = m[row].up


@compiled
def lower_top(m: Rows, row: int) -> None:
    """A range's ``last`` has shrunk: so may have those above it."""
    while row:
        top = m[row].top
        _sum_up(m, row)
        if m[row].top == top:
            return
        row = m[row].up


@compiled
def tree_insert(m: Rows, tree: int, row: int) -> int:
    """Insert a row, whose key is in no other of the tree."""
    m[row].left = m[row].right = m[row].up = 0
    if m[row].kind == RANGE:
        m[row].top = m[row].last
    if not tree:
        return row
    key, at, above = m[row].key, tree, 0
    while at:
        above = at
        at = m[at].left if key < m[at].key else m[at].right
    m[row].up = above
    if key < m[above].key:
        m[above].left = row
    else:
        m[above].right = row
    if m[row].kind == RANGE:
        last = m[row].last
        at = above
        while at and m[at].top < last:
            m[at].top = last
            at = m[at].up
    rank = _rank(row)
    while above and _rank(above) < rank:
        _rotate_up(m, row)
        above = m[row].up
    return tree if above else row


@compiled
def tree_remove(m: Rows, tree: int, row: int) -> int:
    """Take a row out of its tree."""
    while m[row].left or m[row].right:
        left, right = m[row].left, m[row].right
        below = left if not right or (left and _rank(left) > _rank(right)) else right
        _rotate_up(m, below)
        if tree == row:
            tree = below
    above = m[row].up
    if not above:
        return 0
    if m[above].left == row:
        m[above].left = 0
    else:
        m[above].right = 0
    m[row].up = 0
    if m[row].kind == RANGE:
        while above:
            _sum_up(m, above)
            above = m[above].up
    return tree


@compiled
def tree_floor(m: Rows, tree: int, key: int) -> int:
    """The last row whose key is not above ``key``, or 0."""
    found = 0
    while tree:
        if m[tree].key <= key:
            found = tree
            tree = m[tree].right
        else:
            tree = m[tree].left
    return found


@compiled
def tree_first(m: Rows, tree: int) -> int:
    """The row with the lowest key, or 0."""
    while tree and m[tree].left:
        tree = m[tree].left
    return tree


@compiled
def tree_last(m: Rows, tree: int) -> int:
    """The row with the highest key, or 0."""
    while tree and m[tree].right:
        tree = m[tree].right
    return tree


@compiled
def tree_next(m: Rows, row: int) -> int:
    """The row behind this one, or 0."""
    if m[row].right:
        row = m[row].right
        while m[row].left:
            row = m[row].left
        return row
    while m[row].up and m[m[row].up].right == row:
        row = m[row].up
    return m[row].up


@compiled
def tree_prev(m: Rows, row: int) -> int:
    """The row before this one, or 0."""
    if m[row].left:
        row = m[row].left
        while m[row].right:
            row = m[row].right
        return row
    while m[row].up and m[m[row].up].left == row:
        row = m[row].up
    return m[row].up
