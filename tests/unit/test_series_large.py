# SPDX-License-Identifier: GPL-2.0-only
"""Large folios in the line of series: which sizes there are, and what a write to a shared one does."""

import pytest
from huge_parts import FIRST, PAGES, holds, huge, machine, pmd, pte, small_entries, wanted
from machine_parts import vma

from rmaplab.kernel.flags import PMD_ORDER
from rmaplab.series import find

SINCE_THP = ("v3.19", "v4.0", "v5.5", "v6.0", "v6.12", "v6.18", "v6.18+9", "v7.0", "v7.3")
COUNTED = ("v3.19", "v4.0", "v5.5")


@pytest.mark.parametrize("series", SINCE_THP)
def test_sizes_between_a_page_and_a_huge_page_came_with_v6_8(series):
    kernel, process = machine(2, PMD_ORDER, series=find(series))
    area = wanted(process, 4)
    process.write(area, 0)
    assert small_entries(process) == (1 if series in (*COUNTED, "v6.0") else 4)
    assert pmd(process, huge(process, at=4 * FIRST).start).folio.order == PMD_ORDER
    assert holds(kernel)


@pytest.mark.parametrize("series", ["v2.6.32", "v2.6.34"])
def test_before_v2_6_38_nobody_had_any(series):
    kernel, process = machine(2, PMD_ORDER, series=find(series))
    area = process.mmap(PAGES, at=FIRST)
    with pytest.raises(OSError, match="Invalid"):
        process.madvise(area, "hugepage")
    process.write(area, 0)
    assert (small_entries(process), process.mm.page_table.pmds) == (1, {})
    assert holds(kernel)


@pytest.mark.parametrize("series", ["v6.12", "v6.12.112", "v6.18", "v6.18+9", "v7.0"])
def test_a_page_of_a_large_folio_is_written_in_place_since_v6_15(series):
    kernel, parent = machine(2, series=find(series))
    area = wanted(parent, 4)
    parent.write(area, 0)
    large, child = pte(parent, area).folio, parent.fork()
    parent.exit()
    child.write(area, 1)
    assert (pte(child, area, 1).folio is large) == (not series.startswith("v6.12"))
    assert holds(kernel)


@pytest.mark.parametrize("series", SINCE_THP)
def test_a_shared_huge_page_is_copied_whole_until_v5_7_and_then_split(series):
    kernel, parent = machine(PMD_ORDER, series=find(series))
    area = huge(parent)
    large, child = pmd(parent).folio, parent.fork()
    child.write(area, 3)
    if series in COUNTED:
        assert pmd(child).folio is not large
        assert (pmd(child).folio.mapping, pmd(child).writable) == (vma(child).anon_vma, True)
        assert large.mapcount == 1
    else:
        assert child.mm.page_table.pmds == {}
        assert (pte(child, area, 3).folio.order, pte(child, area, 2).folio) == (0, large)
    assert holds(kernel)


def test_without_another_huge_page_it_is_split_then_too():
    kernel, parent = machine(PMD_ORDER, series=find("v5.5"))
    area = huge(parent)
    large, child = pmd(parent).folio, parent.fork()
    kernel.slab.plan(1, kind="page")
    child.write(area, 3)
    assert child.mm.page_table.pmds == {}
    assert (pte(child, area, 3).folio.order, pte(child, area, 2).folio) == (0, large)
    assert holds(kernel)


@pytest.mark.parametrize("series", SINCE_THP)
def test_a_huge_page_that_its_last_mapper_writes_to_moves_since_v5_19(series):
    kernel, parent = machine(PMD_ORDER, series=find(series))
    area = huge(parent)
    large, root, child = pmd(parent).folio, vma(parent).anon_vma, parent.fork()
    parent.exit()
    child.write(area, 3)
    assert pmd(child).folio is large
    assert large.mapping is (root if series in COUNTED else vma(child).anon_vma)
    assert holds(kernel)


@pytest.mark.parametrize(
    ("series", "sharers", "in_place"),
    [
        ("v5.5", 0, True),
        ("v5.5", 1, False),
        ("v6.0", 0, False),
        ("v6.12", 0, False),
        ("v7.0", 0, True),
        ("v7.0", 1, False),
    ],
)
def test_a_huge_page_mapped_by_small_entries_was_once_written_in_place_before(series, sharers, in_place):
    kernel, parent = machine(PMD_ORDER, series=find(series))
    area = huge(parent)
    large, root, child = pmd(parent).folio, vma(parent).anon_vma, parent.fork()
    child.munmap(area.part(PAGES - 1, PAGES - 1))  # cuts the entry
    if sharers == 0:
        parent.exit()
    child.write(area, 3)
    assert (pte(child, area, 3).folio is large) == in_place
    assert large.mapping is root  # not all of it is the child's to take along
    assert holds(kernel)


def test_in_v5_5_the_last_page_mapped_takes_the_whole_folio_along():
    kernel, parent = machine(PMD_ORDER, series=find("v5.5"))
    area = huge(parent)
    large, child = pmd(parent).folio, parent.fork()
    child.munmap(area.part(1, PAGES - 1))
    parent.exit()
    assert large.mapcount == 1
    child.write(area, 0)
    assert (pte(child, area).folio, large.mapping) == (large, vma(child).anon_vma)
    assert holds(kernel)
