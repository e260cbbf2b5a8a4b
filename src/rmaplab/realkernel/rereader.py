# SPDX-License-Identifier: GPL-2.0-only
"""Reads a graph time and again: of each address space only what has changed since the last time is made out anew."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple, cast

from rmaplab.realkernel.prefetch import PlacesMemory, Prefetch
from rmaplab.realkernel.reader import GraphReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmaplab.realkernel.folios import Leaf
    from rmaplab.realkernel.graph import Graph, RawAvc, RawVma
    from rmaplab.realkernel.target import Target, Task

__all__ = ["Rereader"]


class Space(NamedTuple):
    """An address space as it was read: from which bytes, as the task of which number, and what came out."""

    places: dict[tuple[int, int], bytes | None]
    number: int
    pgd: int
    vmas: list[RawVma]
    avcs: dict[int, RawAvc]
    leaves: list[Leaf]

    def of(self, number: int) -> Space:
        """The same as the task of another number."""
        if number == self.number:
            return self
        vmas = [vma._replace(task=number) for vma in self.vmas]
        return self._replace(number=number, vmas=vmas, leaves=[leaf._replace(task=number) for leaf in self.leaves])


class Rereader:
    """For a machine that stands still while it is read; ``lo`` and ``hi`` as for :class:`GraphReader`."""

    def __init__(self, target: Target, lo: int = 0, hi: int = 1 << 64) -> None:
        self.memory = Prefetch(cast("PlacesMemory", target.memory))
        reading = copy.copy(target)
        reading.memory = self.memory
        self.reader = GraphReader(reading, lo, hi)
        self.spaces: dict[int, Space] = {}

    def unchanged(self) -> bool:
        """Begin another reading: whether all that the last one looked at is as it was."""
        return self.memory.again()

    def read(self, tasks: Sequence[Task]) -> Graph:
        """The graph of processes, each with an address space of its own, or else as :class:`GraphReader` reads it."""
        spaces: dict[int, Space] = {}
        for number, task in enumerate(tasks):
            space = self.spaces.get(task.mm)
            if space is None or not self.memory.unchanged(space.places):
                space = self.read_space(task)
            if space is None or task.mm in spaces:
                return self.read_plainly(tasks)
            spaces[task.mm] = space.of(number)
        self.spaces = spaces
        reader = self.reader.anew()
        graph, leaves = reader.graph, []
        graph.tasks = list(tasks)
        for mm, space in spaces.items():
            graph.pgds[mm] = space.pgd
            graph.vmas += space.vmas
            graph.avcs |= space.avcs
            leaves += space.leaves
        if len(graph.avcs) < sum(len(space.avcs) for space in spaces.values()):
            return self.read_plainly(tasks)  # which tells of AVCs on two lists
        reader.read_anon_vmas()
        reader.read_trees()
        reader.folios.take(graph, leaves)
        reader.read_anon_vmas()
        reader.read_trees()
        return graph

    def read_plainly(self, tasks: Sequence[Task]) -> Graph:
        """All of it, whatever was known."""
        self.spaces = {}
        return self.reader.anew().read(tasks)

    def read_space(self, task: Task) -> Space | None:
        """One address space; None if there is anything to remark."""
        reader = self.reader.anew()
        graph = reader.graph
        with self.memory.noted() as places:
            reader.read_spaces([task])
            leaves = reader.folios.leaves(graph) if reader.target.machine.knows_pages else []
        if graph.remarks or not reader.target.machine.knows_pages:
            return None
        return Space(places, 0, graph.pgds[task.mm], graph.vmas, graph.avcs, leaves)
