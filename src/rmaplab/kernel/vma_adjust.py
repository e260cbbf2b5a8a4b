# SPDX-License-Identifier: GPL-2.0-only
"""VMAs as objects, and the change of their ranges: allocate, link, split, shrink (mm/vma.c, v7.0).

A VMA's range is the key of its AVCs in the interval trees, so it changes only
between :meth:`VmaAdjust.vma_prepare` and :meth:`VmaAdjust.vma_complete`, which
take the AVCs out and put them back under the root's lock.  Whatever can fail
comes before: a VMA, nodes of the maple tree, AVCs.
"""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.kernel.objects import Mm, Vma
from rmaplab.kernel.rmap import Operation
from rmaplab.kernel.walk import RmapWalk

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma

__all__ = ["VmaAdjust"]


class VmaAdjust(RmapWalk):
    """What every call that changes VMAs is made of."""

    # --- objects ---------------------------------------------------------------------------

    def vm_area_alloc(
        self, mm: Mm, start: int, end: int, pgoff: int, flags: int, file: str | None = None
    ) -> Vma | None:
        """A detached VMA with no reverse map; None if out of memory."""
        if not self.slab.reserve("vma"):
            return None
        return Vma(self.new_ident(Vma), mm, start, end, pgoff, flags, file)

    def vm_area_dup(self, orig: Vma) -> Vma | None:
        """A detached copy: the anon_vma pointer is copied, the list starts empty; None if out of memory."""
        vma = self.vm_area_alloc(orig.vm_mm, orig.vm_start, orig.vm_end, orig.vm_pgoff, orig.vm_flags, orig.file)
        if vma is not None:
            vma.anon_vma = orig.anon_vma
            vma.anon_pgoff = orig.anon_pgoff
        return vma

    def vm_area_free(self, vma: Vma) -> None:
        """Free a VMA."""
        vma.freed = True

    # --- the maple tree --------------------------------------------------------------------

    def vma_iter_prealloc(self) -> int:
        """Set aside the nodes that the next change of the mm's tree may need; 0 or -ENOMEM."""
        return 0 if self.slab.reserve("tree") else -ENOMEM

    def vma_iter_store(self, vma: Vma) -> None:
        """Store a VMA in its mm, in address order; the nodes are there already."""
        vma.vm_mm.vmas.insert(vma.vm_mm.find(vma.vm_start), vma)
        vma.attached = True

    def vma_link(self, vma: Vma) -> int:
        """Make room for a VMA in its mm and store it; 0 or -ENOMEM."""
        if self.vma_iter_prealloc() != 0:
            return -ENOMEM
        self.vma_iter_store(vma)
        return 0

    def vma_unlink(self, vma: Vma) -> None:
        """Take a VMA out of its mm."""
        vma.vm_mm.vmas.remove(vma)
        vma.attached = False

    # --- adjusting -------------------------------------------------------------------------

    def vma_set_range(self, vma: Vma, start: int, end: int, pgoff: int) -> None:
        """Give a VMA another range (bytes) and page offset; none of its AVCs is in a tree now."""
        vma.anon_pgoff += pgoff - vma.vm_pgoff
        vma.vm_start, vma.vm_end, vma.vm_pgoff = start, end, pgoff

    def vma_prepare(self, *vmas: Vma) -> AnonVma | None:
        """Lock and take the VMAs' AVCs out of their trees; returns the lock for :meth:`vma_complete`."""
        anon_vma = next((vma.anon_vma for vma in vmas if vma.anon_vma is not None), None)
        if anon_vma is not None:
            self.anon_vma_lock_write(anon_vma)
            for vma in vmas:
                for avc in vma.anon_vma_chain:
                    self.anon_vma_interval_tree_remove(avc, avc.anon_vma)
        return anon_vma

    def vma_complete(self, anon_vma: AnonVma | None, *vmas: Vma, removed: tuple[Vma, ...] = ()) -> None:
        """Put the AVCs back behind their equals and unlock; only then unlink and free removed VMAs."""
        if anon_vma is not None:
            for vma in vmas:
                for avc in vma.anon_vma_chain:
                    self.anon_vma_interval_tree_insert(avc, avc.anon_vma)
            self.anon_vma_unlock_write(anon_vma)
        for vma in removed:
            self.unlink_removed_vma(vmas[0], vma)
            self.vm_area_free(vma)

    def unlink_removed_vma(self, survivor: Vma, removed: Vma) -> None:
        """Drop the links of a VMA that ``survivor`` absorbed; the survivor has the same ones."""
        if removed.anon_vma is not None:
            self.unlink_anon_vmas(removed)

    def vma_adjust_trans_huge(self, vma: Vma, start: int, end: int) -> None:
        """Split the huge entries that a VMA's new range [start, end) cuts; the layer of huge entries has more."""

    # --- split, shrink ---------------------------------------------------------------------

    def split_vma(self, vma: Vma, address: int, new_below: bool) -> int:
        """Cut a VMA at ``address`` (bytes); the new VMA is the part below or above it; 0 or -ENOMEM.

        From the clone on nothing can fail.  Until the old VMA is cut both
        are in the trees and overlap: a walk may visit a page twice.
        """
        new = self.vm_area_dup(vma)
        if new is None:
            return -ENOMEM
        if new_below:
            new.vm_end = address
        else:
            pages = (address - vma.vm_start) >> PAGE_SHIFT
            self.vma_set_range(new, address, vma.vm_end, vma.vm_pgoff + pages)
        if self.vma_iter_prealloc() != 0 or self.anon_vma_clone(new, vma, Operation.SPLIT) != 0:
            self.vm_area_free(new)
            return -ENOMEM

        locked = self.vma_prepare(vma)
        self.vma_adjust_trans_huge(vma, vma.vm_start, address)
        if new_below:
            pgoff = vma.vm_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT)
            self.vma_set_range(vma, address, vma.vm_end, pgoff)
        else:
            self.vma_set_range(vma, vma.vm_start, address, vma.vm_pgoff)
        self.vma_iter_store(new)
        self.vma_complete(locked, vma)
        return 0

    def vma_shrink(self, vma: Vma, start: int, end: int, pgoff: int) -> int:
        """Reduce a VMA to [start, end) without unmapping anything (exec's stack); 0 or -ENOMEM."""
        if self.vma_iter_prealloc() != 0:
            return -ENOMEM
        locked = self.vma_prepare(vma)
        self.vma_adjust_trans_huge(vma, start, end)
        self.vma_set_range(vma, start, end, pgoff)
        self.vma_complete(locked, vma)
        return 0
