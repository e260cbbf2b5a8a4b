# SPDX-License-Identifier: GPL-2.0-only
"""The list of a VMA's links that an anon_vma had before v3.7 had an interval tree for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel.interval_tree import IntervalTree, vma_last_pgoff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel.objects import AnonVmaChain

__all__ = ["AnonVmaList"]


class AnonVmaList(IntervalTree):
    """anon_vma.head: entries in order of insertion, none ordered or keyed by page offsets.

    A VMA may change its range while it is on the list; the keys are not used.
    """

    __slots__ = ()

    def stab(self, first: int, last: int) -> Iterator[AnonVmaChain]:
        """Entries whose VMA covers any of [first, last] (page offsets) now; all others are met in vain."""
        for avc in self.keys:
            if avc.vma.anon_pgoff <= last and vma_last_pgoff(avc.vma) >= first:
                yield avc

    def move_to_head(self, avc: AnonVmaChain) -> None:
        """Make an entry the first."""
        self.keys = {avc: self.keys[avc], **self.keys}

    def _in_order(self) -> list[AnonVmaChain]:
        return list(self.keys)
