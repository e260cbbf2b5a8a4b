# SPDX-License-Identifier: GPL-2.0-only
"""Random calls on ranges that cut huge pages and smaller large folios; every invariant after each call."""

from contextlib import suppress
from random import Random

import pytest
from huge_parts import FIRST, PAGES, holds, machine, pmd, wanted

from rmaplab.kernel.flags import PAGE_SIZE, PMD_ORDER
from rmaplab.kernel.process import Area
from rmaplab.kernel.slab import KINDS

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


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("orders", "unit", "units", "calls"), [((2, PMD_ORDER), PAGES // 4, 16, 60), ((1, 2), 1, 12, 120)]
)
def test_nothing_breaks(orders, unit, units, calls, seed):
    kernel, process = machine(*orders)
    wanted(process, unit * units)
    chance = Chance(seed, unit, units)
    for _ in range(calls):
        kernel.slab.plan(chance.random.randrange(6), kind=chance.random.choice(KINDS))
        with suppress(OSError):
            chance.call(kernel)
        kernel.slab.disarm()
        assert holds(kernel)


def test_a_merge_that_splits_a_huge_entry_touches_no_page():
    """A boundary moves into the middle of a huge page: AV-031 looks at pages, not at entries."""
    kernel, process = machine(PMD_ORDER)
    area = wanted(process, 2 * PAGES)
    process.write(area, 0)
    process.write(area, PAGES)
    process.mprotect(area.part(0, PAGES - 1), "r")
    folio = pmd(process, area.page(PAGES)).folio
    process.mprotect(area.part(PAGES, PAGES + 99), "r")
    assert [vma.vm_end - vma.vm_start for vma in process.mm.vmas] == [
        (PAGES + 100) * PAGE_SIZE,
        (PAGES - 100) * PAGE_SIZE,
    ]
    assert folio.mapcount == PAGES
    assert pmd(process).folio.mapcount == 1
    assert holds(kernel)
