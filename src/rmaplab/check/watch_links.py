# SPDX-License-Identifier: GPL-2.0-only
"""Watches fork, clone and unlink: who is linked to what, and in which order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rmaplab.check.watch import Watch
from rmaplab.kernel.pagetable import Pte

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Mm, Vma
    from rmaplab.kernel.rmap import Operation

__all__ = ["HALF_BUILT", "LinkWatch"]

HALF_BUILT = "half-built VMA reached unlink_anon_vmas"


class LinkWatch(Watch):
    """The links of VMAs from fork to their end."""

    # --- fork --------------------------------------------------------------------------------

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> int:
        """I34 to I36, and failure atomicity."""
        before = self.graph_if_failing()
        inherited = [avc.anon_vma for avc in pvma.anon_vma_chain]
        reusable = [anon_vma for anon_vma in inherited if self._reusable(anon_vma, pvma)]
        rc = super().anon_vma_fork(vma, pvma)
        if rc != 0:
            self.unchanged(before, "anon_vma_fork")
        elif pvma.anon_vma is not None and vma.anon_vma is not None:
            self._check_forked(vma, pvma.anon_vma, inherited, reusable)
        return rc

    def _reusable(self, anon_vma: AnonVma, pvma: Vma) -> bool:
        if self.counts_together:
            return anon_vma.degree < 2 and anon_vma is not pvma.anon_vma
        return anon_vma.num_active_vmas == 0 and anon_vma.num_children <= 1

    def _check_forked(self, vma: Vma, parent: AnonVma, inherited: list[AnonVma], reusable: list[AnonVma]) -> None:
        own = vma.anon_vma
        assert own is not None
        made = own not in inherited
        if made or self.reuses:
            self.reached["own anon_vma made by fork" if made else "anon_vma reused by fork"] += 1
        chain = Counter(avc.anon_vma for avc in vma.anon_vma_chain)
        if chain != Counter([*inherited, own] if made else inherited):
            self.events.report("AV-034", f"{vma}: {list(chain.elements())} from {inherited}")
        if made == bool(reusable):
            self.events.report("AV-035", f"{vma}: {own}, reusable were {reusable}")
        if made and own.parent is not parent:
            self.events.report("AV-036", f"{own} hangs below {own.parent}, not {parent}")

    def dup_mm(self, oldmm: Mm) -> Mm | int:
        """Count the forks that failed; what the VMAs copied before had linked must be gone, too."""
        before = self.graph_if_failing()
        mm = super().dup_mm(oldmm)
        if isinstance(mm, int):
            self.unchanged(before, "dup_mm")
            self.reached["fork failed"] += 1
        return mm

    def copy_page_range(self, dst: Vma, src: Vma) -> int:
        """I22: links first, pages after; children behind their parents in the trees."""
        if src.anon_vma is not None:
            for avc in src.anon_vma_chain:
                order = [entry.vma for entry in avc.anon_vma.rb_root]
                if dst not in order:
                    self.events.report("AV-022", f"pages of {src} are shared before {dst} is in {avc.anon_vma}")
                elif order.index(dst) < order.index(src):
                    self.events.report("AV-022", f"{dst} stands before its parent {src} in {avc.anon_vma}")
        return super().copy_page_range(dst, src)

    # --- links ---------------------------------------------------------------------------------

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """Failure atomicity, the GFP_NOWAIT fallback, and I20: only living anon_vmas are cloned."""
        for avc in src.anon_vma_chain:
            if avc not in avc.anon_vma.rb_root.keys:
                self.events.report("AV-020", f"{dst} is to be linked to {avc.anon_vma}, which {src} has left")
        before = self.graph_if_failing()
        failed = self.slab.failed
        rc = super().anon_vma_clone(dst, src, operation)
        if rc != 0:
            self.unchanged(before, "anon_vma_clone")
        elif self.slab.failed > failed:
            self.reached["GFP_NOWAIT failed and the GFP_KERNEL retry served"] += 1
        return rc

    def anon_vma_free(self, anon_vma: AnonVma) -> None:
        """I18: the root, whose lock is looked at, is still there."""
        if anon_vma.root.freed:
            self.events.report("AV-019", f"{anon_vma} is freed after its root {anon_vma.root}")
        super().anon_vma_free(anon_vma)

    def put_anon_vma(self, anon_vma: AnonVma) -> None:
        """I18: a reference cannot outlive the object."""
        if anon_vma.freed:
            self.events.report("AV-018", f"a reference to freed {anon_vma} is dropped")
        super().put_anon_vma(anon_vma)

    def unlink_anon_vmas(self, vma: Vma) -> None:
        """Count VMAs that were never finished."""
        if vma.anon_vma is None and vma.anon_vma_chain:
            self.reached[HALF_BUILT] += 1
        super().unlink_anon_vmas(vma)

    def free_pgtables(self, vmas: list[Vma]) -> None:
        """I23: the pages are zapped by now."""
        for vma in vmas:
            for _, pte in vma.vm_mm.page_table.range(vma.vm_start, vma.vm_end):
                if isinstance(pte, Pte) and pte.folio.anon:
                    self.events.report("AV-023", f"{vma} is unlinked while it maps {pte.folio}")
        super().free_pgtables(vmas)

    def find_mergeable_anon_vma(self, vma: Vma) -> AnonVma | None:
        """Count neighbours that shared."""
        anon_vma = super().find_mergeable_anon_vma(vma)
        if anon_vma is not None:
            self.reached["neighbour's anon_vma shared"] += 1
        return anon_vma
