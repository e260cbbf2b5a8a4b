# SPDX-License-Identifier: GPL-2.0-only
"""Series with one plausible mistake in where a VMA's pages belong after a split or a merge."""

from mutant_scenarios import NEIGHBOURS, PAIR, registering

from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PAGE_SHIFT

MUTANTS = {}
reports = registering(MUTANTS)


@reports("AV-031", on=PAIR)
class GivesMergedPagesANewIndex(Kernel):
    def commit_merge(self, *arguments, **keywords):
        merged = super().commit_merge(*arguments, **keywords)
        if merged is not None:
            for address, pte in merged.vm_mm.page_table.range(merged.vm_start, merged.vm_end):
                pte.folio.index = address >> PAGE_SHIFT << 1
        return merged


@reports("AV-052", on=NEIGHBOURS)
class NeverMergesIntoUnfaulted(Kernel):
    def is_mergeable_anon_vma(self, vmg, target):
        return target.anon_vma is not None and super().is_mergeable_anon_vma(vmg, target)


@reports("AV-053", on="P0 mmap A 1\nP0 write A\nP0 fork P1\nP0 exit\nP1 write A\n")
class LeavesReusedPagesToTheAncestor(Kernel):
    def folio_move_anon_rmap(self, folio, vma):
        old = folio.mapping
        super().folio_move_anon_rmap(folio, vma)
        folio.mapping = old


@reports("AV-046", "AV-044", on=PAIR)
class KeepsThePageOffsetOfTheLowerPart(Kernel):
    def vma_prepare(self, *vmas):
        for vma in vmas:
            self.offset = vma, vma.anon_pgoff
        return super().vma_prepare(*vmas)

    def vma_complete(self, anon_vma, *vmas, **keywords):
        vma, self.offset_before = self.offset
        vma.anon_pgoff = self.offset_before
        super().vma_complete(anon_vma, *vmas, **keywords)
