# SPDX-License-Identifier: GPL-2.0-only
"""Every invariant can fail: corrupted states, and series with one plausible mistake each.

A mutant is run beside the series it was made from, on the same scenario: the
mutant must be reported, its origin must not.
"""

from errno import ENOMEM

import pytest

from rmaplab.check.invariants import INVARIANTS, InvariantViolation, violations
from rmaplab.check.monitor import monitored
from rmaplab.check.run import run
from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.kernel.locking import Lock, Mode
from rmaplab.kernel.rmap import Operation, u64
from rmaplab.kernel.slab import Gfp
from rmaplab.scenario import parse
from rmaplab.series import SERIES

# --- corrupted states ------------------------------------------------------------------------------

CORRUPTIONS = {}


def corrupts(ident):
    """Register a way to break an invariant in a healthy state."""

    def register(function):
        CORRUPTIONS.setdefault(ident, []).append(function)
        return function

    return register


def healthy():
    """P0 with two trees, P1 its child with a split VMA, P2 the grandchild, and pages of all three."""
    kernel = monitored(Kernel)()
    p0 = kernel.spawn()
    a, b = p0.mmap(3), p0.mmap(1)
    p0.write(a)
    p0.write(b)
    p1 = p0.fork()
    p2 = p1.fork()
    p1.write(a, 0)
    p2.write(a, 1)
    p1.mprotect(a.part(2, 2), "r")
    return kernel, p0, p1, p2


def unlinked(avc):
    """Take an AVC off its list and out of its tree, and free it."""
    avc.vma.anon_vma_chain.remove(avc)
    avc.anon_vma.rb_root.remove(avc)


def folios(process):
    return [pte.folio for _, pte in process.mm.page_table]


def link_of(vma, anon_vma):
    return next(avc for avc in vma.anon_vma_chain if avc.anon_vma is anon_vma)


@corrupts("AV-001")
def an_avc_is_on_a_list_but_in_no_tree(kernel, p0, p1, p2):
    avc = p2.mm.vmas[0].anon_vma_chain[0]
    avc.anon_vma.rb_root.remove(avc)


@corrupts("AV-001")
def an_avc_is_in_a_tree_but_on_no_list(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma_chain.pop()


@corrupts("AV-001")
def a_freed_vma_is_left_in_a_tree(kernel, p0, p1, p2):
    p2.mm.vmas.pop().freed = True


@corrupts("AV-001")
def an_avc_is_on_another_vmas_list(kernel, p0, p1, p2):
    p1.mm.vmas[0].anon_vma_chain.append(p0.mm.vmas[0].anon_vma_chain[0])


@corrupts("AV-002")
def a_vma_is_linked_twice(kernel, p0, p1, p2):
    vma = p0.mm.vmas[0]
    avc = kernel.anon_vma_chain_alloc(Gfp.KERNEL)
    kernel.anon_vma_chain_assign(vma, avc, vma.anon_vma)
    vma.anon_vma.rb_root.insert(avc)


@corrupts("AV-003")
def a_faulted_vma_lost_its_pointer(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma = None


@corrupts("AV-003")
def an_unfaulted_vma_has_a_pointer(kernel, p0, p1, p2):
    p2.mmap(1)
    p2.mm.vmas[-1].anon_vma = p2.mm.vmas[0].anon_vma


@corrupts("AV-004")
def a_pointer_leads_to_another_tree(kernel, p0, p1, p2):
    p0.mm.vmas[0].anon_vma = p0.mm.vmas[1].anon_vma


@corrupts("AV-005")
def a_chain_has_two_roots(kernel, p0, p1, p2):
    own = p2.mm.vmas[0].anon_vma
    own.root = own


@corrupts("AV-006")
def a_link_to_an_ancestor_is_missing(kernel, p0, p1, p2):
    vma = p2.mm.vmas[0]
    unlinked(link_of(vma, vma.anon_vma.parent))


@corrupts("AV-007")
def a_child_knows_only_its_own_anon_vma(kernel, p0, p1, p2):
    vma = p1.mm.vmas[0]
    unlinked(link_of(vma, vma.anon_vma.root))


@corrupts("AV-008")
def half_of_a_split_lost_a_link(kernel, p0, p1, p2):
    vma = p1.mm.vmas[1]
    unlinked(link_of(vma, vma.anon_vma.root))


@corrupts("AV-010")
def a_vma_grew_while_it_was_in_a_tree(kernel, p0, p1, p2):
    p0.mm.vmas[0].vm_end += 1 << PAGE_SHIFT


@corrupts("AV-010")
def a_vma_changed_its_offset_while_it_was_in_a_tree(kernel, p0, p1, p2):
    p0.mm.vmas[0].vm_pgoff += 1


@corrupts("AV-011")
def an_owner_is_counted_twice(kernel, p0, p1, p2):
    p0.mm.vmas[0].anon_vma.num_active_vmas += 1


@corrupts("AV-012")
def a_child_is_not_counted(kernel, p0, p1, p2):
    p0.mm.vmas[0].anon_vma.num_children -= 1


@corrupts("AV-012")
def a_child_is_counted_for_another_parent(kernel, p0, p1, p2):
    p0.mm.vmas[0].anon_vma.num_children += 1
    p1.mm.vmas[0].anon_vma.num_children -= 1


@corrupts("AV-013")
def a_reference_leaked(kernel, p0, p1, p2):
    kernel.get_anon_vma(p1.mm.vmas[0].anon_vma)


@corrupts("AV-013")
def a_root_lacks_a_reference(kernel, p0, p1, p2):
    p0.mm.vmas[0].anon_vma.refcount -= 1


@corrupts("AV-014")
def an_emptied_anon_vma_has_an_owner(kernel, p0, p1, p2):
    kernel.anon_vma_alloc().num_active_vmas = 1


@corrupts("AV-014")
def an_emptied_anon_vma_has_a_child(kernel, p0, p1, p2):
    kernel.anon_vma_alloc().num_children = 1


@corrupts("AV-015")
def an_avc_leaked(kernel, p0, p1, p2):
    avc = kernel.anon_vma_chain_alloc(Gfp.KERNEL)
    avc.vma, avc.anon_vma = p0.mm.vmas[0], p0.mm.vmas[0].anon_vma


@corrupts("AV-015")
def the_owners_do_not_add_up(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma.num_active_vmas = 0


@corrupts("AV-016")
def the_children_do_not_add_up(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma.num_children = 1


@corrupts("AV-017")
def the_owners_went_below_zero(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma.num_active_vmas = u64(-1)


@corrupts("AV-017")
def the_children_went_below_zero(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma.num_children = u64(-1)


@corrupts("AV-018")
def an_anon_vma_is_allocated_without_reference(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma.refcount = 0


@corrupts("AV-018")
def a_vma_names_a_freed_anon_vma(kernel, p0, p1, p2):
    kernel.anon_vma_free(p2.mm.vmas[0].anon_vma)


@corrupts("AV-018")
def an_avc_is_freed_while_it_is_on_a_list(kernel, p0, p1, p2):
    kernel.anon_vma_chain_free(p2.mm.vmas[0].anon_vma_chain[0])


@corrupts("AV-018")
def an_anon_vma_is_freed_twice(kernel, p0, p1, p2):
    anon_vma = kernel.anon_vma_alloc()
    kernel.anon_vma_free(anon_vma)
    kernel.anon_vma_free(anon_vma)


@corrupts("AV-019")
def a_parent_is_freed(kernel, p0, p1, p2):
    kernel.anon_vma_free(p1.mm.vmas[0].anon_vma)


@corrupts("AV-019")
def a_root_is_freed(kernel, p0, p1, p2):
    kernel.anon_vma_free(p0.mm.vmas[0].anon_vma)


@corrupts("AV-021")
def a_mapped_folio_names_a_freed_anon_vma(kernel, p0, p1, p2):
    anon_vma = kernel.anon_vma_alloc()
    kernel.put_anon_vma(anon_vma)
    folios(p2)[1].mapping = anon_vma


@corrupts("AV-030")
def a_shared_folio_names_the_childs_anon_vma(kernel, p0, p1, p2):
    folios(p0)[2].mapping = p2.mm.vmas[0].anon_vma


@corrupts("AV-040")
def an_anon_vma_is_left_after_the_last_exit(kernel, p0, p1, p2):
    for process in (p0, p1, p2):
        process.exit()
    kernel.anon_vma_alloc()


@corrupts("AV-041")
def a_folio_counts_a_mapping_too_many(kernel, p0, p1, p2):
    folios(p0)[0].mapcount += 1


@corrupts("AV-042")
def a_shared_folio_is_called_exclusive(kernel, p0, p1, p2):
    folios(p0)[2].exclusive = True


@corrupts("AV-042")
def a_shared_folio_is_writable_in_one_process(kernel, p0, p1, p2):
    next(pte for _, pte in p0.mm.page_table if pte.folio.mapcount > 1).writable = True


@corrupts("AV-043")
def a_child_has_its_parents_anon_vma(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma = p1.mm.vmas[0].anon_vma


@corrupts("AV-044")
def a_folio_has_another_index(kernel, p0, p1, p2):
    folios(p0)[0].index += 1


@corrupts("AV-044")
def a_folio_belongs_to_another_tree(kernel, p0, p1, p2):
    folios(p0)[0].mapping = p0.mm.vmas[1].anon_vma


@corrupts("AV-044")
def a_page_is_mapped_outside_any_vma(kernel, p0, p1, p2):
    kernel.set_pte(p0.mm, 1 << PAGE_SHIFT, folios(p0)[0], False)


CASES = [
    pytest.param(ident, corrupt, id=f"{ident} {corrupt.__name__.replace('_', ' ')}")
    for ident, ways in CORRUPTIONS.items()
    for corrupt in ways
]


def test_the_state_to_be_corrupted_is_healthy_and_rich():
    kernel, p0, p1, p2 = healthy()
    assert violations(kernel) == []
    assert [len(process.mm.vmas) for process in (p0, p1, p2)] == [2, 3, 2]
    assert {folio.mapcount for folio in folios(p0)} == {2, 3}


@pytest.mark.parametrize(("ident", "corrupt"), CASES)
def test_a_corrupted_state_is_reported(ident, corrupt):
    kernel, *processes = healthy()
    corrupt(kernel, *processes)
    found = violations(kernel)
    assert ident in {report.id for report in found}
    assert all(report.detail for report in found)


def test_a_violation_is_raised_with_id_place_and_statement():
    kernel, p0, _, _ = healthy()
    kernel.check()
    p0.mm.vmas[0].anon_vma.num_active_vmas += 1
    with pytest.raises(InvariantViolation, match="AV-011: num_active_vmas is") as raised:
        kernel.check()
    assert raised.value.id == "AV-011"
    assert "num_active_vmas 2, 1 VMAs" in raised.value.where


# --- mutant series ----------------------------------------------------------------------------------

LIFE = """\
P0 mmap A 3
P0 write A
P0 fork P1
P1 fork P2
P1 write A[0]
P2 write A[1]
P1 mprotect A[2] r
P1 mprotect A[2] rw
P1 exit
P2 fork P3          # adopts P1's anon_vma
P2 exit
P3 write A
P0 munmap A[1]
walk P0 A[0]
P0 exit
P3 exit
"""
HEIRS = """\
P0 mmap A 1
P0 write A
P0 fork P1
P0 fork P2
P1 exit
"""
ALONE = """\
P0 mmap A 1
P0 read A
P0 write A
P0 exit
"""
NEIGHBOURS = """\
P0 mmap A 1 at=0x10001000
P0 write A
P0 mprotect A r
P0 mmap B 1 at=0x10000000
P0 fork P1
P0 mprotect A rw
P1 mprotect A rw
P1 write A
"""
STRANGERS = """\
P0 mmap A 1 at=0x10000000
P0 mmap B 1 at=0x10002000
P0 write A
P0 write B
P0 mmap C 1 at=0x10001000
P0 write C
"""
PAIR = """\
P0 mmap A 2
P0 write A
P0 mprotect A[1] r
P0 mprotect A[1] rw
"""
FAILED_FORK = """\
P0 mmap A 1
P0 write A
fail 3
P0 fork P1
"""
FAILED_MERGE = """\
P0 mmap A 1 at=0x10001000
P0 write A
P0 mprotect A r
P0 mmap B 1 at=0x10000000
fail 1
P0 mprotect A rw
"""
FAILED_SPLIT = """\
P0 mmap A 2
P0 write A
P0 fork P1
fail 2
P1 munmap A[0]
"""
GRANDCHILD = """\
P0 mmap A 1
P0 write A
P0 fork P1
P1 fork P2
"""

MUTANTS = {}


def reports(*idents, on):
    """Register a mutant with the ids it must be reported for, and the scenario."""

    def register(mutant):
        MUTANTS[mutant] = (idents, on)
        return mutant

    return register


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


@reports("AV-004", "AV-035", on=GRANDCHILD)
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
        vma.vm_pgoff += (address - vma.vm_start) >> PAGE_SHIFT
        vma.vm_start = address
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


@reports("AV-030", "AV-042", on="P0 mmap A 1\nP0 write A\nP0 fork P1\nP1 write A")
class TakesASharedPageForItsOwn(Kernel):
    def wp_can_reuse_anon_folio(self, folio, vma):
        folio.mapcount -= 1
        reused = super().wp_can_reuse_anon_folio(folio, vma)
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


@reports("AV-006", "AV-030", "AV-035", on=GRANDCHILD)
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
    def handle_pte_fault(self, vma, address, write):
        self.anon_vma_prepare(vma)
        return super().handle_pte_fault(vma, address, write)


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
    def handle_mm_fault(self, mm, address, write, *, force=False):
        vma = mm.lookup(address)
        return self.handle_pte_fault(vma, address, write)


@reports("AV-039", on=PAIR)
class SplitLinksTheNewVmaBeforeItsAnonVmas(Kernel):
    def anon_vma_clone(self, dst, src, operation):
        dst.attached = True
        return super().anon_vma_clone(dst, src, operation)


@reports("AV-041", on=LIFE)
class ForgetsToUncountAMapping(Kernel):
    def folio_remove_rmap_pte(self, folio):
        if folio.mapcount > 2:
            super().folio_remove_rmap_pte(folio)


@reports("AV-042", on=GRANDCHILD)
class ForkLeavesPagesExclusive(Kernel):
    def folio_try_dup_anon_rmap_pte(self, folio):
        super().folio_try_dup_anon_rmap_pte(folio)
        folio.exclusive = True


@reports("AV-043", "AV-011", on=GRANDCHILD)
class TheChildKeepsItsParentsAnonVma(Kernel):
    def anon_vma_fork(self, vma, pvma):
        rc = self.anon_vma_clone(vma, pvma, Operation.FORK)
        vma.anon_vma = pvma.anon_vma
        return rc


@reports("AV-044", on=PAIR)
class SplitForgetsTheOffset(Kernel):
    def split_vma(self, vma, address, new_below):
        pgoff = vma.vm_pgoff
        rc = super().split_vma(vma, address, new_below)
        vma.vm_pgoff = pgoff
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


RUNS = [pytest.param(mutant, id=mutant.__name__) for mutant in MUTANTS]
WATCHED = {ident for ident, invariant in INVARIANTS.items() if invariant.check is None}


def found_by(series, text):
    return {violation.id for violation in run(parse(text), series).violations}


@pytest.mark.parametrize("mutant", RUNS)
def test_a_mutant_is_reported_and_what_it_was_made_from_is_not(mutant):
    idents, text = MUTANTS[mutant]
    origin = next(base for base in mutant.__mro__ if base in SERIES.values())
    assert found_by(origin, text) == set()
    assert set(idents) <= found_by(mutant, text)


def test_every_invariant_has_a_mutation_and_every_watched_one_a_mutant():
    by_mutants = {ident for idents, _ in MUTANTS.values() for ident in idents}
    assert by_mutants >= WATCHED
    assert set(CORRUPTIONS) | by_mutants == set(INVARIANTS)


def test_every_check_of_a_state_but_the_one_of_older_series_has_a_corrupted_state():
    assert set(INVARIANTS) - WATCHED - set(CORRUPTIONS) == {"AV-024"}


@pytest.mark.parametrize("ident", INVARIANTS)
def test_an_invariant_has_a_statement_and_a_source(ident):
    invariant = INVARIANTS[ident]
    assert invariant.id == ident
    assert invariant.statement
    assert invariant.source
