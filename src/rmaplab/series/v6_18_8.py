# SPDX-License-Identifier: GPL-2.0-only
"""v6.18+8: AVCs allocated unlocked; the order of chains is mirrored."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.slab import GFP_KERNEL
from rmaplab.series.v6_18_9 import V6_18_9

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Vma
    from rmaplab.kernel.rmap import Operation

from errno import ENOMEM

__all__ = ["V6_18_8"]


class V6_18_8(V6_18_9):  # noqa: N801
    """bfc2b13b05a1: no allocation under the lock, GFP_NOWAIT gone, dst's list the mirror of src's.

    Clone does not know what it is called for: an unset ``dst.anon_vma`` means fork.
    """

    name = "v6.18+8"
    parent: ClassVar[str | None] = "v6.18+7"
    commits: ClassVar[tuple[str, ...]] = ("bfc2b13b05a1",)
    summary = "patch 8: allocate anon_vma_chain objects unlocked when possible"

    def check_anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> None:
        """No check depends on the operation yet."""
        self.check_anon_vma_clone_state(dst, src)

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """Two passes, told apart from fork only by ``dst.anon_vma``."""
        self.check_anon_vma_clone(dst, src, operation)
        if src.anon_vma is None:
            return 0
        for pavc in src.anon_vma_chain:
            avc = self.anon_vma_chain_alloc(GFP_KERNEL)
            if avc is None:
                self.cleanup_partial_anon_vmas(dst)
                return -ENOMEM
            self.anon_vma_chain_assign(dst, avc, pavc.anon_vma)

        self.anon_vma_lock_write(src.anon_vma)
        for avc in reversed(dst.anon_vma_chain):
            self.anon_vma_interval_tree_insert(avc, avc.anon_vma)
            self.try_reuse_anon_vma(dst, src, avc.anon_vma)
        self.count_active_vma(dst)
        self.anon_vma_unlock_write(src.anon_vma)
        return 0

    def try_reuse_anon_vma(self, dst: Vma, src: Vma, anon_vma: AnonVma) -> None:
        """The reuse rule of 2555283eb40d, in line in anon_vma_clone; the VMA is counted later."""
        if (
            dst.anon_vma is None
            and src.anon_vma is not None
            and anon_vma.num_children < 2
            and anon_vma.num_active_vmas == 0
        ):
            dst.anon_vma = anon_vma

    def count_active_vma(self, dst: Vma) -> None:
        """At the end of anon_vma_clone: a preset or a reused anon_vma has one more user."""
        if dst.anon_vma is not None:
            self.add_active_vmas(dst.anon_vma, 1)
