# SPDX-License-Identifier: GPL-2.0-only
"""Draws calls at random: histories over every operation the model knows.

What may be drawn depends on the state, the rest on the source of random
numbers.  Each history uses a subset of the operations only: rare combinations
of few operations come up far more often than if all were always mixed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, VM_MERGEABLE, VM_WRITE
from rmaplab.kernel.pagetable import Pte, SwapPte
from rmaplab.scenario.base import Pages
from rmaplab.scenario.calls import (
    Brk,
    Call,
    Exec,
    Exit,
    Fork,
    Ksm,
    Madvise,
    Migrate,
    Mlock,
    Mmap,
    Mprotect,
    Mremap,
    Munlock,
    Munmap,
    Pin,
    Read,
    SplitFolio,
    StackGrow,
    Swapin,
    Swapout,
    UffdMove,
    Unpin,
    Write,
)
from rmaplab.scenario.statements import Ksmd

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from rmaplab.kernel import Kernel, Process
    from rmaplab.kernel.pagetable import Entry

__all__ = ["Drawn", "Generator", "ending"]

Drawn = Call | Ksmd
"""What a history is made of."""

BASE = 0x10_0000_0000
PAGES = 4  # of an area; areas touch, so that they can merge
AREAS = "ABCD"
PROTECTIONS = (*["rw"] * 8, *["r"] * 6, "rwx", "none")
FLAG_ADVICES = ("dontfork", "dofork", "wipeonfork", "keeponfork", "dontdump", "dodump", "hugepage", "nohugepage")
PROCESSES = 6  # alive at a time
CONTENTS = ("zeros", "ones")

# How often a kind of call is drawn, if the history uses it at all.
CORE = {"neighbours": 1, "mmap": 5, "write": 9, "mprotect": 6, "munmap": 3, "fork": 5, "exit": 3}
EXTRA = {
    "read": 2,
    "mremap": 6,
    "flags": 4,
    "dontneed": 2,
    "guard": 2,
    "mlock": 1,
    "brk": 3,
    "stack-grow": 2,
    "exec": 1,
    "swap": 6,
    "migrate": 3,
    "pin": 3,
    "ksm": 6,
    "uffd-move": 3,
    "split-folio": 2,
}


class Generator:
    """The calls of one history: kinds of ``core`` and of ``extra`` (``some`` or all), no advice of ``without``.

    They are made on up to four ``areas`` of ``size`` pages each, which lie side by side from ``base`` on.
    With ``homing`` some moves lead back to where the pages' offsets belong.
    """

    def __init__(
        self,
        random: Random,
        core: dict[str, int] = CORE,
        extra: dict[str, int] = EXTRA,
        processes: int = PROCESSES,
        without: frozenset[str] = frozenset(),
        base: int = BASE,
        areas: int = len(AREAS),
        size: int = PAGES,
        homing: bool = False,
        some: bool = True,
    ) -> None:
        self.homing = homing
        self.base = base
        self.areas = AREAS[:areas]
        self.size = size
        self.random = random
        self.processes = processes
        self.advices = [advice for advice in FLAG_ADVICES if advice not in without]
        chosen = self.random.sample(sorted(extra), self.random.randint(0, min(6, len(extra)))) if some else extra
        self.weights = core | {kind: extra[kind] for kind in chosen}
        self.fork_from = self.random.choice((0, 0, 10, 20))  # only what was not inherited merges freely
        self.large = self.random.random() < 0.5
        self.made = 0
        self.drawn = 0
        self.agenda: list[Call] = []

    def configure(self, kernel: Kernel) -> None:
        """Half of the histories run on a machine that gives folios of four pages to whoever asks for huge ones."""
        if self.large:
            kernel.anon_orders = (2,)

    def call(self, kernel: Kernel) -> Drawn:
        """The next call; some process is alive."""
        self.drawn += 1
        if self.agenda and self.agenda[0].process in kernel.processes:
            return self.agenda.pop(0)
        processes = list(kernel.processes.values())
        process = self.random.choices(processes, range(1, len(processes) + 1))[0]  # rather a young one: deep trees
        kind = self.random.choices(list(self.weights), list(self.weights.values()))[0]
        if kind == "fork" and len(processes) < self.processes and self.drawn > self.fork_from:
            self.made += 1
            return Fork(process.name, f"P{self.made}")
        if kind == "exit" and len(processes) > 1:
            return Exit(process.name)
        if kind == "brk":
            return self.brk(process)
        if kind in ("stack-grow", "exec"):
            return StackGrow(process.name, self.random.randint(1, 2)) if kind == "stack-grow" else Exec(process.name)
        if kind == "neighbours":
            self.agenda = self.faulted_beside_unfaulted(process)
            return self.agenda.pop(0)
        if kind == "mmap" or not process.areas:
            return self.mmap(process)
        if kind in ("swap", "migrate", "pin", "ksm", "uffd-move", "split-folio"):
            return self.on_page(process, kind)
        return self.on_pages(process, kind)

    def on_page(self, process: Process, kind: str) -> Drawn:
        """What happens to a page behind the process's back, preferably to one that it can happen to."""
        name, draw = process.name, self.random.choice
        pages = self.page_where(process, _is_anonymous) or self.pages(process)
        again = draw((True, False))
        match kind:
            case "swap":
                swapped = self.page_where(process, lambda entry: isinstance(entry, SwapPte))
                if swapped is not None and again:
                    return Swapin(name, swapped)
                return Swapout(name, pages, cached=draw((True, False)))
            case "pin":
                pinned = self.page_where(process, lambda entry: isinstance(entry, Pte) and entry.folio.pins > 0)
                return Pin(name, pages, write=draw((True, False))) if pinned is None or again else Unpin(name, pinned)
            case "ksm":
                return self.ksm(process, pages)
            case "uffd-move":
                return self.uffd_move(process, pages)
            case "split-folio":
                return SplitFolio(name, pages)
        return Migrate(name, pages)

    def on_pages(self, process: Process, kind: str) -> Call:
        """A call on pages of one of the process's areas."""
        name, pages, draw = process.name, self.pages(process), self.random.choice
        match kind:
            case "munmap":
                return Munmap(name, pages)
            case "mprotect":
                return Mprotect(name, pages, draw(PROTECTIONS))
            case "read":
                return Read(name, pages)
            case "mremap":
                return self.mremap(process, pages)
            case "flags":
                return Madvise(name, pages, draw(self.advices))
            case "dontneed":
                return Madvise(name, pages, "dontneed")
            case "guard":
                return Madvise(name, pages, draw(("guard-install", "guard-remove")))
            case "mlock":
                return draw((Mlock, Munlock))(name, pages)
        return Write(name, pages)

    def mmap(self, process: Process) -> Mmap:
        """Into one of the slots, over whatever is there."""
        number = self.random.randrange(len(self.areas))
        return Mmap(
            process.name,
            self.areas[number],
            self.size,
            at=self.slot(number),
            prot=self.random.choice(PROTECTIONS),
            file=self.random.choice((None, None, None, None, None, "f")),
            shared=self.random.random() < 0.05,
        )

    def pages(self, process: Process) -> Pages:
        """One page, or a part of an area, near its start if it is long; mostly where writing is allowed."""
        for _ in range(4):
            area = self.random.choice(sorted(process.areas))
            size = min(process.areas[area].pages, 8)
            first, last = sorted(self.random.choices(range(size), k=2))
            vma = process.mm.lookup(process.areas[area].page(first))
            if vma is not None and vma.vm_flags & VM_WRITE:
                break
        return Pages(area, first, last if self.random.random() < 0.6 else first)

    def page_where(self, process: Process, wanted: Callable[[Entry | None], bool]) -> Pages | None:
        """One page of the process whose entry is as wanted, if there is any."""
        found = [
            Pages(name, index, index)
            for name, area in sorted(process.areas.items())
            for index in range(min(area.pages, 8))
            if wanted(process.mm.page_table.get(area.page(index)))
        ]
        return self.random.choice(found) if found else None

    def faulted_beside_unfaulted(self, process: Process) -> list[Call]:
        """Rarely met by chance: two VMAs that become mergeable, of which one has an anon_vma."""
        number = self.random.randrange(len(self.areas) - 1)
        order = self.random.sample((number, number + 1), 2)
        touched, other = (Mmap(process.name, self.areas[at], self.size, at=self.slot(at)) for at in order)
        at = 0 if order[1] < order[0] else self.size - 1  # the page beside the other area
        part, whole, name = Pages(touched.area, at, at), Pages(touched.area, 0, self.size - 1), process.name
        return [touched, Write(name, part), Mprotect(name, whole, "r"), other, Mprotect(name, part, "rw")]

    def brk(self, process: Process) -> Brk:
        """Rather more heap than less."""
        heap = process.areas.get("heap")
        room = 0 if heap is None else heap.pages
        return Brk(process.name, -1 if room and self.random.random() < 0.3 else self.random.randint(1, 2))

    def mremap(self, process: Process, pages: Pages) -> Mremap:
        """Resize in place, or move: to a free place, to a slot beside other areas, leaving the source or not."""
        count = pages.count
        how = self.random.choice(("resize", "free", "slot", "slot", "dontunmap", "slot-dontunmap"))
        if self.homing and self.random.random() < 0.4:
            vma = process.mm.lookup(process.areas[pages.area].page(pages.first))
            if vma is not None and vma.file is None and vma.vm_start >> PAGE_SHIFT != vma.anon_pgoff:
                offset = process.areas[pages.area].page(pages.first) - vma.vm_start
                home = (vma.anon_pgoff << PAGE_SHIFT) + offset
                return Mremap(process.name, pages, self.random.choice(self.areas), at=home)
        if how == "resize" and pages.area in self.areas:
            return Mremap(process.name, pages, pages.area, pages=self.random.randint(1, self.size + 2))
        target = self.random.randrange(len(self.areas))
        at = self.slot(target) + self.random.randrange(self.size) * PAGE_SIZE if how.startswith("slot") else None
        size = None if how.endswith("dontunmap") else self.random.choice((None, None, count + 1))
        return Mremap(process.name, pages, self.areas[target], at=at, pages=size, dontunmap=how.endswith("dontunmap"))

    def ksm(self, process: Process, pages: Pages) -> Drawn:
        """Mostly merge what may be merged; else allow or forbid it, or let ksmd scan."""
        vma = process.mm.lookup(process.areas[pages.area].page(pages.first))
        if vma is None or not vma.vm_flags & VM_MERGEABLE:
            return Madvise(process.name, pages, "mergeable")
        what = self.random.choices(("merge", "unmergeable", "scan"), (6, 1, 2))[0]
        if what == "merge":
            return Ksm(process.name, pages, self.random.choice(CONTENTS))
        return Ksmd() if what == "scan" else Madvise(process.name, pages, "unmergeable")

    def uffd_move(self, process: Process, pages: Pages) -> UffdMove:
        """To pages that nothing is mapped at, if there are any."""
        areas = sorted(process.areas)
        table = process.mm.page_table
        for area in self.random.sample(areas, len(areas)):
            target = process.areas[area]
            free = [page for page in range(min(target.pages, 8)) if table.get(target.page(page)) is None]
            if free:
                page = self.random.choice(free)
                return UffdMove(process.name, Pages(pages.area, pages.first, pages.first), Pages(area, page, page))
        return UffdMove(process.name, pages, pages)

    def slot(self, number: int) -> int:
        """Where the area of a number begins, in bytes."""
        return self.base + number * self.size * PAGE_SIZE

    def ending(self, kernel: Kernel) -> list[Drawn]:
        """See :func:`ending`."""
        return ending(kernel)


def ending(kernel: Kernel) -> list[Drawn]:
    """The calls after which nothing is left: every process exits, and ksmd lets go."""
    return [*(Exit(name) for name in kernel.processes), Ksmd()]


def _is_anonymous(entry: Entry | None) -> bool:
    return isinstance(entry, Pte) and entry.folio.anon
