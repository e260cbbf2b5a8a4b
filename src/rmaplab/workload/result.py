# SPDX-License-Identifier: GPL-2.0-only
"""What a replay adds up: totals, histograms, and the machine's size over time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from rmaplab.notebook import HtmlTable

__all__ = ["Objects", "ReplayResult", "Sample", "Timeline", "WorstWalk", "mean"]

TIMELINE = 256  # samples that are kept at most


@dataclass(frozen=True, slots=True)
class Objects:
    """Numbers of live objects and the bytes they take in their slabs."""

    anon_vma: int
    anon_vma_chain: int
    bytes: int


class Sample(NamedTuple):
    """The machine at one moment.

    ``events`` are those so far, ``faulted`` the VMAs that have an anon_vma,
    ``longest_chain`` the AVCs of one VMA, ``depth`` the anon_vmas from one up
    to its root, ``tree`` the entries of the largest interval tree.
    """

    events: int
    processes: int
    vmas: int
    faulted: int
    anon_vma: int
    anon_vma_chain: int
    bytes: int
    longest_chain: int
    depth: int
    tree: int


@dataclass(slots=True)
class Timeline:
    """Samples at equal distances of ``step`` trace events; when there are too many, every other is dropped."""

    step: int = 1
    samples: list[Sample] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Append one."""
        self.samples.append(sample)
        if len(self.samples) == TIMELINE:
            del self.samples[::2]
            self.step *= 2

    def highest(self, name: str) -> int:
        """The largest value of a column; 0 without samples."""
        return max((getattr(sample, name) for sample in self.samples), default=0)


class WorstWalk(NamedTuple):
    """The walk that met most VMAs: how many, how many of them mapped the page, after which event, of what page."""

    visits: int
    maps: int
    event: int
    process: str
    address: int


@dataclass(slots=True)
class ReplayResult(HtmlTable):
    """What one series did with the traces.

    ``engine``: what it ran on, ``reference`` or ``fast``.
    ``events`` are calls and page faults.  ``vma_forks`` counts VMAs that fork
    attached to the reverse map, ``reuses`` those that adopted an ancestor's
    anon_vma.  ``wasted_allocations`` were freed without ever being linked.
    ``chain_length`` is a histogram over the VMAs made by fork, the ``fork_``
    ones are over forks: objects allocated, anon_vma locks taken, tree
    operations.  ``marks`` are what was there when the recorder was told to
    leave a mark.  ``walk_visits`` is one over the walks that the ``reclaim``
    pattern made; ``walk_maps`` of all those visits found the page.
    ``longest_hold`` is the number of tree operations under one hold of an
    anon_vma lock.  ``unmodelled`` calls were left out, ``approximated`` ones
    done in another way, ``refused`` ones failed here though the real kernel
    did them.
    """

    series: str
    reclaim: str = "exit"
    engine: str = "reference"
    events: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    forks: int = 0
    vma_forks: int = 0
    reuses: int = 0
    page_faults: int = 0
    peak: Objects = field(default_factory=lambda: Objects(0, 0, 0))
    final: Objects = field(default_factory=lambda: Objects(0, 0, 0))
    marks: list[Objects] = field(default_factory=list)
    allocations: int = 0
    wasted_allocations: int = 0
    lock_acquisitions: dict[str, int] = field(default_factory=dict)
    allocations_under_lock: int = 0
    tree_operations_under_lock: int = 0
    longest_hold: int = 0
    chain_length: Counter[int] = field(default_factory=Counter)
    fork_allocations: Counter[int] = field(default_factory=Counter)
    fork_locks: Counter[int] = field(default_factory=Counter)
    fork_tree_operations: Counter[int] = field(default_factory=Counter)
    walk_visits: Counter[int] = field(default_factory=Counter)
    walk_maps: int = 0
    worst_walk: WorstWalk | None = None
    timeline: Timeline = field(default_factory=Timeline)
    unmodelled: Counter[str] = field(default_factory=Counter)
    approximated: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


def mean(counts: Counter[int]) -> float:
    """Of a histogram; 0 if it is empty."""
    number = counts.total()
    return sum(value * count for value, count in counts.items()) / number if number else 0.0
