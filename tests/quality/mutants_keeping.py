# SPDX-License-Identifier: GPL-2.0-only
"""Series with one plausible mistake in KSM or in long-term pins."""

from mutant_scenarios import registering

from rmaplab.kernel import Kernel

MUTANTS = {}
reports = registering(MUTANTS)

MERGED = """\
P0 mmap A 2
P0 write A
P0 madvise A mergeable
P0 fork P1
P1 write A[1]
P1 ksm A[1] X
P0 ksm A X
"""
OUTLIVED = MERGED + "P1 exit\nP0 exit\nksmd\n"
PINNED = "P0 mmap A 1\nP0 write A\nP0 pin A\nP0 fork P1\n"


@reports("AV-013", on=MERGED)
class KsmTakesNoReference(Kernel):
    def stable_tree_append(self, node, vma, address):
        super().stable_tree_append(node, vma, address)
        vma.anon_vma.refcount -= 1


@reports("AV-013", on=OUTLIVED)
class KsmDropsNoReference(Kernel):
    def ksm_put_anon_vma(self, anon_vma):
        pass


@reports("AV-013", on=MERGED + "P1 munmap A\nksmd")
class KsmDropsTheReferenceOfTheRoot(Kernel):
    def ksm_put_anon_vma(self, anon_vma):
        super().ksm_put_anon_vma(anon_vma.root)


@reports("AV-041", on=MERGED)
class KsmDoesNotCountWhatItMaps(Kernel):
    def replace_page(self, vma, address, pte, kfolio):
        super().replace_page(vma, address, pte, kfolio)
        kfolio.mapcount -= 1


@reports("AV-041", on="P0 mmap A 2\nP0 write A\nP0 fork P1\nP0 madvise A mergeable\nP0 ksm A X")
class KsmCountsWhatItReplacesAsGone(Kernel):
    def replace_page(self, vma, address, pte, kfolio):
        super().replace_page(vma, address, pte, kfolio)
        pte.folio.mapcount = 0


@reports("AV-042", on="P0 mmap A 2\nP0 write A\nP0 madvise A mergeable\nP0 ksm A X")
class KsmLeavesTheFirstPageExclusive(Kernel):
    def stable_tree_insert(self, content, folio):
        folio.exclusive = 1
        return super().stable_tree_insert(content, folio)


@reports("AV-044", on=MERGED + "P0 write A[0]")
class KsmPagesAreReused(Kernel):
    def wp_can_reuse_anon_folio(self, folio, vma, page):
        if folio.stable_node is not None:
            folio.stable_node = None
            self.folio_move_anon_rmap(folio, vma)
            return True
        return super().wp_can_reuse_anon_folio(folio, vma, page)


@reports("AV-041", on=PINNED)
class ForkMapsThePinnedPageAndItsCopy(Kernel):
    def copy_present_pte(self, dst, src, address, pte):
        rc = super().copy_present_pte(dst, src, address, pte)
        if pte.folio.pins:
            self.set_pte(dst.vm_mm, address, pte.folio, False)
        return rc


@reports("AV-042", on=PINNED)
class ForkSharesPinnedPagesAndLeavesThemWritable(Kernel):
    def copy_present_pte(self, dst, src, address, pte):
        writable = pte.writable
        pins, pte.folio.pins = pte.folio.pins, 0
        rc = super().copy_present_pte(dst, src, address, pte)
        pte.folio.pins, pte.writable = pins, writable
        return rc
