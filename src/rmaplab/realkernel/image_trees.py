# SPDX-License-Identifier: GPL-2.0-only
"""Writes trees as the kernel has them: maple trees of VMAs, red-black trees of AVCs.

Formats: include/linux/maple_tree.h and lib/maple_tree.c, include/linux/rbtree.h
and rbtree_augmented.h, read in 6.12.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rmaplab.realkernel.image_memory import Slabs

__all__ = ["MapleEntry", "write_maple_tree", "write_rb_tree"]

_MAX = (1 << 64) - 1
_LEAF, _ARANGE = 1, 3  # maple_leaf_64 and maple_arange_64, of which a tree that tracks gaps is made
_SLOTS = {_LEAF: 16, _ARANGE: 10}
_BYTES = 256
_PARENT_RANGE64 = 0x06
_RED, _BLACK = 0, 1


class MapleEntry(NamedTuple):
    """[first, last] (inclusive) of a tree's keys: what is stored there, 0 for nothing, and the largest gap in it."""

    first: int
    last: int
    value: int
    gap: int


def write_maple_tree(slabs: Slabs, tree: int, entries: Sequence[tuple[int, int, int]], fill: int) -> int:
    """Write nodes for (first, last, pointer) entries in ascending order; the value of ``ma_root``.

    ``tree`` is the address of the struct maple_tree; leaves get up to
    ``fill`` of their 16 slots, other nodes as many of their 10 in proportion.
    A VMA never stands in the root itself: only an entry for key 0 alone does.
    """
    level = _with_gaps(entries)
    if not entries:
        return 0
    kind, most = _LEAF, max(4, fill)
    while True:
        nodes = [_write_node(slabs, kind, chunk) for chunk in _chunks(level, min(most, _SLOTS[kind]))]
        if len(nodes) == 1:
            encoded = nodes[0].value
            slabs.memory.write(encoded & -_BYTES, struct.pack("<Q", tree | 1))
            return encoded | 2
        level = nodes
        kind, most = _ARANGE, max(2, fill * 10 // 16)


def _with_gaps(entries: Sequence[tuple[int, int, int]]) -> list[MapleEntry]:
    """The entries, and what is between them: every key is in some range."""
    found, at = [], 0
    for first, last, value in entries:
        if first > at:
            found.append(MapleEntry(at, first - 1, 0, first - at))
        found.append(MapleEntry(first, last, value, 0))
        at = last + 1
    return [*found, MapleEntry(at, _MAX, 0, _MAX - at + 1)]


def _chunks(level: list[MapleEntry], most: int) -> list[list[MapleEntry]]:
    """Parts of at most so many entries; none has one alone, and a leaf ends with nothing only at the very end."""
    chunks, at = [], 0
    while at < len(level):
        end = min(at + most, len(level))
        while end < len(level) and (len(level) - end == 1 or not level[end - 1].value):
            end -= 1
        chunks.append(level[at:end])
        at = end
    return chunks


def _write_node(slabs: Slabs, kind: int, entries: list[MapleEntry]) -> MapleEntry:
    """One node; as its parent will have it.  The first word, its parent, is written by whoever it belongs to."""
    memory, slots = slabs.memory, _SLOTS[kind]
    structure = "maple_range_64" if kind == _LEAF else "maple_arange_64"
    node = slabs.allocate(_BYTES, _BYTES)
    memory.write(node, bytes(_BYTES))
    last = entries[-1].last
    pivots = [entry.last for entry in entries]
    if last == _MAX and len(entries) < slots and kind == _ARANGE:
        pivots[-1] = 0  # not in use: the bound is that of the node
    slabs.put(node, f"{structure}.pivot", struct.pack(f"<{min(len(pivots), slots - 1)}Q", *pivots[: slots - 1]))
    slabs.put(node, f"{structure}.slot", struct.pack(f"<{len(entries)}Q", *(entry.value for entry in entries)))
    gaps = [entry.gap for entry in entries]
    largest = gaps.index(max(gaps))
    meta = bytes((len(entries) - 1, largest))
    if kind == _ARANGE:
        slabs.put(
            node,
            f"{structure}.slot",
            struct.pack(f"<{len(gaps)}Q", *gaps) + bytes(8 * (slots - len(gaps))),
            extra=8 * slots,
        )
        slabs.put(node, f"{structure}.slot", meta, extra=16 * slots)
        for slot, entry in enumerate(entries):
            memory.write(entry.value & -_BYTES, struct.pack("<Q", node | slot << 3 | _PARENT_RANGE64))
    elif len(entries) < slots:
        slabs.put(node, f"{structure}.slot", meta, extra=8 * (slots - 1))
    return MapleEntry(entries[0].first, last, node | kind << 3 | 4, max(gaps))


def write_rb_tree(slabs: Slabs, nodes: Sequence[int], last: Callable[[int], int]) -> int:
    """Link the rb_nodes (by address, in order) into a balanced tree; the topmost, 0 if there is none.

    ``last`` tells the last offset of the range of the n-th; each node has the
    largest one below it, in the word behind the rb_node.
    """
    red = len(nodes).bit_length() - 1 if len(nodes) & (len(nodes) + 1) else -1  # an incomplete lowest level is red

    def link(low: int, high: int, parent: int, depth: int) -> tuple[int, int]:
        if low == high:
            return 0, 0
        at = (low + high) // 2
        left, most_left = link(low, at, nodes[at], depth + 1)
        right, most_right = link(at + 1, high, nodes[at], depth + 1)
        most = max(last(at), most_left, most_right)
        colour = _RED if depth == red else _BLACK
        slabs.memory.write(nodes[at], struct.pack("<4Q", parent | colour, right, left, most))
        return nodes[at], most

    return link(0, len(nodes), 0, 0)[0]
