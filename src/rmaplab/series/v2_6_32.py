# SPDX-License-Identifier: GPL-2.0-only
"""v2.6.32: one anon_vma for a whole family of VMAs."""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.locking import PAGE_TABLE_LOCK
from rmaplab.kernel.objects import AnonVmaChain
from rmaplab.series.v2_6_34 import V2_6_34

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Vma
    from rmaplab.kernel.rmap import Operation

__all__ = ["V2_6_32"]


class V2_6_32(V2_6_34):  # noqa: N801
    """The design of 2004: a VMA is on the list of one anon_vma, and so are its copies in all descendants.

    The list node is a part of the VMA: here an AVC that no slab knows, so
    linking takes no memory.  A walk of any page scans every relative, however
    few may have it.
    """

    name = "v2.6.32"
    parent: ClassVar[str | None] = None
    commits: ClassVar[tuple[str, ...]] = ()
    release = "v2.6.32"
    summary = "a single list: forked VMAs join their parent's anon_vma"
    has_chains = False

    def anon_vma_prepare(self, vma: Vma) -> int:
        """A neighbour's anon_vma, or a new one: the only thing that can fail."""
        if vma.anon_vma is not None:
            return 0
        anon_vma = self.find_mergeable_anon_vma(vma) or self.anon_vma_alloc()
        if anon_vma is None:
            return -ENOMEM
        self.anon_vma_lock_write(anon_vma)
        self.locks.acquire(PAGE_TABLE_LOCK, vma.vm_mm)
        self.publish_anon_vma(vma, anon_vma)
        self.anon_vma_insert(vma, anon_vma)
        self.locks.release(PAGE_TABLE_LOCK, vma.vm_mm)
        self.anon_vma_unlock_write(anon_vma)
        return 0

    def anon_vma_insert(self, vma: Vma, anon_vma: AnonVma) -> None:
        """Put a VMA's own node at the tail of the list (list_add_tail of anon_vma_node)."""
        node = AnonVmaChain(vma.id)
        self.anon_vma_chain_assign(vma, node, anon_vma)
        self.anon_vma_interval_tree_insert(node, anon_vma)

    def anon_vma_link(self, vma: Vma) -> None:
        """Let a copy of a VMA join the list it has inherited."""
        if vma.anon_vma is not None:
            self.anon_vma_lock_write(vma.anon_vma)
            self.anon_vma_insert(vma, vma.anon_vma)
            self.anon_vma_unlock_write(vma.anon_vma)

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """A split or a merge has set ``dst.anon_vma``; there is nothing else to copy, and nothing can fail."""
        self.anon_vma_link(dst)
        return 0

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> int:
        """The child's VMA joins its parent's list."""
        self.anon_vma_link(vma)
        return 0

    def anon_vma_chain_free(self, avc: AnonVmaChain) -> None:
        """The node goes with its VMA."""
