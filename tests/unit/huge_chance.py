# SPDX-License-Identifier: GPL-2.0-only
"""Random calls on ranges that cut huge pages and smaller large folios."""

from random import Random

from huge_parts import FIRST

from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.process import Area

CALLS = (
    ("write", 5),
    ("read", 1),
    ("fork", 2),
    ("exit", 1),
    ("munmap", 1),
    ("mmap", 2),
    ("mprotect", 2),
    ("mremap", 1),
    ("split_folio", 1),
    ("uffd_move", 2),
    ("collapse", 1),
    ("advise", 1),
    ("pin", 1),
)


class Chance:
    """Calls drawn from a seed; ranges are multiples of ``unit`` pages, sometimes a page short."""

    def __init__(self, seed, unit, units):
        self.random = Random(seed)
        self.unit, self.units = unit, units

    def area(self, pages=None):
        first = self.random.randrange(self.units)
        if pages is None:
            units = self.random.randint(1, min(6, self.units - first))
            pages = max(1, units * self.unit - self.random.randrange(2))
        return Area(FIRST + first * self.unit * PAGE_SIZE, pages)

    def call(self, kernel):
        process = kernel.processes[self.random.choice(list(kernel.processes))]
        area = self.area()
        match self.random.choices(*zip(*CALLS, strict=True))[0]:
            case "fork":
                if len(kernel.processes) < 4:
                    process.fork()
            case "exit":
                if len(kernel.processes) > 1:
                    process.exit()
            case "mmap":
                process.mmap(area.pages, at=area.start)
                process.madvise(area, "hugepage")
            case "mprotect":
                process.mprotect(area, self.random.choice(("r", "rw")))
            case "mremap":
                process.mremap(area, at=self.area(area.pages).start, dontunmap=self.random.random() < 0.3)
            case "uffd_move":
                process.uffd_move(area, self.area(area.pages))
            case "advise":
                process.madvise(area, self.random.choice(("hugepage", "nohugepage")))
            case "pin":
                self.pin(process, area.start)
            case "write" | "read" as touch:
                getattr(process, touch)(area, 0)
            case "collapse":
                process.madvise(area, "collapse")
            case name:
                getattr(process, name)(area)

    def pin(self, process, address):
        """Pin an exclusive page, or let a pinned one go."""
        entry = process.mm.page_table.present(address)
        if entry is not None and entry.folio.pins:
            entry.folio.pins = 0
        elif entry is not None and entry.folio.exclusive >> entry.page & 1:
            entry.folio.pins, process.mm.has_pinned = 1, True
