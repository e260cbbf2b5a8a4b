# SPDX-License-Identifier: GPL-2.0-only
"""Bugs in what is linked to what, by merge, first fault and clone; no allocation need fail."""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel import Kernel
from rmaplab.kernel.rmap import Operation
from rmaplab.kernel.slab import GFP_KERNEL
from rmaplab.series.v2_6_34 import V2_6_34
from rmaplab.series.v4_0 import V4_0

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Vma
    from rmaplab.kernel.vma import VmaMerge

__all__ = ["Z09", "Z10", "Z20", "Z21b"]


class Z09(Kernel):
    """The test for fork children looks at the absorbing VMA, and an unfaulted one, with no chain, fails it.

    From 965f55dea0e3 (v3.0) to 879bca0a2c4f (v6.16): a faulted VMA never
    merged into an unfaulted one.  Nothing breaks; the VMA count tells.
    """

    name = "zoo/Z09"
    parent: ClassVar[str | None] = "v7.0"
    commits: ClassVar[tuple[str, ...]] = ("965f55dea0e3", "879bca0a2c4f")
    release = "v3.0"
    summary = "merges refused for fourteen years"

    def is_mergeable_anon_vma(self, vmg: VmaMerge, target: Vma) -> bool:
        """Equal anon_vmas, or one side unfaulted and the target's chain singular."""
        if (target.anon_vma is None or vmg.anon_vma is None) and len(target.anon_vma_chain) == 1:
            return True
        return target.anon_vma is vmg.anon_vma


class Z10(V4_0):
    """A merge clones into an unfaulted VMA before it sets the VMA's pointer: clone takes it for a fork.

    It may reuse an anon_vma that then nobody uses, and does not count the
    VMA in any case.  From 7a3ef208e662 to b800c91a0517, both v3.19-rc.
    """

    name = "zoo/Z10"
    parent: ClassVar[str | None] = "v4.0"
    commits: ClassVar[tuple[str, ...]] = ("7a3ef208e662", "b800c91a0517")
    release = "v3.19-rc3"
    summary = "a VMA that imports an anon_vma is not counted"

    def dup_anon_vma(self, dst: Vma, src: Vma) -> int:
        """Clone first, then set the pointer."""
        if src.anon_vma is None or dst.anon_vma is not None:
            return 0
        rc = self.anon_vma_clone(dst, src, Operation.MERGE_UNFAULTED)
        if rc == 0:
            dst.anon_vma = src.anon_vma
        return rc


class Z20(V2_6_34):
    """A first fault adopts a neighbour's anon_vma whatever the length of the neighbour's chain, by one AVC.

    2.6.34-rc, until d0e9fe1758f2.
    """

    name = "zoo/Z20"
    parent: ClassVar[str | None] = "v2.6.34"
    commits: ClassVar[tuple[str, ...]] = ("5beb49305251", "d0e9fe1758f2")
    release = "v2.6.34-rc"
    summary = "a fork child lends its anon_vma and keeps the chain"

    def reusable_anon_vma(self, old: Vma, lower: Vma, upper: Vma) -> AnonVma | None:
        """Any neighbour's will do."""
        return old.anon_vma if self.anon_vma_compatible(lower, upper) else None


class Z21b(V2_6_34):
    """Clone walks head to tail and puts each AVC at the head: the copy is the mirror image.

    2.6.34-rc, until 646d87b481da: the last of a chain was taken for the
    oldest.  bfc2b13b05a1 mirrors again, when nothing goes by that any more.
    """

    name = "zoo/Z21b"
    parent: ClassVar[str | None] = "v2.6.34"
    commits: ClassVar[tuple[str, ...]] = ("646d87b481da",)
    release = "v2.6.34-rc"
    summary = "chains cloned in the wrong order"

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """As in v2.6.34, but for the direction."""
        for pavc in src.anon_vma_chain:
            avc = self.anon_vma_chain_alloc(GFP_KERNEL)
            if avc is None:
                self.unlink_anon_vmas(dst)
                return -ENOMEM
            self.anon_vma_chain_link(dst, avc, pavc.anon_vma)
        return 0
