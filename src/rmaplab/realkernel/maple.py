# SPDX-License-Identifier: GPL-2.0-only
"""Reads maple trees, in which address spaces keep their VMAs (maple_tree.h), all of them level by level."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmaplab.realkernel.layout import Layout
    from rmaplab.realkernel.memory import Memory

__all__ = ["MapleReader"]

_LEAF, _RANGE, _ARANGE = 1, 2, 3  # enum maple_type: maple_leaf_64, maple_range_64, maple_arange_64
_NODE_MASK = ~0xFF
_DEPTH = 32  # more levels than a maple tree can have
_ALL = (1 << 64) - 1
_NO_POINTER = 4096


class Node(NamedTuple):
    """A node that is still to be read: its tree, its encoded address, and the addresses that it is about."""

    tree: int
    encoded: int
    least: int
    most: int


class MapleReader:
    """Reads what has addresses in [lo, hi).

    ``unreadable``: trees, and the address from which on a node of theirs could
    not be read; ``endless``: there was a tree that did not end.
    """

    def __init__(self, memory: Memory, layout: Layout, lo: int, hi: int) -> None:
        self.memory = memory
        self.lo, self.hi = lo, hi
        self.node_size = layout.size("maple_node")
        leaf, arange = (
            (layout.offset(f"{name}.pivot") // 8, layout.offset(f"{name}.slot") // 8)
            for name in ("maple_range_64", "maple_arange_64")
        )
        self.shapes = {_LEAF: leaf, _RANGE: leaf, _ARANGE: arange}  # where pivots and slots begin, in words
        self.unreadable: list[tuple[int, int]] = []
        self.endless = False

    def read(self, trees: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The entries of trees, given as a number and ``ma_root``: each with that number, in order of addresses."""
        found: list[tuple[int, int, int]] = []
        nodes: list[Node] = []
        for tree, root in trees:
            if root & 3 == 2 and root > _NO_POINTER:
                nodes.append(Node(tree, root, 0, _ALL))
            elif root & 3 == 0 and root > _NO_POINTER:  # an only entry, without a node
                found.append((tree, 0, root))
        for _ in range(_DEPTH):
            if not nodes:
                break
            nodes = self.read_level(nodes, found)
        self.endless = bool(nodes)
        found.sort()
        return [(tree, entry) for tree, _, entry in found]

    def read_level(self, nodes: list[Node], found: list[tuple[int, int, int]]) -> list[Node]:
        """One level of all trees; the nodes of the next."""
        following: list[Node] = []
        data = self.memory.read_many([node.encoded & _NODE_MASK for node in nodes], self.node_size)
        for node, raw in zip(nodes, data, strict=True):
            kind = node.encoded >> 3 & 15
            if raw is None or kind not in self.shapes:
                self.unreadable.append((node.tree, node.least))
                continue
            for least, most, entry in _slots(raw, *self.shapes[kind], node.least, node.most, self.hi):
                if most < self.lo:
                    continue
                if kind != _LEAF:
                    following.append(Node(node.tree, entry, least, most))
                elif entry & 3 == 0:  # no marker of the XArray
                    found.append((node.tree, least, entry))
        return following


@lru_cache(maxsize=4096)
def _slots(raw: bytes, pivot: int, slot: int, least: int, most: int, hi: int) -> list[tuple[int, int, int]]:
    """What a node has: first and last address, and entry, of each slot in use that begins below ``hi``."""
    found = []
    words = memoryview(raw).cast("Q")
    for at in range(slot - pivot + 1):
        end = words[pivot + at] if at < slot - pivot else most
        if at and end == 0:
            end = most  # pivots that are not in use
        if end < least or end > most:
            break
        if words[slot + at] > _NO_POINTER:
            found.append((least, end, words[slot + at]))
        least = end + 1
        if end == most or least >= hi:
            break
    return found
