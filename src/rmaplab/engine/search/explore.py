# SPDX-License-Identifier: GPL-2.0-only
"""The explorer's loop on rows: breadth first, each call, then each of its allocations failing.

What :class:`rmaplab.check.expand.Expander` and ``_Search`` do state by state
and in the same order, so numbers, counts and shortest histories are the same.
A state is not kept, but its fingerprint and the way there; machines along the
way to the latest one are, since the next is reached by most of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.engine.jit import compiled, entry
from rmaplab.engine.layout import MACHINE, REACHED, SLAB, Avcs, Rows
from rmaplab.engine.reached import HALF_BUILT
from rmaplab.engine.rows import settle
from rmaplab.engine.search.alphabet import steps_from
from rmaplab.engine.search.arena import copy_machine
from rmaplab.engine.search.fingerprint import fingerprint
from rmaplab.engine.search.judge import judge_call
from rmaplab.engine.search.making import make_step
from rmaplab.engine.search.mark import mark
from rmaplab.engine.search.states import (
    DANGLING,
    FOUND,
    HALF,
    LEAKED,
    NEVER,
    NUMBERS,
    POINTS,
    TRANSITIONS,
    add,
    failures_to,
    place_of,
)
from rmaplab.engine.search.steps import (
    BOUND_FAILURES,
    CALL,
    FORK,
    MAX_N,
    ONLY_FORK_FAILS,
    STOPS,
    with_plan,
)

if TYPE_CHECKING:
    from rmaplab.engine.search.naming import Notes

__all__ = [
    "CHUNK",
    "digest",
    "enter_start",
    "expand",
]

CHUNK = 32  # states after which a violation ends the search


@compiled
def _key_of(m: Rows, c: Avcs, s: Notes, seats: Rows, places: Rows) -> int:
    key = mark(m, c, s, seats, places)
    return key if key else 1


@entry
def enter_start(m: Rows, c: Avcs, s: Notes, seats: Rows, places: Rows, table: Rows) -> None:
    """Enter the state to start from."""
    key = _key_of(m, c, s, seats, places)
    table[place_of(table, key)] = key


# --- the loop --------------------------------------------------------------------------------------


@compiled
def _go(m: Rows, c: Avcs, flat_m: Rows, flat_c: Rows, way: Rows, bounds: Rows, states: Rows, state: int) -> int:
    """Take the machines to a state; the level that is it."""
    level, at = 0, state
    while at:
        level += 1
        at = states[at].parent
    depth, at = level, state
    while level and way[level] != at:
        way[level] = at
        at = states[at].parent
        level -= 1
    while level < depth:
        copy_machine(flat_m, flat_c, m, level, level + 1)
        level += 1
        make_step(m[level], c[level], bounds, states[way[level]].way)
        # What was retired is in nobody's way until there is much of it.
        if 2 * m[level, MACHINE].used > len(m[level]) or 2 * m[level, MACHINE].used_avcs > len(c[level]):
            settle(m[level], c[level])
    return depth


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
    s: Notes,
    seats: Rows,
    places: Rows,
    bounds: Rows,
    state: int,
    step: int,
    failures: int,
    table: Rows,
    fewest: Rows,
    states: Rows,
    own_table: Rows,
    own_fewest: Rows,
    own_states: Rows,
    keys: Rows,
    counts: Rows,
    bad: Rows,
) -> None:
    """Make one transition, and note the state it leads to unless it is known."""
    counts[TRANSITIONS] += 1
    make_step(m, c, bounds, step)
    key, before = 0, NEVER
    if not m[MACHINE].crashed:
        key = _key_of(m, c, s, seats, places)
        before = failures_to(table, fewest, key)
        if before > failures:
            before = min(before, failures_to(own_table, own_fewest, key))
    found = judge_call(m, c, s, bounds, before != NEVER)
    if found:
        number = counts[FOUND]
        if number == len(bad):
            raise MemoryError
        bad[number, 0] = state
        bad[number, 1] = step
        bad[number, 2] = found
        counts[FOUND] = number + 1
    elif before > failures:
        created = states[state].created + (step & CALL == FORK)
        number = add(own_table, own_fewest, own_states, counts, key, before, state, step, failures, created)
        if len(keys):
            keys[number] = key


@entry
def expand(
    m: Rows,
    c: Avcs,
    flat_m: Rows,
    flat_c: Rows,
    way: Rows,
    s: Notes,
    seats: Rows,
    places: Rows,
    steps: Rows,
    bounds: Rows,
    first: int,
    last: int,
    budget: int,
    spare: int,
    table: Rows,
    fewest: Rows,
    states: Rows,
    own_table: Rows,
    own_fewest: Rows,
    own_states: Rows,
    keys: Rows,
    counts: Rows,
    bad: Rows,
) -> int:
    """Make every call from the end of the histories [first, last) in turn; the first that is left to do.

    ``states`` and their ``table`` are what is known; what is found goes to the
    ``own`` ones, which may be the same, or apart with their ``keys``, for
    :func:`merge`.  It comes back at the end of a chunk: when something is
    violated, after ``budget`` transitions, and where there is no room for
    ``spare`` states.
    """
    work = len(m) - 1
    own_m, own_c = m[work], c[work]
    until = counts[TRANSITIONS] + budget
    state = first
    while state < last:
        if (state - first) % CHUNK == 0 and (
            (counts[FOUND] and bounds[STOPS])
            or counts[FOUND] + spare > len(bad)
            or counts[TRANSITIONS] > until
            or 2 * (counts[NUMBERS] + spare) > len(own_table)
            or counts[NUMBERS] + spare > len(own_states)
        ):
            return state
        level = _go(m, c, flat_m, flat_c, way, bounds, states, state)
        failures = states[state].failed
        number = steps_from(m[level], bounds, states[state].created, steps)
        for at in range(number):
            step = steps[at]
            fails = failures < bounds[BOUND_FAILURES] and (not bounds[ONLY_FORK_FAILS] or step & CALL == FORK)
            allocations = n = nowait = 0  # first nothing fails, then each allocation in turn
            while n <= allocations:
                copy_machine(flat_m, flat_c, m, level, work)
                half_built, links = own_m[REACHED].reached[HALF_BUILT], own_m[SLAB].live_avcs
                _take(
                    own_m,
                    own_c,
                    s,
                    seats,
                    places,
                    bounds,
                    state,
                    with_plan(step, n, nowait),
                    failures + (n > 0),
                    table,
                    fewest,
                    states,
                    own_table,
                    own_fewest,
                    own_states,
                    keys,
                    counts,
                    bad,
                )
                if n == 0:
                    allocations = own_m[SLAB].count if fails else 0
                    if allocations > MAX_N:
                        raise OverflowError
                elif not nowait:
                    counts[POINTS] += 1
                    counts[HALF] += own_m[REACHED].reached[HALF_BUILT] > half_built
                    if step & CALL == FORK:
                        counts[LEAKED] += own_m[SLAB].live_avcs - links
                        counts[DANGLING] += _dangling(own_m, own_c)
                    if own_m[SLAB].failed > 1:  # a second attempt was made, which now succeeds
                        nowait = 1
                        continue
                n += 1
                nowait = 0
        state += 1
    return state


@entry
def digest(
    m: Rows,
    c: Avcs,
    flat_m: Rows,
    flat_c: Rows,
    way: Rows,
    s: Notes,
    shapes: Rows,
    out: Rows,
    bounds: Rows,
    first: int,
    last: int,
    states: Rows,
) -> int:
    """The exclusive or of the fingerprints of the states [first, last)."""
    sum_of_all = 0
    for state in range(first, last):
        if not states[state].again:
            level = _go(m, c, flat_m, flat_c, way, bounds, states, state)
            sum_of_all ^= fingerprint(m[level], c[level], s, shapes, out, False)
    return sum_of_all
