# SPDX-License-Identifier: GPL-2.0-only
"""Large folios and UFFDIO_MOVE in older kernels, and what goes wrong where one of their steps is missing."""

from contextlib import suppress

import pytest
from huge_parts import holds, huge, machine, pmd, pte, small_entries, wanted
from machine_parts import BASE, folio, vma, written

from rmaplab.check.invariants import violations
from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PAGE_SIZE, PMD_ORDER
from rmaplab.series.thp import HugePagesOnly, LargeFoliosCopied, NoLargeFolios
from rmaplab.series.uffdio_move import MoveForgetsSwapCache, MoveLocksAnonVma, NoUffdioMove
from rmaplab.series.v6_18_9 import V6_18_9

DST = BASE + 0x100000

# --- as it was ----------------------------------------------------------------------------------------------


def test_until_v6_14_a_page_of_a_large_folio_was_never_written_in_place():
    kernel, parent = machine(2, series=LargeFoliosCopied)
    area = wanted(parent, 4)
    parent.write(area, 0)
    large, child = pte(parent, area).folio, parent.fork()
    parent.exit()
    child.write(area, 1)
    assert pte(child, area, 1).folio is not large
    assert (large.mapcount, large.exclusive) == (3, 0)
    assert pte(child, area, 1).folio.mapping is vma(child).anon_vma
    assert holds(kernel)


def test_until_v6_14_a_huge_entry_was_reused_all_the_same():
    kernel, parent = machine(PMD_ORDER, series=LargeFoliosCopied)
    area = huge(parent)
    child = parent.fork()
    parent.exit()
    child.write(area, 0)
    assert pmd(child).folio.mapping is vma(child).anon_vma
    assert holds(kernel)


def test_until_v6_7_a_large_folio_was_a_huge_one():
    kernel, process = machine(2, PMD_ORDER, series=HugePagesOnly)
    small, large = wanted(process, 4), huge(process, at=0x40000000)
    process.write(small, 0)
    assert small_entries(process) == 1
    assert pmd(process, large.start).folio.order == PMD_ORDER
    assert kernel.anon_orders == (2, PMD_ORDER)
    assert holds(kernel)


def test_until_v2_6_37_there_was_none():
    kernel, process = machine(2, PMD_ORDER, series=NoLargeFolios)
    area = wanted(process)
    process.write(area, 0)
    assert (small_entries(process), process.mm.page_table.pmds) == (1, {})
    assert holds(kernel)


def test_until_v6_7_the_move_was_unknown():
    _, process = machine(series=NoUffdioMove)
    src, dst = written(process, at=BASE), process.mmap(1, at=DST)
    with pytest.raises(OSError, match="Invalid"):
        process.uffd_move(src, dst)


@pytest.mark.parametrize("orders", [(), (PMD_ORDER,)])
def test_until_v6_18_a_move_locked_the_anon_vma_that_the_page_left(orders):
    kernel, process = machine(*orders, series=MoveLocksAnonVma)
    if orders:
        src, dst = huge(process), wanted(process, at=0x40000000)
    else:
        src, dst = written(process, at=BASE), process.mmap(1, at=DST)
    seen, old = [], vma(process, 0).anon_vma
    kernel.events.listeners.append(lambda event: seen.append(event) if "anon_vma" in event.detail else None)
    process.uffd_move(src, dst)
    kernel.events.listeners.clear()
    assert ("lock", str(old), "anon_vma write") in seen
    assert ("unlock", str(old), "anon_vma") in seen
    assert old.refcount == 1
    assert holds(kernel)


# --- what goes wrong ----------------------------------------------------------------------------------------


def swapped_out(process, area):
    process.swapout(area, cached=True)
    return process.mm.page_table.get(area.start).slot.folio


def test_a_cached_page_whose_entry_moved_is_at_home_in_the_destination():
    kernel, process = machine()
    src, dst = written(process, at=BASE), process.mmap(1, at=DST)
    page = swapped_out(process, src)
    process.uffd_move(src, dst)
    process.swapin(dst)
    assert folio(process, dst) is page
    assert (page.mapping, page.index) == (vma(process, 1).anon_vma, DST // PAGE_SIZE)
    assert holds(kernel)


class NotRenamed(MoveForgetsSwapCache):
    """The same without CONFIG_KSM, which nobody needs for this."""

    def ksm_might_need_to_copy(self, folio, vma, address):
        return folio


def test_until_v6_13_it_was_not_and_the_swap_in_hit_the_kernels_own_check():
    kernel, process = machine(series=NotRenamed)
    src, dst = written(process, at=BASE), process.mmap(1, at=DST)
    page = swapped_out(process, src)
    process.uffd_move(src, dst)
    process.swapin(dst)
    assert (folio(process, dst), page.index) == (page, BASE // PAGE_SIZE)
    assert {report.id for report in kernel.events.take_reports()} == {"AV-039"}
    assert {"AV-030", "AV-044"} <= {violation.id for violation in violations(kernel)}


def test_until_v6_13_a_kernel_with_ksm_took_the_page_for_one_of_ksms_and_copied_it():
    kernel, process = machine(series=MoveForgetsSwapCache)
    src, dst = written(process, at=BASE), process.mmap(1, at=DST)
    page = swapped_out(process, src)
    process.uffd_move(src, dst)
    process.swapin(dst)
    assert folio(process, dst) is not page
    assert folio(process, dst).mapping is vma(process, 1).anon_vma
    assert holds(kernel)


class Raced:
    """The page moves after a walker without the folio's lock has read ``mapping``, before it has a lock."""

    meanwhile = None

    def folio_mapped_anon_vma(self, folio):
        anon_vma = super().folio_mapped_anon_vma(folio)
        if self.meanwhile is not None:
            move, self.meanwhile = self.meanwhile, None
            move()
        return anon_vma


class Looks(Raced, V6_18_9):
    """v6.8 to v6.18: having the lock, look again."""


class LooksNot(Looks):
    """Zoo entry E3: the same walker without the second look."""

    def anon_mapping_changed(self, folio, anon_vma):
        return False


@pytest.mark.parametrize(("series", "finds"), [(Looks, True), (LooksNot, False)])
def test_a_walker_that_does_not_lock_the_folio_has_to_look_twice(series, finds):
    kernel, process = machine(series=series)
    src, dst = written(process, 2, at=BASE), process.mmap(2, at=DST)
    page = folio(process, src)
    kernel.meanwhile = lambda: process.uffd_move(src.part(0, 0), dst.part(0, 0))
    locked = kernel.folio_lock_anon_vma_read(page)
    assert page.mapping is vma(process, 1).anon_vma
    assert (locked is page.mapping) == finds
    kernel.anon_vma_unlock_read(locked)
    assert holds(kernel)


class MovesWithoutIndex(Kernel):
    def folio_change_place(self, folio, dst):
        self.folio_move_anon_rmap(folio, dst.vma)


class MovesWithoutMapping(Kernel):
    def folio_change_place(self, folio, dst):
        folio.index = dst.vma.vm_pgoff + (dst.address - dst.vma.vm_start) // PAGE_SIZE


@pytest.mark.parametrize("series", [MovesWithoutIndex, MovesWithoutMapping])
def test_a_move_that_forgets_half_of_the_name_loses_the_page(series):
    kernel, process = machine(series=series)
    src, dst = written(process, at=BASE), process.mmap(1, at=DST)
    process.uffd_move(src, dst)
    assert {"AV-030", "AV-044"} <= {violation.id for violation in violations(kernel)}


class SplitsWithoutIndex(Kernel):
    def split_off(self, folio, number, pages):
        page = super().split_off(folio, number, pages)
        page.index = folio.index
        return page


class SplitsToTheFirst(Kernel):
    """Gives the pages to the VMA where the split was asked for, here the child's."""

    def split_off(self, folio, number, pages):
        page = super().split_off(folio, number, pages)
        page.mapping = vma(self.processes["P1"]).anon_vma
        return page


class ForksExclusive(Kernel):
    def folio_try_dup_anon_rmap_pmd(self, folio, src):
        folio.mapcount += 1
        return True


class SplitsAndForgetsToCount(Kernel):
    def split_huge_pmd(self, vma, address):
        before = {entry.folio: entry.folio.mapcount for entry in vma.vm_mm.page_table.pmds.values()}
        super().split_huge_pmd(vma, address)
        for page, mapcount in before.items():
            page.mapcount = mapcount


@pytest.mark.parametrize(
    ("series", "broken"),
    [
        (SplitsWithoutIndex, {"AV-030", "AV-044"}),
        (SplitsToTheFirst, {"AV-030"}),
        (ForksExclusive, {"AV-042"}),
        (SplitsAndForgetsToCount, {"AV-041"}),
    ],
)
def test_a_wrong_step_is_seen(series, broken):
    kernel, parent = machine(PMD_ORDER, series=series)
    area = huge(parent)
    child = parent.fork()
    child.write(area, 0)  # splits the child's entry
    with suppress(BlockingIOError):  # one of them notices, and undoes the split
        child.split_folio(area.part(1, 1))
    assert broken <= {violation.id for violation in violations(kernel)}
