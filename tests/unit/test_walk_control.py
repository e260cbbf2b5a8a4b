# SPDX-License-Identifier: GPL-2.0-only
"""What a walk visits, in which order, where it stops, and what can be seen of it."""

import errno

import pytest
from huge_parts import machine
from machine_parts import descendants, folio, vma, written

from rmaplab.check.invariants import violations
from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import PAGE_SIZE, VM_HUGEPAGE, VM_LOCKED
from rmaplab.kernel.locking import ANON_VMA_LOCK, FOLIO_LOCK
from rmaplab.kernel.objects import Mm, Vma
from rmaplab.kernel.walk import RmapWalkControl
from rmaplab.series.unlocked_walk import UnlockedWalk


def on(_folio, _vma, _address):
    """Go on."""
    return True


def walk(kernel, page, rwc):
    kernel.locks.acquire(FOLIO_LOCK, page)
    visits = kernel.rmap_walk(page, rwc)
    kernel.locks.release(FOLIO_LOCK, page)
    return visits


@pytest.fixture(name="family")
def _family(parent):
    """P0 to P3, a page that all of them share, and its area."""
    area = written(parent)
    return descendants(parent, 3), area, folio(parent, area)


# --- where the page would be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pgoff", "pages", "expected"),
    [
        (10, 1, 0),  # the first page of the VMA
        (13, 1, 3),  # its last
        (13, 4, 3),  # a folio that starts inside and ends behind
        (14, 1, None),  # behind
        (8, 3, 0),  # a folio that starts before and ends in the first page
        (8, 40, 0),  # a folio around the VMA
        (8, 2, None),  # one that ends right before
    ],
)
def test_address_of_a_folio_in_a_vma(kernel, pgoff, pages, expected):
    start = 0x7000
    vma = Vma(99, Mm(99), start, start + 4 * PAGE_SIZE, 10, 0)
    address = kernel.vma_address(vma, pgoff, pages)
    assert address == (-errno.EFAULT if expected is None else start + expected * PAGE_SIZE)


def test_a_tree_that_promises_too_much_stops_the_walk(kernel, parent):
    area = written(parent, 2)
    page, mine = folio(parent, area, 1), vma(parent)
    mine.vm_end -= PAGE_SIZE  # behind the tree's back
    with pytest.raises(KernelBug, match="is not in vma1"):
        kernel.rmap_walk_anon(page)
    mine.vm_end += PAGE_SIZE
    kernel.locks.forget()


# --- how far a walk goes ---------------------------------------------------------------------------------


def test_a_walk_goes_to_every_vma_and_then_some(kernel, family):
    processes, area, page = family
    processes[2].write(area)
    visits = walk(kernel, page, RmapWalkControl(on))
    assert [(visit.vma, visit.address, visit.maps) for visit in visits] == [
        (vma(process), area.start, process is not processes[2]) for process in processes
    ]


def test_a_walk_stops_when_it_is_told_to(kernel, family):
    _, _, page = family
    assert len(walk(kernel, page, RmapWalkControl(lambda folio, vma, address: False))) == 1
    asked = []
    rwc = RmapWalkControl(on, done=lambda folio: asked.append(folio) or len(asked) == 2)
    assert len(walk(kernel, page, rwc)) == 2
    assert asked == [page, page]


def test_a_walk_passes_over_vmas_it_does_not_want(kernel, family):
    processes, _, page = family
    rwc = RmapWalkControl(on, invalid_vma=lambda vma: vma.vm_mm is processes[1].mm)
    assert [visit.vma for visit in walk(kernel, page, rwc)] == [vma(processes[at]) for at in (0, 2, 3)]


def test_a_walk_needs_the_folio_lock_and_its_caller_may_have_the_anon_vmas(kernel, family):
    _, _, page = family
    kernel.rmap_walk(page, RmapWalkControl(on))
    reports = [(report.id, report.detail) for report in kernel.events.take_reports()]
    unlocked = isinstance(kernel, UnlockedWalk)  # before v7.0
    assert reports == ([] if unlocked else [("AV-039", f"rmap_walk: {page} is not locked")])
    kernel.anon_vma_lock_write(page.mapping)
    before = kernel.locks.acquisitions[ANON_VMA_LOCK]
    assert len(kernel.rmap_walk_locked(page, RmapWalkControl(on))) == 4
    assert kernel.locks.acquisitions[ANON_VMA_LOCK] == before
    kernel.anon_vma_unlock_write(page.mapping)


def test_every_visit_can_be_heard(kernel, family):
    processes, area, page = family
    processes[1].write(area)
    heard = []
    kernel.events.listeners.append(heard.append)
    processes[0].walk(area, 0)
    visits = [(event.object, event.detail) for event in heard if event.verb == "visit"]
    assert visits == [
        (str(vma(process)), f"{area.start:#x} {'does not map' if process is processes[1] else 'maps'} {page}")
        for process in processes
    ]


# --- looking for use -------------------------------------------------------------------------------------


def referenced(kernel, page):
    kernel.locks.acquire(FOLIO_LOCK, page)
    visits, flags = kernel.folio_referenced(page)
    kernel.locks.release(FOLIO_LOCK, page)
    return [visit.vma for visit in visits], flags


def test_looking_for_use_ends_when_every_mapping_was_seen(kernel, family):
    processes, area, page = family
    vmas = [vma(process) for process in processes]
    assert referenced(kernel, page) == (vmas, 0)
    processes[3].write(area)
    assert referenced(kernel, page) == (vmas[:3], 0)
    processes[0].write(area)
    assert referenced(kernel, page) == (vmas[:3], 0)
    processes[1].munmap(area)
    processes[2].munmap(area)
    assert referenced(kernel, page) == ([], 0)


def test_looking_for_use_ends_at_locked_memory(kernel, family):
    processes, _, page = family
    vma(processes[1]).vm_flags |= VM_LOCKED
    assert referenced(kernel, page) == ([vma(process) for process in processes[:2]], VM_LOCKED)


# --- large folios ----------------------------------------------------------------------------------------


@pytest.fixture(name="large")
def _large():
    """A folio of 16 pages that lies in three VMAs."""
    kernel, process = machine(4)
    area = process.mmap(16, at=0x10000000)
    vma(process).vm_flags |= VM_HUGEPAGE
    process.write(area, 0)
    process.mprotect(area.part(4, 7), "r")
    yield kernel, process, area
    assert violations(kernel) == []


def test_a_walk_of_a_large_folio_visits_every_vma_that_has_a_part_of_it(large):
    kernel, process, area = large
    page = folio(process, area, 9)
    assert page.order == 4
    assert len(process.mm.vmas) == 3
    visits = kernel.rmap_walk_anon(page)
    assert sorted((visit.vma.vm_start, visit.address, visit.maps) for visit in visits) == [
        (area.page(at), area.page(at), True) for at in (0, 4, 8)
    ]
    process.munmap(area.part(0, 7))
    assert [visit.address for visit in kernel.rmap_walk_anon(page)] == [area.page(8)]
    process.munmap(area.part(8, 15))


def test_every_part_counts_when_use_is_looked_for(large):
    kernel, process, area = large
    child = process.fork()
    child.write(area, 0)
    page = folio(process, area, 9)
    assert page.mapcount == 31
    vmas, flags = referenced(kernel, page)
    assert (len(vmas), flags) == (6, 0)
    vma(process, 1).vm_flags |= VM_LOCKED
    assert referenced(kernel, page)[1] == VM_LOCKED
    vma(process, 1).vm_flags &= ~VM_LOCKED


# --- a second mapping of a page --------------------------------------------------------------------------


def complaints(kernel):
    reports = kernel.events.take_reports()
    assert {report.id for report in reports} <= {"AV-039"}
    return [report.detail for report in reports]


def test_who_maps_a_page_again_is_asked_for_its_tree_and_offset_only(kernel, parent):
    # Rule P7: the debug check looks at the root and at the index, not at the chain.
    area = written(parent, 2)
    child = parent.fork()
    child.write(area)
    page, other = folio(child, area), parent.mmap(1)
    parent.write(other)
    mine, index = vma(parent), page.index

    def add(vma, address):
        kernel.folio_add_anon_rmap_pte(page, vma, address, 0, False)
        page.mapcount = 1
        page.exclusive = 0
        return complaints(kernel)

    page.exclusive = 0
    assert add(mine, area.start) == []  # although the page's anon_vma is not in this chain
    assert add(mine, area.page(1)) == [f"page_check_anon_rmap: {page} has another index than its place in {mine}"]
    (stranger,) = (found for found in parent.mm.vmas if found.vm_start == other.start)
    in_other_tree, wrong_index = add(stranger, other.start)
    assert in_other_tree.endswith(f"{stranger} is in another tree")
    assert "another index" in wrong_index
    assert page.index == index
    page.exclusive = 1


def test_an_exclusive_page_cannot_be_mapped_again(kernel, parent):
    area = written(parent)
    page = folio(parent, area)
    kernel.folio_add_anon_rmap_pte(page, vma(parent), area.start, 0, False)
    assert complaints(kernel) == [f"folio_add_anon_rmap_pte: exclusive {page} is mapped again"]
    page.mapcount = 1


def test_a_page_needs_an_anon_vma_to_become_anonymous(kernel, parent):
    parent.mmap(1)
    page = folio(parent, written(parent, at=0x400000))
    with pytest.raises(KernelBug, match="which has no anon_vma"):
        kernel.folio_add_new_anon_rmap(page, vma(parent, -1), vma(parent, -1).vm_start)
