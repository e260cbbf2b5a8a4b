# SPDX-License-Identifier: GPL-2.0-only
"""The explorer's loop on rows: breadth first, each call, then each of its allocations failing.

What :class:`rmaplab.check.expand.Expander` and ``_Search`` do state by state
and in the same order, so numbers, counts and shortest histories are the same.
A state is not kept, but its fingerprint and the way there; machines along the
way to the latest one are, since the next is reached by most of it.
"""

from __future__ import annotations

import numpy as np

from rmaplab.engine.jit import compiled, entry
from rmaplab.engine.reached import HALF_BUILT
from rmaplab.engine.rows import AVC, MACHINE, REACHED, ROW, SLAB, Avcs, Rows, settle
from rmaplab.engine.search.alphabet import (
    ALLOWED,
    BOUND_FAILURES,
    FORK,
    ONLY_FORK_FAILS,
    PROMISES,
    make_step,
    steps_from,
    with_plan,
)
from rmaplab.engine.search.fingerprint import fingerprint
from rmaplab.engine.search.judge import judge

__all__ = [
    "CHUNK",
    "CRASH",
    "DANGLING",
    "EMPTY",
    "HALF",
    "FOUND",
    "LEAKED",
    "NUMBERS",
    "POINTS",
    "STATES",
    "TRANSITIONS",
    "Arena",
    "enter_start",
    "expand",
    "grow_table",
]

CHUNK = 32  # states after which a violation ends the search
CRASH = 45
EMPTY = 255  # failures of a place in the table that holds no state
TRANSITIONS, POINTS, HALF, LEAKED, DANGLING, STATES, FOUND, NUMBERS = range(8)  # places in the array of counts


class Arena:
    """Machines for the way to a state and one to work on, with scratch; ``room`` objects and AVCs each."""

    def __init__(self, depth: int, room: int) -> None:
        self.m = np.zeros((depth + 2, room), ROW)
        self.c = np.zeros((depth + 2, 2 * room), AVC)
        self.flat_m = self.m.view(np.int64).reshape(depth + 2, room, ROW.itemsize // 8)
        self.flat_c = self.c.view(np.int32).reshape(depth + 2, 2 * room, AVC.itemsize // 4)
        self.way = np.full(depth + 2, -1, np.int64)  # the numbers of the states on the way
        self.scratch = np.zeros((room, 4), np.int64)
        self.shapes = np.zeros(64 * room, np.int64)
        self.steps = np.zeros(1 << 14, np.int64)


@compiled
def _copy(flat_m: Rows, flat_c: Rows, m: Rows, source: int, target: int) -> None:
    """Make one machine like another, but for its parameters and what it has reached."""
    for row in range(MACHINE, m[source, MACHINE].used):
        for at in range(12):
            flat_m[target, row, at] = flat_m[source, row, at]
    for avc in range(1, m[source, MACHINE].used_avcs):
        for at in range(7):
            flat_c[target, avc, at] = flat_c[source, avc, at]


# --- the table of states ---------------------------------------------------------------------------


@compiled
def _place(marks: Rows, taken: Rows, mark: int) -> int:
    """Where a fingerprint is in the table, or may be put."""
    mask = len(marks) - 1
    at = (mark ^ (mark >> 32)) & mask
    while taken[at] != EMPTY and marks[at] != mark:
        at = (at + 1) & mask
    return at


@entry
def grow_table(marks: Rows, taken: Rows, new_marks: Rows, new_taken: Rows) -> None:
    """Enter all states of a table into a larger one."""
    for at in range(len(marks)):
        if taken[at] != EMPTY:
            to = _place(new_marks, new_taken, marks[at])
            new_marks[to] = marks[at]
            new_taken[to] = taken[at]


@entry
def enter_start(m: Rows, c: Avcs, scratch: Rows, shapes: Rows, marks: Rows, taken: Rows) -> int:
    """Enter the state to start from; its fingerprint."""
    mark = fingerprint(m, c, scratch, shapes, False)
    at = _place(marks, taken, mark)
    marks[at] = mark
    taken[at] = 0
    return mark


# --- the loop --------------------------------------------------------------------------------------


@compiled
def _go(m: Rows, c: Avcs, flat_m: Rows, flat_c: Rows, way: Rows, bounds: Rows, parents: Rows, steps: Rows, state: int) -> int:
    """Take the machines to a state; the level that is it."""
    level, at = 0, state
    while at:
        level += 1
        at = parents[at]
    depth, at = level, state
    while level and way[level] != at:
        way[level] = at
        at = parents[at]
        level -= 1
    while level < depth:
        _copy(flat_m, flat_c, m, level, level + 1)
        level += 1
        make_step(m[level], c[level], bounds, steps[way[level]])
        settle(m[level], c[level])
    return depth


@compiled
def _judged(m: Rows, c: Avcs, bounds: Rows, known: bool) -> int:
    """The violations that count after a call, as bits; a state that is known was judged."""
    if m[MACHINE].crashed:
        return 1 << CRASH
    found = m[MACHINE].reports
    if m[MACHINE].number_held:
        found |= 1 << 29
        m[MACHINE].number_held = 0
    if found or not known:
        found |= judge(m, c, bounds[PROMISES])
    return found & bounds[ALLOWED]


@compiled
def _dangling(m: Rows, c: Avcs) -> int:
    """AVCs whose VMA is freed."""
    number = 0
    for avc in range(1, m[MACHINE].used_avcs):
        if c[avc].anon_vma > 0 and m[c[avc].vma].freed:
            number += 1
    return number


@compiled
def _take(
    m: Rows,
    c: Avcs,
    scratch: Rows,
    shapes: Rows,
    bounds: Rows,
    state: int,
    step: int,
    failures: int,
    marks: Rows,
    taken: Rows,
    parents: Rows,
    ways: Rows,
    failed: Rows,
    created: Rows,
    counts: Rows,
    bad: Rows,
) -> None:
    """Make one transition, and enter the state it leads to unless it is known."""
    counts[TRANSITIONS] += 1
    rc = make_step(m, c, bounds, step)
    mark = at = 0
    known = False
    if not m[MACHINE].crashed:
        mark = fingerprint(m, c, scratch, shapes, False)
        at = _place(marks, taken, mark)
        known = taken[at] != EMPTY
    found = _judged(m, c, bounds, known)
    if found:
        number = counts[FOUND]
        bad[number, 0] = state
        bad[number, 1] = step
        bad[number, 2] = found
        counts[FOUND] = number + 1
        return
    if known and taken[at] <= failures:
        return
    if not known:
        counts[STATES] += 1
        marks[at] = mark
    taken[at] = failures
    number = counts[NUMBERS]
    parents[number] = state
    ways[number] = step
    failed[number] = failures
    created[number] = created[state] + (step & 15 == FORK and rc > 0)
    counts[NUMBERS] = number + 1


@entry
def expand(
    m: Rows,
    c: Avcs,
    flat_m: Rows,
    flat_c: Rows,
    way: Rows,
    scratch: Rows,
    shapes: Rows,
    steps: Rows,
    bounds: Rows,
    first: int,
    last: int,
    budget: int,
    marks: Rows,
    taken: Rows,
    parents: Rows,
    ways: Rows,
    failed: Rows,
    created: Rows,
    counts: Rows,
    bad: Rows,
) -> int:
    """Make every call from the end of the histories [first, last) in turn; the first that is left to do.

    It comes back at the end of a chunk: when something is violated, after
    ``budget`` transitions, and where tables may get too full.
    """
    work = len(m) - 1
    own_m, own_c = m[work], c[work]
    until = counts[TRANSITIONS] + budget
    state = first
    while state < last:
        if (state - first) % CHUNK == 0:
            full = 2 * counts[STATES] > len(marks) - (1 << 17) or counts[NUMBERS] > len(parents) - (1 << 17)
            if counts[FOUND] or counts[TRANSITIONS] > until or full:
                return state
        level = _go(m, c, flat_m, flat_c, way, bounds, parents, ways, state)
        failures = failed[state]
        number = steps_from(m[level], bounds, created[state], steps)
        for at in range(number):
            step = steps[at]
            _copy(flat_m, flat_c, m, level, work)
            _take(own_m, own_c, scratch, shapes, bounds, state, step, failures, marks, taken, parents, ways, failed, created, counts, bad)
            allocations = own_m[SLAB].count
            if failures >= bounds[BOUND_FAILURES] or (bounds[ONLY_FORK_FAILS] and step & 15 != FORK):
                continue
            for n in range(1, allocations + 1):
                _copy(flat_m, flat_c, m, level, work)
                half_built, links = own_m[REACHED].reached[HALF_BUILT], own_m[SLAB].live_avcs
                _take(
                    own_m, own_c, scratch, shapes, bounds, state, with_plan(step, n, 0), failures + 1,
                    marks, taken, parents, ways, failed, created, counts, bad,
                )
                counts[POINTS] += 1
                counts[HALF] += own_m[REACHED].reached[HALF_BUILT] > half_built
                if step & 15 == FORK:
                    counts[LEAKED] += own_m[SLAB].live_avcs - links
                    counts[DANGLING] += _dangling(own_m, own_c)
                if own_m[SLAB].failed > 1:
                    _copy(flat_m, flat_c, m, level, work)
                    _take(
                        own_m, own_c, scratch, shapes, bounds, state, with_plan(step, n, 1), failures + 1,
                        marks, taken, parents, ways, failed, created, counts, bad,
                    )
        state += 1
    return state
