# SPDX-License-Identifier: GPL-2.0-only
"""The per-anon_vma interval tree (mm/interval_tree.c), reduced to its visiting order.

An entry's key is the closed range of page offsets of its VMA.  The kernel's
augmented red-black tree sends equal starts to the right, so an in-order visit
is by (start, order of insertion), whatever the rotations were; that order is
all that a caller can observe.  Here entries stand in order of insertion and a
stable sort by start is made when somebody looks, with a running maximum of
the ends in the role of the tree's augmented field.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SHIFT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel.objects import AnonVmaChain, Vma

__all__ = ["IntervalTree", "vma_last_pgoff"]


def vma_last_pgoff(vma: Vma) -> int:
    """Last page offset of a VMA, inclusive (``avc_last_pgoff``)."""
    return vma.anon_pgoff + ((vma.vm_end - vma.vm_start) >> PAGE_SHIFT) - 1


class IntervalTree:
    """Entries (AVCs) of one anon_vma, visited by (page offset, order of insertion).

    ``keys`` maps each entry to the (first, last) page offsets its VMA had at
    insertion, as CONFIG_DEBUG_VM_RB caches them: a VMA must not change its
    range while an entry of it is in a tree.
    """

    __slots__ = ("_lasts", "_sorted", "_starts", "keys")

    def __init__(self) -> None:
        self.keys: dict[AnonVmaChain, tuple[int, int]] = {}
        self._sorted: list[AnonVmaChain] | None = None
        self._starts: list[int] = []
        self._lasts: list[int] = []  # running maximum, hence ascending

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, avc: AnonVmaChain) -> bool:
        return avc in self.keys

    def __iter__(self) -> Iterator[AnonVmaChain]:
        return iter(self._in_order())

    def insert(self, avc: AnonVmaChain) -> None:
        """Insert behind the entries with an equal start."""
        vma = avc.vma
        self.keys[avc] = (vma.anon_pgoff, vma_last_pgoff(vma))
        self._sorted = None

    def remove(self, avc: AnonVmaChain) -> None:
        """Remove an entry; :class:`KeyError` if it is not in the tree."""
        del self.keys[avc]
        self._sorted = None

    def stab(self, first: int, last: int) -> Iterator[AnonVmaChain]:
        """Entries whose range meets [first, last] (page offsets), in visiting order."""
        if len(self.keys) == 1:
            ((avc, (start, end)),) = self.keys.items()
            if start <= last and end >= first:
                yield avc
            return
        order = self._in_order()
        for avc in order[bisect_left(self._lasts, first) : bisect_right(self._starts, last)]:
            if self.keys[avc][1] >= first:
                yield avc

    def _in_order(self) -> list[AnonVmaChain]:
        if self._sorted is None:
            keys = self.keys
            self._sorted = sorted(keys, key=lambda avc: keys[avc][0])
            self._starts = [keys[avc][0] for avc in self._sorted]
            self._lasts = list(accumulate((keys[avc][1] for avc in self._sorted), max))
        return self._sorted
