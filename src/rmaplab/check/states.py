# SPDX-License-Identifier: GPL-2.0-only
"""The states that an exploration has met: fingerprints, and for each the way there, in a few bytes."""

from __future__ import annotations

import sys
from array import array
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rmaplab.check.expand import History
    from rmaplab.check.steps import Step

__all__ = ["States"]


class States:
    """States by number, 0 the first; each is kept as the number of the one before and of the step from there.

    ``visited`` maps fingerprints to the fewest failures on a way there; a
    state that is met again with fewer is entered again.
    """

    def __init__(self, mark: int, created: int) -> None:
        self.visited: dict[int, int] = {mark: 0}
        self.parents = array("l", [0])
        self.steps = array("l", [-1])
        self.failures = array("B", [0])
        self.created = array("H", [created])
        self.table: list[Step] = []
        self.numbers: dict[Step, int] = {}

    def __len__(self) -> int:
        return len(self.visited)

    def add(self, parent: int, step: Step, failures: int, mark: int, forked: bool) -> int | None:
        """Enter a state; its number, or None if it is known with no more failures."""
        known = self.visited.get(mark)
        if known is not None and known <= failures:
            return None
        self.visited[mark] = failures
        number = self.numbers.get(step)
        if number is None:
            number = self.numbers[step] = len(self.table)
            self.table.append(step)
        self.parents.append(parent)
        self.steps.append(number)
        self.failures.append(failures)
        self.created.append(self.created[parent] + forked)
        return len(self.parents) - 1

    def history(self, index: int) -> History:
        """The steps to a state, what has failed on the way, and the number of the next child."""
        failures, created = self.failures[index], self.created[index]
        steps = []
        while index:
            steps.append(self.table[self.steps[index]])
            index = self.parents[index]
        return steps[::-1], failures, created

    def digest(self) -> int:
        """The exclusive or of all fingerprints, 64 bits."""
        return reduce(xor, self.visited) & 0xFFFF_FFFF_FFFF_FFFF

    def bytes_each(self) -> int:
        """Bytes that a state takes here, on average: its share of the tables, its fingerprint and its way there."""
        rows = (self.parents, self.steps, self.failures, self.created)
        size = sys.getsizeof(self.visited) + sum(len(row) * row.itemsize for row in rows)
        return size // len(self) + sys.getsizeof(1 << 62)
