# SPDX-License-Identifier: GPL-2.0-only
"""mremap: what a move, a growth and an empty mapping left behind do to links, counters, offsets and pages."""

import errno

import pytest
from allocation_events import Recorder
from machine_parts import BASE, Delta, chain, counters, descendants, folio, vma, written

from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, VM_ACCOUNT, VM_LOCKED
from rmaplab.kernel.objects import ZERO_PAGE, SwapSlot
from rmaplab.kernel.pagetable import GuardMarker, SwapPte
from rmaplab.kernel.process import Area

FAR = BASE + 64 * PAGE_SIZE


def at(page, pages=1):
    return Area(BASE + page * PAGE_SIZE, pages)


def layout(process):
    return [((part.vm_start - BASE) // PAGE_SIZE, (part.vm_end - BASE) // PAGE_SIZE) for part in process.mm.vmas]


# --- a move ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", range(3))
def test_a_plain_move_adds_nothing_and_changes_no_counter(kernel, parent, generation):
    area = written(parent, 2, at=BASE)
    process = descendants(parent, generation)[-1]
    before = {av: counters(av) for av in chain(process)}
    added = Delta(kernel)
    process.mremap(area, at=FAR)
    assert added() == (0, 0)
    assert {av: counters(av) for av in chain(process)} == before
    assert layout(process) == [(64, 66)]


def test_a_moved_page_keeps_folio_name_index_and_write_right(kernel, parent):
    area = written(parent, at=BASE)
    page = folio(parent, area)
    mapping, index = page.mapping, page.index
    moved = parent.mremap(area, at=FAR)
    pte = parent.mm.page_table.get(FAR)
    assert (pte.folio, pte.writable) == (page, True)
    assert (page.mapping, page.index, page.mapcount) == (mapping, index, 1)
    assert parent.mm.page_table.get(BASE) is None
    assert [visit.address for visit in parent.walk(moved, 0) if visit.maps] == [FAR]


def test_a_page_shared_with_a_child_stays_shared_and_protected(kernel, parent):
    area = written(parent, at=BASE)
    child = parent.fork()
    moved = child.mremap(area, at=FAR)
    assert not child.mm.page_table.get(FAR).writable
    found = {(visit.vma.vm_mm, visit.address) for visit in parent.walk(area, 0) if visit.maps}
    assert found == {(parent.mm, BASE), (child.mm, FAR)}
    child.write(moved)
    assert folio(child, moved).mapping is vma(child).anon_vma


def test_a_faulted_vma_keeps_its_page_offset_and_an_unfaulted_one_takes_the_new_address(kernel, parent):
    faulted, unfaulted = written(parent, at=BASE), parent.mmap(1, at=BASE + 8 * PAGE_SIZE)
    parent.mremap(faulted, at=FAR)
    parent.mremap(unfaulted, at=FAR + 8 * PAGE_SIZE)
    assert [part.vm_pgoff - (BASE >> PAGE_SHIFT) for part in parent.mm.vmas] == [0, 72]


def test_a_vma_that_only_mapped_the_zero_page_counts_as_unfaulted(kernel, parent):
    area = parent.mmap(1, at=BASE)
    parent.read(area)
    parent.mremap(area, at=FAR)
    assert vma(parent).vm_pgoff == FAR >> PAGE_SHIFT
    assert parent.mm.page_table.get(FAR).folio is ZERO_PAGE


def test_part_of_a_vma_moves_and_leaves_two_pieces(kernel, parent):
    area = written(parent, 3, at=BASE)
    (root,) = chain(parent)
    parent.mremap(area.part(1, 1), at=FAR)
    assert layout(parent) == [(0, 1), (2, 3), (64, 65)]
    assert counters(root) == (1, 1, 3)
    assert all(part.vm_flags & VM_ACCOUNT for part in parent.mm.vmas)


def test_what_was_moved_away_comes_home_and_closes_the_gap(kernel, parent):
    area = written(parent, 3, at=BASE)
    (root,) = chain(parent)
    moved = parent.mremap(area.part(1, 1), at=FAR)
    parent.mremap(moved, at=area.page(1))
    assert layout(parent) == [(0, 3)]
    assert counters(root) == (1, 1, 1)


def test_a_move_replaces_what_is_at_the_new_place(kernel, parent):
    area = written(parent, at=BASE)
    page = folio(parent, area)
    old = written(parent, 3, at=FAR)
    parent.mremap(area, at=old.page(1))
    assert folio(parent, old, 1) is page
    assert layout(parent) == [(64, 65), (65, 66), (66, 67)]


def test_an_unfaulted_vma_merges_with_itself_where_it_is_moved_next_to_itself(kernel, parent):
    area = parent.mmap(4, at=BASE)
    parent.mremap(area.part(2, 3), at=BASE + 4 * PAGE_SIZE)
    assert layout(parent) == [(0, 2), (4, 6)]
    assert [part.vm_pgoff - (BASE >> PAGE_SHIFT) for part in parent.mm.vmas] == [0, 4]


def test_a_vma_can_be_absorbed_by_its_own_copy(kernel, parent):
    # Copied between its neighbour and itself: the neighbour grows over both, then the old place goes.
    parent.mmap(1, at=BASE)
    area = parent.mmap(1, at=BASE + 2 * PAGE_SIZE)
    neighbour, copied = vma(parent), vma(parent, 1)
    recorder = Recorder(kernel, "copy_vma")
    parent.mremap(area, at=BASE + PAGE_SIZE)
    ((new, source, _),) = recorder.results
    assert new is source is neighbour
    assert copied.freed
    assert layout(parent) == [(0, 2)]


def test_entries_of_every_kind_move_as_they_are(kernel, parent):
    area = parent.mmap(4, at=BASE)
    parent.write(area, 0)
    slot = SwapSlot(1)
    slot.count = 1
    entries = [parent.mm.page_table.get(BASE), SwapPte(slot, True), GuardMarker()]
    for number, entry in enumerate(entries):
        parent.mm.page_table.set(area.page(number), entry)
    parent.mremap(area, at=FAR)
    assert [entry for _, entry in parent.mm.page_table] == entries
    assert [(address - FAR) // PAGE_SIZE for address, _ in parent.mm.page_table] == [0, 1, 2]
    parent.mm.page_table.clear(FAR + PAGE_SIZE)
    parent.mm.page_table.clear(FAR + 2 * PAGE_SIZE)


# --- MREMAP_DONTUNMAP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", range(3))
def test_a_whole_vma_left_behind_is_unfaulted_and_gets_a_root_of_its_own_at_the_next_write(
    kernel, parent, generation
):
    # Measured on 6.18.44: +0/+0 for the move, +1/+1 for the next fault.
    area = written(parent, 2, at=BASE)
    process = descendants(parent, generation)[-1]
    own, added = vma(process).anon_vma, Delta(kernel)
    process.mremap(area, at=FAR, dontunmap=True)
    assert added() == (0, 0)
    assert layout(process) == [(0, 2), (64, 66)]
    assert [part.anon_vma for part in process.mm.vmas] == [None, own]
    process.write(area, 0)
    assert added() == (1, 1)
    assert vma(process).anon_vma is vma(process).anon_vma.root
    assert vma(process).anon_vma.root is not own.root


@pytest.mark.parametrize("part", [(0, 0), (1, 1), (2, 2)])
def test_part_of_a_vma_left_behind_keeps_its_links(kernel, parent, part):
    area = written(parent, 3, at=BASE)
    (root,) = chain(parent)
    added = Delta(kernel)
    parent.mremap(area.part(*part), at=FAR, dontunmap=True)
    assert added() == (0, 1)
    assert layout(parent) == [(0, 3), (64, 65)]
    assert counters(root) == (1, 1, 2)
    parent.write(area)  # both now have pages of one offset under one anon_vma
    assert len(kernel.live_anon_vmas) == 1


def test_a_vma_left_behind_is_no_longer_locked_but_still_accounted(kernel, parent):
    area = written(parent, at=BASE)
    vma(parent).vm_flags |= VM_LOCKED
    parent.mremap(area, at=FAR, dontunmap=True)
    assert [bool(part.vm_flags & VM_LOCKED) for part in parent.mm.vmas] == [False, True]
    assert all(part.vm_flags & VM_ACCOUNT for part in parent.mm.vmas)


def test_what_grows_while_it_is_locked_is_faulted_in(kernel, parent):
    area = written(parent, at=BASE)
    vma(parent).vm_flags |= VM_LOCKED
    grown = parent.mremap(area, pages=3, move=False)
    parent.mremap(grown, pages=4, at=FAR)
    assert [(address - FAR) // PAGE_SIZE for address, _ in parent.mm.page_table] == [0, 1, 2, 3]
    assert vma(parent).vm_flags & VM_LOCKED


@pytest.mark.parametrize(("n", "pieces", "accounted"), [(9, [(0, 1), (2, 3)], True), (2, [(0, 3)], False)])
def test_an_old_place_that_cannot_be_split_off_stays_mapped_and_unaccounted(kernel, parent, n, pieces, accounted):
    # The pages are at the new place by then: the call succeeds.
    area = written(parent, 3, at=BASE)
    kernel.slab.plan(n, kind="vma")
    parent.mremap(area.part(1, 1), at=FAR)
    assert layout(parent) == [*pieces, (64, 65)]
    assert {bool(part.vm_flags & VM_ACCOUNT) for part in parent.mm.vmas[:-1]} == {accounted}
    assert parent.mm.page_table.get(area.page(1)) is None
    assert parent.mm.page_table.get(FAR).present


def test_leaving_behind_and_resizing_exclude_each_other(kernel, parent):
    area = written(parent, 2, at=BASE)
    with pytest.raises(OSError, match="Invalid") as error:
        parent.mremap(area, pages=1, at=FAR, dontunmap=True)
    assert error.value.errno == errno.EINVAL


# --- resizing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faulted", [False, True])
def test_a_vma_grows_in_place_and_locks_only_what_is_linked(kernel, parent, faulted):
    area = written(parent, at=BASE) if faulted else parent.mmap(1, at=BASE)
    before, added = kernel.locks.tree_operations, Delta(kernel)
    assert parent.mremap(area, pages=4, move=False) == Area(BASE, 4)
    assert layout(parent) == [(0, 4)]
    assert added() == (0, 0)
    assert kernel.locks.tree_operations - before == 2 * faulted


def test_growth_joins_the_vma_behind_if_it_fits(kernel, parent):
    area = written(parent, 3, at=BASE)
    (root,) = chain(parent)
    parent.munmap(area.part(1, 1))
    parent.mremap(area.part(0, 0), pages=2, move=False)
    assert layout(parent) == [(0, 3)]
    assert counters(root) == (1, 1, 1)


def test_a_vma_without_room_moves_to_grow(kernel, parent):
    area = written(parent, at=BASE)
    parent.mmap(1, at=BASE + PAGE_SIZE, prot="r")
    page = folio(parent, area)
    moved = parent.mremap(area, pages=3, move=False)
    assert moved.start not in (BASE, FAR)
    assert folio(parent, moved) is page
    assert layout(parent)[0] == (1, 2)
    assert kernel.do_mremap(parent.mm, moved.start, PAGE_SIZE, 3 * PAGE_SIZE, maymove=False) == -errno.ENOMEM


def test_shrinking_unmaps_the_tail_and_may_reach_into_other_vmas(kernel, parent):
    area = written(parent, 3, at=BASE)
    parent.mprotect(area.part(1, 2), "r")
    assert parent.mremap(area, pages=1, move=False) == Area(BASE, 1)
    assert layout(parent) == [(0, 1)]


def test_a_move_can_shrink_or_grow_on_the_way(kernel, parent):
    area = written(parent, 3, at=BASE)
    smaller = parent.mremap(area, pages=2, at=FAR)
    assert layout(parent) == [(64, 66)]
    parent.mremap(smaller, pages=5, at=BASE)
    assert layout(parent) == [(0, 5)]
    assert [(address - BASE) // PAGE_SIZE for address, _ in parent.mm.page_table] == [0, 1]


def test_the_same_size_without_a_new_place_is_no_work(kernel, parent):
    area = written(parent, at=BASE)
    before = kernel.locks.tree_operations
    assert parent.mremap(area, move=False) == area
    assert kernel.locks.tree_operations == before


def test_a_shared_mapping_can_be_had_twice(kernel, parent):
    area = parent.mmap(2, at=BASE, shared=True)
    assert kernel.do_mremap(parent.mm, BASE, 0, area.pages * PAGE_SIZE, new_addr=FAR) == FAR
    assert [(part.file, part.vm_pgoff) for part in parent.mm.vmas] == [(vma(parent).file, 0)] * 2


# --- several VMAs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("series", ["v7.0"])
def test_a_move_takes_several_vmas_and_keeps_their_distance(kernel, parent):
    low, high = written(parent, at=BASE), written(parent, 2, at=BASE + 3 * PAGE_SIZE)
    pages = [folio(parent, low), folio(parent, high), folio(parent, high, 1)]
    parent.mremap(at(0, 4), at=FAR)
    assert layout(parent) == [(4, 5), (64, 65), (67, 68)]
    assert [entry.folio for _, entry in parent.mm.page_table] == [pages[2], pages[0], pages[1]]
    assert parent.mm.page_table.get(BASE + 4 * PAGE_SIZE).folio is pages[2]


@pytest.mark.parametrize("series", ["v7.0"])
def test_growth_across_vmas_is_refused(kernel, parent):
    area = written(parent, 2, at=BASE)
    parent.mprotect(area.part(1, 1), "r")
    with pytest.raises(OSError, match="address") as error:
        parent.mremap(area, pages=3, at=FAR)
    assert error.value.errno == errno.EFAULT


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addr", "old", "new", "options", "error"),
    [
        (0, 1, 1, {"new_addr": BASE}, errno.EINVAL),
        (0, 2, 2, {"new_addr": BASE + PAGE_SIZE}, errno.EINVAL),
        (0, 1, 1, {"new_addr": FAR + 1}, errno.EINVAL),
        (0, 1, 1, {"new_addr": 1 << 47}, errno.EINVAL),
        (0, 1, 0, {}, errno.EINVAL),
        (0, 1, 2, {"dontunmap": True}, errno.EINVAL),
        (0, 1, 1, {"new_addr": FAR, "maymove": False}, errno.EINVAL),
        (0, 0, 1, {"new_addr": FAR}, errno.EINVAL),
        (8, 1, 1, {"new_addr": FAR}, errno.EFAULT),
        (8, 1, 2, {}, errno.EFAULT),
        (0, 3, 5, {}, errno.EFAULT),
        (1, 1, 1, {"dontunmap": True}, errno.ENOMEM),  # no place is offered
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(kernel, parent, addr, old, new, options, error):
    written(parent, 2, at=BASE)
    before = list(parent.mm.page_table), layout(parent)
    rc = kernel.do_mremap(parent.mm, BASE + addr * PAGE_SIZE, old * PAGE_SIZE, new * PAGE_SIZE, **options)
    assert rc == -error
    assert (list(parent.mm.page_table), layout(parent)) == before


# --- KSM ---------------------------------------------------------------------------------------------------------


def test_a_page_merged_by_ksm_is_given_back_before_it_moves(kernel, parent):
    # Its item knows it by address and anon_vma; at the new place ksmd may merge it again.
    area = written(parent, 2, at=BASE)
    parent.madvise(area, "mergeable")
    parent.ksm_merge(area, "X")
    (node,) = kernel.stable_tree.values()
    assert folio(parent, area) is folio(parent, area, 1) is node.folio
    moved = parent.mremap(area, at=FAR)
    assert node.folio.mapcount == 0
    assert [folio(parent, moved, page).mapping for page in (0, 1)] == chain(parent) * 2
