# SPDX-License-Identifier: GPL-2.0-only
"""Watches a series while it runs: what a state alone cannot show.

A monitor is a subclass that wraps functions of the specification, so the
specification itself carries no checks beyond the kernel's own.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from rmaplab.check.invariants import InvariantViolation, violations
from rmaplab.check.state import graph
from rmaplab.kernel import Kernel
from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, VM_STACK_INCOMPLETE_SETUP
from rmaplab.kernel.pagetable import Pte
from rmaplab.series import is_foreign

if TYPE_CHECKING:
    from typing import Self

    from rmaplab.kernel.folio import Visit
    from rmaplab.kernel.objects import AnonVma, Folio, Mm, Vma
    from rmaplab.kernel.rmap import Operation
    from rmaplab.kernel.vma import VmaMerge

__all__ = ["HALF_BUILT", "REACHED", "Monitor", "monitored"]

HALF_BUILT = "half-built VMA reached unlink_anon_vmas"

REACHED = (
    "anon_vma reused by fork",
    "folio moved up the tree by its last mapper",
    "fork failed",
    "GFP_NOWAIT failed and the GFP_KERNEL retry served",
    HALF_BUILT,
    "links duplicated into an unfaulted VMA",
    "neighbour's anon_vma shared",
    "own anon_vma made by fork",
    "page copied on write",
    "page reused by its last mapper",
    "VMA split",
    "VMAs merged",
)
"""The *sometimes* properties: an exploration that never saw one was too small for it."""


class Monitor(Kernel):
    """A kernel that counts what it reached and reports what went wrong on the way.

    ``foreign`` marks logic from a user's file: an exception in it is a crash of that logic.
    """

    foreign: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.reached: Counter[str] = Counter()
        self.origins: dict[Vma, int] = {}

    def copy(self) -> Self:
        """An independent state; what was reached is counted together."""
        new = super().copy()
        new.reached = self.reached
        return new

    def check(self) -> None:
        """Raise :class:`InvariantViolation` for the first invariant that does not hold."""
        for ident, detail in violations(self):
            raise InvariantViolation(ident, detail)

    def _graph_if_failing(self) -> dict[int, tuple[int, ...]] | None:
        return graph(self) if self.slab.failing else None

    def _unchanged(self, before: dict[int, tuple[int, ...]] | None, function: str) -> None:
        if before is not None and graph(self) != before:
            self.events.report("AV-033", f"{function} failed and left the graph changed")

    # --- fork --------------------------------------------------------------------------------

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> int:
        """I34 to I36, and failure atomicity."""
        before = self._graph_if_failing()
        inherited = [avc.anon_vma for avc in pvma.anon_vma_chain]
        reusable = [anon_vma for anon_vma in inherited if self._reusable(anon_vma, pvma)]
        rc = super().anon_vma_fork(vma, pvma)
        if rc != 0:
            self._unchanged(before, "anon_vma_fork")
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
        before = self._graph_if_failing()
        mm = super().dup_mm(oldmm)
        if isinstance(mm, int):
            self._unchanged(before, "dup_mm")
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
        before = self._graph_if_failing()
        failed = self.slab.failed
        rc = super().anon_vma_clone(dst, src, operation)
        if rc != 0:
            self._unchanged(before, "anon_vma_clone")
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

    # --- split and merge -------------------------------------------------------------------------

    def split_vma(self, vma: Vma, address: int, new_below: bool) -> int:
        """Failure atomicity."""
        before = self._graph_if_failing()
        rc = super().split_vma(vma, address, new_below)
        if rc != 0:
            self._unchanged(before, "split_vma")
        else:
            self.reached["VMA split"] += 1
            above = vma.vm_mm.lookup(address)
            if above is None or above.vm_start != address:
                self.events.report("AV-051", f"nothing begins at {address:#x}, where {vma} was split")
        return rc

    def dup_anon_vma(self, dst: Vma, src: Vma) -> int:
        """Failure atomicity."""
        before = self._graph_if_failing()
        unfaulted = dst.anon_vma is None
        rc = super().dup_anon_vma(dst, src)
        if rc != 0:
            self._unchanged(before, "dup_anon_vma")
        elif unfaulted and dst.anon_vma is not None:
            self.reached["links duplicated into an unfaulted VMA"] += 1
        return rc

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
            self.origins[vma] = vma.vm_start - (vma.vm_pgoff << PAGE_SHIFT)
        return super().vma_prepare(*vmas)

    def vma_complete(self, anon_vma: AnonVma | None, *vmas: Vma, removed: tuple[Vma, ...] = ()) -> None:
        """I12 of the zoo: index and address still belong together, but in exec's stack on its way."""
        super().vma_complete(anon_vma, *vmas, removed=removed)
        for vma in vmas:
            moved = self.origins.pop(vma) != vma.vm_start - (vma.vm_pgoff << PAGE_SHIFT)
            if moved and vma.vm_flags & VM_STACK_INCOMPLETE_SETUP != VM_STACK_INCOMPLETE_SETUP:
                self.events.report("AV-046", f"{vma} now starts at {vma.vm_start:#x} with offset {vma.vm_pgoff:#x}")

    # --- faults and walks --------------------------------------------------------------------------

    def handle_mm_fault(
        self, mm: Mm, address: int, write: bool, *, force: bool = False, unshare: bool = False
    ) -> int:
        """I37 for reads."""
        before = None if write or unshare else graph(self)
        rc = super().handle_mm_fault(mm, address, write, force=force, unshare=unshare)
        if before is not None and graph(self) != before:
            self.events.report("AV-037", f"a read of {address:#x} changed the reverse map")
        return rc

    def do_wp_page(self, vma: Vma, address: int, pte: Pte, *, unshare: bool = False) -> int:
        """Count copies."""
        rc = super().do_wp_page(vma, address, pte, unshare=unshare)
        if rc == 0 and pte.folio.anon and not pte.writable:
            self.reached["page copied on write"] += 1
        return rc

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        """Count reuse, and the case that usual prose denies: a folio that moves up the tree."""
        old = folio.mapping
        super().folio_move_anon_rmap(folio, vma)
        self.reached["page reused by its last mapper"] += 1
        while old is not None and old is not old.root and old is not vma.anon_vma:
            old = old.parent
            if old is vma.anon_vma:
                self.reached["folio moved up the tree by its last mapper"] += 1

    def rmap_walk_anon(self, folio: Folio) -> list[Visit]:
        """I37 for walks."""
        before = graph(self)
        visits = super().rmap_walk_anon(folio)
        if graph(self) != before:
            self.events.report("AV-037", f"a walk of {folio} changed the reverse map")
        return visits


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


_monitored: dict[type[Kernel], type[Monitor]] = {}


def monitored(series: type[Kernel]) -> type[Monitor]:
    """The series with a monitor around it; always the same class for the same series."""
    if series not in _monitored:
        _monitored[series] = _with_monitor(series)
    return _monitored[series]


def _with_monitor(series: type[Kernel]) -> type[Monitor]:
    fields = {"__doc__": series.__doc__, "foreign": is_foreign(series)}
    return type(f"Monitored{series.__name__}", (Monitor, series), fields)
