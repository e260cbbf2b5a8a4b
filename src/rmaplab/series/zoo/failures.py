# SPDX-License-Identifier: GPL-2.0-only
"""Bugs that take a failed allocation."""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel import Kernel
from rmaplab.kernel.rmap import Operation
from rmaplab.kernel.slab import GFP_KERNEL
from rmaplab.series.unwinding_fork import UnwindingFork
from rmaplab.series.v2_6_34 import V2_6_34
from rmaplab.series.v4_0 import V4_0

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma

__all__ = ["Z01", "Z02", "Z11", "Z12", "Z21d"]


class Z01(Kernel):
    """A failed clone leaves the target's anon_vma pointer as the caller had set it.

    The caller is a merge into an unfaulted VMA, which lives on.  From
    542eda1a8329 to 3a206a8649f8, in no release.
    """

    name = "zoo/Z01"
    parent: ClassVar[str | None] = "v7.0"
    commits: ClassVar[tuple[str, ...]] = ("542eda1a8329", "3a206a8649f8")
    release = "v7.0-rc1 to -rc5"
    summary = "stale anon_vma pointer after a failed merge"

    def cleanup_partial_anon_vmas(self, vma: Vma) -> None:
        """Free the AVCs alone."""
        for avc in vma.anon_vma_chain:
            self.anon_vma_chain_free(avc)
        vma.anon_vma_chain.clear()


class Z02(UnwindingFork, Kernel):
    """fork hands a half-built VMA to an unlink that returns early for it: its AVCs stay in the trees.

    The v2 posting of the series, which had no patch 2.
    """

    name = "zoo/Z02"
    parent: ClassVar[str | None] = "v7.0"
    commits: ClassVar[tuple[str, ...]] = ("91901a441fa1",)
    release = "never released"
    summary = "AVCs leaked by a failed fork"


class Z11(V4_0):
    """A failed clone unlinks what it linked with the pointer set: a VMA is counted off that was never counted.

    From 7a3ef208e662 (v3.19) to 3fe89b3e2a7b (v4.0), as in v3.19.
    """

    name = "zoo/Z11"
    parent: ClassVar[str | None] = "v4.0"
    commits: ClassVar[tuple[str, ...]] = ("7a3ef208e662", "3fe89b3e2a7b")
    release = "v3.19"
    summary = "degree drops with a failed clone"

    def cleanup_partial_anon_vmas(self, vma: Vma) -> None:
        """Unlink, with the pointer as the caller had set it."""
        self.unlink_anon_vmas(vma)


class Z12(V4_0):
    """A split whose clone failed reports success, and its caller takes the whole VMA for the part it asked for.

    v3.12 to v3.17, until c4ea95d7cd08.
    """

    name = "zoo/Z12"
    parent: ClassVar[str | None] = "v4.0"
    commits: ClassVar[tuple[str, ...]] = ("c4ea95d7cd08",)
    release = "v3.12"
    summary = "a failed split returns success"
    clone_failed = False

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """Remember whether a split's clone failed."""
        rc = super().anon_vma_clone(dst, src, operation)
        self.clone_failed = rc != 0 and operation is Operation.SPLIT
        return rc

    def split_vma(self, vma: Vma, address: int, new_below: bool) -> int:
        """The error variable still holds the success of the step before the clone."""
        self.clone_failed = False
        rc = super().split_vma(vma, address, new_below)
        return 0 if self.clone_failed else rc


class Z21d(V2_6_34):
    """fork forgets to unlink the child's VMA when its own anon_vma cannot be had after the clone.

    2.6.34-rc, until 4946d54cb55e.
    """

    name = "zoo/Z21d"
    parent: ClassVar[str | None] = "v2.6.34"
    commits: ClassVar[tuple[str, ...]] = ("4946d54cb55e",)
    release = "v2.6.34-rc"
    summary = "AVCs leaked by a failed fork"

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> int:
        """As in v2.6.34, but for the way out."""
        if pvma.anon_vma is None:
            return 0
        vma.anon_vma = None
        rc = self.anon_vma_clone(vma, pvma, Operation.FORK)
        if rc != 0:
            return rc
        anon_vma = self.anon_vma_alloc()
        if anon_vma is None:
            return -ENOMEM
        avc = self.anon_vma_chain_alloc(GFP_KERNEL)
        if avc is None:
            self.put_anon_vma(anon_vma)
            self.unlink_anon_vmas(vma)
            return -ENOMEM
        self.anon_vma_link_child(vma, pvma.anon_vma, anon_vma, avc)
        return 0
