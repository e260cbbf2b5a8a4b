# SPDX-License-Identifier: GPL-2.0-only
"""Which neighbours share a root, which become one VMA, and what that does to their links.

The names and comments say which short cut of a plausible but wrong model a test catches.
"""

import pytest
from machine_parts import BASE, BEFORE_6_16, SINCE_6_0, Delta, chain, counters, vma, written

from rmaplab.kernel.flags import PAGE_SIZE, VM_ACCOUNT, flags_name, prot_flags

SINCE_6_16 = [name for name in SINCE_6_0 if name not in BEFORE_6_16]


# --- sharing with neighbours -----------------------------------------------------------------------------


def neighbours(process, low="rw", high="rwx", file=None):
    """Two areas that touch and differ in rights."""
    return (
        process.mmap(1, at=BASE, prot=low, file=file),
        process.mmap(1, at=BASE + PAGE_SIZE, prot=high, file=file),
    )


@pytest.mark.parametrize("lender", [0, 1])
def test_a_neighbour_that_differs_in_exec_lends_its_root(kernel, parent, lender):
    areas = neighbours(parent)
    parent.write(areas[lender])
    added = Delta(kernel)
    parent.write(areas[1 - lender])
    assert added() == (0, 1)
    (root,) = {part.anon_vma for part in parent.mm.vmas}
    assert counters(root) == (1, 1, 2)


def test_the_upper_neighbour_is_asked_first(kernel, parent):
    middle = parent.mmap(1, at=BASE + PAGE_SIZE, prot="rwx")
    below, above = (parent.mmap(1, at=BASE + at * PAGE_SIZE) for at in (0, 2))
    parent.write(below)
    parent.write(above)
    assert vma(parent, 0).anon_vma is not vma(parent, 2).anon_vma
    parent.write(middle)
    assert vma(parent, 1).anon_vma is vma(parent, 2).anon_vma


def test_an_inherited_vma_lends_nothing(kernel, parent):
    # Lending whatever anon_vma a neighbour has would hand out one that is no root.
    low, high = neighbours(parent)
    parent.write(low)
    child = parent.fork()
    added = Delta(kernel)
    child.write(high)
    assert added() == (1, 1)
    assert vma(child, 1).anon_vma is vma(child, 1).anon_vma.root
    assert vma(child, 1).anon_vma.root is not vma(child, 0).anon_vma.root
    parent.write(high)
    assert vma(parent, 1).anon_vma is vma(parent, 0).anon_vma


def test_no_root_is_shared_across_a_hole(kernel, parent):
    for at, prot in ((0, "rw"), (2, "rwx")):
        parent.write(parent.mmap(1, at=BASE + at * PAGE_SIZE, prot=prot))
    assert vma(parent, 0).anon_vma is not vma(parent, 1).anon_vma


@pytest.mark.parametrize(
    ("file", "pgoff", "shared"), [("f", 1, True), ("g", 1, False), (None, 1, False), ("f", 2, False)]
)
def test_a_root_is_shared_within_one_file_at_consecutive_offsets_only(kernel, parent, file, pgoff, shared):
    low, at = parent.mmap(1, at=BASE, file="f"), BASE + PAGE_SIZE
    kernel.do_mmap(parent.mm, at, at + PAGE_SIZE, prot_flags("rwx"), file, pgoff)
    parent.write(low)
    kernel.handle_mm_fault(parent.mm, at, True)
    assert (vma(parent, 0).anon_vma is vma(parent, 1).anon_vma) == shared


def test_sharing_a_root_does_not_merge(kernel, parent):
    for area in neighbours(parent):
        parent.write(area)
    assert len(parent.mm.vmas) == 2


# --- merge -----------------------------------------------------------------------------------------------


def unfaulted_below_faulted(process):
    """The upper VMA was written, then made read-only, which keeps VM_ACCOUNT; the lower came later."""
    high = written(process, at=BASE + PAGE_SIZE)
    process.mprotect(high, "r")
    process.mmap(1, at=BASE)
    return high


def faulted_below_unfaulted(process):
    written(process, at=BASE)
    return process.mmap(1, at=BASE + PAGE_SIZE, prot="r")


def count_after_rw(process, area):
    """VMAs before and after the area becomes writable and so equal to its neighbour."""
    before = len(process.mm.vmas)
    process.mprotect(area, "rw")
    return before, len(process.mm.vmas)


def test_up_to_6_15_a_faulted_vma_is_not_merged_into_an_unfaulted_one_by_accident(kernel, parent, series):
    area = unfaulted_below_faulted(parent)
    assert count_after_rw(parent, area) == ((2, 2) if series in BEFORE_6_16 else (2, 1))


def test_an_unfaulted_vma_is_merged_into_a_faulted_one_in_every_release(kernel, parent):
    assert count_after_rw(parent, faulted_below_unfaulted(parent)) == (2, 1)


@pytest.mark.parametrize("layout", [unfaulted_below_faulted, faulted_below_unfaulted])
def test_a_fork_child_merges_neither_way(kernel, parent, layout):
    area = layout(parent)
    assert count_after_rw(parent.fork(), area) == (2, 2)


@pytest.mark.parametrize("layout", [unfaulted_below_faulted, faulted_below_unfaulted])
def test_having_forked_does_not_keep_the_parent_from_merging(kernel, parent, series, layout):
    # A test of the anon_vma's children instead of the VMA's chain would refuse.
    area = layout(parent)
    parent.fork()
    refused = series in BEFORE_6_16 and layout is unfaulted_below_faulted
    assert count_after_rw(parent, area) == ((2, 2) if refused else (2, 1))


def test_a_split_pair_merges_again_in_the_parent_and_not_in_the_child(kernel, parent):
    area = written(parent, 2)
    parent.mprotect(area.part(1, 1), "r")
    child = parent.fork()
    assert count_after_rw(parent, area.part(1, 1)) == (2, 1)
    assert count_after_rw(child, area.part(1, 1)) == (2, 2)


def test_a_vma_split_within_the_child_merges_again_there(kernel, parent):
    # Refusing every VMA with a long chain would not: both halves have the same anon_vma.
    area = written(parent, 2)
    child = parent.fork()
    before = (counters(vma(child).anon_vma), {av.id for av in chain(child)})
    child.mprotect(area.part(1, 1), "r")
    assert count_after_rw(child, area.part(1, 1)) == (2, 1)
    assert (counters(vma(child).anon_vma), {av.id for av in chain(child)}) == before


@pytest.mark.parametrize("side", ["below", "above"])
def test_a_new_mapping_joins_its_neighbour_but_not_one_that_was_inherited(kernel, parent, side):
    area = written(parent, at=BASE)
    child = parent.fork()
    at = area.start - PAGE_SIZE if side == "below" else area.end
    for process, vmas in ((parent, 1), (child, 2)):
        process.mmap(1, at=at)
        assert len(process.mm.vmas) == vmas


def test_the_heap_of_a_fork_child_grows_by_a_vma_of_its_own_with_a_root_of_its_own(kernel, parent):
    heap = parent.brk(1)
    parent.write(heap)
    child = parent.fork()
    parent.brk(1)
    heap = child.brk(1)
    assert [len(process.mm.vmas) for process in (parent, child)] == [1, 2]
    child.write(heap, 1)
    assert vma(child, 1).anon_vma.root is vma(child, 1).anon_vma
    assert vma(child, 1).anon_vma is not vma(child, 0).anon_vma.root


def test_faulted_vmas_of_different_trees_stay_apart_even_if_all_else_is_equal(kernel, parent):
    middle = parent.mmap(1, at=BASE + PAGE_SIZE, prot="none")
    for at in (0, 2):
        written(parent, at=BASE + at * PAGE_SIZE)
    low, high = vma(parent, 0), vma(parent, 2)
    assert low.anon_vma is not high.anon_vma
    parent.mprotect(middle, "rw")  # fits either, but not both: it joins the lower one
    assert parent.mm.vmas == [low, high]
    assert [part.vm_end - part.vm_start for part in parent.mm.vmas] == [2 * PAGE_SIZE, PAGE_SIZE]


def test_an_unfaulted_hole_between_halves_of_one_anon_vma_closes_to_one_vma(kernel, parent):
    area = written(parent, 3, at=BASE)
    parent.munmap(area.part(1, 1))
    (root,) = {part.anon_vma for part in parent.mm.vmas}
    assert counters(root) == (1, 1, 2)
    parent.mmap(1, at=area.page(1))
    assert len(parent.mm.vmas) == 1
    assert counters(root) == (1, 1, 1)
    assert len(kernel.live_anon_vma_chains) == 1


def test_a_removed_vma_leaves_its_trees_after_the_survivor_stands_in_a_second_hold_of_the_lock(kernel, parent):
    # Unlinking it first would empty the root; unlinking it inside the first hold would deadlock.
    area = written(parent, 2)
    parent.mprotect(area.part(1, 1), "r")
    removed, survivor = parent.mm.vmas
    unlinked, events = [], []
    unlink = kernel.unlink_anon_vmas

    def watch(target):
        unlinked.append(target)
        assert parent.mm.vmas == [survivor]
        assert (survivor.vm_start, survivor.vm_end) == (area.start, area.end)
        assert all(avc in avc.anon_vma.rb_root for avc in (*survivor.anon_vma_chain, *target.anon_vma_chain))
        assert kernel.locks.anon_vma_held == 0
        unlink(target)

    kernel.unlink_anon_vmas = watch
    kernel.events.listeners.append(lambda event: events.append((event.verb, event.detail)))
    parent.mprotect(area.part(0, 0), "r")
    assert unlinked == [removed]
    assert removed.freed
    assert [verb for verb, detail in events if detail.startswith("anon_vma")] == ["lock", "unlock"] * 2


@pytest.mark.parametrize("series", SINCE_6_16)
def test_a_merge_into_an_unfaulted_vma_brings_the_links_along(kernel, parent):
    area = unfaulted_below_faulted(parent)
    (root,) = chain(parent, 1)
    parent.mprotect(area, "rw")
    assert chain(parent) == [root]
    assert vma(parent).anon_vma is root
    assert counters(root) == (1, 1, 1)
    assert [visit.maps for visit in parent.walk(area, 0)] == [True]


@pytest.mark.parametrize("series", SINCE_6_16)
def test_part_of_a_faulted_vma_merged_away_makes_the_unfaulted_neighbour_a_second_owner(kernel, parent):
    high = written(parent, 2, at=BASE + PAGE_SIZE)
    parent.mprotect(high, "r")
    parent.mmap(1, at=BASE)
    parent.mprotect(high.part(0, 0), "rw")
    assert [part.vm_end - part.vm_start for part in parent.mm.vmas] == [2 * PAGE_SIZE, PAGE_SIZE]
    (root,) = {part.anon_vma for part in parent.mm.vmas}
    assert counters(root) == (1, 1, 2)


# --- VM_ACCOUNT ------------------------------------------------------------------------------------------


GIVES_NOTHING_BACK = ("v6.0", "v6.1")


def test_a_read_only_vma_loses_account_unless_it_was_written(kernel, parent, series):
    # Flags that only follow the rights would make the two mergeable.
    area = parent.mmap(1, at=BASE)
    other = written(parent, at=BASE + 8 * PAGE_SIZE)
    for part in (area, other):
        parent.mprotect(part, "r")
    first = "rd ac" if series in GIVES_NOTHING_BACK else "rd"
    assert [flags_name(part.vm_flags) for part in parent.mm.vmas] == [first, "rd ac"]


def test_account_keeps_a_faulted_and_an_unfaulted_neighbour_apart_while_both_are_read_only(kernel, parent):
    low = written(parent, at=BASE)
    high = parent.mmap(1, at=BASE + PAGE_SIZE, prot="r")
    parent.mprotect(low, "r")
    assert [bool(part.vm_flags & VM_ACCOUNT) for part in parent.mm.vmas] == [True, False]
    assert len(parent.mm.vmas) == 2
    parent.mprotect(low, "rw")
    parent.mprotect(high, "rw")
    assert len(parent.mm.vmas) == 1


def test_account_is_lost_by_rights_alone_even_if_only_the_zero_page_was_read(kernel, parent, series):
    area = parent.mmap(1)
    parent.read(area)
    parent.mprotect(area, "r")
    assert flags_name(vma(parent).vm_flags) == ("rd ac" if series in GIVES_NOTHING_BACK else "rd")
