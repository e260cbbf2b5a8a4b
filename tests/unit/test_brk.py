# SPDX-License-Identifier: GPL-2.0-only
"""The heap: one VMA that grows and shrinks, and in a fork child two."""

import errno

import pytest
from call_failures import failures, picture, refused, spans
from machine_parts import Delta, chain, counters, descendants, vma

from rmaplab.kernel.area import Area
from rmaplab.kernel.exec import STACK_FLAGS
from rmaplab.kernel.flags import PAGE_SIZE, VM_READ, VM_WRITE, flags_name
from rmaplab.kernel.mmap import STACK_GUARD_GAP
from rmaplab.kernel.objects import START_BRK as HEAP_BASE


def sizes(process):
    return [(part.vm_end - part.vm_start) // PAGE_SIZE for part in process.mm.vmas]


def test_the_heap_begins_at_one_place_and_is_private_writable_and_accounted(kernel, parent):
    heap = parent.brk(2)
    assert heap == Area(HEAP_BASE, 2)
    assert [flags_name(part.vm_flags) for part in parent.mm.vmas] == ["rd wr ac"]
    assert vma(parent).vm_pgoff == HEAP_BASE // PAGE_SIZE


@pytest.mark.parametrize("faulted", [False, True])
def test_growth_extends_the_vma_and_allocates_nothing_for_the_reverse_map(kernel, parent, faulted):
    heap = parent.brk(1)
    if faulted:
        parent.write(heap)
    added = Delta(kernel)
    before = counters(vma(parent).anon_vma) if faulted else None
    assert parent.brk(3) == Area(HEAP_BASE, 4)
    assert sizes(parent) == [4]
    assert added() == (0, 0)
    assert (counters(vma(parent).anon_vma) if faulted else None) == before


def test_shrinking_unmaps_the_top_and_the_last_page_takes_the_anon_vma_along(kernel, parent):
    parent.write(parent.brk(3))
    assert parent.brk(-1) == Area(HEAP_BASE, 2)
    assert len(list(parent.mm.page_table)) == 2
    assert len(chain(parent)) == 1
    assert parent.brk(-2) == Area(HEAP_BASE, 0)
    assert parent.mm.vmas == []
    assert not kernel.live_anon_vmas
    assert parent.brk(1) == Area(HEAP_BASE, 1)


def test_a_heap_cannot_be_less_than_empty(kernel, parent):
    parent.brk(1)
    assert refused(parent.brk, -2) == errno.EINVAL
    assert parent.mm.brk == HEAP_BASE + PAGE_SIZE


@pytest.mark.parametrize("generation", [0, 1, 3])
def test_the_heap_of_a_fork_child_grows_by_one_vma_more_if_it_is_faulted(kernel, parent, generation):
    parent.write(parent.brk(2))
    process = descendants(parent, generation)[-1]
    added = Delta(kernel)
    assert process.brk(1) == Area(HEAP_BASE, 3)
    assert sizes(process) == ([2, 1] if generation else [3])
    assert added() == (0, 0)
    process.write(Area(HEAP_BASE, 3), 2)
    if generation:  # the new part has a root of its own, for an inherited chain is not lent
        assert chain(process, 1) == [vma(process, 1).anon_vma]
        assert vma(process, 1).anon_vma.root is not vma(process).anon_vma.root
    # From now on it is this second VMA that grows.
    process.brk(2)
    assert sizes(process) == ([2, 3] if generation else [5])
    process.brk(-4)
    assert sizes(process) == [1]


def test_an_unfaulted_heap_grows_in_the_child_as_in_the_parent(kernel, parent):
    parent.brk(2)
    child = parent.fork()
    assert child.brk(1) == Area(HEAP_BASE, 3)
    assert sizes(child) == [3]
    assert sizes(parent) == [2]
    assert parent.mm.brk == HEAP_BASE + 2 * PAGE_SIZE


def test_only_the_vma_below_is_asked_to_grow(kernel, parent):
    # A mapping right behind would merge with an ordinary new mapping between the two.
    parent.write(parent.brk(1))
    parent.mmap(1, at=HEAP_BASE + 3 * PAGE_SIZE)
    parent.brk(1)
    assert sizes(parent) == [2, 1]


@pytest.mark.parametrize(("free", "grows"), [(2, True), (1, False), (0, False)])
def test_a_page_stays_free_between_the_heap_and_what_is_behind(kernel, parent, free, grows):
    parent.write(parent.brk(1))
    parent.mmap(1, at=HEAP_BASE + (1 + free) * PAGE_SIZE)
    before = picture(parent)
    assert refused(parent.brk, 1) == (None if grows else errno.ENOMEM)
    assert (picture(parent) == before) != grows
    assert parent.mm.brk == HEAP_BASE + (2 if grows else 1) * PAGE_SIZE


def test_a_stack_behind_keeps_its_gap(kernel, parent):
    parent.brk(1)
    start = HEAP_BASE + 3 * PAGE_SIZE + STACK_GUARD_GAP
    assert kernel.do_mmap(parent.mm, start, start + PAGE_SIZE, STACK_FLAGS) == 0
    parent.brk(1)
    assert refused(parent.brk, 1) == errno.ENOMEM


def test_a_heap_that_was_unmapped_by_hand_cannot_shrink(kernel, parent):
    parent.munmap(parent.brk(2))
    assert refused(parent.brk, -1) == errno.ENOMEM
    assert parent.mm.brk == HEAP_BASE + 2 * PAGE_SIZE
    parent.brk(1)
    assert spans(parent)[0][:2] == (HEAP_BASE + 2 * PAGE_SIZE, HEAP_BASE + 3 * PAGE_SIZE)


def test_another_program_begins_with_no_heap(kernel, parent):
    parent.write(parent.brk(3))
    parent.exec()
    assert parent.brk(1) == Area(HEAP_BASE, 1)
    assert parent.mm.page_table.get(HEAP_BASE) is None


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("pages", [1, -1])
def test_a_change_that_fails_changes_nothing(forked, pages):
    # Other than mmap, brk does not go on with a VMA of its own where the merge lacks memory.
    def prepare(process):
        process.write(process.brk(3))
        return process.fork() if forked else process

    for failed in failures(prepare, lambda process: process.brk(pages)):
        process = failed.process.kernel.processes["P1" if forked else "P0"]
        assert failed.errno == errno.ENOMEM
        assert process.mm.brk == HEAP_BASE + 3 * PAGE_SIZE
        assert len(list(process.mm.page_table)) == 3
        split = pages < 0 and failed.point == ("tree", 2)  # the edge is cut, then there is no memory to unmap it
        assert sizes(process) == ([2, 1] if split else [3])
        assert all(part.vm_flags & (VM_READ | VM_WRITE) for part in process.mm.vmas)
        assert forked or split or failed.unchanged
