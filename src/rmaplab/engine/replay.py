# SPDX-License-Identifier: GPL-2.0-only
"""Replays packed events: calls of tasks, one row each, and what they add up to.

A row is seven numbers: a kind with :data:`BEGINS` and :data:`ENDS`, the task,
and up to five arguments.  Several rows can make one event of a trace.  Kinds
are the calls of :mod:`rmaplab.engine.calls`, whose arguments they have, and:

======= =====================================================================
kind    arguments
======= =====================================================================
EXEC    1: the heap is known, its start, its end; SPAWN too
AREA    those of MMAP: one that exec makes
ANON    start in bytes, pages: written one by one, whatever the rights are
MARK    a look at the objects is wanted
NAMED   the number of what is to be counted
REFUSED a call that fails before it does anything: its kind, its errno
NOTHING
======= =====================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rmaplab.engine.calls import EXEC, EXIT, FAULT, FORK, MMAP, SHARE, SPAWN, make
from rmaplab.engine.jit import compiled, entry
from rmaplab.engine.layout import IDS, LOCKS, MACHINE, Avcs, Rows
from rmaplab.engine.reclaim import EVERY, ends, tick
from rmaplab.engine.room import grown, has_room, is_roomy
from rmaplab.engine.tally import (
    CHAIN_LENGTH,
    COLUMNS,
    DENSE,
    FORK_ALLOCATIONS,
    FORK_LOCKS,
    FORK_TREE_OPERATIONS,
    HISTOGRAMS,
    TALLY,
    Array,
    count,
    take_sample,
)
from rmaplab.engine.trees import tree_first, tree_next
from rmaplab.kernel.flags import VM_DONTCOPY

if TYPE_CHECKING:
    from rmaplab.engine.machine import Machine

__all__ = ["ANON", "AREA", "BEGINS", "ENDS", "MARK", "NAMED", "NOTHING", "REFUSED", "WIDTH", "Player"]

AREA, ANON, MARK, NAMED, REFUSED, NOTHING = range(24, 30)
KINDS, ERRNOS, WIDTH = 32, 256, 7
KIND, BEGINS, ENDS = 31, 32, 64
BREATH = 1 << 18  # pages that are written before Python has its turn


@entry
def _play(
    m: Rows,
    c: Avcs,
    tasks: Array,
    events: Array,
    at: int,
    tally: Array,
    histograms: Array,
    overflow: Array,
    counts: Array,
    refused: Array,
    sample: Array,
    depths: Array,
    visited: Array,
) -> int:
    """Play rows from ``at`` on: the first that is not done, where it stops to be given room or to be looked at."""
    while at < len(events):
        kind = events[at, 0] & KIND
        task = events[at, 1]
        process = tasks[task]
        if kind == ANON:
            if not _write(m, c, tally, overflow, events, at, process, refused):
                return at
        else:
            if not has_room(m, c, tally, overflow, kind, process, events, at):
                return at
            tally[0].events += events[at, 0] & BEGINS != 0
            rc = 0
            if kind == FORK:
                child = events[at, 2]
                tasks[child] = _fork(m, c, tally, histograms, overflow, process, child + tally[0].base)
            elif kind == EXIT:
                ends(m, c, tally, histograms, overflow, visited, process)
                make(m, c, EXIT, process, 0, 0, 0, 0, 0, 0)
                tasks[task] = 0
            elif kind == SHARE:
                child = events[at, 2]
                tasks[child] = make(m, c, SHARE, process, child + tally[0].base, 0, 0, 0, 0, 0)
            elif kind == EXEC or kind == SPAWN:
                if kind == EXEC:
                    ends(m, c, tally, histograms, overflow, visited, process)
                    make(m, c, EXEC, process, 0, 0, 0, 0, 0, 0)
                else:
                    tasks[task] = process = make(m, c, SPAWN, 0, task + tally[0].base, 0, 0, 0, 0, 0)
                if events[at, 2]:
                    m[m[process].mm].start_brk = events[at, 3]
                    m[m[process].mm].brk = events[at, 4]
            elif kind == MARK:
                tally[0].marked = 1
            elif kind == NAMED:
                counts[events[at, 2]] += 1
            elif kind == REFUSED:
                refused[events[at, 2], events[at, 3]] += 1
            elif kind != NOTHING:
                rc = make(
                    m,
                    c,
                    MMAP if kind == AREA else kind,
                    process,
                    events[at, 2],
                    events[at, 3],
                    events[at, 4],
                    events[at, 5],
                    events[at, 6],
                    -1,
                )
            if rc < 0:
                refused[kind, -rc] += 1
        if m[MACHINE].crashed:
            return at
        if events[at, 0] & ENDS:
            tally[0].done += 1
            tick(m, c, tally, histograms, overflow, visited)
            tally[0].until_sample -= 1
            if tally[0].until_sample == 0:
                take_sample(m, sample, depths)
                tally[0].sampled = 1
        at += 1
        if tally[0].marked or tally[0].sampled:
            break
    return at


@compiled
def _write(
    m: Rows, c: Avcs, tally: Array, overflow: Array, events: Array, at: int, process: int, refused: Array
) -> bool:
    """Write to the pages of a run; whether it is done.  What is left of it stands in the row."""
    address, pages = events[at, 2], events[at, 3]
    for done in range(pages):
        if done == BREATH or not is_roomy(m, c, tally, overflow, tally[0].longest + 16, 4, 16):
            events[at, 2] = address + (done << 12)
            events[at, 3] = pages - done
            return False
        tally[0].events += 1
        tally[0].page_faults += 1
        rc = make(m, c, FAULT, process, address + (done << 12), 3, 0, 0, 0, 0)
        if rc != 0:
            refused[ANON, -rc] += 1
    return True


@compiled
def _fork(m: Rows, c: Avcs, tally: Array, histograms: Array, overflow: Array, process: int, number: int) -> int:
    """A child, and what it took to make it."""
    allocations = m[IDS].anon_vmas + m[IDS].avcs
    locks, operations = m[LOCKS].anon_vma_locks, m[LOCKS].tree_operations
    child = make(m, c, FORK, process, number, 0, 0, 0, 0, 0)
    tally[0].forks += 1
    count(tally, histograms, overflow, FORK_ALLOCATIONS, m[IDS].anon_vmas + m[IDS].avcs - allocations)
    count(tally, histograms, overflow, FORK_LOCKS, m[LOCKS].anon_vma_locks - locks)
    count(tally, histograms, overflow, FORK_TREE_OPERATIONS, m[LOCKS].tree_operations - operations)
    pvma = tree_first(m, m[m[process].mm].vmas)
    vma = tree_first(m, m[m[child].mm].vmas)
    while vma:
        while m[pvma].vm_flags & VM_DONTCOPY:
            pvma = tree_next(m, pvma)
        if m[vma].anon_vma:
            length = m[vma].length
            tally[0].vma_forks += 1
            if tally[0].counts_reuses and length == m[pvma].length:
                tally[0].reuses += 1
            tally[0].longest = max(tally[0].longest, length)
            count(tally, histograms, overflow, CHAIN_LENGTH, length)
        pvma, vma = tree_next(m, pvma), tree_next(m, vma)
    return child


class Player:
    """A machine of a series and the figures of what it plays.

    ``pattern`` is the number of a reclaim pattern (:mod:`rmaplab.engine.reclaim`).
    """

    def __init__(self, machine: Machine, pattern: int = 0) -> None:
        self.machine = machine
        self.tally: Any = np.zeros(1, TALLY)
        self.histograms: Any = np.zeros((HISTOGRAMS, DENSE), np.int64)
        self.overflow: Any = np.zeros((DENSE, 2), np.int64)
        self.counts: Any = np.zeros(16, np.int64)
        self.refused: Any = np.zeros((KINDS, ERRNOS), np.int64)
        self.sample: Any = np.zeros(COLUMNS, np.int64)
        self.depths: Any = np.zeros(len(machine.m), np.int32)
        self.visited: Any = np.zeros((0, 3), np.int64)
        self.tasks: Any = np.zeros(64, np.int64)
        self.large: list[dict[int, int]] = [{} for _ in range(HISTOGRAMS)]
        tally = self.tally[0]
        tally["worst_visits"], tally["until_sample"], tally["until_round"] = -1, 1, EVERY
        tally["longest"] = 1
        tally["pattern"], tally["counts_reuses"] = pattern, machine.series.reuses
        self.play(np.zeros((0, WIDTH), np.int64), 0)  # compiles, or loads, what has been compiled

    @property
    def crashed(self) -> bool:
        """The modelled kernel cannot go on."""
        return bool(self.machine.m[MACHINE]["crashed"])

    def reserve(self, tasks: int, names: int) -> None:
        """Be ready for so many tasks of the present workload, and things that are only counted."""
        if len(self.tasks) < tasks:
            self.tasks = grown(self.tasks, len(self.tasks), tasks)
        if len(self.counts) < names:
            self.counts = grown(self.counts, len(self.counts), names)

    def play(self, events: Any, at: int) -> int:  # noqa: ANN401 (numpy tells no shapes)
        """Play rows from ``at`` on, with more room as it is needed; the first that is not done.

        It stops early at what the caller may want to look at: ``marked`` or ``sampled`` of ``tally`` says what.
        """
        tally, machine = self.tally[0], self.machine
        tally["marked"] = tally["sampled"] = tally["more_rows"] = 0
        at = _play(
            machine.m,
            machine.c,
            self.tasks,
            events,
            at,
            self.tally,
            self.histograms,
            self.overflow,
            self.counts,
            self.refused,
            self.sample,
            self.depths,
            self.visited,
        )
        if tally["more_rows"]:
            self._make_room()
        return at

    def _make_room(self) -> None:
        tally, machine = self.tally[0], self.machine
        rows, avcs, values = int(tally["more_rows"]), int(tally["more_avcs"]), int(tally["more_values"])
        told = machine.m[MACHINE]
        if told["free_rows"] + len(machine.m) - told["used"] < rows:
            machine.m = grown(machine.m, int(told["used"]), rows)
            self.depths = np.zeros(len(machine.m), np.int32)
        if told["free_avcs"] + len(machine.c) - told["used_avcs"] < avcs:
            machine.c = grown(machine.c, int(told["used_avcs"]), avcs)
        self._take_large()
        if len(self.overflow) < values:
            self.overflow = np.zeros((2 * values, 2), np.int64)

    def _take_large(self) -> None:
        """Empty ``overflow``."""
        number = int(self.tally[0]["overflown"])
        for which, value in self.overflow[:number].tolist():
            large = self.large[which]
            large[value] = large.get(value, 0) + 1
        self.tally[0]["overflown"] = 0

    def histogram(self, which: int) -> dict[int, int]:
        """How often each value was met."""
        self._take_large()
        dense = self.histograms[which]
        return {value: int(dense[value]) for value in np.flatnonzero(dense).tolist()} | self.large[which]
