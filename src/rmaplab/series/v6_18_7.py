# SPDX-License-Identifier: GPL-2.0-only
"""v6.18+5 to v6.18+7: one lock around clone, AVCs allocated under it without waiting."""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.slab import GFP_KERNEL, GFP_NOWAIT
from rmaplab.series.v6_18_8 import V6_18_8

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, AnonVmaChain, Vma
    from rmaplab.kernel.rmap import Operation

__all__ = ["V6_18_5", "V6_18_6", "V6_18_7"]


class V6_18_7(V6_18_8):  # noqa: N801
    """85f03a86318c: vma_is_attached(); behaves as v6.18+6.

    Against v6.18+8: clone allocates with GFP_NOWAIT under the lock and drops
    it for a GFP_KERNEL retry; lists are copied in order, and fork looks for
    a reusable anon_vma from the tail.
    """

    name = "v6.18+7"
    parent: ClassVar[str | None] = "v6.18+6"
    commits: ClassVar[tuple[str, ...]] = ("85f03a86318c",)
    summary = "patch 7: add vma_is_attached() helper"
    mirrors_chains = False

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """One pass, tail to head; each AVC is allocated and inserted at once."""
        self.check_anon_vma_clone(dst, src, operation)
        if src.anon_vma is None:
            return 0
        self.anon_vma_lock_write(src.anon_vma)
        for pavc in reversed(src.anon_vma_chain):
            avc = self.anon_vma_chain_alloc(GFP_NOWAIT)
            if avc is None:
                self.anon_vma_unlock_write(src.anon_vma)
                avc = self.anon_vma_chain_alloc(GFP_KERNEL)
                if avc is None:
                    self.cleanup_partial_anon_vmas(dst)
                    return -ENOMEM
                self.anon_vma_lock_write(src.anon_vma)
            self.anon_vma_chain_link(dst, avc, pavc.anon_vma)
            self.try_reuse_anon_vma(dst, src, pavc.anon_vma)
        self.count_active_vma(dst)
        self.anon_vma_unlock_write(src.anon_vma)
        return 0

    def anon_vma_chain_link(self, vma: Vma, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """Put an AVC on the VMA's list and into the tree in one step."""
        self.anon_vma_chain_assign(vma, avc, anon_vma)
        self.anon_vma_interval_tree_insert(avc, anon_vma)

    def cleanup_partial_anon_vmas(self, vma: Vma) -> None:
        """AVCs are in trees already: lock, take them out, free them.  The pointer stays (see v6.18+9)."""
        if not vma.anon_vma_chain:
            return
        root = vma.anon_vma_chain[0].anon_vma.root
        self.anon_vma_lock_write(root)
        for avc in vma.anon_vma_chain:
            self.anon_vma_interval_tree_remove(avc, avc.anon_vma)
            self.anon_vma_chain_free(avc)
        vma.anon_vma_chain.clear()
        self.anon_vma_unlock_write(root)


class V6_18_6(V6_18_7):  # noqa: N801
    """7549e3d20f1a: helpers move to mm/internal.h; behaves as v6.18+5."""

    name = "v6.18+6"
    parent: ClassVar[str | None] = "v6.18+5"
    commits: ClassVar[tuple[str, ...]] = ("7549e3d20f1a",)
    summary = "patch 6: make anon_vma functions internal"


class V6_18_5(V6_18_6):  # noqa: N801
    """53eb797ffc3a: a merge calls unlink_anon_vmas on the removed VMA itself, without a wrapper's check."""

    name = "v6.18+5"
    parent: ClassVar[str | None] = "v6.18+4"
    commits: ClassVar[tuple[str, ...]] = ("53eb797ffc3a",)
    summary = "patch 5: remove anon_vma_merge() function"
