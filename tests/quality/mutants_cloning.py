# SPDX-License-Identifier: GPL-2.0-only
"""Series with one plausible mistake in clone, merge, reuse, faults or pages."""

from mutant_scenarios import ALONE, FAILED_FORK, GRANDCHILD, LIFE, NEIGHBOURS, PAIR, STRANGERS, registering

from rmaplab.kernel import Kernel
from rmaplab.kernel.locking import Lock
from rmaplab.kernel.rmap import Operation
from rmaplab.series import SERIES

MUTANTS = {}
reports = registering(MUTANTS)


@reports("AV-030", "AV-042", on="P0 mmap A 1\nP0 write A\nP0 fork P1\nP1 write A")
class TakesASharedPageForItsOwn(Kernel):
    def wp_can_reuse_anon_folio(self, folio, vma, page):
        folio.mapcount -= 1
        reused = super().wp_can_reuse_anon_folio(folio, vma, page)
        folio.mapcount += 1
        return reused


class CopiesFewerLinks(Kernel):
    """A clone that leaves out the links chosen by ``left_out``."""

    def anon_vma_clone(self, dst, src, operation):
        chain = src.anon_vma_chain
        src.anon_vma_chain = [avc for avc in chain if not self.left_out(avc, src)]
        rc = super().anon_vma_clone(dst, src, operation)
        src.anon_vma_chain = chain
        return rc


@reports("AV-006", "AV-030", "AV-034", on=GRANDCHILD)
class CopiesAllLinksButTheLast(CopiesFewerLinks):
    def left_out(self, avc, src):
        return avc is src.anon_vma_chain[-1]


@reports("AV-007", "AV-006", on=GRANDCHILD)
class CopiesNoLinks(CopiesFewerLinks):
    def left_out(self, avc, src):
        return True


@reports("AV-006", on=GRANDCHILD)
class CopiesNoLinkToTheParentsOwn(CopiesFewerLinks):
    def left_out(self, avc, src):
        return avc.anon_vma is src.anon_vma and avc.anon_vma is not avc.anon_vma.root


@reports("AV-008", on="P0 mmap A 2\nP0 write A\nP0 fork P1\nP1 mprotect A[0] r")
class SplitCopiesOnlyTheOwnLink(CopiesFewerLinks):
    def left_out(self, avc, src):
        return len(src.anon_vma_chain) > 1 and avc.anon_vma is src.anon_vma.root


@reports("AV-002", "AV-034", on=GRANDCHILD)
class WalksTheParentsListTwice(Kernel):
    def anon_vma_clone(self, dst, src, operation):
        chain = src.anon_vma_chain
        src.anon_vma_chain = chain * 2
        rc = super().anon_vma_clone(dst, src, operation)
        src.anon_vma_chain = chain
        return rc


@reports("AV-032", on=NEIGHBOURS)
class MergesWhatWasInherited(Kernel):
    def vma_is_fork_child(self, vma):
        return False


@reports("AV-032", on=STRANGERS)
class MergesDifferentAnonVmas(Kernel):
    def is_mergeable_anon_vma(self, vmg, target):
        return True

    def can_vma_merge_right(self, vmg, merge_left):
        return super().can_vma_merge_right(vmg, False)


@reports("AV-002", "AV-039", on=PAIR)
class DuplicatesLinksThatAreThereAlready(Kernel):
    def dup_anon_vma(self, dst, src):
        dst.anon_vma = src.anon_vma
        return 0 if src.anon_vma is None else self.anon_vma_clone(dst, src, Operation.MERGE_UNFAULTED)


@reports("AV-033", "AV-013", on=FAILED_FORK)
class KeepsTheAnonVmaOfAFailedFork(Kernel):
    def anon_vma_fork(self, vma, pvma):
        self.anon_vma_alloc()
        return super().anon_vma_fork(vma, pvma)


@reports("AV-033", "AV-001", "AV-015", on="P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1")
class UnlinksNothingWithoutAPointer(SERIES["v6.18"]):
    def unlink_anon_vmas(self, vma):
        if vma.anon_vma is not None:
            super().unlink_anon_vmas(vma)


@reports("AV-035", on=LIFE)
class NeverReuses(Kernel):
    def maybe_reuse_anon_vma(self, dst, anon_vma):
        """Not even when it could."""


@reports("AV-035", "AV-043", on=GRANDCHILD)
class ReusesWhatHasAnOwner(Kernel):
    def maybe_reuse_anon_vma(self, dst, anon_vma):
        if dst.anon_vma is None and anon_vma.num_children <= 1:
            dst.anon_vma = anon_vma
            anon_vma.num_active_vmas += 1


@reports(
    "AV-011",
    on="P0 mmap A 1\nP0 write A\nP0 fork P1\nP1 fork P2\nP2 fork P3\nP3 fork P4\nP1 exit\nP2 exit\nP4 fork P5",
)
class CountsEveryReusableAncestor(Kernel):
    def maybe_reuse_anon_vma(self, dst, anon_vma):
        if anon_vma.num_active_vmas > 0 or anon_vma.num_children > 1:
            return
        dst.anon_vma = dst.anon_vma or anon_vma
        anon_vma.num_active_vmas += 1


@reports("AV-015", "AV-040", on=LIFE)
class ForgetsTheAvcThatReuseMadeSuperfluous(Kernel):
    def anon_vma_fork(self, vma, pvma):
        free, self.anon_vma_chain_free = self.anon_vma_chain_free, lambda avc: None
        try:
            return super().anon_vma_fork(vma, pvma)
        finally:
            self.anon_vma_chain_free = free


@reports("AV-037", on=ALONE)
class ReadFaultsTakeAnAnonVma(Kernel):
    def handle_pte_fault(self, vma, address, write, *, unshare=False):
        self.anon_vma_prepare(vma)
        return super().handle_pte_fault(vma, address, write, unshare=unshare)


@reports("AV-037", "AV-013", on="P0 mmap A 1\nP0 write A\nwalk P0 A[0]")
class AWalkKeepsItsReference(Kernel):
    def rmap_walk_anon(self, folio):
        self.get_anon_vma(folio.mapping)
        return super().rmap_walk_anon(folio)


@reports("AV-038", on=ALONE)
class LocksThePageTableFirst(Kernel):
    def anon_vma_prepare(self, vma):
        self.locks.acquire(Lock.PAGE_TABLE_LOCK, vma.vm_mm)
        rc = super().anon_vma_prepare(vma)
        self.locks.release(Lock.PAGE_TABLE_LOCK, vma.vm_mm)
        return rc


@reports("AV-039", on=ALONE)
class FaultsWithoutTheMmapLock(Kernel):
    def handle_mm_fault(self, mm, address, write, *, force=False, unshare=False):
        vma = mm.lookup(address)
        return self.handle_pte_fault(vma, address, write, unshare=unshare)


@reports("AV-039", on=PAIR)
class SplitLinksTheNewVmaBeforeItsAnonVmas(Kernel):
    def anon_vma_clone(self, dst, src, operation):
        dst.attached = True
        return super().anon_vma_clone(dst, src, operation)


@reports("AV-041", on=LIFE)
class ForgetsToUncountAMapping(Kernel):
    def folio_remove_rmap_pte(self, folio, page):
        if folio.mapcount > 2:
            super().folio_remove_rmap_pte(folio, page)


@reports("AV-042", on=GRANDCHILD)
class ForkLeavesPagesExclusive(Kernel):
    def folio_try_dup_anon_rmap_pte(self, folio, page, dst, src):
        super().folio_try_dup_anon_rmap_pte(folio, page, dst, src)
        folio.exclusive = 1
        return True


@reports("AV-043", "AV-011", on=GRANDCHILD)
class TheChildKeepsItsParentsAnonVma(Kernel):
    def anon_vma_fork(self, vma, pvma):
        rc = self.anon_vma_clone(vma, pvma, Operation.FORK)
        vma.anon_vma = pvma.anon_vma
        return rc


@reports("AV-044", on=PAIR)
class SplitForgetsTheOffset(Kernel):
    def split_vma(self, vma, address, new_below):
        pgoff = vma.anon_pgoff
        rc = super().split_vma(vma, address, new_below)
        vma.anon_pgoff = pgoff
        return rc


@reports("AV-010", on=PAIR)
class MovesABoundaryWithTheLinksInPlace(Kernel):
    def vma_prepare(self, *vmas):
        anon_vma = next((vma.anon_vma for vma in vmas if vma.anon_vma is not None), None)
        if anon_vma is not None:
            self.anon_vma_lock_write(anon_vma)
        return anon_vma

    def vma_complete(self, anon_vma, *vmas, removed=()):
        if anon_vma is not None:
            self.anon_vma_unlock_write(anon_vma)
        super().vma_complete(None, *vmas, removed=removed)


@reports("AV-021", "AV-018", on=GRANDCHILD)
class FreesTheRootWithItsFirstChild(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        super().anon_vma_link_child(vma, parent, anon_vma, avc)
        self.anon_vma_free(parent.root)
