# SPDX-License-Identifier: GPL-2.0-only
"""The states that are known: a table of their keys, and a list of the ways to them.

A table has no more than the 64-bit hash of each, and the fewest failures on a
way there.  In the list a state stands where it was first met, and again where
it was met with fewer failures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rmaplab.engine.jit import compiled, entry

if TYPE_CHECKING:
    from rmaplab.engine.layout import Rows

__all__ = [
    "DANGLING",
    "FOUND",
    "HALF",
    "LEAKED",
    "NEVER",
    "NUMBERS",
    "POINTS",
    "STATE",
    "STATES",
    "TRANSITIONS",
    "add",
    "failures_to",
    "grow_table",
    "merge",
    "place_of",
]

NEVER = 255  # more failures than any history has
STATE = np.dtype(
    [
        ("way", "i8"),  # the step that led to it
        ("parent", "i4"),
        ("created", "u2"),  # processes that were named, the dead ones and those that a fork failed to make, too
        ("failed", "u1"),  # allocations on the way
        ("again", "u1"),  # it was met before, with more of them
    ]
)
"""What is kept of a state: where it comes from."""
TRANSITIONS, POINTS, HALF, LEAKED, DANGLING, STATES, FOUND, NUMBERS = range(8)  # places in the array of counts


@compiled
def place_of(table: Rows, key: int) -> int:
    """Where a state is in the table, or may be put: where there is 0, which is no state's key."""
    mask = len(table) - 1
    at = (key ^ (key >> 32)) & mask
    while table[at] and table[at] != key:
        at = (at + 1) & mask
    return at


@compiled
def failures_to(table: Rows, fewest: Rows, key: int) -> int:
    """The fewest failures on a way to a state that was met; :data:`NEVER` if it was not."""
    at = place_of(table, key)
    return fewest[at] if table[at] else NEVER


@compiled
def add(
    table: Rows,
    fewest: Rows,
    states: Rows,
    counts: Rows,
    key: int,
    before: int,
    state: int,
    step: int,
    failures: int,
    created: int,
) -> int:
    """Note a new way to a state, for the first time or with fewer failures than ``before``; its number."""
    at, number = place_of(table, key), counts[NUMBERS]
    if number == len(states):
        raise MemoryError
    table[at] = key
    fewest[at] = failures
    states[number].parent = state
    states[number].way = step
    states[number].failed = failures
    states[number].created = created
    states[number].again = before != NEVER
    counts[STATES] += before == NEVER
    counts[NUMBERS] = number + 1
    return number


@entry
def grow_table(table: Rows, fewest: Rows, larger: Rows, larger_fewest: Rows) -> None:
    """Enter all states of a table into a larger one."""
    for at in range(len(table)):
        if table[at]:
            to = place_of(larger, table[at])
            larger[to] = table[at]
            larger_fewest[to] = fewest[at]


@entry
def merge(
    own_states: Rows, keys: Rows, own_counts: Rows, table: Rows, fewest: Rows, states: Rows, counts: Rows
) -> None:
    """Take over what was found apart, in its order, but for what is known by now."""
    for number in range(own_counts[NUMBERS]):
        failures = own_states[number].failed
        before = failures_to(table, fewest, keys[number])
        if before > failures:
            parent, way, created = own_states[number].parent, own_states[number].way, own_states[number].created
            add(table, fewest, states, counts, keys[number], before, parent, way, failures, created)
    for at in (TRANSITIONS, POINTS, HALF, LEAKED, DANGLING):
        counts[at] += own_counts[at]
