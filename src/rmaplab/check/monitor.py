# SPDX-License-Identifier: GPL-2.0-only
"""Watches a series while it runs: what a state alone cannot show.

A monitor is a subclass that wraps functions of the specification, so the
specification itself carries no checks beyond the kernel's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.state import graph
from rmaplab.check.watch_links import HALF_BUILT
from rmaplab.check.watch_vmas import VmaWatch
from rmaplab.series import is_foreign

if TYPE_CHECKING:
    from rmaplab.kernel import Kernel
    from rmaplab.kernel.folio import Visit
    from rmaplab.kernel.objects import Folio, Mm, Vma
    from rmaplab.kernel.pagetable import Pte

__all__ = ["HALF_BUILT", "REACHED", "Monitor", "monitored"]

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


class Monitor(VmaWatch):
    """All of it: links, VMAs, and here faults and walks."""

    def _repr_html_(self) -> str:
        """The present state, in a notebook."""
        return self.snapshot()._repr_html_()

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

    def wp_can_reuse_anon_folio(self, folio: Folio, vma: Vma, page: int) -> bool:
        """Z21e of the zoo: a page that is its writer's alone does not keep an ancestor's name."""
        reused = super().wp_can_reuse_anon_folio(folio, vma, page)
        if reused and folio.order == 0 and folio.mapping is not vma.anon_vma:
            self.events.report("AV-053", f"{folio} is {vma}'s alone and still names {folio.mapping}")
        return reused

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


_monitored: dict[type[Kernel], type[Monitor]] = {}


def monitored(series: type[Kernel]) -> type[Monitor]:
    """The series with a monitor around it; always the same class for the same series."""
    if series not in _monitored:
        _monitored[series] = _with_monitor(series)
    return _monitored[series]


def _with_monitor(series: type[Kernel]) -> type[Monitor]:
    fields = {"__doc__": series.__doc__, "foreign": is_foreign(series)}
    return type(f"Monitored{series.__name__}", (Monitor, series), fields)
