# SPDX-License-Identifier: GPL-2.0-only
"""Which pages are walked while a workload is replayed, in the place of reclaim, which no trace tells of.

========= ====================================================================
pattern   walks
========= ====================================================================
``exit``  one page of each VMA that has any, when its address space ends
``clock`` after every 100 events of the trace the next 8 pages, going round
          all processes in the order of their making, and their addresses
``none``  nothing
========= ====================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.errors import UsageError
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.pagetable import Pte
from rmaplab.workload.result import WorstWalk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel import Kernel, Process
    from rmaplab.kernel.objects import Folio
    from rmaplab.workload.result import ReplayResult

__all__ = ["PATTERNS", "Reclaim"]

PATTERNS = ("exit", "clock", "none")
EVERY = 100  # trace events between two rounds of the clock
PAGES = 8  # that a round walks


class Reclaim:
    """Walks by a pattern; ``hand`` is where the clock goes on: a process's name and an address in bytes.

    Raises :class:`UsageError` for a pattern that does not exist.
    """

    def __init__(self, pattern: str, kernel: Kernel, result: ReplayResult) -> None:
        if pattern not in PATTERNS:
            raise UsageError(f"unknown reclaim pattern {pattern!r}; there are {', '.join(PATTERNS)}")
        self.pattern = pattern
        self.kernel = kernel
        self.result = result
        self.hand = ("", 0)
        self.until_round = EVERY

    def tick(self) -> None:
        """An event of the trace is over."""
        if self.pattern != "clock":
            return
        self.until_round -= 1
        if self.until_round == 0:
            self.until_round = EVERY
            self._round()

    def ends(self, process: Process) -> None:
        """The process is about to leave its address space."""
        if self.pattern != "exit" or process.mm.users > 1:
            return
        for vma in process.mm.vmas:
            if vma.anon_vma is None:
                continue
            for address, folio in self._pages(process, vma.vm_start, vma.vm_end):
                self._walk(folio, process, address)
                break

    def _walk(self, folio: Folio, process: Process, address: int) -> None:
        visits = self.kernel.rmap_walk_anon(folio)
        maps = sum(visit.maps for visit in visits)
        result = self.result
        result.walk_visits[len(visits)] += 1
        result.walk_maps += maps
        if result.worst_walk is None or len(visits) > result.worst_walk.visits:
            result.worst_walk = WorstWalk(len(visits), maps, result.events, process.name, address)

    def _pages(self, process: Process, start: int, end: int) -> Iterator[tuple[int, Folio]]:
        """Anonymous pages of a process in [start, end), by address (bytes)."""
        for address, entry in process.mm.page_table.range(start, end):
            if isinstance(entry, Pte) and entry.folio.mapping is not None:
                yield address, entry.folio

    def _round(self) -> None:
        """The next pages from the hand on; no page twice in a round."""
        processes = list(self.kernel.processes.values())
        names = [process.name for process in processes]
        name, address = self.hand
        first = names.index(name) if name in names else 0
        turn = [(process, 0) for process in processes[first:] + processes[: first + 1]]
        if name in names and turn:
            turn[0] = (processes[first], address)
        left = PAGES
        seen: set[Folio] = set()
        for process, start in turn:
            for vma in process.mm.vmas[process.mm.find(start) :]:
                for at, folio in self._pages(process, max(start, vma.vm_start), vma.vm_end):
                    if folio in seen:
                        continue
                    seen.add(folio)
                    self._walk(folio, process, at)
                    left -= 1
                    if left == 0:
                        self.hand = (process.name, at + PAGE_SIZE)
                        return
        self.hand = ("", 0)
