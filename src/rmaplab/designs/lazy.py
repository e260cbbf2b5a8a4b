# SPDX-License-Identifier: GPL-2.0-only
"""Anon_vmas made when a second VMA needs them (ANON_VMA_LAZY, wangtao, 15 patches of May 2026 on linux-mm).

Most VMAs are never forked, but each takes an anon_vma and an AVC at its first
page.  Here a page names its VMA, nothing is allocated and a walk visits that
one VMA without a lock, until another VMA has to be found from the same page:

    folio --mapping--> VMA                      as long as it is alone
    folio --mapping--> VMA --> anon_vma <--AVC--> VMAs    from then on

fork gives the parent's VMA an anon_vma; the child's is linked to it and to
those above, and has none of its own until it forks in turn.

The description (the cover and patches 5 and 10) says that much.  Decided
here, and open in the proposal:

- A split, mremap to another place and an unfaulted neighbour that absorbs the
  VMA give it an anon_vma, as fork does: its pages then are in two VMAs.
  :mod:`rmaplab.designs.lazy_repoint` does otherwise at a split.
- Neighbours do not share what neither has, so they do not merge later either.
- A page outlives its VMA's place in the address space (swap cache, KSM), so
  somebody has to keep the VMA or what it stands for.  Here it is kept, and not
  counted.

An anon_vma that is not allocated is an :class:`AnonVma` *embedded* in its VMA.
"""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel import Kernel
from rmaplab.kernel.rmap import Operation
from rmaplab.kernel.slab import GFP_KERNEL

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, AnonVmaChain, Vma

__all__ = ["Lazy"]


class Lazy(Kernel):
    """An anon_vma is allocated by fork, split and moving mremap, not by the first page."""

    name: ClassVar[str] = "lazy"
    parent: ClassVar[str | None] = "v7.0"
    commits: ClassVar[tuple[str, ...]] = ()
    release: ClassVar[str] = ""
    summary: ClassVar[str] = "deferred anon_vmas: a page names its VMA until a second VMA may map it"

    # --- embedded or allocated -------------------------------------------------------

    def _embed(self, vma: Vma, parent: AnonVma | None) -> None:
        """Let new pages of a VMA name the VMA itself, below the anon_vma of the VMA it was forked from."""
        anon_vma = self.slab.embed(self.slab.anon_vma)
        avc = self.slab.embed(self.slab.anon_vma_chain)
        anon_vma.refcount = 1
        anon_vma.parent = anon_vma if parent is None else parent
        if parent is not None:
            anon_vma.root = parent.root
            self.get_anon_vma(anon_vma.root)
            self.anon_vma_lock_write(parent)
        vma.anon_vma = anon_vma
        self.add_active_vmas(anon_vma, 1)
        self.add_children(anon_vma.parent, 1)
        self.anon_vma_chain_assign(vma, avc, anon_vma)
        self.anon_vma_interval_tree_insert(avc, anon_vma)
        if parent is not None:
            self.anon_vma_unlock_write(parent)

    def _allocate_embedded(self, vma: Vma) -> int:
        """Give a VMA that has to be shared with another an anon_vma and an AVC; 0 or -ENOMEM."""
        anon_vma = vma.anon_vma
        if anon_vma is None or not anon_vma.embedded:
            return 0
        avc = next(avc for avc in vma.anon_vma_chain if avc.anon_vma is anon_vma)
        # A first attempt may have failed half way.
        if avc.embedded and not self.slab.detach(self.slab.anon_vma_chain, avc, GFP_KERNEL):
            return -ENOMEM
        return 0 if self.slab.detach(self.slab.anon_vma, anon_vma, GFP_KERNEL) else -ENOMEM

    # --- calls -----------------------------------------------------------------------------

    def anon_vma_prepare(self, vma: Vma) -> int:
        """The first page takes no memory but its own."""
        if vma.anon_vma is None:
            self._embed(vma, None)
        return 0

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """Two VMAs may map the source's pages from now on."""
        rc = self._allocate_embedded(src)
        if rc == 0:
            return super().anon_vma_clone(dst, src, operation)
        dst.anon_vma = None
        return rc

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> int:
        """Nothing is allocated for the child but its links to the parent's anon_vmas."""
        if pvma.anon_vma is None:
            return 0
        vma.anon_vma = None
        rc = self.anon_vma_clone(vma, pvma, Operation.FORK)
        if rc == 0 and vma.anon_vma is None:
            self._embed(vma, pvma.anon_vma)
        return rc

    # --- trees and locks: what is embedded is its VMA's alone --------------------------------

    def _is_alone(self, anon_vma: AnonVma) -> bool:
        """Whether no other VMA, hence no lock, has to do with the anon_vma."""
        return anon_vma.embedded and anon_vma.root is anon_vma

    def anon_vma_lock_write(self, anon_vma: AnonVma) -> None:
        """Its VMA's lock guards what is embedded."""
        if not self._is_alone(anon_vma):
            super().anon_vma_lock_write(anon_vma)

    def anon_vma_unlock_write(self, anon_vma: AnonVma) -> None:
        """Nothing was taken for what is embedded."""
        if not self._is_alone(anon_vma):
            super().anon_vma_unlock_write(anon_vma)

    def anon_vma_lock_read(self, anon_vma: AnonVma) -> None:
        """A walk of one VMA goes without."""
        if not anon_vma.embedded:
            super().anon_vma_lock_read(anon_vma)

    def anon_vma_unlock_read(self, anon_vma: AnonVma) -> None:
        """Nothing was taken for what is embedded."""
        if not anon_vma.embedded:
            super().anon_vma_unlock_read(anon_vma)

    def anon_vma_interval_tree_insert(self, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """An embedded anon_vma has no tree to lock, only its VMA."""
        if not anon_vma.embedded:
            super().anon_vma_interval_tree_insert(avc, anon_vma)
            return
        anon_vma.rb_root.insert(avc)
        avc.linked = anon_vma.linked = True

    def anon_vma_interval_tree_remove(self, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """An embedded anon_vma has no tree to lock, only its VMA."""
        if anon_vma.embedded:
            anon_vma.rb_root.remove(avc)
        else:
            super().anon_vma_interval_tree_remove(avc, anon_vma)
