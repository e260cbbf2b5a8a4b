# SPDX-License-Identifier: GPL-2.0-only
"""Calls drawn from a seed, on a watched machine."""

from random import Random

from rmaplab.check.execute import Plan, execute
from rmaplab.check.monitor import monitored
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.scenario import Exit, Fork, Mmap, Mprotect, Munmap, Pages, Read, Write
from rmaplab.series import SERIES

BASE = 0x10000000
PAGES = 2  # of an area; areas touch
AREAS = "ABCD"
PROTECTIONS = (*["rw"] * 6, *["r"] * 5, "rwx", "none")
ALONE = 20  # calls before the first fork: only a VMA that was not inherited merges freely
CALLS = 100


class Chance:
    """Draws calls from a seed; what it may draw depends on the state, the rest is up to the seed."""

    def __init__(self, seed):
        self.random = Random(seed)
        self.made = 0
        self.drawn = 0
        self.agenda = []

    def call(self, kernel):
        self.drawn += 1
        if self.drawn % 25 == 1:
            self.agenda = self.faulted_beside_unfaulted(self.random.choice(list(kernel.processes)))
        if self.agenda:
            return self.agenda.pop(0)
        processes = list(kernel.processes.values())
        process = self.random.choices(processes, range(1, len(processes) + 1))[0]  # rather a young one: deep trees
        kind = self.random.choices(
            ("mmap", "write", "read", "mprotect", "munmap", "fork", "exit"), (4, 7, 2, 8, 2, 6, 4)
        )[0]
        if kind == "fork" and len(kernel.processes) < 7 and self.drawn > ALONE:
            self.made += 1
            return Fork(process.name, f"P{self.made}")
        if kind == "exit" and len(kernel.processes) > 1:
            return Exit(process.name)
        if kind == "mmap" or not process.areas:
            return self.mmap(process)
        pages = self.pages(process)
        match kind:
            case "munmap":
                return Munmap(process.name, pages)
            case "mprotect":
                return Mprotect(process.name, pages, self.random.choice(PROTECTIONS))
            case "read":
                return Read(process.name, pages)
        return Write(process.name, pages)

    def mmap(self, process):
        number = self.random.randrange(len(AREAS))
        return Mmap(
            process.name,
            AREAS[number],
            PAGES,
            at=BASE + number * PAGES * PAGE_SIZE,
            prot=self.random.choice(PROTECTIONS),
            file=self.random.choice((None, None, None, None, None, "f")),
            shared=self.random.random() < 0.05,
        )

    def faulted_beside_unfaulted(self, name):
        """Rarely met by chance: two VMAs that become mergeable, one with an anon_vma and one without."""
        number = self.random.randrange(len(AREAS) - 1)
        low, high = (Mmap(name, AREAS[at], PAGES, at=BASE + at * PAGES * PAGE_SIZE) for at in (number, number + 1))
        first, whole = Pages(high.area, 0, 0), Pages(high.area, 0, PAGES - 1)
        return [high, Write(name, first), Mprotect(name, whole, "r"), low, Mprotect(name, first, "rw")]

    def pages(self, process):
        first, last = sorted(self.random.choices(range(PAGES), k=2))
        return Pages(self.random.choice(sorted(process.areas)), first, last)

    def plan(self):
        return Plan(self.random.randint(1, 8), self.random.random() < 0.3)


def machine(series):
    kernel = monitored(SERIES[series])()
    kernel.spawn()
    return kernel


def end_all(kernel):
    """Every process exits; nothing is left."""
    for name in list(kernel.processes):
        assert execute(kernel, Exit(name)).violations == []
    assert not kernel.live_anon_vmas
