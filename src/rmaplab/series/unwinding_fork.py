# SPDX-License-Identifier: GPL-2.0-only
"""anon_vma_fork() as it was before patch 2 of the series (91901a441fa1)."""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel import Kernel
from rmaplab.kernel.rmap import Operation
from rmaplab.kernel.slab import GFP_KERNEL

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma

__all__ = ["UnwindingFork"]


class UnwindingFork(Kernel):
    """Clone first, allocate after; a failure hands the half-built VMA to unlink_anon_vmas()."""

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> int:
        """Allocation order: the n AVCs of the clone, then, unless it reused, anon_vma and AVC."""
        if pvma.anon_vma is None:
            return 0
        vma.anon_vma = None

        rc = self.anon_vma_clone(vma, pvma, Operation.FORK)
        if rc != 0 or vma.anon_vma is not None:
            return rc
        anon_vma = self.anon_vma_alloc()
        if anon_vma is None:
            self.unlink_anon_vmas(vma)
            return -ENOMEM
        self.add_active_vmas(anon_vma, 1)
        avc = self.anon_vma_chain_alloc(GFP_KERNEL)
        if avc is None:
            self.put_anon_vma(anon_vma)
            self.unlink_anon_vmas(vma)
            return -ENOMEM
        self.anon_vma_link_child(vma, pvma.anon_vma, anon_vma, avc)
        return 0
