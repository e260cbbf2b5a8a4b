# SPDX-License-Identifier: GPL-2.0-only
"""The machines that an exploration needs at a time, and copies of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import AVC, MACHINE, ROW, Rows
from rmaplab.engine.search.naming import notes
from rmaplab.engine.search.seats import PLACE, SEAT

__all__ = [
    "Arena",
    "copy_machine",
]


LINE = 64
WORDS, HALF_WORDS = ROW.itemsize // 8, AVC.itemsize // 4


class Arena:
    """Machines for the way to a state and one to work on, with scratch; ``room`` objects and AVCs each."""

    def __init__(self, depth: int, room: int) -> None:
        self.m = _aligned(depth + 2, room, ROW)
        self.c = _aligned(depth + 2, 2 * room, AVC)
        self.flat_m = self.m.view(np.int64).reshape(depth + 2, room * WORDS)
        self.flat_c = self.c.view(np.int32).reshape(depth + 2, 2 * room * HALF_WORDS)
        self.way = np.full(depth + 2, -1, np.int64)  # the numbers of the states on the way
        self.notes = notes(room)
        self.seats, self.places = np.zeros(room, SEAT), np.zeros(20 * room, PLACE)
        self.shapes = np.zeros(64 * room, np.int64)
        self.out = np.zeros(64 * room, np.int64)
        self.steps = np.zeros(32 * room, np.int64)


def _aligned(machines: int, room: int, kind: Any) -> Any:  # noqa: ANN401 (numpy tells no shapes)
    """Zeroes that begin at the beginning of a line of the processor's cache: copies take half as long."""
    size = machines * room * kind.itemsize
    memory = np.zeros(size + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + size].view(kind).reshape(machines, room)


@compiled
def copy_machine(flat_m: Rows, flat_c: Rows, m: Rows, source: int, target: int) -> None:
    """Make one machine like another, but for its parameters and what it has reached."""
    from_m, to_m = flat_m[source], flat_m[target]
    for at in range(MACHINE * WORDS, m[source, MACHINE].used * WORDS):
        to_m[at] = from_m[at]
    from_c, to_c = flat_c[source], flat_c[target]
    for at in range(HALF_WORDS, m[source, MACHINE].used_avcs * HALF_WORDS):
        to_c[at] = from_c[at]
