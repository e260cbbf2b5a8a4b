# SPDX-License-Identifier: GPL-2.0-only
"""What other calls did not do yet: each class takes one thing back, for a series to mix in."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from rmaplab.kernel import Kernel

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Mm, Vma
    from rmaplab.kernel.pagetable import Pte

__all__ = ["NoMadviseCollapse", "PinsPagesOfFiles", "VmasInRedBlackTree"]


class VmasInRedBlackTree(Kernel):
    """v6.0 and before (524e00b36e8c): the nodes of the tree of VMAs are in the VMAs."""

    def vma_iter_prealloc(self) -> int:
        """Nothing to set aside, so it cannot fail."""
        return 0


class NoMadviseCollapse(Kernel):
    """v6.0 and before (7d8faaf15545): only khugepaged collapses, by itself."""

    def madvise_collapse(self, mm: Mm, start: int, end: int) -> int:
        """The advice is unknown."""
        return -EINVAL


class PinsPagesOfFiles(Kernel):
    """v6.1 and before (84209e87c696): a read-only pin of a page that is not anonymous does not unshare it.

    In a private mapping the next write then parts process and device.
    """

    def gup_must_unshare(self, pte: Pte, vma: Vma) -> bool:
        """For shared anonymous pages only."""
        return pte.folio.anon and super().gup_must_unshare(pte, vma)
