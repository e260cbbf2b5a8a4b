# SPDX-License-Identifier: GPL-2.0-only
"""The anonymous reverse map (mm/rmap.c, v7.0).

An anonymous folio names one anon_vma.  Every VMA that may map the folio is
linked to that anon_vma by an anon_vma_chain (AVC), which stands in two
places: on the VMA's list, head first, and in the anon_vma's interval tree.

    folio --mapping--> anon_vma <--AVC--> VMA

fork gives the child's VMA a link to each anon_vma of the parent's VMA, so
that pages not yet copied are found in both, and one anon_vma of its own for
the pages it copies from now on.  Only the rwsem of a tree's root is taken.

Errors are returned as negative errno values, as in the kernel.
"""

from __future__ import annotations

from enum import Enum
from errno import ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import PAGE_SHIFT, VM_ACCESS_FLAGS, VM_IGNORE_MERGE
from rmaplab.kernel.locking import ANON_VMA_LOCK, MMAP_LOCK, PAGE_TABLE_LOCK, WRITE
from rmaplab.kernel.services import Services
from rmaplab.kernel.slab import GFP_KERNEL, Gfp

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, AnonVmaChain, Vma

__all__ = ["Operation", "Rmap", "u64"]


class Operation(Enum):
    """Why a VMA's links are cloned (enum vma_operation, since d17f02417a33)."""

    SPLIT = "split"
    MERGE_UNFAULTED = "merge-unfaulted"
    REMAP = "remap"
    FORK = "fork"


def u64(value: int) -> int:
    """An unsigned long: the counters of an anon_vma wrap when they underflow."""
    return value & 0xFFFF_FFFF_FFFF_FFFF


class Rmap(Services):
    """anon_vma lifetime, and the links of a VMA from its first fault to its end."""

    # --- allocation and lifetime -------------------------------------------------

    def anon_vma_alloc(self) -> AnonVma | None:
        """An unlinked anon_vma, its own root and parent, with one reference; None if out of memory."""
        anon_vma = self.slab.alloc(self.slab.anon_vma, GFP_KERNEL)
        if anon_vma is not None:
            anon_vma.refcount = 1
        return anon_vma

    def anon_vma_free(self, anon_vma: AnonVma) -> None:
        """Give an unreferenced anon_vma back; a reader still inside its root's lock is waited for."""
        if self.locks.holds(ANON_VMA_LOCK, self.anon_vma_rwsem(anon_vma)):
            self.events.report("AV-028", f"{anon_vma} freed inside its own root's lock")
        self.slab.free(self.slab.anon_vma, anon_vma)

    def get_anon_vma(self, anon_vma: AnonVma) -> None:
        """Take a reference."""
        anon_vma.refcount += 1

    def put_anon_vma(self, anon_vma: AnonVma) -> None:
        """Drop a reference; the last frees it, and then drops its hold on the root."""
        anon_vma.refcount -= 1
        if anon_vma.refcount != 0:
            return
        root = anon_vma.root
        self.anon_vma_free(anon_vma)
        if root is not anon_vma:
            root.refcount -= 1
            if root.refcount == 0:
                self.anon_vma_free(root)

    def anon_vma_chain_alloc(self, gfp: Gfp) -> AnonVmaChain | None:
        """An AVC that links nothing yet; None if out of memory."""
        return self.slab.alloc(self.slab.anon_vma_chain, gfp)

    def anon_vma_chain_free(self, avc: AnonVmaChain) -> None:
        """Give an AVC back."""
        self.slab.free(self.slab.anon_vma_chain, avc)

    # --- links ---------------------------------------------------------------------

    def anon_vma_chain_assign(self, vma: Vma, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """Put an AVC at the head of the VMA's list; the tree is another step."""
        avc.vma = vma
        avc.anon_vma = anon_vma
        vma.anon_vma_chain.insert(0, avc)

    def anon_vma_interval_tree_insert(self, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """Make the AVC's VMA visible to walks of this anon_vma."""
        self._assert_tree_locked(anon_vma)
        anon_vma.rb_root.insert(avc)
        avc.linked = anon_vma.linked = True

    def anon_vma_interval_tree_remove(self, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """Hide the AVC's VMA from walks of this anon_vma."""
        self._assert_tree_locked(anon_vma)
        if avc not in anon_vma.rb_root:
            raise KernelBug(f"{avc} of {avc.vma} is not in the tree of {anon_vma}")
        anon_vma.rb_root.remove(avc)

    def _assert_tree_locked(self, anon_vma: AnonVma) -> None:
        self.locks.tree_operations += 1
        if not self.locks.holds(ANON_VMA_LOCK, self.anon_vma_rwsem(anon_vma), WRITE):
            self.events.report("AV-026", f"the tree of {anon_vma} changes without its root's lock")

    def anon_vma_rwsem(self, anon_vma: AnonVma) -> AnonVma:
        """Whose rwsem guards an anon_vma: its root's, one for the whole tree (012f18004da3)."""
        return anon_vma.root

    def anon_vma_lock_write(self, anon_vma: AnonVma) -> None:
        """Write-lock the whole tree that this anon_vma belongs to."""
        self.locks.acquire(ANON_VMA_LOCK, self.anon_vma_rwsem(anon_vma), WRITE)

    def anon_vma_unlock_write(self, anon_vma: AnonVma) -> None:
        """Release what :meth:`anon_vma_lock_write` took."""
        self.locks.release(ANON_VMA_LOCK, self.anon_vma_rwsem(anon_vma))

    def add_children(self, anon_vma: AnonVma, number: int) -> None:
        """Count anon_vmas whose parent this one is; a root is its own."""
        anon_vma.num_children = u64(anon_vma.num_children + number)

    def add_active_vmas(self, anon_vma: AnonVma, number: int) -> None:
        """Count VMAs that this anon_vma belongs to: new pages name it."""
        anon_vma.num_active_vmas = u64(anon_vma.num_active_vmas + number)

    # --- first fault -----------------------------------------------------------------

    def anon_vma_prepare(self, vma: Vma) -> int:
        """Give a VMA an anon_vma before its first anonymous page: a neighbour's, or a new root."""
        if vma.anon_vma is not None:
            return 0
        self.mmap_assert_locked(vma.vm_mm, "__anon_vma_prepare: mmap_lock not held")
        avc = self.anon_vma_chain_alloc(GFP_KERNEL)
        if avc is None:
            return -ENOMEM
        anon_vma = self.find_mergeable_anon_vma(vma)
        if anon_vma is None:
            anon_vma = self.anon_vma_alloc()
            if anon_vma is None:
                self.anon_vma_chain_free(avc)
                return -ENOMEM
            self.add_children(anon_vma, 1)  # a root is its own parent

        self.anon_vma_lock_write(anon_vma)
        self.locks.acquire(PAGE_TABLE_LOCK, vma.vm_mm)
        # Calls run one at a time here: no other fault can have been first.
        self.publish_anon_vma(vma, anon_vma)
        self.anon_vma_chain_assign(vma, avc, anon_vma)
        self.anon_vma_interval_tree_insert(avc, anon_vma)
        self.add_active_vmas(anon_vma, 1)
        self.locks.release(PAGE_TABLE_LOCK, vma.vm_mm)
        self.anon_vma_unlock_write(anon_vma)
        return 0

    def publish_anon_vma(self, vma: Vma, anon_vma: AnonVma) -> None:
        """Show other faults the new pointer: a plain store (but see v7.3)."""
        vma.anon_vma = anon_vma

    def find_mergeable_anon_vma(self, vma: Vma) -> AnonVma | None:
        """The anon_vma of an adjacent VMA (next first) that this one might be merged with one day."""
        prev, following = vma.vm_mm.neighbours(vma.vm_start, vma.vm_end)
        anon_vma = None
        if following is not None:
            anon_vma = self.reusable_anon_vma(following, vma, following)
        if anon_vma is None and prev is not None:
            anon_vma = self.reusable_anon_vma(prev, prev, vma)
        return anon_vma

    def reusable_anon_vma(self, old: Vma, lower: Vma, upper: Vma) -> AnonVma | None:
        """The anon_vma of ``old`` if the two VMAs match and it has no other; so only roots are shared."""
        usable = len(old.anon_vma_chain) == 1 and self.anon_vma_compatible(lower, upper)
        return old.anon_vma if usable else None

    def anon_vma_compatible(self, lower: Vma, upper: Vma) -> bool:
        """Whether two touching VMAs could share an anon_vma: they may differ in access rights only."""
        return (
            lower.vm_end == upper.vm_start
            and lower.file == upper.file
            and (lower.vm_flags ^ upper.vm_flags) & ~(VM_ACCESS_FLAGS | VM_IGNORE_MERGE) == 0
            and upper.vm_pgoff == lower.vm_pgoff + ((upper.vm_start - lower.vm_start) >> PAGE_SHIFT)
        )

    # --- clone, fork, unlink -----------------------------------------------------------

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """Link ``dst`` to every anon_vma of ``src``; 0 or -ENOMEM, then with nothing changed.

        Since bfc2b13b05a1 all AVCs are allocated first, without a lock.  The
        walk is head to tail and each AVC goes to the head, so the new list is
        the mirror image of the old one; the second pass runs it tail to head.
        """
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
            if operation is Operation.FORK:
                self.maybe_reuse_anon_vma(dst, avc.anon_vma)
        if operation is not Operation.FORK and dst.anon_vma is not None:
            self.add_active_vmas(dst.anon_vma, 1)
        self.anon_vma_unlock_write(src.anon_vma)
        return 0

    def check_anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> None:
        """What the callers of anon_vma_clone promise; debug kernels warn (542eda1a8329, d17f02417a33)."""
        self.check_anon_vma_clone_state(dst, src)
        if operation is Operation.FORK:
            return
        warn, what = self.vm_warn_on, operation.value
        warn(src.vm_mm is not dst.vm_mm, "anon_vma_clone: {} across two mms", what)
        lost = src.anon_vma is not None and dst.anon_vma is None
        warn(lost, "anon_vma_clone: {} into {} without an anon_vma", what, dst)
        if operation is Operation.MERGE_UNFAULTED:
            warn(len(src.anon_vma_chain) > 1, "anon_vma_clone: merge from fork child {}", src)
        else:
            warn(dst.attached, "anon_vma_clone: {} into attached {}", what, dst)

    def check_anon_vma_clone_state(self, dst: Vma, src: Vma) -> None:
        """The part of the promise that holds whatever the operation."""
        warn = self.vm_warn_on
        warn(not self.locks.holds(MMAP_LOCK, src.vm_mm, WRITE), "anon_vma_clone: mmap_lock not held for writing")
        if src.anon_vma is None:
            warn(src.anon_vma_chain, "anon_vma_clone: unfaulted source {} with a chain", src)
            warn(dst.anon_vma, "anon_vma_clone: unfaulted source {} for faulted {}", src, dst)
        warn(dst.anon_vma_chain, "anon_vma_clone: target {} already has a chain", dst)
        other = dst.anon_vma is not None and dst.anon_vma is not src.anon_vma
        warn(other, "anon_vma_clone: target {} has another anon_vma", dst)

    def maybe_reuse_anon_vma(self, dst: Vma, anon_vma: AnonVma) -> None:
        """Let a forked VMA adopt an ancestor's anon_vma that no VMA owns and at most one anon_vma hangs on.

        The first hit wins.  It bounds the growth of endless fork chains (7a3ef208e662).  A root
        with any child counts two, itself included, and so is never reused.
        """
        if dst.anon_vma is not None or anon_vma.num_active_vmas > 0 or anon_vma.num_children > 1:
            return
        dst.anon_vma = anon_vma
        self.add_active_vmas(anon_vma, 1)

    def cleanup_partial_anon_vmas(self, vma: Vma) -> None:
        """Undo a clone that ran out of memory: no AVC is in a tree yet, so just free them.

        The pointer has to go too, for a VMA that lives on (3a206a8649f8).
        """
        for avc in vma.anon_vma_chain:
            self.anon_vma_chain_free(avc)
        vma.anon_vma_chain.clear()
        vma.anon_vma = None

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> int:
        """Attach the child's ``vma`` to the anon_vmas of ``pvma``, and to one of its own; 0 or -ENOMEM.

        Since 91901a441fa1 the own anon_vma and its AVC are allocated ahead,
        and thrown away if an ancestor's anon_vma turns out to be reusable.
        """
        if pvma.anon_vma is None:
            return 0
        vma.anon_vma = None  # copied from the parent; the child gets another

        anon_vma = self.anon_vma_alloc()
        if anon_vma is None:
            return -ENOMEM
        avc = self.anon_vma_chain_alloc(GFP_KERNEL)
        if avc is None:
            self.put_anon_vma(anon_vma)
            return -ENOMEM

        rc = self.anon_vma_clone(vma, pvma, Operation.FORK)
        if rc != 0 or vma.anon_vma is not None:
            self.put_anon_vma(anon_vma)
            self.anon_vma_chain_free(avc)
            return rc

        self.add_active_vmas(anon_vma, 1)
        self.anon_vma_link_child(vma, pvma.anon_vma, anon_vma, avc)
        return 0

    def anon_vma_link_child(self, vma: Vma, parent: AnonVma, anon_vma: AnonVma, avc: AnonVmaChain) -> None:
        """Last part of :meth:`anon_vma_fork`: hang a private anon_vma below its parent."""
        anon_vma.root = parent.root
        anon_vma.parent = parent
        self.get_anon_vma(anon_vma.root)  # a root outlives its tree
        vma.anon_vma = anon_vma
        self.anon_vma_chain_assign(vma, avc, anon_vma)
        self.anon_vma_lock_write(anon_vma)
        self.anon_vma_interval_tree_insert(avc, anon_vma)
        self.add_children(anon_vma.parent, 1)
        self.anon_vma_unlock_write(anon_vma)

    def unlink_anon_vmas(self, vma: Vma) -> None:
        """Detach a VMA from all its anon_vmas, and free those it was the last to use."""
        self.check_unlink_anon_vmas(vma)
        active = vma.anon_vma
        if active is None:
            return
        self.anon_vma_lock_write(active)
        for avc in list(vma.anon_vma_chain):
            self.unlink_one_anon_vma(vma, avc)
        self.add_active_vmas(active, -1)
        vma.anon_vma = None
        self.anon_vma_unlock_write(active)
        self.put_emptied_anon_vmas(vma)

    def check_unlink_anon_vmas(self, vma: Vma) -> None:
        """What callers of unlink_anon_vmas promise; debug kernels warn (542eda1a8329)."""
        self.mmap_assert_locked(vma.vm_mm, "unlink_anon_vmas: mmap_lock not held")
        half_built = vma.anon_vma is None and vma.anon_vma_chain
        self.vm_warn_on(half_built, "unlink_anon_vmas: half-built {}: chain but no anon_vma", vma)

    def unlink_one_anon_vma(self, vma: Vma, avc: AnonVmaChain) -> None:
        """First pass, under the lock: leave the tree; keep the AVC of an emptied anon_vma for later."""
        anon_vma = avc.anon_vma
        self.anon_vma_interval_tree_remove(avc, anon_vma)
        if not anon_vma.rb_root.keys:
            self.add_children(anon_vma.parent, -1)
            return
        vma.anon_vma_chain.remove(avc)
        self.anon_vma_chain_free(avc)

    def put_emptied_anon_vmas(self, vma: Vma) -> None:
        """Second pass, unlocked: an anon_vma may be freed, which can sleep."""
        for avc in vma.anon_vma_chain:
            self.check_emptied_anon_vma(avc.anon_vma)
            self.put_anon_vma(avc.anon_vma)
            self.anon_vma_chain_free(avc)
        vma.anon_vma_chain.clear()

    def check_emptied_anon_vma(self, anon_vma: AnonVma) -> None:
        """Debug kernels warn of an anon_vma that nobody is linked to and somebody still counts on."""
        self.vm_warn_on(anon_vma.num_children, "unlink_anon_vmas: emptied {} has children", anon_vma)
        self.vm_warn_on(anon_vma.num_active_vmas, "unlink_anon_vmas: emptied {} has active VMAs", anon_vma)
