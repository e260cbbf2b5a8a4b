# SPDX-License-Identifier: GPL-2.0-only
"""Swap-out and swap-in: who is unmapped, who is refused, what a failure leaves."""

import errno

import pytest
from machine_parts import chain, folio, vma, written
from swap_parts import entry, forget_ksm, ksm_page, page_state, swap_state

from rmaplab.check.invariants import violations
from rmaplab.check.state import fingerprint
from rmaplab.kernel.flags import VM_LOCKED
from rmaplab.kernel.locking import FOLIO_LOCK
from rmaplab.kernel.pagetable import SwapPte


def refused(call, *arguments):
    """The errno of a call that must fail."""
    with pytest.raises(OSError, match=r"\w") as caught:
        call(*arguments)
    return caught.value.errno


# --- out -------------------------------------------------------------------------------------------------


def test_swap_out_unmaps_a_page_everywhere(kernel, parent):
    area = written(parent)
    family = [parent, parent.fork(), parent.fork()]
    old = folio(parent, area)
    family[1].swapout(area)
    assert old.mapcount == 0
    assert {entry(process, area).slot.count for process in family} == {3}
    assert len({entry(process, area).slot for process in family}) == 1


def test_a_process_that_copied_the_page_keeps_its_copy(kernel, parent):
    area = written(parent)
    child = parent.fork()
    child.write(area)
    own = folio(child, area)
    parent.swapout(area)
    assert swap_state(parent, area) == (1, False, False)  # alone, but nobody knew
    assert folio(child, area) is own


def test_a_page_swapped_out_again_keeps_its_slot_as_long_as_somebody_needs_it(kernel, parent):
    area = written(parent)
    child = parent.fork()
    parent.swapout(area)
    slot = entry(parent, area).slot
    child.swapin(area)
    assert slot.count == 1
    child.swapout(area)
    assert entry(child, area).slot is slot
    assert slot.count == 2
    parent.swapin(area)
    child.swapin(area)
    child.swapout(area)
    assert entry(child, area).slot is not slot


def test_a_page_that_only_the_swap_cache_has_is_reclaimed(kernel, parent):
    area = written(parent)
    parent.swapout(area, cached=True)
    old = entry(parent, area).slot.folio
    parent.swapout(area)
    assert swap_state(parent, area) == (1, False, True)
    assert (old.slot, old.mapping) == (None, None)
    parent.swapout(area)  # there is nothing left to do
    assert swap_state(parent, area) == (1, False, True)


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda process, area: None, errno.EFAULT),
        (lambda process, area: process.read(area), errno.EINVAL),
    ],
)
def test_what_is_not_there_or_not_anonymous_cannot_be_swapped_out(kernel, parent, prepare, expected):
    area = parent.mmap(1)
    prepare(parent, area)
    assert refused(parent.swapout, area) == expected


def test_shared_and_file_pages_are_not_swapped_out_here(kernel, parent):
    for area in (parent.mmap(1, shared=True), parent.mmap(1, file="f")):
        parent.read(area)
        assert refused(parent.swapout, area) == errno.EINVAL


def test_only_swapped_pages_can_be_swapped_in(kernel, parent):
    area = parent.mmap(1)
    assert refused(parent.swapin, area) == errno.EINVAL
    parent.write(area)
    assert refused(parent.swapin, area) == errno.EINVAL


def test_a_pinned_page_stays(kernel, parent):
    area = written(parent)
    folio(parent, area).pins = 1
    before = page_state(parent, area)
    assert refused(parent.swapout, area) == errno.EBUSY
    assert page_state(parent, area) == before
    assert folio(parent, area).slot is None
    folio(parent, area).pins = 0


def test_a_page_locked_in_memory_anywhere_stays_everywhere(kernel, parent):
    area = written(parent)
    child = parent.fork()
    vma(child).vm_flags |= VM_LOCKED
    assert refused(parent.swapout, area) == errno.EBUSY
    assert page_state(parent, area) == page_state(child, area) == (chain(parent)[0], False, 2, False)
    assert folio(parent, area).slot is None


def test_locked_memory_that_no_longer_maps_the_page_does_not_matter(kernel, parent):
    area = written(parent)
    child = parent.fork()
    child.write(area)
    vma(child).vm_flags |= VM_LOCKED
    parent.swapout(area)
    assert isinstance(entry(parent, area), SwapPte)


def locked_walk(kernel, page, walk):
    kernel.locks.acquire(FOLIO_LOCK, page)
    result = walk(page)
    kernel.locks.release(FOLIO_LOCK, page)
    return result


def test_unmapping_puts_the_entry_of_a_page_pinned_meanwhile_back(kernel, parent):
    area = written(parent)
    page, before = folio(parent, area), page_state(parent, area)
    kernel.folio_alloc_swap(page)
    page.pins = 1
    locked_walk(kernel, page, kernel.try_to_unmap)
    assert page_state(parent, area) == before
    assert page.slot.count == 0
    page.pins = 0
    assert kernel.folio_free_swap(page)
    assert page.slot is None


def test_unmapping_stops_at_locked_memory_and_leaves_what_was_unmapped_before(kernel, parent):
    area = written(parent)
    child = parent.fork()
    last = parent.fork()
    page = folio(parent, area)
    vma(child).vm_flags |= VM_LOCKED
    kernel.folio_alloc_swap(page)
    visits = locked_walk(kernel, page, kernel.try_to_unmap)
    assert [visit.vma for visit in visits] == [vma(parent), vma(child)]
    assert swap_state(parent, area) == (1, True, False)
    assert page_state(child, area) == page_state(last, area) == (chain(parent)[0], False, 2, False)
    assert not kernel.folio_free_swap(page)
    parent.swapin(area)
    assert folio(parent, area) is page


def test_unmapping_ends_when_nothing_is_mapped_any_more(kernel, parent):
    area = written(parent)
    child = parent.fork()
    parent.munmap(area)
    others = [child.fork(), child.fork()]
    for process in others:
        process.write(area)
    page = folio(child, area)
    kernel.folio_alloc_swap(page)
    visits = locked_walk(kernel, page, kernel.try_to_unmap)
    assert [visit.vma for visit in visits] == [vma(child)]  # the others are not asked


# --- in --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["read", "write"])
def test_no_memory_for_the_page_leaves_everything_as_it_was(kernel, parent, call):
    area = written(parent)
    parent.fork()
    parent.swapout(area)
    before = fingerprint(kernel)
    kernel.slab.plan(1, kind="page")
    assert refused(getattr(parent, call), area) == errno.ENOMEM
    kernel.slab.disarm()
    assert kernel.slab.failed == 1
    assert fingerprint(kernel) == before
    getattr(parent, call)(area)


def test_no_memory_for_the_copy_leaves_the_page_mapped_from_swap(kernel, parent):
    area = written(parent)
    child = parent.fork()
    parent.swapout(area)
    kernel.slab.plan(2, kind="page")
    assert refused(child.write, area) == errno.ENOMEM
    kernel.slab.disarm()
    assert page_state(child, area) == (chain(parent)[0], False, 1, False)
    assert swap_state(parent, area) == (1, True, False)


def test_a_hit_in_the_swap_cache_takes_no_memory(kernel, parent):
    area = written(parent)
    parent.swapout(area, cached=True)
    kernel.slab.plan(1, kind="page")
    parent.write(area)
    assert kernel.slab.counts["page"] == 0


@pytest.mark.parametrize("cached", [False, True])
def test_entries_that_go_give_their_slot_back(kernel, parent, cached):
    area = written(parent, 2)
    child = parent.fork()
    parent.swapout(area, cached)
    slots = [entry(parent, area, page).slot for page in (0, 1)]
    parent.munmap(area.part(0, 0))
    assert [slot.count for slot in slots] == [1, 2]
    child.exit()
    assert [slot.count for slot in slots] == [0, 1]
    assert slots[0].folio is None
    assert (slots[1].folio is not None) is cached
    parent.exit()
    assert slots[1].count == 0


def test_a_copy_of_the_machine_swaps_on_its_own(kernel, parent):
    area = written(parent)
    parent.fork()
    parent.swapout(area, cached=True)
    twin = kernel.copy()
    assert fingerprint(twin) == fingerprint(kernel)
    twin.processes["P1"].write(area)
    assert violations(twin) == []
    assert swap_state(parent, area) == (2, True, False)


# --- KSM -------------------------------------------------------------------------------------------------


def merged(kernel, parent):
    """A KSM page of two processes that have nothing to do with each other."""
    stranger = kernel.spawn("stranger")
    area, other = written(parent), written(stranger, 3).part(1, 1)
    return area, stranger, other, ksm_page(kernel, (parent, area), (stranger, other))


def test_a_ksm_page_is_swapped_out_everywhere_and_exclusive_nowhere(kernel, parent):
    area, stranger, other, page = merged(kernel, parent)
    parent.swapout(area)
    assert page.mapcount == 0
    assert swap_state(parent, area) == swap_state(stranger, other) == (2, False, False)
    assert page.stable_node is None  # freed: ksmd will notice
    forget_ksm(kernel)


def test_a_ksm_page_in_the_swap_cache_comes_back_as_one(kernel, parent):
    area, stranger, other, page = merged(kernel, parent)
    parent.swapout(area, cached=True)
    stranger.swapin(other)
    parent.swapin(area)
    assert folio(parent, area) is folio(stranger, other) is page
    assert page_state(parent, area) == (None, False, 2, False)
    stranger.write(other)
    assert page_state(stranger, other) == (vma(stranger, -1).anon_vma, True, 1, True)
    forget_ksm(kernel)
    parent.munmap(area)


def test_what_was_a_ksm_page_belongs_to_who_reads_it_first_and_others_copy(kernel, parent):
    area, stranger, other, _ = merged(kernel, parent)
    parent.swapout(area)
    forget_ksm(kernel)
    stranger.swapin(other)
    own = vma(stranger, -1).anon_vma
    assert page_state(stranger, other) == (own, False, 1, False)
    assert swap_state(parent, area) == (1, True, False)
    kernel.slab.plan(1, kind="page")
    assert refused(parent.swapin, area) == errno.ENOMEM
    kernel.slab.disarm()
    parent.swapin(area)
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, True)
    assert folio(stranger, other).slot is None


def test_a_relative_at_another_offset_gets_a_copy_too(kernel, parent):
    # ksm_might_need_to_copy looks at the offset as well: one root is not enough.
    area = written(parent, 2)
    page = ksm_page(kernel, (parent, area), (parent, area.part(1, 1)))
    parent.swapout(area.part(0, 0))
    forget_ksm(kernel)
    assert page.mapcount == 0
    parent.swapin(area.part(1, 1))
    parent.swapin(area.part(0, 0))
    assert folio(parent, area, 0) is not folio(parent, area, 1)
    assert page_state(parent, area, 0)[1:] == (True, 1, True)
    assert page_state(parent, area, 1)[1:] == (False, 1, False)
