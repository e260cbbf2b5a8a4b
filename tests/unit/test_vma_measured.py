# SPDX-License-Identifier: GPL-2.0-only
"""How many VMAs a 6.18.44 kernel showed in /proc/self/maps, before and after; dontdump advice flips the flag."""

import pytest
from machine_parts import BASE, written
from merge_parts import flip

from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.process import Area

pytestmark = pytest.mark.parametrize("series", ["v6.18", "v7.0"])
LOW, HIGH = Area(BASE, 1), Area(BASE + PAGE_SIZE, 1)


def pair(process, faulted):
    """Two VMAs that differ in VM_DONTDUMP, which the upper one has; one is faulted."""
    process.mmap(2, at=BASE)
    flip(process, HIGH)
    process.write(faulted)


def flipped(process, area=HIGH):
    before = len(process.mm.vmas)
    flip(process, area)
    return before, len(process.mm.vmas)


@pytest.mark.parametrize("faulted", [LOW, HIGH], ids=["prev faulted", "modified faulted"])
@pytest.mark.parametrize("where", ["unforked", "child", "parent"])
def test_an_unfaulted_vma_and_a_faulted_one_merge_except_in_a_child(kernel, parent, faulted, where):
    pair(parent, faulted)
    child = None if where == "unforked" else parent.fork()
    process = child if where == "child" else parent
    assert flipped(process) == ((2, 2) if where == "child" else (2, 1))


def test_a_split_pair_merges_again_in_the_parent_and_not_in_the_child(kernel, parent):
    written(parent, 2, at=BASE)
    flip(parent, HIGH)
    child = parent.fork()
    assert flipped(parent) == (2, 1)
    assert flipped(child) == (2, 2)


@pytest.mark.parametrize("forked", [False, True])
def test_a_heap_grows_by_a_vma_of_its_own_only_in_a_child(kernel, parent, forked):
    parent.mm.start_brk = BASE
    kernel.do_brk(parent.mm, BASE, BASE + PAGE_SIZE)
    parent.write(LOW)
    process = parent.fork() if forked else parent
    kernel.do_brk(process.mm, BASE + PAGE_SIZE, BASE + 2 * PAGE_SIZE)
    assert len(process.mm.vmas) == 1 + forked


@pytest.mark.parametrize("above", [False, True])
def test_mremap_grows_a_vma_in_place_even_in_a_child(kernel, parent, above):
    written(parent, at=BASE)
    child = parent.fork()
    if above:
        child.mmap(1, at=HIGH.end)
    child.mremap(LOW, pages=2, move=False)
    assert [(vma.vm_start, vma.vm_end) for vma in child.mm.vmas] == [(BASE, HIGH.end + above * PAGE_SIZE)]
