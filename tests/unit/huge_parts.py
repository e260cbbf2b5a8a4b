# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of large folios begin with, and what they look at."""

from machine_parts import BASE

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PMD_ORDER, PMD_SIZE

PAGES = 1 << PMD_ORDER
ALL = (1 << PAGES) - 1
FIRST = -(-BASE // PMD_SIZE) * PMD_SIZE  # huge pages of the tests begin here


def machine(*orders, series=Kernel):
    """A watched machine that maps folios of these orders, and its first process."""

    class Orders(series):
        anon_orders = orders

    kernel = monitored(Orders)()
    return kernel, kernel.spawn()


def wanted(process, pages=PAGES, at=FIRST):
    """An area whose memory should be large."""
    area = process.mmap(pages, at=at)
    process.madvise(area, "hugepage")
    return area


def huge(process, pmds=1, at=FIRST):
    """An area of whole huge pages, all of them written to."""
    area = wanted(process, pmds * PAGES, at)
    for number in range(pmds):
        process.write(area, number * PAGES)
    return area


def pmd(process, address=FIRST):
    return process.mm.page_table.pmds[address]


def pte(process, area, page=0):
    return process.mm.page_table.get(area.page(page))


def small_entries(process):
    return sum(len(table) for table in process.mm.page_table.tables.values())


def holds(kernel):
    """Every invariant, now."""
    assert violations(kernel) == []
    assert kernel.events.take_reports() == []
    return True
