# SPDX-License-Identifier: GPL-2.0-only
"""Models that get one thing of the reverse map wrong, as suggests itself; to be mixed into a series."""

from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import VM_ACCOUNT, VM_DONTCOPY, VM_LOCKED, VM_WIPEONFORK, VM_WRITE
from rmaplab.kernel.rmap import Operation

# --- clone, fork, reuse -----------------------------------------------------------------------------------


class OldestFirst:
    """A cloned chain has its source's order, as before v7.0, so the oldest idle anon_vma is reused."""

    def anon_vma_clone(self, dst, src, operation):
        src.anon_vma_chain.reverse()
        rc = super().anon_vma_clone(dst, src, operation)
        src.anon_vma_chain.reverse()
        return rc


class RootDoesNotCountItself:
    def maybe_reuse_anon_vma(self, dst, anon_vma):
        own = anon_vma.root is anon_vma
        anon_vma.num_children -= own
        super().maybe_reuse_anon_vma(dst, anon_vma)
        anon_vma.num_children += own


class ReuseAsksForNoOwner:
    """Few children are enough to be reused."""

    def maybe_reuse_anon_vma(self, dst, anon_vma):
        owners, anon_vma.num_active_vmas = anon_vma.num_active_vmas, 0
        super().maybe_reuse_anon_vma(dst, anon_vma)
        anon_vma.num_active_vmas += owners


class ReuseGivesANewParent:
    def anon_vma_fork(self, vma, pvma):
        rc = super().anon_vma_fork(vma, pvma)
        if rc == 0 and vma.anon_vma is not None:
            vma.anon_vma.parent = pvma.anon_vma
        return rc


class SiblingsStayTogether:
    """What shares an anon_vma in the parent does so in the child."""

    def anon_vma_fork(self, vma, pvma):
        vmas = pvma.vm_mm.vmas
        at = vmas.index(pvma)
        if at == 0 or vmas[at - 1].anon_vma is not pvma.anon_vma:
            return super().anon_vma_fork(vma, pvma)
        vma.anon_vma = vma.vm_mm.vmas[-1].anon_vma
        return self.anon_vma_clone(vma, vma.vm_mm.vmas[-1], Operation.SPLIT)


class CopiesReuse:
    """A split is a fork within one process."""

    def anon_vma_clone(self, dst, src, operation):
        active = dst.anon_vma
        if operation is Operation.FORK:
            return super().anon_vma_clone(dst, src, operation)
        dst.anon_vma = None
        rc = super().anon_vma_clone(dst, src, Operation.FORK)
        if rc == 0 and dst.anon_vma is None:
            dst.anon_vma = active
            self.add_active_vmas(active, 1)
        return rc


class CopiesCountTwice:
    """The walk counts the new owner when it meets the anon_vma, and the end of the walk does so again."""

    def anon_vma_clone(self, dst, src, operation):
        rc = super().anon_vma_clone(dst, src, operation)
        if rc == 0 and operation is not Operation.FORK:
            self.add_active_vmas(dst.anon_vma, 1)
        return rc


class CopiesDoNotCount:
    def anon_vma_clone(self, dst, src, operation):
        rc = super().anon_vma_clone(dst, src, operation)
        if rc == 0 and operation is not Operation.FORK:
            self.add_active_vmas(dst.anon_vma, -1)
        return rc


class ForkByAge:
    """fork copies the oldest mapping first."""

    def dup_mmap(self, mm, oldmm):
        oldmm.vmas.sort(key=lambda vma: vma.id)
        rc = super().dup_mmap(mm, oldmm)
        for vmas in (mm.vmas, oldmm.vmas):
            vmas.sort(key=lambda vma: vma.vm_start)
        return rc


class ForkMirrorsTheParent:
    def anon_vma_fork(self, vma, pvma):
        rc = super().anon_vma_fork(vma, pvma)
        pvma.anon_vma_chain.reverse()
        return rc


class ParentsDoNotMerge:
    """Whoever has forked is treated like who was forked."""

    def vma_is_fork_child(self, vma):
        forked = vma is not None and vma.anon_vma is not None and vma.anon_vma.num_children > 1
        return forked or super().vma_is_fork_child(vma)


class WipeOnForkKeepsTheLinks:
    """Only the pages are wiped."""

    def dup_vma(self, mm, mpnt):
        flags = mpnt.vm_flags
        mpnt.vm_flags &= ~VM_WIPEONFORK
        rc = super().dup_vma(mm, mpnt)
        mpnt.vm_flags = flags
        if flags & VM_WIPEONFORK:
            self.zap_page_range(mm.vmas[-1], mpnt.vm_start, mpnt.vm_end)
        return rc


class DontForkIsIgnored:
    def dup_mmap(self, mm, oldmm):
        for vma in oldmm.vmas:
            vma.vm_flags &= ~VM_DONTCOPY
        return super().dup_mmap(mm, oldmm)


class PinnedPagesAreShared:
    def folio_needs_cow_for_dma(self, vma, folio):
        return False


class PagesAreCopiedFirst:
    """fork attaches the child's VMA when its pages are there."""

    def dup_vma(self, mm, mpnt):
        vma = self.vm_area_dup(mpnt)
        vma.vm_mm, vma.anon_vma = mm, None
        mm.vmas.append(vma)
        return self.copy_page_range(vma, mpnt) or self.anon_vma_fork(vma, mpnt)


# --- neighbours, merges, trees ------------------------------------------------------------------------------


class ForkChildrenLend:
    def reusable_anon_vma(self, old, lower, upper):
        return old.anon_vma if self.anon_vma_compatible(lower, upper) else None


class ForkChildrenMerge:
    def vma_is_fork_child(self, vma):
        return False


class MergesAsIn616:
    is_mergeable_anon_vma = Kernel.is_mergeable_anon_vma


class UnlinksBeforeTheMerge:
    def commit_merge(self, vmg, target, exporter, start, end, removed=()):
        for vma in removed:
            self.unlink_anon_vmas(vma)
        return super().commit_merge(vmg, target, exporter, start, end, removed)


class RangesChangeInTheTree:
    """Nothing is taken out of a tree and put back."""

    def vma_prepare(self, *vmas):
        return None


class PlacesInATreeAreKept:
    """Who was in the tree first is visited first."""

    def anon_vma_interval_tree_insert(self, avc, anon_vma):
        super().anon_vma_interval_tree_insert(avc, anon_vma)
        keys = anon_vma.rb_root.keys
        in_order = sorted(keys.items(), key=lambda item: item[0].id)
        keys.clear()
        keys.update(in_order)


class DontUnmapKeepsTheLinks:
    def dontunmap_complete(self, vrm, vma, new):
        vma.vm_flags &= ~VM_LOCKED


class DontUnmapAlwaysUnlinks:
    def dontunmap_complete(self, vrm, vma, new):
        self.unlink_anon_vmas(vma)


class AccountFollowsTheRights:
    """VM_ACCOUNT is a matter of VM_WRITE alone."""

    def mprotect_fixup(self, vma, start, end, flags):
        if not flags & VM_WRITE:
            vma.vm_flags &= ~VM_ACCOUNT
            flags &= ~VM_ACCOUNT
        return super().mprotect_fixup(vma, start, end, flags)


# --- pages ----------------------------------------------------------------------------------------------------


class PagesHoldTheirAnonVma:
    def folio_set_anon(self, folio, vma, address, exclusive):
        super().folio_set_anon(folio, vma, address, exclusive)
        self.get_anon_vma(folio.mapping)


class UnlinksBeforeTheZap:
    def unmap_vmas(self, mm, vmas):
        for vma in vmas:
            self.unlink_anon_vmas(vma)
        super().unmap_vmas(mm, vmas)


class SwappedPagesAreNew:
    """What comes back from swap is this process's own, like any new page."""

    def anon_vma_for_new(self, anon_vma, exclusive):
        return anon_vma


class SwapCacheHitsAreRenamed:
    def folio_add_anon_rmap_pte(self, folio, vma, address, page, exclusive):
        super().folio_add_anon_rmap_pte(folio, vma, address, page, exclusive)
        folio.mapping = self.anon_vma_for_new(vma.anon_vma, exclusive)


class LargeFoliosMoveToo:
    def wp_can_reuse_large_anon_folio(self, folio, vma):
        reuse = super().wp_can_reuse_large_anon_folio(folio, vma)
        if reuse:
            self.folio_move_anon_rmap(folio, vma)
        return reuse


class PagesMoveDownOnly:
    """The last mapper's anon_vma is below the one that a page names, or the page stays."""

    def folio_move_anon_rmap(self, folio, vma):
        above = vma.anon_vma
        while above is not folio.mapping and above.parent is not above:
            above = above.parent
        if above is folio.mapping:
            super().folio_move_anon_rmap(folio, vma)


class ReadsAttach:
    def do_pte_missing(self, vma, address, write):
        return self.anon_vma_prepare(vma) or super().do_pte_missing(vma, address, write)


class PagesAttach:
    """A VMA has an anon_vma from its first anonymous page on."""

    def anon_vma_prepare(self, vma):
        return 0

    def folio_set_anon(self, folio, vma, address, exclusive):
        super().anon_vma_prepare(vma)
        super().folio_set_anon(folio, vma, address, exclusive)


# --- lifetime ---------------------------------------------------------------------------------------------------


class KsmHoldsNothing:
    def stable_tree_append(self, node, vma, address):
        super().stable_tree_append(node, vma, address)
        vma.anon_vma.refcount -= 1

    def ksm_put_anon_vma(self, anon_vma):
        pass


class FreedCountsAreInherited:
    """An object of the slab comes back as it was freed, and what is meant to be 0 is left alone."""

    freed = None

    def anon_vma_free(self, anon_vma):
        super().anon_vma_free(anon_vma)
        self.freed = anon_vma

    def anon_vma_alloc(self):
        anon_vma = super().anon_vma_alloc()
        if anon_vma is not None and self.freed is not None:
            anon_vma.num_children = self.freed.num_children
            anon_vma.num_active_vmas = self.freed.num_active_vmas
        return anon_vma


class FreesInsideTheLock:
    def put_emptied_anon_vmas(self, vma):
        if vma.anon_vma_chain:
            emptied = vma.anon_vma_chain[0].anon_vma
            self.anon_vma_lock_write(emptied)
            super().put_emptied_anon_vmas(vma)
            self.anon_vma_unlock_write(emptied)
