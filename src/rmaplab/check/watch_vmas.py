# SPDX-License-Identifier: GPL-2.0-only
"""Watches splits and merges: what may be joined, what stays where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.watch_links import LinkWatch
from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, VM_STACK_INCOMPLETE_SETUP
from rmaplab.kernel.pagetable import Pte

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Mm, Vma
    from rmaplab.kernel.vma import VmaMerge

__all__ = ["VmaWatch"]


class VmaWatch(LinkWatch):
    """VMAs that are cut, joined and adjusted."""

    # --- split and merge -------------------------------------------------------------------------

    def split_vma(self, vma: Vma, address: int, new_below: bool) -> int:
        """Failure atomicity."""
        before = self.graph_if_failing()
        rc = super().split_vma(vma, address, new_below)
        if rc != 0:
            self.unchanged(before, "split_vma")
        else:
            self.reached["VMA split"] += 1
            above = vma.vm_mm.lookup(address)
            if above is None or above.vm_start != address:
                self.events.report("AV-051", f"nothing begins at {address:#x}, where {vma} was split")
        return rc

    def dup_anon_vma(self, dst: Vma, src: Vma) -> int:
        """Failure atomicity."""
        before = self.graph_if_failing()
        unfaulted = dst.anon_vma is None
        rc = super().dup_anon_vma(dst, src)
        if rc != 0:
            self.unchanged(before, "dup_anon_vma")
        elif unfaulted and dst.anon_vma is not None:
            self.reached["links duplicated into an unfaulted VMA"] += 1
        return rc

    def is_mergeable_anon_vma(self, vmg: VmaMerge, target: Vma) -> bool:
        """Z09 of the zoo: what may be merged is not refused."""
        mergeable = super().is_mergeable_anon_vma(vmg, target)
        fork_child = any(map(self.vma_is_fork_child, (target, vmg.middle, vmg.copied_from)))
        one_side = (target.anon_vma is None) is not (vmg.anon_vma is None)
        if not mergeable and (target.anon_vma is vmg.anon_vma or (one_side and not fork_child)):
            self.events.report("AV-052", f"{target}, {target.anon_vma}, may not absorb pages of {vmg.anon_vma}")
        return mergeable

    def commit_merge(
        self, vmg: VmaMerge, target: Vma, exporter: Vma | None, start: int, end: int, removed: tuple[Vma, ...] = ()
    ) -> Vma | None:
        """I32: one anon_vma at most, and no fork child beside something unfaulted."""
        parts = {target, *removed, *(vma for vma in (vmg.middle, vmg.copied_from) if vma is not None)}
        faulted = [vma for vma in parts if vma.anon_vma is not None]
        grows = vmg.middle is vmg.copied_from is None and vmg.anon_vma is not None  # mremap in place: it always may
        unfaulted = not grows and (vmg.anon_vma is None or len(faulted) < len(parts))
        if len({vma.anon_vma for vma in faulted}) > 1:
            self.events.report("AV-032", f"merge of {sorted(map(str, parts))} with different anon_vmas")
        if self.spares_fork_children and unfaulted and any(len(vma.anon_vma_chain) > 1 for vma in faulted):
            self.events.report("AV-032", f"merge of {sorted(map(str, parts))}: a fork child and an unfaulted range")
        before = _pages(vmg.mm, start, end)
        merged = super().commit_merge(vmg, target, exporter, start, end, removed)
        if merged is not None:
            self.reached["VMAs merged"] += 1
        if _pages(vmg.mm, start, end) != before:
            self.events.report("AV-031", f"the merge of [{start:#x}, {end:#x}) touched a page")
        return merged

    def vma_modify_flags(self, vma: Vma, start: int, end: int, flags: int) -> Vma | int:
        """Whoever asked writes to the VMA that comes back."""
        modified = super().vma_modify_flags(vma, start, end, flags)
        if not isinstance(modified, int) and modified.freed:
            raise KernelBug(f"{modified} is used after it was freed")
        return modified

    def vma_prepare(self, *vmas: Vma) -> AnonVma | None:
        """Note where the VMAs that are about to change map offset 0."""
        for vma in vmas:
            self.origins[vma] = vma.vm_start - (vma.anon_pgoff << PAGE_SHIFT)
        return super().vma_prepare(*vmas)

    def vma_complete(self, anon_vma: AnonVma | None, *vmas: Vma, removed: tuple[Vma, ...] = ()) -> None:
        """I12 of the zoo: index and address still belong together, but in exec's stack on its way."""
        super().vma_complete(anon_vma, *vmas, removed=removed)
        for vma in vmas:
            moved = self.origins.pop(vma) != vma.vm_start - (vma.anon_pgoff << PAGE_SHIFT)
            if moved and vma.vm_flags & VM_STACK_INCOMPLETE_SETUP != VM_STACK_INCOMPLETE_SETUP:
                self.events.report("AV-046", f"{vma} now starts at {vma.vm_start:#x} with offset {vma.anon_pgoff:#x}")


def _pages(mm: Mm, start: int, end: int) -> list[tuple[int, tuple[object, ...]]]:
    """What the entries of a range say: objects by identity, and what a folio names; a huge one page by page.

    A boundary that moves may split a huge entry, which changes nothing for its pages.
    """
    table = mm.page_table
    pages: list[tuple[int, tuple[object, ...]]] = []
    for address, pte in table.range(start, end):
        if isinstance(pte, Pte):
            pages.append((address, (pte.folio, pte.folio.mapping, pte.folio.index, pte.writable)))
        else:
            pages.append((address, (pte,)))
    for address, huge in table.huge_range(start, end):
        folio = huge.folio
        pages += [
            (at, (folio, folio.mapping, folio.index, huge.writable))
            for at in range(max(start, address), min(end, address + PMD_SIZE), PAGE_SIZE)
        ]
    return sorted(pages, key=lambda page: page[0]) if table.pmds else pages  # others are in order already
