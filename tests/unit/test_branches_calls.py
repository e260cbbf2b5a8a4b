# SPDX-License-Identifier: GPL-2.0-only
"""Calls with arguments that make no sense, and what they leave behind; the rarer ways through a call."""

from errno import EFAULT, EINVAL, ENOMEM

import pytest
from machine_parts import BASE, folio, vma, written

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import PAGE_SIZE, PMD_SIZE, TASK_SIZE, VM_LOCKED
from rmaplab.kernel.locking import MMAP_LOCK
from rmaplab.kernel.process import Area
from rmaplab.series import SERIES

FAR = BASE + 64 * PAGE_SIZE


@pytest.fixture(name="kernel")
def _kernel():
    kernel = monitored(SERIES["v7.0"])()
    kernel.spawn()
    yield kernel
    assert violations(kernel) == []


@pytest.fixture(name="parent")
def _parent(kernel):
    return kernel.processes["P0"]


def errno_of(call, *arguments, **options):
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        call(*arguments, **options)
    return caught.value.errno


def ranges(process):
    return [((vma.vm_start - BASE) // PAGE_SIZE, (vma.vm_end - BASE) // PAGE_SIZE) for vma in process.mm.vmas]


@pytest.mark.parametrize("page", [-1, 2])
def test_a_page_beyond_an_area_has_no_address(page):
    with pytest.raises(IndexError, match=f"page {page} of an area of 2"):
        Area(BASE, 2).page(page)


def test_a_name_belongs_to_one_process(kernel, parent):
    child = parent.fork("other")
    for call in (kernel.spawn, parent.fork, parent.share):
        with pytest.raises(ValueError, match="process other already runs"):
            call("other")
    child.exit()
    assert kernel.spawn("other") is kernel.processes["other"]


@pytest.mark.parametrize(("pages", "at"), [(0, None), (-1, None), (0, BASE), (1, BASE + 1)])
def test_no_pages_or_a_crooked_address_cannot_be_mapped(parent, pages, at):
    assert errno_of(parent.mmap, pages, at=at) == EINVAL
    assert not parent.mm.vmas


@pytest.mark.parametrize("area", [Area(BASE, 0), Area(-PAGE_SIZE, 1), Area(TASK_SIZE, 1)])
def test_what_is_no_range_of_the_address_space_cannot_be_unmapped(parent, area):
    assert errno_of(parent.munmap, area) == EINVAL


def test_the_end_of_the_address_space_can_be_unmapped(parent):
    parent.munmap(Area(TASK_SIZE - PAGE_SIZE, 1))


@pytest.mark.parametrize("area", [Area(-PAGE_SIZE, 1), Area(TASK_SIZE, 1)])
def test_rights_of_what_is_beyond_the_address_space_are_a_hole(parent, area):
    assert errno_of(parent.mprotect, area, "r") == ENOMEM


def test_a_heap_that_stays_as_it_is_needs_no_vma(parent):
    heap = parent.brk(2)
    before = vma(parent)
    assert parent.brk(0) == heap
    assert parent.mm.vmas == [before]
    assert (before.vm_start, before.vm_end) == (heap.start, heap.end)


# mlock.


def test_what_may_not_be_accessed_is_locked_and_cannot_be_faulted_in(parent):
    area = parent.mmap(2, at=BASE)
    parent.mprotect(area, "")
    assert errno_of(parent.mlock, area) == ENOMEM
    assert vma(parent).vm_flags & VM_LOCKED
    parent.munlock(area)
    assert not vma(parent).vm_flags & VM_LOCKED


def test_munlock_keeps_the_pages(parent):
    area = parent.mmap(2, at=BASE)
    parent.mlock(area)
    locked = [folio(parent, area, page) for page in range(2)]
    parent.munlock(area)
    assert [folio(parent, area, page) for page in range(2)] == locked


# mremap.


def test_a_private_mapping_cannot_be_duplicated(parent):
    written(parent, at=BASE)
    assert errno_of(parent.mremap, Area(BASE, 0), pages=1, at=FAR) == EINVAL
    assert ranges(parent) == [(0, 1)]


def test_a_duplicate_of_a_shared_mapping_on_top_of_it_finds_nothing_left_to_duplicate(parent):
    parent.mmap(2, at=BASE, shared=True)
    assert errno_of(parent.mremap, Area(BASE, 0), pages=1, at=BASE) == EFAULT
    assert ranges(parent) == [(1, 2)]


def test_a_move_that_cannot_be_made_smaller_first_moves_nothing(kernel, parent):
    written(parent, 4, at=BASE)
    kernel.slab.plan(1, kind="vma")
    assert errno_of(parent.mremap, Area(BASE, 3), pages=1, at=FAR) == ENOMEM
    assert ranges(parent) == [(0, 4)]


def test_a_page_table_moves_as_a_whole_only_to_where_there_is_none(kernel, parent):
    old, new = (-(-BASE // PMD_SIZE) * PMD_SIZE + number * PMD_SIZE for number in (0, 4))
    area = parent.mmap(512, at=old)
    parent.write(area, 3)
    moved = parent.mremap(area, at=new)
    back = written(parent, 1, at=old)
    parent.munmap(back)  # its page table stays
    page = folio(parent, moved, 3)
    assert folio(parent, parent.mremap(moved, at=old), 3) is page


# What only a bug of the kernel brings about.


def test_an_avc_is_taken_out_of_a_tree_once(kernel, parent):
    written(parent, at=BASE)
    avc = vma(parent).anon_vma_chain[0]
    kernel.locks.acquire(MMAP_LOCK, parent.mm)
    kernel.anon_vma_lock_write(avc.anon_vma)
    kernel.anon_vma_interval_tree_remove(avc, avc.anon_vma)
    with pytest.raises(KernelBug, match="is not in the tree of"):
        kernel.anon_vma_interval_tree_remove(avc, avc.anon_vma)
    kernel.anon_vma_interval_tree_insert(avc, avc.anon_vma)
    kernel.anon_vma_unlock_write(avc.anon_vma)
    kernel.locks.release(MMAP_LOCK, parent.mm)
