# SPDX-License-Identifier: GPL-2.0-only
"""v6.18+4: the root is locked once for a whole chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.series.v6_18_7 import V6_18_5

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma

__all__ = ["V6_18_4"]


class V6_18_4(V6_18_5):  # noqa: N801
    """535f6b8df17d: clone and unlink lock once, through the VMA's own anon_vma, not AVC by AVC.

    Against v6.18+5: a merge still goes through anon_vma_merge(), which insists on equal anon_vmas.
    """

    name = "v6.18+4"
    parent: ClassVar[str | None] = "v6.18+3"
    commits: ClassVar[tuple[str, ...]] = ("535f6b8df17d",)
    summary = "patch 4: remove unnecessary root lock dance in anon_vma clone, unmap"

    def unlink_removed_vma(self, survivor: Vma, removed: Vma) -> None:
        """Call the wrapper if there is anything to drop."""
        if removed.anon_vma is not None:
            self.anon_vma_merge(survivor, removed)

    def anon_vma_merge(self, vma: Vma, removed: Vma) -> None:
        """Drop the removed VMA's links; despite the name nothing is merged."""
        self.vm_warn_on(vma.anon_vma is not removed.anon_vma, "anon_vma_merge: {} and {} differ", vma, removed)
        self.unlink_anon_vmas(removed)
