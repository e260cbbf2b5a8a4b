# SPDX-License-Identifier: GPL-2.0-only
"""Series with one plausible mistake in links, counters, references, the order of steps or locks."""

from errno import ENOMEM

from mutant_scenarios import ALONE, FAILED_MERGE, FAILED_SPLIT, GRANDCHILD, HEIRS, LIFE, PAIR, registering

from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.kernel.locking import Lock, Mode
from rmaplab.kernel.rmap import Operation, u64
from rmaplab.kernel.slab import Gfp
from rmaplab.series import SERIES

MUTANTS = {}
reports = registering(MUTANTS)


@reports("AV-045", on=GRANDCHILD)
class InsertsBeforeItAssigns(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        self.anon_vma_lock_write(anon_vma)
        self.anon_vma_interval_tree_insert(avc, anon_vma)
        self.anon_vma_unlock_write(anon_vma)
        super().anon_vma_link_child(vma, parent, anon_vma, avc)


@reports("AV-001", on=GRANDCHILD)
class ForgetsTheTreesOfTheChild(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        anon_vma.root, anon_vma.parent = parent.root, parent
        self.get_anon_vma(anon_vma.root)
        vma.anon_vma = anon_vma
        self.anon_vma_chain_assign(vma, avc, anon_vma)
        parent.num_children += 1


@reports("AV-001", "AV-040", on=ALONE)
class UnlinksTheListOnly(Kernel):
    def unlink_anon_vmas(self, vma):
        for avc in vma.anon_vma_chain:
            self.anon_vma_chain_free(avc)
        vma.anon_vma_chain.clear()
        vma.anon_vma = None


@reports("AV-004", "AV-034", on=GRANDCHILD)
class ForgetsTheOwnLink(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        anon_vma.root, anon_vma.parent = parent.root, parent
        self.get_anon_vma(anon_vma.root)
        vma.anon_vma = anon_vma


@reports("AV-036", on=GRANDCHILD)
class HangsEveryChildBelowTheRoot(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        super().anon_vma_link_child(vma, parent.root, anon_vma, avc)


@reports("AV-005", on=GRANDCHILD)
class TakesTheParentForTheRoot(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        super().anon_vma_link_child(vma, parent, anon_vma, avc)
        self.put_anon_vma(anon_vma.root)
        anon_vma.root = parent
        self.get_anon_vma(parent)


@reports("AV-013", "AV-018", "AV-019", "AV-021", on=HEIRS)
class TakesNoReferenceOnTheRoot(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        super().anon_vma_link_child(vma, parent, anon_vma, avc)
        anon_vma.root.refcount -= 1


@reports("AV-012", "AV-016", on=GRANDCHILD)
class ForgetsToCountTheChild(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        super().anon_vma_link_child(vma, parent, anon_vma, avc)
        parent.num_children -= 1


@reports("AV-012", on=GRANDCHILD)
class CountsEveryChildForTheRoot(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        super().anon_vma_link_child(vma, parent, anon_vma, avc)
        parent.num_children -= 1
        parent.root.num_children += 1


@reports("AV-012", "AV-016", on=ALONE)
class ARootDoesNotCountItself(Kernel):
    def anon_vma_prepare(self, vma):
        fresh = vma.anon_vma is None
        rc = super().anon_vma_prepare(vma)
        if rc == 0 and fresh:
            vma.anon_vma.num_children -= 1
        return rc


@reports("AV-012", "AV-016", on=HEIRS)
class NeverUncountsAChild(Kernel):
    def unlink_one_anon_vma(self, vma, avc):
        parent = avc.anon_vma.parent
        before = parent.num_children
        super().unlink_one_anon_vma(vma, avc)
        parent.num_children = before


@reports("AV-011", "AV-015", "AV-039", on=LIFE)
class NeverUncountsAnOwner(Kernel):
    def unlink_anon_vmas(self, vma):
        if vma.anon_vma is not None:
            vma.anon_vma.num_active_vmas += 1
        super().unlink_anon_vmas(vma)


@reports("AV-017", "AV-011", on="P0 mmap A 1\nP0 write A\nP0 fork P1\nP0 exit")
class UncountsAnOwnerTwice(Kernel):
    def unlink_anon_vmas(self, vma):
        active = vma.anon_vma
        super().unlink_anon_vmas(vma)
        if active is not None:
            active.num_active_vmas = u64(active.num_active_vmas - 1)


@reports("AV-011", on=PAIR)
class CountsAnOwnerPerLink(Kernel):
    def anon_vma_clone(self, dst, src, operation):
        rc = super().anon_vma_clone(dst, src, operation)
        if rc == 0 and operation is not Operation.FORK:
            dst.anon_vma.num_active_vmas += len(dst.anon_vma_chain)
        return rc


@reports("AV-003", "AV-004", "AV-008", "AV-011", "AV-015", on=FAILED_MERGE)
class ForgetsThePointerOfAFailedClone(Kernel):
    def cleanup_partial_anon_vmas(self, vma):
        active = vma.anon_vma
        super().cleanup_partial_anon_vmas(vma)
        vma.anon_vma = active


@reports("AV-017", "AV-033", on=FAILED_SPLIT)
class UncountsAnOwnerThatAFailedCloneNeverCounted(Kernel):
    def cleanup_partial_anon_vmas(self, vma):
        if vma.anon_vma is not None:
            vma.anon_vma.num_active_vmas = u64(vma.anon_vma.num_active_vmas - 2)
        super().cleanup_partial_anon_vmas(vma)


@reports("AV-013", "AV-040", on=LIFE)
class NeverPutsWhatItEmptied(Kernel):
    def put_emptied_anon_vmas(self, vma):
        for avc in vma.anon_vma_chain:
            self.anon_vma_chain_free(avc)
        vma.anon_vma_chain.clear()


@reports("AV-018", on=ALONE)
class PutsWhatItEmptiedTwice(Kernel):
    def put_emptied_anon_vmas(self, vma):
        emptied = [avc.anon_vma for avc in vma.anon_vma_chain]
        super().put_emptied_anon_vmas(vma)
        for anon_vma in emptied:
            self.put_anon_vma(anon_vma)


@reports("AV-018", on=HEIRS)
class LeavesAFreedAvcOnTheList(Kernel):
    def unlink_one_anon_vma(self, vma, avc):
        super().unlink_one_anon_vma(vma, avc)
        if avc.freed:
            vma.anon_vma_chain.append(avc)


@reports("AV-013", on=HEIRS)
class DropsTheRootTwice(Kernel):
    def put_anon_vma(self, anon_vma):
        super().put_anon_vma(anon_vma)
        if anon_vma.freed and anon_vma.root is not anon_vma:
            anon_vma.root.refcount -= 1


@reports("AV-020", "AV-027", on=PAIR)
class SplitTakesTheOldLinksOutBeforeItCopiesThem(Kernel):
    def split_vma(self, vma, address, new_below):
        locked = self.vma_prepare(vma)
        rc = (
            super().split_vma(vma, address, new_below)
            if locked is None
            else self.split_locked(vma, address, new_below)
        )
        self.vma_complete(locked, vma)
        return rc

    def split_locked(self, vma, address, new_below):
        new = self.vm_area_dup(vma)
        assert new_below
        new.vm_end = address
        if self.anon_vma_clone(new, vma, Operation.SPLIT) != 0:
            return -ENOMEM
        self.vma_set_range(vma, address, vma.vm_end, vma.vm_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT))
        self.vma_link(new)
        return 0


@reports("AV-022", on=GRANDCHILD)
class SharesPagesBeforeItLinks(Kernel):
    def anon_vma_fork(self, vma, pvma):
        self.copy_page_range(vma, pvma)
        return super().anon_vma_fork(vma, pvma)


@reports("AV-022", on=GRANDCHILD)
class LinksTheChildInFrontOfItsParent(Kernel):
    def anon_vma_fork(self, vma, pvma):
        rc = super().anon_vma_fork(vma, pvma)
        for avc in pvma.anon_vma_chain:
            self.anon_vma_lock_write(avc.anon_vma)
            self.anon_vma_interval_tree_remove(avc, avc.anon_vma)
            self.anon_vma_interval_tree_insert(avc, avc.anon_vma)
            self.anon_vma_unlock_write(avc.anon_vma)
        return rc


@reports("AV-023", on=ALONE)
class UnlinksBeforeItZaps(Kernel):
    def unmap_vmas(self, mm, vmas):
        """Too early."""

    def free_pgtables(self, vmas):
        super().free_pgtables(vmas)
        for vma in vmas:
            super().unmap_vmas(vma.vm_mm, [vma])


@reports("AV-024", on=GRANDCHILD)
class MirrorsChainsBeforePatch8(SERIES["v6.18+7"]):
    def anon_vma_clone(self, dst, src, operation):
        return Kernel.anon_vma_clone(self, dst, src, operation)


@reports("AV-025", on=GRANDCHILD)
class AllocatesWithGfpKernelUnderTheLock(SERIES["v6.18+7"]):
    def anon_vma_chain_alloc(self, gfp):
        return super().anon_vma_chain_alloc(Gfp.KERNEL)


@reports("AV-050", on=GRANDCHILD)
class LeavesChildrenOutOfDegree(SERIES["v5.5"]):
    def add_children(self, anon_vma, number):
        """Count VMAs alone."""


@reports("AV-051", on=PAIR)
class SplitsNothing(Kernel):
    def split_vma(self, vma, address, new_below):
        return 0


@reports("AV-026", on=ALONE)
class LocksForReading(Kernel):
    def anon_vma_lock_write(self, anon_vma):
        self.locks.acquire(Lock.ANON_VMA, anon_vma.root, Mode.READ)


@reports("AV-026", on=GRANDCHILD)
class LocksTheChildsOwnRwsem(Kernel):
    def anon_vma_lock_write(self, anon_vma):
        self.locks.acquire(Lock.ANON_VMA, anon_vma)

    def anon_vma_unlock_write(self, anon_vma):
        self.locks.release(Lock.ANON_VMA, anon_vma)


@reports("AV-027", on=GRANDCHILD)
class LocksTheRootForTheParentAndAgainForTheChild(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        self.anon_vma_lock_write(parent)
        super().anon_vma_link_child(vma, parent, anon_vma, avc)
        self.anon_vma_unlock_write(parent)


@reports("AV-028", on=ALONE)
class PutsInsideTheLock(Kernel):
    def anon_vma_unlock_write(self, anon_vma):
        """Only once the emptied ones are gone."""
        if self.locks.tree_operations % 2:
            super().anon_vma_unlock_write(anon_vma)

    def put_emptied_anon_vmas(self, vma):
        root = vma.anon_vma_chain[0].anon_vma.root
        super().put_emptied_anon_vmas(vma)
        self.locks.release(Lock.ANON_VMA, root)


@reports("AV-025", "AV-029", on=FAILED_SPLIT)
class ReturnsFromAFailedCloneWithTheLock(Kernel):
    def anon_vma_clone(self, dst, src, operation):
        if src.anon_vma is None:
            return 0
        self.anon_vma_lock_write(src.anon_vma)
        for pavc in src.anon_vma_chain:
            avc = self.anon_vma_chain_alloc(Gfp.KERNEL)
            if avc is None:
                self.cleanup_partial_anon_vmas(dst)
                return -ENOMEM
            self.anon_vma_chain_assign(dst, avc, pavc.anon_vma)
        self.anon_vma_unlock_write(src.anon_vma)
        return 0


@reports("AV-029", on=ALONE)
class UnlocksTwice(Kernel):
    def anon_vma_unlock_write(self, anon_vma):
        super().anon_vma_unlock_write(anon_vma)
        super().anon_vma_unlock_write(anon_vma)
