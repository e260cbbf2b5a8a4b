# SPDX-License-Identifier: GPL-2.0-only
"""Rare ways through the calls on pages: huge pages in part, empty tables, memory that runs out on the way."""

from errno import EAGAIN, EFAULT, ENOMEM

import pytest
from huge_parts import FIRST, PAGES, huge, machine, pmd, small_entries
from machine_parts import BASE, folio, vma, written

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.kernel.flags import PAGE_SIZE, PMD_ORDER, PMD_SIZE, VM_WRITE
from rmaplab.kernel.locking import ANON_VMA_LOCK, MMAP_LOCK
from rmaplab.kernel.process import Area
from rmaplab.series import SERIES

FAR = FIRST + 16 * PMD_SIZE


def one(series="v7.0"):
    kernel = monitored(SERIES[series])()
    return kernel, kernel.spawn()


def errno_of(call, *arguments, **options):
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        call(*arguments, **options)
    return caught.value.errno


# Huge pages.


def test_memory_given_back_in_the_middle_of_a_huge_page_splits_its_entry():
    kernel, process = machine(PMD_ORDER)
    area = huge(process)
    page = pmd(process).folio
    process.madvise(area.part(8, 9), "dontneed")
    assert FIRST not in process.mm.page_table.pmds
    assert small_entries(process) == PAGES - 2
    assert {folio(process, area, number) for number in (0, 7, 10, PAGES - 1)} == {page}
    assert violations(kernel) == []


def test_rights_taken_from_a_part_of_a_huge_page_split_its_entry():
    kernel, process = machine(PMD_ORDER)
    area = huge(process)
    target = vma(process)
    kernel.locks.acquire(MMAP_LOCK, process.mm)
    target.vm_flags &= ~VM_WRITE
    kernel.change_protection(target, area.page(1), area.end)
    kernel.locks.release(MMAP_LOCK, process.mm)
    assert FIRST not in process.mm.page_table.pmds
    entries = [process.mm.page_table.get(area.page(number)) for number in range(PAGES)]
    assert [entry.writable for entry in entries] == [True] + [False] * (PAGES - 1)


# Page tables.


def test_a_move_skips_two_mebibytes_that_have_no_page_table():
    kernel, process = one()
    area = process.mmap(3 * PAGES, at=FIRST)
    process.write(area, 2 * PAGES + 5)
    page = folio(process, area, 2 * PAGES + 5)
    moved = process.mremap(area, at=FAR)
    assert folio(process, moved, 2 * PAGES + 5) is page
    assert sum(bool(table) for table in process.mm.page_table.tables.values()) == 1
    assert violations(kernel) == []


@pytest.mark.parametrize(
    ("series", "locked"), [("v2.6.34", False), ("v3.19", False), ("v5.5", False), ("v6.0", True), ("v7.0", True)]
)
def test_a_whole_page_table_moves_under_the_roots_lock_since_5_14(series, locked):
    kernel, process = one(series)
    # As the destination is above the source and nothing merges, single entries would move without it.
    area = process.mmap(PAGES, at=FIRST)
    process.write(area, 5)
    page, took = folio(process, area, 5), []
    acquire = kernel.take_rmap_locks

    def take(vma):
        before = kernel.locks.anon_vma_held
        acquire(vma)
        took.append(kernel.locks.anon_vma_held > before)

    kernel.take_rmap_locks = take
    moved = process.mremap(area, at=FAR)
    del kernel.take_rmap_locks
    assert folio(process, moved, 5) is page
    assert any(took) is locked


# mremap.


def test_a_move_that_begins_in_a_hole_moves_nothing():
    _, process = one()
    area = written(process, 2, at=BASE + PAGE_SIZE)
    assert errno_of(process.mremap, Area(BASE, 3), at=FAR) == EFAULT
    assert (vma(process).vm_start, vma(process).vm_end) == (area.start, area.end)


def test_a_move_to_a_place_that_cannot_be_cleared_moves_nothing():
    kernel, process = one()
    source = written(process, at=BASE)
    there = process.mmap(3, at=FAR)
    kernel.slab.plan(1, kind="vma")
    assert errno_of(process.mremap, source, at=there.page(1)) == ENOMEM
    assert [(vma.vm_start, vma.vm_end) for vma in process.mm.vmas] == [
        (source.start, source.end),
        (there.start, there.end),
    ]


# Memory that runs out.


def test_locked_memory_that_becomes_writable_is_filled_as_far_as_memory_goes():
    kernel, process = one()
    area = process.mmap(4, at=BASE, prot="r")
    process.mlock(area)
    kernel.slab.plan(3, kind="page")
    process.mprotect(area, "rw")
    assert [folio(process, area, page).anon for page in range(4)] == [True, True, False, False]
    assert violations(kernel) == []


# Pins, migration and userfaultfd.


def test_a_pinned_page_that_reclaim_unmapped_all_the_same_is_not_migrated():
    kernel, process = one("v5.5")
    area = written(process)
    page = folio(process, area)
    process.pin(area)
    process.swapout(area, cached=True)
    assert page.mapcount == 0
    assert errno_of(process.migrate, area) == EAGAIN
    assert process.mm.page_table.get(area.start).slot.folio is page
    process.unpin(area)
    process.migrate(area)
    assert process.mm.page_table.get(area.start).slot.folio is not page
    assert violations(kernel) == []


@pytest.mark.parametrize("series", ["v6.18", "v7.0"])
def test_a_page_moved_while_only_the_swap_cache_has_it_takes_no_anon_vmas_lock(series):
    kernel, process = one(series)
    source, target = written(process, at=BASE), written(process, 2, at=FAR)
    process.munmap(target.part(0, 0))
    target = process.mmap(1, at=FAR)
    page = folio(process, source)
    process.swapout(source, cached=True)
    held = []
    move = kernel.move_cached_folio

    def moving(*arguments):
        move(*arguments)
        held.append(kernel.locks.anon_vma_held)

    kernel.move_cached_folio = moving
    process.uffd_move(source, target)
    del kernel.move_cached_folio
    assert held == [0]
    process.read(target)
    assert folio(process, target) is page
    assert page.mapping is process.mm.lookup(target.start).anon_vma
    assert violations(kernel) == []


# What only a bug of the kernel brings about.


def test_a_chain_with_two_roots_is_noticed_when_its_root_is_locked():
    kernel, process = one("v6.18+3")
    written(process, at=BASE)
    written(process, at=FAR)
    first, second = (vma(process, index).anon_vma for index in (0, 1))
    kernel.locks.acquire(MMAP_LOCK, process.mm)
    root = kernel.lock_anon_vma_root(None, first)
    assert kernel.lock_anon_vma_root(root, first) is root
    assert kernel.events.take_reports() == []
    assert kernel.lock_anon_vma_root(root, second) is second
    assert len(kernel.events.take_reports()) == 1
    assert not kernel.locks.holds(ANON_VMA_LOCK, first)
    assert kernel.locks.holds(ANON_VMA_LOCK, second)
    kernel.unlock_anon_vma_root(second)
    kernel.locks.release(MMAP_LOCK, process.mm)
