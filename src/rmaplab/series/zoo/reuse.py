# SPDX-License-Identifier: GPL-2.0-only
"""Bugs in whose anon_vma a forked VMA gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.series.v4_0 import V4_0
from rmaplab.series.v5_5 import V5_5

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Vma
    from rmaplab.kernel.rmap import Operation

__all__ = ["Z22", "Z23", "Z25"]


class Z22(V4_0):
    """Every fork adds an anon_vma, though ancestors' stand empty in the chain.

    From 5beb49305251 (v2.6.34) to 7a3ef208e662 (v3.19): a line of daemons
    that fork and exit grows for ever.
    """

    name = "zoo/Z22"
    parent: ClassVar[str | None] = "v4.0"
    commits: ClassVar[tuple[str, ...]] = ("5beb49305251", "7a3ef208e662")
    release = "v2.6.34"
    summary = "endless growth of chains"

    def try_reuse_anon_vma(self, dst: Vma, src: Vma, anon_vma: AnonVma) -> None:
        """Never."""


class Z23(V5_5):
    """CVE-2022-42703: one counter for VMAs and children, and reuse below 2.

    An anon_vma that was left by a reuse has no child edge for its user; with
    one VMA and no child it looks like one child and no VMA, and a second
    process adopts it.  Then equal anon_vmas no longer mean equal chains,
    which merges rely on.  From 7a3ef208e662 (v3.19) to 2555283eb40d (v6.0).
    """

    name = "zoo/Z23"
    parent: ClassVar[str | None] = "v6.0"
    commits: ClassVar[tuple[str, ...]] = ("7a3ef208e662", "2555283eb40d")
    release = "v3.19"
    summary = "double reuse of an anon_vma"


class Z25(V5_5):
    """A forked VMA takes its previous VMA's anon_vma, if the parent's two share one; but "previous" is the parent's.

    dup_mmap has not linked the copy yet: its neighbour pointers are copies,
    too.  4e4a9eb92133 (v5.5), later reverted.
    """

    name = "zoo/Z25"
    parent: ClassVar[str | None] = "v5.5"
    commits: ClassVar[tuple[str, ...]] = ("4e4a9eb92133",)
    release = "v5.5"
    summary = "a child's VMA owns its parent's anon_vma"

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """Keep the sharing of the parent's VMA with the one before it."""
        if dst.anon_vma is None and src.anon_vma is not None:
            vmas = src.vm_mm.vmas
            at = vmas.index(src)
            if at > 0 and vmas[at - 1].anon_vma is src.anon_vma:
                dst.anon_vma = vmas[at - 1].anon_vma
        return super().anon_vma_clone(dst, src, operation)
