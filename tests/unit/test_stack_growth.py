# SPDX-License-Identifier: GPL-2.0-only
"""A stack grows down to where it is touched, and gets an anon_vma for that, pages or not."""

import errno

import pytest
from call_failures import failures, picture, refused, spans
from machine_parts import BASE, Delta, chain, counters, descendants, vma, written

from rmaplab.kernel.area import Area
from rmaplab.kernel.exec import STACK_FLAGS, STACK_TOP
from rmaplab.kernel.flags import PAGE_SIZE, VM_WRITE, flags_name
from rmaplab.kernel.locking import ANON_VMA_LOCK, PAGE_TABLE_LOCK
from rmaplab.kernel.mmap import MMAP_MIN_ADDR, STACK_GUARD_GAP
from rmaplab.series import SERIES

NODES_IN_VMAS = ("v2.6.32", "v2.6.34", "v3.19", "v4.0", "v5.5", "v6.0")  # before the maple tree
SPINLOCKED = ("v6.0", "v6.1", "v6.12", "v6.12.112")  # expand_downwards takes page_table_lock, too


def stack(process, pages=1, end=STACK_TOP, flags=STACK_FLAGS):
    """A stack that was never touched, and what is in it."""
    area = Area(end - pages * PAGE_SIZE, pages)
    assert process.kernel.do_mmap(process.mm, area.start, area.end, flags) == 0
    return area


def below(area, pages=1):
    return Area(area.start - pages * PAGE_SIZE, pages)


def test_without_a_stack_one_page_is_mapped_and_the_page_below_is_written(kernel, parent):
    area = parent.stack_grow(1)
    assert area == Area(STACK_TOP - 2 * PAGE_SIZE, 2)
    assert [flags_name(part.vm_flags) for part in parent.mm.vmas] == ["rd wr gd ac"]
    assert vma(parent).vm_pgoff == area.start // PAGE_SIZE
    assert [address for address, _ in parent.mm.page_table] == [area.start]


def test_growth_moves_start_and_offset_by_as_much_so_pages_are_still_found(kernel, parent):
    first = parent.stack_grow(1)
    child = parent.fork()
    grown = parent.stack_grow(5)
    assert grown == Area(first.start - 5 * PAGE_SIZE, 7)
    assert (vma(parent).vm_start, vma(parent).vm_end) == (grown.start, grown.end)
    assert vma(parent).vm_pgoff == grown.start // PAGE_SIZE
    # The page that both have is found in the VMA that has grown and in the one that has not.
    assert {visit.vma: visit.maps for visit in parent.walk(grown, 5)} == {vma(parent): True, vma(child): True}
    assert child.stack_grow(1) == Area(first.start - PAGE_SIZE, 3)


@pytest.mark.parametrize("write", [False, True])
def test_growth_takes_an_anon_vma_although_nothing_was_written(kernel, parent, write):
    area = stack(parent)
    added = Delta(kernel)
    (parent.write if write else parent.read)(below(area, 3), 0)
    assert added() == (1, 1)
    assert counters(vma(parent).anon_vma) == (1, 1, 1)
    parent.read(below(area), 0)
    assert added() == (0, 0)


def test_a_stack_takes_no_anon_vma_as_long_as_it_is_only_read_where_it_is(kernel, parent):
    parent.read(stack(parent))
    assert vma(parent).anon_vma is None


@pytest.mark.parametrize("generation", [1, 3])
def test_growth_changes_no_counter_and_reinserts_every_link_of_a_child(kernel, parent, generation):
    parent.stack_grow(1)
    process = descendants(parent, generation)[-1]
    process.stack_grow(1)
    before = [counters(anon_vma) for anon_vma in chain(process)]
    removed = []
    remove = kernel.anon_vma_interval_tree_remove
    kernel.anon_vma_interval_tree_remove = lambda avc, anon_vma: (removed.append(avc), remove(avc, anon_vma))[1]
    process.stack_grow(1)
    assert len(removed) == generation + 1
    assert [counters(anon_vma) for anon_vma in chain(process)] == before


def test_growth_locks_the_root_once_and_up_to_v6_12_the_page_tables_too(kernel, parent, series):
    area = parent.stack_grow(1)
    taken = []
    acquire = kernel.locks.acquire
    kernel.locks.acquire = lambda lock, *rest: (taken.append(lock), acquire(lock, *rest))[1]
    assert kernel.expand_stack(parent.mm, area.start - PAGE_SIZE) == 0
    spinlock = [PAGE_TABLE_LOCK] if series in SPINLOCKED else []
    assert [lock for lock in taken if lock in (ANON_VMA_LOCK, PAGE_TABLE_LOCK)] == [ANON_VMA_LOCK, *spinlock]


def test_what_was_unmapped_at_the_bottom_comes_back_when_it_is_touched(kernel, parent):
    area = parent.stack_grow(3)
    parent.munmap(area.part(0, 1))
    assert vma(parent).vm_start == area.page(2)
    parent.write(area, 0)
    assert (vma(parent).vm_start, len(parent.mm.vmas)) == (area.start, 1)


def test_only_a_stack_grows(kernel, parent):
    area = written(parent, at=BASE)
    assert refused(parent.write, below(area), 0) == errno.EFAULT
    assert refused(parent.read, Area(STACK_TOP - PAGE_SIZE, 1), 0) == errno.EFAULT
    assert len(parent.mm.vmas) == 1


# --- room ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prot", "gap", "fits"), [("rw", 256, True), ("rw", 255, False), ("none", 0, True)])
def test_a_gap_stays_free_above_what_can_be_accessed(kernel, parent, prot, gap, fits):
    area = stack(parent)
    lowest = area.start - 16 * PAGE_SIZE
    parent.mmap(1, at=lowest - (gap + 1) * PAGE_SIZE, prot=prot)
    before = picture(parent)
    error = refused(parent.write, Area(lowest, 1), 0)
    assert error == (None if fits else errno.EFAULT)
    if fits:
        assert vma(parent, 1).vm_start == lowest
    else:
        assert picture(parent) == before
        assert kernel.expand_stack(parent.mm, lowest) == -errno.ENOMEM
    assert STACK_GUARD_GAP == 256 * PAGE_SIZE


def test_two_stacks_may_touch(kernel, parent):
    low = stack(parent, end=BASE)
    high = stack(parent, end=BASE + 8 * PAGE_SIZE)
    parent.write(below(high, 7), 0)
    assert [(part.vm_start, part.vm_end) for part in parent.mm.vmas] == [
        (low.start, low.end),
        (low.end, high.end),
    ]


def test_the_lowest_addresses_are_out_of_reach(kernel, parent):
    stack(parent, end=MMAP_MIN_ADDR + PAGE_SIZE)
    before = picture(parent)
    assert kernel.expand_stack(parent.mm, MMAP_MIN_ADDR - PAGE_SIZE) == -errno.EPERM
    assert refused(parent.write, Area(MMAP_MIN_ADDR - PAGE_SIZE, 1), 0) == errno.EFAULT
    assert picture(parent) == before


def test_a_stack_whose_offset_is_too_small_cannot_grow_but_has_its_anon_vma_already(kernel, parent):
    # It was moved up, with a page whose index it must keep; then the page and the anon_vma went.
    area = stack(parent, end=(MMAP_MIN_ADDR & -PAGE_SIZE) + 2 * PAGE_SIZE)
    parent.write(area)
    moved = parent.mremap(area, at=BASE)
    offset = vma(parent).vm_pgoff
    assert kernel.expand_stack(parent.mm, BASE - (offset + 1) * PAGE_SIZE) == -errno.ENOMEM
    assert (vma(parent).vm_start, vma(parent).vm_pgoff) == (moved.start, offset)
    assert kernel.expand_stack(parent.mm, BASE - offset * PAGE_SIZE) == 0
    assert vma(parent).vm_pgoff == 0


# --- failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("series", SERIES)
def test_a_growth_that_fails_leaves_the_range_and_perhaps_an_anon_vma(series):
    def prepare(process):
        return process, below(stack(process), 2)

    points = failures(
        prepare, lambda prepared: prepared[0].write(prepared[1], 0), series=SERIES[series], kinds=("rmap", "tree")
    )
    assert (("tree", 1) in {failed.point for failed in points}) == (series not in NODES_IN_VMAS)
    for failed in points:
        assert failed.errno == errno.EFAULT  # the process sees a SIGSEGV
        assert failed.unchanged


def test_after_the_growth_only_the_page_can_fail_and_the_stack_stays_large():
    def prepare(process):
        return process, below(stack(process), 2)

    points = failures(prepare, lambda prepared: prepared[0].write(prepared[1], 0), kinds=("page", "table"))
    assert [failed.point for failed in points] == [("page", 1), ("table", 1)]
    for failed in points:
        assert failed.errno == errno.ENOMEM
        assert [end - start for start, end, *_ in failed.vmas] == [3 * PAGE_SIZE]
        assert failed.vmas[0][4] is not None
        assert counters(failed.vmas[0][4]) == (1, 1, 1)


def test_tree_nodes_are_asked_for_before_the_anon_vma(kernel, parent, series):
    if series in NODES_IN_VMAS:
        return
    area = stack(parent)
    kernel.slab.plan(1, kind="tree")
    assert kernel.expand_stack(parent.mm, area.start - PAGE_SIZE) == -errno.ENOMEM
    kernel.slab.disarm()
    assert vma(parent).anon_vma is None


def test_a_stack_that_is_not_writable_grows_and_then_refuses(kernel, parent):
    area = stack(parent, flags=STACK_FLAGS & ~VM_WRITE)
    assert refused(parent.write, below(area), 0) == errno.EFAULT
    assert vma(parent).vm_start == area.start - PAGE_SIZE
    assert vma(parent).anon_vma is not None
    assert spans(parent)[0][2] == (area.start - PAGE_SIZE) // PAGE_SIZE
