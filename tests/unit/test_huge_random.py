# SPDX-License-Identifier: GPL-2.0-only
"""Random calls on ranges that cut huge pages and smaller large folios; every invariant after each call."""

from contextlib import suppress

import pytest
from huge_chance import Chance
from huge_parts import PAGES, holds, machine, pmd, wanted

from rmaplab.check.invariants import violations
from rmaplab.kernel.flags import PAGE_SIZE, PMD_ORDER
from rmaplab.kernel.slab import KINDS
from rmaplab.series import find

SIZES = (((2, PMD_ORDER), PAGES // 4, 16, 60), ((1, 2), 1, 12, 120))  # orders, unit, units, calls


def first_violation(series, orders, unit, units, calls, seed):
    """What random calls violate first, or nothing."""
    kernel, process = machine(*orders, series=find(series))
    wanted(process, unit * units)
    chance = Chance(seed, unit, units)
    for _ in range(calls):
        kernel.slab.plan(chance.random.randrange(6), kind=chance.random.choice(KINDS))
        with suppress(OSError):
            chance.call(kernel)
        kernel.slab.disarm()
        if found := violations(kernel):
            return found
    return []


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("series", ["v7.0", "lazy", "cow_context"])
def test_nothing_breaks(series, size, seed):
    assert first_violation(series, *size, seed) == []


def test_a_split_that_repoints_breaks_large_folios():
    """A folio of two pages has no other name than one VMA's."""
    assert any(first_violation("lazy_repoint", *SIZES[1], seed) for seed in range(12))


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
