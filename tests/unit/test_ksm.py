# SPDX-License-Identifier: GPL-2.0-only
"""KSM: what merging does to pages, which places it notes, and how long it keeps an anon_vma."""

import errno

import pytest
from ksm_parts import end, found, gone, holds, items, mergeable, merged, node
from machine_parts import BASE, counters, folio, vma, written
from swap_parts import entry

from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.process import Area


@pytest.fixture(params=["v6.0", "v6.12", "v6.18", "v6.18+2", "v6.18+8", "v7.0", "v7.3"], name="series")
def _series(request):  # fewer than elsewhere: these differ in what matters here
    return request.param


@pytest.fixture(name="stranger")
def _stranger(kernel):
    return kernel.spawn("stranger")


def refused(call, *args):
    with pytest.raises(OSError) as error:  # noqa: PT011 (the errno is looked at)
        call(*args)
    return error.value.errno


# --- merging ---------------------------------------------------------------------------------------------


def test_two_pages_become_one_that_names_no_anon_vma_and_nobody_may_write_to(kernel, parent):
    area = mergeable(parent, 2)
    first, second = folio(parent, area, 0), folio(parent, area, 1)
    parent.ksm_merge(area, "X")
    assert folio(parent, area, 0) is folio(parent, area, 1) is node(kernel).folio is first
    assert (first.mapping, first.stable_node, first.mapcount, first.exclusive) == (None, node(kernel), 2, 0)
    assert second.mapcount == 0
    assert not entry(parent, area, 0).writable
    assert not entry(parent, area, 1).writable
    end(kernel)


def test_each_merged_place_holds_a_reference_to_its_vmas_own_anon_vma(kernel, parent, stranger):
    area = mergeable(parent)
    child = parent.fork()
    other = mergeable(stranger)
    child.write(area)
    for process, place in ((parent, area), (child, area), (stranger, other)):
        process.ksm_merge(place, "X")
        assert holds(kernel)
    mine, childs, strangers = (vma(process).anon_vma for process in (parent, child, stranger))
    assert items(kernel) == [  # walks begin with the latest
        (stranger.mm, other.start, strangers),
        (child.mm, area.start, childs),
        (parent.mm, area.start, mine),
    ]
    assert counters(childs) == (2, 0, 1)
    assert counters(strangers) == (2, 1, 1)
    assert counters(mine) == (3, 2, 1)  # its own VMA, its child, and KSM
    assert found(stranger, other) == {(stranger.mm, other.start), (child.mm, area.start), (parent.mm, area.start)}
    end(kernel)


def test_contents_stay_apart(kernel, parent):
    area = mergeable(parent, 3)
    for page, content in enumerate("XYX"):
        parent.ksm_merge(area.part(page, page), content)
    assert folio(parent, area, 0) is folio(parent, area, 2) is node(kernel, "X").folio
    assert folio(parent, area, 1) is node(kernel, "Y").folio
    assert refused(parent.ksm_merge, area.part(0, 0), "Y") == errno.EINVAL  # nobody has written to it
    parent.write(area, 0)
    parent.ksm_merge(area.part(0, 0), "Y")
    assert node(kernel, "Y").folio.mapcount == 2
    assert len(items(kernel, "X")) == 1
    end(kernel)


def test_merging_a_place_twice_changes_nothing(kernel, parent):
    area = merged(parent, 2)
    before = items(kernel), counters(vma(parent).anon_vma)
    parent.ksm_merge(area, "X")
    assert (items(kernel), counters(vma(parent).anon_vma)) == before
    end(kernel)


def test_no_call_of_ksm_allocates_what_the_reverse_map_is_made_of(kernel, parent):
    area = mergeable(parent, 2)
    for kind in ("rmap", "vma", "tree", "page", "table"):
        kernel.slab.plan(1, kind=kind)
        parent.ksm_merge(area, "X")
        kernel.ksmd()
        kernel.slab.disarm()
        parent.write(area)
    parent.munmap(area)
    end(kernel)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda process: written(process),
        lambda process: mergeable(process, 1).part(0, 0) and process.mmap(1),
        lambda process: process.mmap(1, shared=True),
    ],
    ids=["never advised", "unfaulted", "shared"],
)
def test_what_ksmd_does_not_look_at(kernel, parent, prepare):
    assert refused(parent.ksm_merge, prepare(parent), "X") == errno.EINVAL
    assert not kernel.stable_tree


@pytest.mark.parametrize("prot", ["r", "rw"])
def test_the_zero_page_and_a_files_page_are_not_merged(kernel, parent, prot):
    for area in (parent.mmap(1), parent.mmap(1, file="libc", prot=prot)):
        parent.madvise(area, "mergeable")
        parent.read(area)
        assert refused(parent.ksm_merge, area, "X") == errno.EINVAL
    end(kernel)


@pytest.mark.parametrize("write", [False, True])
def test_a_pinned_page_is_refused_and_left_alone(kernel, parent, write):
    area = mergeable(parent, 2)
    parent.pin(area.part(1, 1), write=write)
    before = folio(parent, area, 1)
    assert refused(parent.ksm_merge, area, "X") == errno.EBUSY
    assert holds(kernel)
    assert folio(parent, area, 0) is node(kernel).folio  # the first was merged before
    assert folio(parent, area, 1) is before
    assert (before.exclusive, before.mapping, entry(parent, area, 1).writable) == (1, vma(parent).anon_vma, True)
    parent.unpin(area.part(1, 1))
    parent.ksm_merge(area, "X")
    assert node(kernel).folio.mapcount == 2
    end(kernel)


def test_a_page_in_the_swap_cache_is_merged_and_gives_its_slot_back_with_the_last_entry(kernel, parent):
    area = mergeable(parent)
    child = parent.fork()
    parent.swapout(area, cached=True)
    parent.swapin(area)
    old = folio(parent, area)
    slot = old.slot
    other = merged(parent, content="X")
    parent.ksm_merge(area, "X")
    assert folio(parent, area) is folio(parent, other)
    assert (old.mapcount, old.slot, slot.count) == (0, slot, 1)  # the child's entry
    assert holds(kernel)
    child.exit()
    assert old.slot is None
    end(kernel)


# --- what a reference keeps ----------------------------------------------------------------------------------


def test_an_anon_vma_outlives_its_vmas_until_ksmd_comes_and_is_put_before_its_root(kernel, parent):
    area = mergeable(parent)
    child = parent.fork()
    child.write(area)
    child.ksm_merge(area, "X")
    own, root = vma(child).anon_vma, vma(parent).anon_vma
    child.exit()
    parent.exit()
    assert (counters(own), len(own.rb_root)) == ((1, 0, 0), 0)
    assert (counters(root), len(root.rb_root)) == ((1, 0, 0), 0)  # nothing but its child keeps it
    assert holds(kernel)
    freed = []
    anon_vma_free = kernel.anon_vma_free
    kernel.anon_vma_free = lambda anon_vma: freed.append(anon_vma) or anon_vma_free(anon_vma)
    kernel.ksmd()
    assert freed == [own, root]
    assert gone(kernel)


def test_a_page_that_somebody_still_maps_keeps_the_node_but_not_the_other_places(kernel, parent, stranger):
    merged(parent)
    other = merged(stranger)
    parent.exit()
    assert holds(kernel)
    assert len(items(kernel)) == 2
    kernel.ksmd()
    assert items(kernel) == [(stranger.mm, other.start, vma(stranger).anon_vma)]
    assert len(kernel.live_anon_vmas) == 1
    end(kernel)


def test_a_content_whose_page_is_gone_is_noticed_by_the_next_merge_too(kernel, parent, stranger):
    parent.munmap(merged(parent))
    assert len(kernel.live_anon_vmas) == 1
    area = mergeable(stranger)
    assert len(kernel.live_anon_vmas) == 2
    stranger.ksm_merge(area, "X")
    assert items(kernel) == [(stranger.mm, area.start, vma(stranger).anon_vma)]
    assert len(kernel.live_anon_vmas) == 1
    end(kernel)


def test_memory_mapped_anew_at_a_merged_address_gets_an_item_of_its_own(kernel, parent, stranger):
    merged(stranger)  # the page stays
    area = merged(parent, at=BASE)
    parent.munmap(area)
    assert merged(parent, at=BASE) == area
    assert items(kernel)[0] == (parent.mm, BASE, vma(parent).anon_vma)
    assert len(items(kernel)) == len(kernel.live_anon_vmas) == 2
    assert (parent.mm, BASE) in found(parent, area)
    end(kernel)


def test_a_page_written_and_merged_again_has_one_item_of_the_anon_vma_of_now(kernel, parent, stranger):
    merged(stranger)
    area = merged(parent)
    parent.write(area)
    parent.ksm_merge(area, "X")
    assert len(items(kernel)) == 2
    assert counters(vma(parent).anon_vma)[0] == 2
    parent.write(area)
    parent.ksm_merge(area, "Y")
    assert [len(items(kernel, content)) for content in "XY"] == [1, 1]
    end(kernel)


def test_the_old_item_goes_even_if_the_page_of_now_cannot_be_merged(kernel, parent, stranger):
    merged(stranger)
    area = merged(parent)
    parent.write(area)
    parent.pin(area)
    assert len(items(kernel)) == 2
    assert refused(parent.ksm_merge, area, "X") == errno.EBUSY
    assert len(items(kernel)) == 1
    end(kernel)


# --- ksmd's scan ---------------------------------------------------------------------------------------------


def test_ksmd_notes_what_fork_has_added_and_forgets_what_was_written(kernel, parent):
    area = merged(parent, 2)
    child = parent.fork()
    assert len(items(kernel)) == 2
    kernel.ksmd()
    assert {(mm, anon_vma) for mm, _, anon_vma in items(kernel)} == {
        (process.mm, vma(process).anon_vma) for process in (parent, child)
    }
    assert len(items(kernel)) == 4
    assert counters(vma(child).anon_vma)[0] == 3
    child.write(area, 0)
    kernel.ksmd()
    assert len(items(kernel)) == 3
    assert counters(vma(child).anon_vma)[0] == 2
    before = items(kernel)
    kernel.ksmd()
    assert items(kernel) == before
    end(kernel)


def test_ksmd_passes_over_what_a_child_has_made_unmergeable(kernel, parent):
    area = merged(parent)
    child = parent.fork()
    child.madvise(area, "unmergeable")
    assert folio(child, area).mapping is vma(child).anon_vma
    kernel.ksmd()
    assert items(kernel) == [(parent.mm, area.start, vma(parent).anon_vma)]
    end(kernel)


def test_each_half_of_a_split_vma_is_scanned_and_a_merge_of_vmas_keeps_the_items(kernel, parent):
    area = merged(parent, 3)
    parent.mprotect(area.part(1, 1), "r")
    assert holds(kernel)
    kernel.ksmd()
    assert len(items(kernel)) == 3
    parent.mprotect(area.part(1, 1), "rw")
    assert len(parent.mm.vmas) == 1
    assert found(parent, area) == {(parent.mm, area.start + page * PAGE_SIZE) for page in range(3)}
    parent.munmap(Area(area.start, 1))
    kernel.ksmd()
    assert len(items(kernel)) == 2
    end(kernel)
