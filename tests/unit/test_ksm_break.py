# SPDX-License-Identifier: GPL-2.0-only
"""KSM's pages taken apart, moved, swapped and migrated."""

import errno

import pytest
from huge_parts import huge
from huge_parts import machine as huge_machine
from ksm_parts import end, found, gone, holds, items, mergeable, merged, node
from machine_parts import BASE, counters, folio, vma, written
from swap_parts import entry, page_state, swap_state

from rmaplab.check.state import graph
from rmaplab.kernel.flags import PMD_ORDER


@pytest.fixture(params=["v6.0", "v6.12", "v6.18", "v6.18+2", "v6.18+8", "v7.0", "v7.3"], name="series")
def _series(request):  # fewer than elsewhere: these differ in what matters here
    return request.param


@pytest.fixture(name="stranger")
def _stranger(kernel):
    return kernel.spawn("stranger")


def refused(call, *args, **options):
    with pytest.raises(OSError) as error:  # noqa: PT011 (the errno is looked at)
        call(*args, **options)
    return error.value.errno


# --- breaking --------------------------------------------------------------------------------------------


def test_a_write_copies_even_for_the_last_who_maps_it(kernel, parent):
    area = merged(parent)
    page = folio(parent, area)
    parent.write(area)
    assert folio(parent, area) is not page
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, True)
    assert page.mapcount == 0
    assert len(items(kernel)) == 1  # ksmd has not noticed
    kernel.ksmd()
    assert not kernel.stable_tree
    end(kernel)


def test_unmergeable_takes_every_page_apart_and_leaves_the_items_to_ksmd(kernel, parent, stranger):
    merged(stranger)
    area = merged(parent, 3)
    own = vma(parent).anon_vma
    parent.madvise(area, "unmergeable")
    assert [page_state(parent, area, page) for page in range(3)] == [(own, True, 1, False)] * 3
    assert node(kernel).folio.mapcount == 1
    assert len(items(kernel)) == 4
    assert counters(own)[0] == 4
    assert holds(kernel)
    kernel.ksmd()
    assert len(items(kernel)) == 1
    assert counters(own)[0] == 1
    assert refused(parent.ksm_merge, area, "X") == errno.EINVAL
    end(kernel)


def test_unmergeable_for_a_part_splits_the_vma(kernel, parent):
    area = merged(parent, 3)
    parent.madvise(area.part(1, 1), "unmergeable")
    assert len(parent.mm.vmas) == 3
    assert node(kernel).folio.mapcount == 2
    assert found(parent, area) == {(parent.mm, area.page(0)), (parent.mm, area.page(2))}
    end(kernel)


def test_pages_in_memory_without_write_permission_are_copied_too(kernel, parent):
    area = merged(parent)
    parent.mprotect(area, "r")
    parent.madvise(area, "unmergeable")
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, False)
    end(kernel)


@pytest.mark.parametrize("n", [1, 2])
def test_unmergeable_without_memory_stops_where_it_is(kernel, parent, n):
    area = merged(parent, 3)
    before = graph(kernel)
    kernel.slab.plan(n, kind="page")
    assert refused(parent.madvise, area, "unmergeable") == errno.EAGAIN  # so madvise calls it
    kernel.slab.disarm()
    assert holds(kernel)
    assert graph(kernel) == before
    assert node(kernel).folio.mapcount == 4 - n
    parent.ksm_merge(area, "X")  # the VMA is mergeable as before
    assert node(kernel).folio.mapcount == 3
    end(kernel)


def test_a_move_without_memory_leaves_everything_in_place(kernel, parent):
    area = merged(parent, 2)
    kernel.slab.plan(1, kind="page")
    assert refused(parent.mremap, area) == errno.ENOMEM
    kernel.slab.disarm()
    assert holds(kernel)
    assert [one.vm_start for one in parent.mm.vmas] == [area.start]
    assert node(kernel).folio.mapcount == 2
    end(kernel)


@pytest.mark.parametrize("dontunmap", [False, True])
def test_a_move_takes_the_pages_apart_first_and_they_may_be_merged_again(kernel, parent, stranger, dontunmap):
    other = merged(stranger)
    area = merged(parent)
    moved = parent.mremap(area, dontunmap=dontunmap)
    assert page_state(parent, moved) == (parent.mm.lookup(moved.start).anon_vma, True, 1, False)
    assert holds(kernel)
    parent.ksm_merge(moved, "X")
    assert found(parent, moved) == {(stranger.mm, other.start), (parent.mm, moved.start)}
    kernel.ksmd()
    assert len(items(kernel)) == 2
    end(kernel)


@pytest.mark.parametrize("order", [2, PMD_ORDER])
def test_a_large_folio_is_split_before_its_page_is_merged(order):
    kernel, process = huge_machine(order)
    area = huge(process)
    process.madvise(area, "mergeable")
    process.ksm_merge(area.part(2, 3), "X")
    assert holds(kernel)
    assert folio(process, area, 2) is folio(process, area, 3) is node(kernel).folio
    assert folio(process, area, 2).order == folio(process, area, 1).order == 0
    assert len(process.mm.page_table.pmds) == 0
    end(kernel)


def test_a_pinned_large_folio_is_not_split_and_not_merged():
    kernel, process = huge_machine(PMD_ORDER)
    area = huge(process)
    process.madvise(area, "mergeable")
    process.pin(area.part(7, 7))
    assert refused(process.ksm_merge, area.part(3, 3), "X") == errno.EBUSY
    assert holds(kernel)
    assert not kernel.stable_tree
    end(kernel)


# --- a page that fork has shared -------------------------------------------------------------------------


def test_a_shared_page_merged_in_the_child_is_out_of_the_parents_reach_until_ksmd_comes(kernel, parent):
    area = mergeable(parent)
    child = parent.fork()
    child.ksm_merge(area, "X")
    assert folio(parent, area) is folio(child, area) is node(kernel).folio
    assert found(parent, area) == {(child.mm, area.start)}
    for process in (parent, child):
        assert refused(process.migrate, area) == errno.EAGAIN
        assert holds(kernel)
        assert found(process, area) == {(child.mm, area.start)}
    assert refused(parent.swapout, area) == errno.EBUSY
    assert (swap_state(child, area), page_state(parent, area)) == ((1, True, False), (None, False, 1, False))
    assert holds(kernel)
    child.swapin(area)
    kernel.ksmd()
    assert found(parent, area) == {(child.mm, area.start), (parent.mm, area.start)}
    parent.migrate(area)
    parent.swapout(area)
    end(kernel)


def test_a_shared_page_merged_in_the_parent_is_found_in_the_child_by_the_second_round(kernel, parent):
    area = mergeable(parent)
    child = parent.fork()
    parent.ksm_merge(area, "X")
    assert found(child, area) == {(child.mm, area.start), (parent.mm, area.start)}
    child.migrate(area)
    child.swapout(area)
    end(kernel)


def test_where_the_parent_does_not_merge_no_scan_finds_its_place(kernel, parent):
    area = written(parent)
    child = parent.fork()
    child.madvise(area, "mergeable")
    child.ksm_merge(area, "X")
    kernel.ksmd()
    assert found(parent, area) == {(child.mm, area.start)}
    # Neither this advice nor a move takes the page apart: the VMA is not mergeable.
    parent.madvise(area, "unmergeable")
    moved = parent.mremap(area)
    assert folio(parent, moved) is node(kernel).folio
    assert refused(child.swapout, area) == errno.EBUSY
    assert holds(kernel)
    parent.write(moved)
    child.swapout(area)
    end(kernel)


def test_a_page_that_no_walk_finds_is_not_left_in_the_swap_cache(kernel, parent):
    area = written(parent)
    child = parent.fork()
    child.madvise(area, "mergeable")
    child.ksm_merge(area, "X")
    child.write(area)
    page = folio(parent, area)
    assert found(parent, area) == set()
    assert refused(parent.swapout, area) == errno.EBUSY
    assert (page.slot, page.mapcount) == (None, 1)
    end(kernel)


def test_a_place_is_known_by_its_address_even_if_another_page_has_come_there(kernel, parent, stranger):
    # The swap entry moves with its VMA to where a merged page was; its item is taken for that of the page.
    merged(stranger)
    gap = merged(parent, at=BASE)
    area = merged(parent)
    parent.swapout(area, cached=True)
    parent.munmap(gap)
    moved = parent.mremap(area, at=BASE)
    parent.swapin(moved)
    assert folio(parent, moved) is node(kernel).folio
    kernel.ksmd()
    assert (parent.mm, BASE) not in found(parent, moved)
    assert (parent.mm, BASE) in {item[:2] for item in items(kernel)}
    assert holds(kernel)
    parent.munmap(moved)
    end(kernel)


# --- swap and migration --------------------------------------------------------------------------------------


def test_a_merged_page_is_swapped_out_wherever_it_is(kernel, parent, stranger):
    area, other = merged(parent, 2), merged(stranger)
    parent.swapout(area.part(0, 0))
    assert (
        swap_state(parent, area, 0) == swap_state(parent, area, 1) == swap_state(stranger, other) == (3, False, False)
    )
    assert holds(kernel)
    assert not gone(kernel)
    kernel.ksmd()
    assert not kernel.stable_tree
    stranger.swapin(other)
    assert page_state(stranger, other) == (vma(stranger).anon_vma, False, 1, False)  # its root
    parent.swapin(area)
    assert folio(parent, area, 0) is not folio(stranger, other)
    assert holds(kernel)
    end(kernel)


def test_from_the_swap_cache_it_comes_back_as_it_was_and_unnoted_until_the_next_scan(kernel, parent, stranger):
    area, other = merged(parent), merged(stranger)
    page = folio(parent, area)
    parent.swapout(area, cached=True)
    kernel.ksmd()
    assert items(kernel) == []  # nothing is mapped, but the page is still there
    parent.swapin(area)
    assert folio(parent, area) is page
    assert parent.walk(area, 0) == []
    kernel.ksmd()
    assert found(parent, area) == {(parent.mm, area.start)}
    stranger.write(other)
    assert page_state(stranger, other) == (vma(stranger).anon_vma, True, 1, True)
    assert page.slot is None
    end(kernel)


def test_locked_memory_keeps_a_merged_page_everywhere(kernel, parent, stranger):
    area, other = merged(parent), mergeable(stranger)
    stranger.mlock(other)
    stranger.ksm_merge(other, "X")
    assert refused(parent.swapout, area) == errno.EBUSY
    assert holds(kernel)
    end(kernel)


def test_a_merged_page_migrates_and_is_found_and_shared_as_before(kernel, parent, stranger):
    area, other = merged(parent, 2), merged(stranger)
    child = parent.fork()
    old, before = folio(parent, area), items(kernel)
    stranger.migrate(other)
    new = folio(stranger, other)
    assert new is not old
    assert (old.stable_node, old.mapcount, new.stable_node, new.mapcount) == (None, 0, node(kernel), 5)
    assert node(kernel).folio is new
    assert items(kernel) == before
    assert {entry(process, area, page).folio for process in (parent, child) for page in (0, 1)} == {new}
    assert holds(kernel)
    end(kernel)


def test_without_memory_a_merged_page_stays(kernel, parent):
    area = merged(parent)
    page = folio(parent, area)
    kernel.slab.plan(1, kind="page")
    assert refused(parent.migrate, area) == errno.ENOMEM
    kernel.slab.plan(1, kind="page")
    assert refused(parent.write, area) == errno.ENOMEM
    kernel.slab.disarm()
    assert folio(parent, area) is page
    end(kernel)
