# SPDX-License-Identifier: GPL-2.0-only
"""What one thread explores with: machines, and what it has found with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rmaplab.engine.layout import REACHED
from rmaplab.engine.search import explore as loop
from rmaplab.engine.search import states as found
from rmaplab.engine.search.arena import Arena

if TYPE_CHECKING:
    from rmaplab.engine.machine import Machine

__all__ = ["Shard"]

SPARE, SPARE_APART = 126, 15  # new states for each object of a machine that a chunk may lead to


class Shard:
    """Machines in all states on a way, and the states found: all of them, or (``apart``) those of a part.

    ``room`` objects a machine, which all begin as ``machine`` is.
    """

    def __init__(self, machine: Machine, depth: int, room: int, *, apart: bool) -> None:
        self.arena = arena = Arena(depth, room)
        arena.m[:] = machine.m
        arena.c[:] = machine.c
        arena.way[0] = 0
        self.machines = (arena.m, arena.c, arena.flat_m, arena.flat_c, arena.way, arena.notes)
        self.spare = (SPARE_APART if apart else SPARE) * room
        size = 1 << (4 * self.spare - 1).bit_length()
        self.table = np.zeros(size, np.int64)  # of states by their hashes
        self.fewest = np.zeros(size, np.uint8)  # failures on a way to each
        self.states = np.zeros(size, found.STATE)
        self.keys = np.zeros(size if apart else 0, np.int64)
        self.counts = np.zeros(8, np.int64)
        self.bad = np.zeros((size, 3), np.int64)

    @property
    def reached(self) -> Any:  # noqa: ANN401 (numpy tells no shapes)
        """How often what was reached (:mod:`rmaplab.engine.reached`)."""
        return self.arena.m[-1, REACHED]["reached"]

    @property
    def bytes_each(self) -> int:
        """Bytes that a state takes; a table is never more than half full."""
        return 2 * (self.table.itemsize + self.fewest.itemsize) + self.states.itemsize

    def enter_start(self) -> None:
        """Enter the state that all histories begin with."""
        arena, counts = self.arena, self.counts
        loop.enter_start(arena.m[0], arena.c[0], arena.notes, arena.seats, arena.places, self.table)
        counts[found.STATES] = counts[found.NUMBERS] = 1

    def forget(self) -> None:
        """Begin anew with what is found."""
        for one in (self.table, self.counts, self.reached):
            one.fill(0)

    def expand(self, known: Shard, bounds: Any, first: int, last: int, budget: int) -> int:  # noqa: ANN401
        """Go on from known states, and note what is found; the first of them that is left to do."""
        arena = self.arena
        return int(
            loop.expand(
                *self.machines,
                arena.seats,
                arena.places,
                arena.steps,
                bounds,
                first,
                last,
                budget,
                self.spare,
                known.table,
                known.fewest,
                known.states,
                self.table,
                self.fewest,
                self.states,
                self.keys,
                self.counts,
                self.bad,
            )
        )

    def take_over(self, other: Shard) -> None:
        """Merge what another has found apart into this."""
        self.make_room(int(other.counts[found.NUMBERS]))
        self.reached[:] += other.reached
        found.merge(other.states, other.keys, other.counts, self.table, self.fewest, self.states, self.counts)

    def make_room(self, number: int) -> None:
        """Let tables grow that have none for so many more states."""
        while 2 * (self.counts[found.NUMBERS] + number) > len(self.table):
            larger, fewest = np.zeros(2 * len(self.table), np.int64), np.zeros(2 * len(self.table), np.uint8)
            found.grow_table(self.table, self.fewest, larger, fewest)
            self.table, self.fewest = larger, fewest
        while self.counts[found.NUMBERS] + number > len(self.states):
            self.states = np.concatenate([self.states, np.zeros(len(self.states), found.STATE)])

    def digest(self, known: Shard, bounds: Any, first: int, last: int) -> int:  # noqa: ANN401
        """The exclusive or of the fingerprints of known states, each counted once."""
        arena = self.arena
        return int(
            loop.digest(
                *self.machines,
                arena.shapes,
                arena.out,
                bounds,
                first,
                last,
                known.states,
            )
        )
