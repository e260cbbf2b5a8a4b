# SPDX-License-Identifier: GPL-2.0-only
"""Random histories on rows: each allocation of each call fails once, and every invariant is checked.

What :class:`rmaplab.check.random_history.RandomHistory` does with calls from
small bounds, but led by nothing that it has seen: all calls that a state
allows are as likely.  A history depends on the seed and its number alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.engine.jit import compiled, entry
from rmaplab.engine.layout import MACHINE, SLAB, Avcs, Rows
from rmaplab.engine.rows import settle
from rmaplab.engine.search.alphabet import steps_from
from rmaplab.engine.search.arena import copy_machine
from rmaplab.engine.search.judge import judge_call
from rmaplab.engine.search.making import make_step
from rmaplab.engine.search.mark import mark
from rmaplab.engine.search.steps import CALL, EXEC, EXIT, FORK, STOPS, step_number, with_plan
from rmaplab.engine.watch import mix

if TYPE_CHECKING:
    from rmaplab.engine.search.naming import Notes

__all__ = [
    "FAILURES",
    "LENGTH",
    "LONGEST",
    "MACHINES",
    "MOST_ERRNO",
    "NUMBER",
    "OPERATIONS",
    "VIOLATED",
    "play",
]

OPERATIONS, FAILURES = range(2)  # places in the array of counts
NUMBER, LENGTH, VIOLATED = range(3)  # columns of ``bad``
MACHINES = 4  # the first is as all histories begin; one is in the present state, two are to try on
LENGTHS = (12, 25, 60)  # calls drawn
LONGEST = LENGTHS[-1] + 60  # with all processes' exits
GO_ON = 20  # one call of so many stays as it failed
MOST_ERRNO = 255


@compiled
def _draw(random: int, at: int, below: int) -> int:
    """The number at a place of a row of random ones, from 0 to below ``below``."""
    return (mix(random, at) >> 16 & 0xFFFF_FFFF) % below


@compiled
def _next_step(m: Rows, bounds: Rows, created: int, steps: Rows, random: int, drawn: int, length: int) -> int:
    """A call that the state allows; after ``length`` of them every process exits.  0: there is none left.

    Before that the last one does something else instead, if it can.
    """
    process = m[MACHINE].first_process
    if not process:
        return 0
    if drawn >= length:
        return step_number(EXIT, m[process].id, 0, 0, 0, 0)
    step = steps[_draw(random, 2 * drawn, steps_from(m, bounds, created, steps))]
    return steps[0] if step & CALL == EXIT and m[MACHINE].processes == 1 else step


@compiled
def _try(
    m: Rows, c: Avcs, s: Notes, seats: Rows, places: Rows, bounds: Rows, step: int, before: int, counts: Rows
) -> tuple[int, int, int]:
    """Make a call: what it returns, the state's hash, and what is violated unless the state is the one before."""
    counts[OPERATIONS] += 1
    rc = make_step(m, c, bounds, step)
    state = 0 if m[MACHINE].crashed else mark(m, c, s, seats, places)
    return rc, state, judge_call(m, c, s, bounds, state == before)


@compiled
def _fail_each(
    m: Rows,
    c: Avcs,
    flat_m: Rows,
    flat_c: Rows,
    s: Notes,
    seats: Rows,
    places: Rows,
    bounds: Rows,
    step: int,
    state: int,
    now: int,
    trial: int,
    allocations: int,
    counts: Rows,
) -> tuple[int, int]:
    """Make a call with each of its allocations failing; the first way that violates something, and what, or 0."""
    n, nowait = 1, 0
    while n <= allocations:
        copy_machine(flat_m, flat_c, m, now, trial)
        failing = with_plan(step, n, nowait)
        _, _, found = _try(m[trial], c[trial], s, seats, places, bounds, failing, state, counts)
        counts[FAILURES] += 1
        if found:
            return failing, found
        nowait = m[trial, SLAB].failed > 1 and not nowait  # a second attempt was made: now that succeeds
        n += not nowait
    return step, 0


@compiled
def _is_new(bad: Rows, number: int, found: int) -> bool:
    """Whether none of so many histories violated the same, and there is room for another."""
    for at in range(number):
        if bad[at, VIOLATED] == found:
            return False
    return number < len(bad)


@entry
def play(
    m: Rows,
    c: Avcs,
    flat_m: Rows,
    flat_c: Rows,
    s: Notes,
    seats: Rows,
    places: Rows,
    steps: Rows,
    bounds: Rows,
    seed: int,
    first: int,
    last: int,
    born: int,
    counts: Rows,
    outcomes: Rows,
    bad: Rows,
    histories: Rows,
) -> int:
    """Play the histories [first, last); the first that is left to do.

    ``born`` is the number of processes that there were at the start.  In ``bad``
    are those that violated a set of invariants that none before it did, and
    in the same row of ``histories`` their steps; ``outcomes[call, errno]``
    counts the calls that histories are made of.
    """
    violated = 0
    for number in range(first, last):
        now, then, trial = 1, 2, 3
        copy_machine(flat_m, flat_c, m, 0, now)
        random = mix(seed, number)
        length = LENGTHS[_draw(random, -1, len(LENGTHS))]
        created, drawn, at, found = born, 0, 0, 0
        state = mark(m[now], c[now], s, seats, places)
        step = _next_step(m[now], bounds, created, steps, random, drawn, length)
        while step:
            copy_machine(flat_m, flat_c, m, now, then)
            rc, after, found = _try(m[then], c[then], s, seats, places, bounds, step, state, counts)
            allocations = m[then, SLAB].count
            if not found:
                step, found = _fail_each(
                    m, c, flat_m, flat_c, s, seats, places, bounds, step, state, now, trial, allocations, counts
                )
            if not found and allocations and _draw(random, 2 * drawn + 1, GO_ON) == 0:
                step = with_plan(step, 1 + _draw(random, -2 - drawn, allocations), 0)
                copy_machine(flat_m, flat_c, m, now, then)
                rc, after, found = _try(m[then], c[then], s, seats, places, bounds, step, state, counts)
            drawn += 1
            histories[violated, at] = step
            if found:
                at += 1
                break
            if step & CALL != EXEC or rc == 0:  # the text of a history takes it that an exec did as it was told
                at += 1
                outcomes[step & CALL, min(max(-rc, 0), MOST_ERRNO)] += 1
                created += step & CALL == FORK
                now, then, state = then, now, after
                if 2 * m[now, MACHINE].used > len(m[now]) or 2 * m[now, MACHINE].used_avcs > len(c[now]):
                    settle(m[now], c[now])
            step = _next_step(m[now], bounds, created, steps, random, drawn, length)
        if found and _is_new(bad, violated, found):
            bad[violated, NUMBER], bad[violated, LENGTH], bad[violated, VIOLATED] = number, at, found
            violated += 1
            if bounds[STOPS]:
                return number + 1
    return last
