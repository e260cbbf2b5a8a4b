# SPDX-License-Identifier: GPL-2.0-only
"""What a replay counts as it goes, and a look at the size of the graph.

Histograms are dense up to ``DENSE``; what is larger is noted one by one in
``overflow`` (int64, n x 2: which histogram, what value), until Python takes it out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import ANON_VMA, FIRST, MACHINE, SLAB, VMA, Rows

__all__ = [
    "CHAIN_LENGTH",
    "COLUMNS",
    "DENSE",
    "FORK_ALLOCATIONS",
    "FORK_LOCKS",
    "FORK_TREE_OPERATIONS",
    "HISTOGRAMS",
    "TALLY",
    "WALK_VISITS",
    "Array",
    "count",
    "take_sample",
]

Array = Any  # numpy.ndarray
CHAIN_LENGTH, FORK_ALLOCATIONS, FORK_LOCKS, FORK_TREE_OPERATIONS, WALK_VISITS = range(5)
HISTOGRAMS = 5
DENSE = 4096

TALLY = np.dtype(
    [
        (name, "i8")
        for name in (
            # totals
            "events",  # calls and page faults
            "done",  # events of the trace
            "forks",
            "vma_forks",
            "reuses",
            "page_faults",
            "walk_maps",
            "worst_visits",  # -1: there was no walk
            "worst_maps",
            "worst_event",
            "worst_process",
            "worst_address",
            # where it is
            "base",  # what is added to a task's number to tell it from those of other workloads
            "until_sample",
            "until_round",
            "hand",  # the clock's: a process, its number, and an address (bytes)
            "hand_number",
            "hand_address",
            "longest",  # chain that there ever was
            "overflown",
            # how
            "pattern",
            "counts_reuses",
            # why it stopped
            "marked",
            "sampled",
            "more_rows",  # free ones that are needed to go on
            "more_avcs",
            "more_values",
        )
    ]
    + [("walked", ("i8", 8))]  # folios of the clock's round
)
"""The one record that a replay adds up in."""

COLUMNS = 9  # of a sample: those of rmaplab.workload.result.Sample but the first


@compiled
def count(tally: Array, histograms: Array, overflow: Array, which: int, value: int) -> None:
    """Add to a histogram; there is room in ``overflow``."""
    if value < DENSE:
        histograms[which, value] += 1
        return
    at = tally[0].overflown
    overflow[at, 0] = which
    overflow[at, 1] = value
    tally[0].overflown = at + 1


@compiled
def take_sample(m: Rows, sample: Array, depths: Array) -> None:
    """How large the graph is now; ``depths`` has room for a number for each row."""
    vmas = faulted = chain = depth = tree = 0
    used = m[MACHINE].used
    depths[:used] = 0
    for row in range(FIRST, used):
        kind = m[row].kind
        if kind == VMA and m[row].attached:
            vmas += 1
            faulted += m[row].anon_vma != 0
            chain = max(chain, m[row].length)
        elif kind == ANON_VMA and not m[row].freed:
            tree = max(tree, m[row].entries)
            depth = max(depth, _depth(m, row, depths))
    sample[0] = m[MACHINE].processes
    sample[1] = vmas
    sample[2] = faulted
    sample[3] = m[SLAB].live_anon_vmas
    sample[4] = m[SLAB].live_avcs
    sample[5] = m[SLAB].bytes
    sample[6] = chain
    sample[7] = depth
    sample[8] = tree


@compiled
def _depth(m: Rows, row: int, depths: Array) -> int:
    """The anon_vmas on the way to the root, or to one whose parent is freed; ``depths`` are those known."""
    at, steps = row, 0
    while not depths[at] and _has_parent(m, at):
        at = m[at].parent
        steps += 1
    if not depths[at]:
        depths[at] = 1
    depth = depths[at] + steps
    for above in range(steps):
        depths[row] = depth - above
        row = m[row].parent
    return depth


@compiled
def _has_parent(m: Rows, anon_vma: int) -> bool:
    parent = m[anon_vma].parent
    return (
        parent != anon_vma
        and m[parent].kind == ANON_VMA
        and not m[parent].freed
        and m[parent].id == m[anon_vma].parent_id
    )
