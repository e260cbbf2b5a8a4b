# SPDX-License-Identifier: GPL-2.0-only
"""Kernel: one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.checkpoint import copy_state
from rmaplab.kernel.fork import Fork
from rmaplab.kernel.objects import Mm
from rmaplab.kernel.process import Process
from rmaplab.kernel.view import take_snapshot

if TYPE_CHECKING:
    from typing import Self

    from rmaplab.snapshot import Snapshot

__all__ = ["Kernel"]


class Kernel(Fork):
    """One machine, its objects and its processes by name, with the logic of v7.0; a subclass may have another.

    Against v6.18+9: a failed clone clears the pointer that its caller had set
    (3a206a8649f8), a failed fork takes its half-made copy down at once
    (43873af772f8), every walk holds the folio's lock, and a page from swap is
    mapped before its slot is given up.  The class attributes describe a series.
    """

    name: ClassVar[str] = "v7.0"
    parent: ClassVar[str | None] = "v6.18+9"
    commits: ClassVar[tuple[str, ...]] = ("3a206a8649f8", "43873af772f8")
    release: ClassVar[str] = "v7.0"
    summary: ClassVar[str] = "the nine patches, the fix of March 2026, and fork taking a failed copy down at once"

    # What invariants may count on; a series that had it otherwise says so.
    mirrors_chains: ClassVar[bool] = True  # a cloned chain is the mirror image of its source (v7.0)
    counts_apart: ClassVar[bool] = True  # num_children and num_active_vmas (v6.0)
    counts_together: ClassVar[bool] = False  # one ``degree`` instead (v3.19 to v5.19)
    reuses: ClassVar[bool] = True  # fork may adopt an ancestor's anon_vma (v3.19)
    has_interval_trees: ClassVar[bool] = True  # not lists in order of insertion (v3.7)
    merges_into_unfaulted: ClassVar[bool] = True  # an unfaulted VMA may absorb a faulted one (v6.16)
    spares_fork_children: ClassVar[bool] = True  # they do not merge with unfaulted ranges (v3.0)
    has_root_lock: ClassVar[bool] = True  # one lock for a tree, whose root is pinned (v2.6.36)
    has_links: ClassVar[bool] = True  # a faulted VMA is linked to its anon_vma: not in every design
    has_chains: ClassVar[bool] = True  # a VMA has links to several anon_vmas (v2.6.34)

    def __init__(self) -> None:
        super().__init__()
        self.processes: dict[str, Process] = {}

    def spawn(self, name: str = "P0") -> Process:
        """A new process with an empty address space."""
        return self.add_process(name, Mm(self.new_ident(Mm)))

    def add_process(self, name: str, mm: Mm) -> Process:
        """Enter a process; :class:`ValueError` if the name is taken."""
        if name in self.processes:
            raise ValueError(f"process {name} already runs")
        process = self.processes[name] = Process(self, name, mm)
        return process

    def ksm_mms(self) -> list[Mm]:
        """The address spaces that ksmd scans."""
        return list({process.mm: None for process in self.processes.values()})

    def snapshot(self, *, canonical: bool = True) -> Snapshot:
        """The whole state as an immutable value, objects renumbered in order of appearance if ``canonical``."""
        return take_snapshot(self, canonical=canonical)

    def copy(self) -> Self:
        """An independent copy of the whole state (not of counts and listeners)."""
        return copy_state(self, type(self)())
