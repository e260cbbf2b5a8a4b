# SPDX-License-Identifier: GPL-2.0-only
"""What small faults in the specification would get past the other tests: checks that must warn, ranges, old moves."""

from errno import ENOMEM

import pytest
from huge_parts import FIRST, PAGES, machine, wanted
from machine_parts import BASE, folio, vma, written

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.kernel.events import Event
from rmaplab.kernel.flags import PAGE_SIZE, PMD_SIZE
from rmaplab.kernel.locking import MMAP_LOCK
from rmaplab.kernel.objects import Folio
from rmaplab.kernel.pagetable import PageTable, Pte
from rmaplab.kernel.process import Area
from rmaplab.kernel.rmap import Operation
from rmaplab.kernel.slab import KINDS
from rmaplab.series import SERIES

FAR = FIRST + 16 * PMD_SIZE


def one(series="v7.0"):
    kernel = monitored(SERIES[series])()
    return kernel, kernel.spawn()


@pytest.mark.parametrize("crowd", [1, 40])
def test_a_range_over_page_tables_has_the_entries_of_each(crowd):
    table, page = PageTable(), Folio(1)
    edges = [FIRST + number * PMD_SIZE for number in (1, 2, 3)]
    addresses = sorted(edge + at * PAGE_SIZE for edge in edges for at in range(-crowd, crowd))
    for address in reversed(addresses):
        table.set(address, Pte(page, True))
    for start, end in [(edges[0] - PAGE_SIZE, edges[1] + PAGE_SIZE), (edges[0] - 2 * PAGE_SIZE, edges[2]), (0, FAR)]:
        assert [at for at, _ in table.range(start, end)] == [at for at in addresses if start <= at < end]


@pytest.mark.parametrize("operation", [Operation.SPLIT, Operation.REMAP, Operation.FORK])
@pytest.mark.parametrize(
    ("target", "warnings"),
    [
        ("empty", ()),
        ("linked", ("target vma{} already has a chain",)),
        ("another", ("target vma{} already has a chain", "target vma{} has another anon_vma")),
    ],
)
def test_a_clone_into_a_target_that_has_links_warns(target, warnings, operation):
    kernel, process = one()
    written(process, at=BASE)
    written(process, at=FAR)
    source, other = process.mm.vmas
    copy = kernel.vm_area_dup(source)
    copy.anon_vma = other.anon_vma if target == "another" else source.anon_vma
    copy.anon_vma_chain = [] if target == "empty" else list(source.anon_vma_chain)
    kernel.locks.acquire(MMAP_LOCK, process.mm)
    kernel.check_anon_vma_clone(copy, source, operation)
    kernel.locks.release(MMAP_LOCK, process.mm)
    found = [report.detail for report in kernel.events.take_reports()]
    assert found == [f"anon_vma_clone: {warning.format(copy.id)}" for warning in warnings]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rmap"])
def test_a_failed_allocation_of_any_kind_is_told(kind):
    kernel, _ = one()
    kernel.slab.plan(1, kind=kind)
    seen = []
    kernel.events.listeners.append(seen.append)
    assert not kernel.slab.reserve(kind)
    assert seen == [Event("fail", kind, "GFP_KERNEL")]


@pytest.mark.parametrize("series", ["v2.6.34", "v4.0", "v5.5", "v6.18", "v7.0", "v7.3"])
def test_a_half_that_moves_away_and_back_keeps_its_pages(series):
    kernel, process = one(series)
    whole = process.mmap(3 * PAGES, at=FIRST)
    for page in (1, PAGES + 1):  # the last two mebibytes have no page table
        process.write(whole, page)
    pages = [folio(process, whole, page) for page in (1, PAGES + 1)]
    upper = Area(whole.page(PAGES), 2 * PAGES)
    away = process.mremap(upper, at=FAR)
    assert folio(process, away, 1) is pages[1]
    process.mremap(away, at=upper.start)  # merges with what has a lower offset: under the root's lock
    assert [folio(process, whole, page) for page in (1, PAGES + 1)] == pages
    assert (vma(process).vm_start, vma(process).vm_end) == (whole.start, whole.end)
    assert violations(kernel) == []


def test_a_files_private_pages_keep_their_offset_when_the_mapping_grows_in_place_in_7_3():
    kernel, process = one("v7.3")
    area = process.mmap(2, at=BASE, file="f")
    process.write(area)
    before = vma(process)
    grown = process.mremap(area, pages=4, move=False)
    assert process.mm.vmas == [before]
    process.write(grown)
    assert [folio(process, grown, page).index - before.anon_pgoff for page in range(4)] == [0, 1, 2, 3]
    assert violations(kernel) == []


@pytest.mark.parametrize(("part", "offset"), [((0, 3), FAR), ((1, 2), BASE)])
def test_only_a_whole_mapping_that_stays_behind_empty_takes_the_offset_of_its_address_in_7_3(part, offset):
    kernel, process = one("v7.3")
    first = written(process, 4, at=BASE)
    area = process.mremap(first, at=FAR)  # keeps the offset of BASE
    process.mremap(area.part(*part), at=FAR + 64 * PAGE_SIZE, dontunmap=True)
    stays = vma(process)
    assert (stays.vm_start, stays.vm_end) == (area.start, area.end)
    assert stays.vm_pgoff == stays.anon_pgoff == offset // PAGE_SIZE
    assert violations(kernel) == []


def test_a_copy_has_the_same_pages_of_a_large_folio_at_the_same_places():
    kernel, process = machine(2)
    area = wanted(process, 4)
    process.write(area)
    copy = kernel.copy().processes["P0"]
    assert len({folio(copy, area, page) for page in range(4)}) == 1
    assert [copy.mm.page_table.get(area.page(page)).page for page in range(4)] == [0, 1, 2, 3]


def test_a_snapshot_names_the_anon_vma_of_each_vma():
    kernel, process = one()
    written(process, at=BASE)
    process.mmap(1, at=FAR)
    (view,) = kernel.snapshot().processes
    (anon_vma,) = kernel.snapshot().anon_vmas
    assert [vma.anon_vma for vma in view.vmas] == [anon_vma.id, None]


@pytest.mark.parametrize("kind", ["vma", "tree", "rmap"])
def test_a_vma_that_cannot_be_split_is_enomem(kind):
    kernel, process = one()
    written(process, 3, at=BASE)
    target = vma(process)
    kernel.locks.acquire(MMAP_LOCK, process.mm)
    kernel.slab.plan(1, kind=kind)
    assert kernel.split_vma(target, BASE + PAGE_SIZE, False) == -ENOMEM
    kernel.locks.release(MMAP_LOCK, process.mm)
    assert process.mm.vmas == [target]
    assert violations(kernel) == []
