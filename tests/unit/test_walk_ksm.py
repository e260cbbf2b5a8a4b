# SPDX-License-Identifier: GPL-2.0-only
"""Walks of KSM's pages: by the places that ksmd remembers, in trees that know nothing of the page."""

import pytest
from machine_parts import vma, written
from swap_parts import forget_ksm, ksm_page

from rmaplab.kernel.events import KernelBug


@pytest.fixture(name="stranger")
def _stranger(kernel):
    return kernel.spawn("stranger")


def places(visits):
    return [(visit.vma, visit.address, visit.maps) for visit in visits]


def test_every_merged_place_is_visited_in_its_own_tree(kernel, parent, stranger):
    area, other = written(parent, 3).part(1, 1), written(stranger)
    page = ksm_page(kernel, (parent, area), (stranger, other))
    expected = [(vma(parent), area.start, True), (vma(stranger), other.start, True)]
    assert places(parent.walk(area, 0)) == places(stranger.walk(other, 0)) == expected
    assert page.mapping is None
    forget_ksm(kernel)
    for process in (parent, stranger):
        process.exit()


def test_forks_since_the_merge_are_visited_in_a_second_round(kernel, parent, stranger):
    area, other = written(parent), written(stranger)
    ksm_page(kernel, (parent, area), (stranger, other))
    child = parent.fork("child")
    found = places(parent.walk(area, 0))
    assert found == [
        (vma(parent), area.start, True),
        (vma(stranger), other.start, True),
        (vma(child), area.start, True),
    ]
    forget_ksm(kernel)
    for process in (parent, stranger, child):
        process.exit()


def test_a_walk_goes_on_until_told_otherwise(kernel, parent, stranger):
    area, other = written(parent), written(stranger)
    page = ksm_page(kernel, (parent, area), (stranger, other))
    rwc = kernel.looking()
    rwc.done = lambda folio: True
    assert len(kernel.rmap_walk_ksm(page, rwc)) == 1
    forget_ksm(kernel)
    for process in (parent, stranger):
        process.exit()


def cut(process, area):
    """Each page of an area a VMA of its own."""
    for page in range(1, area.pages, 2):
        process.mprotect(area.part(page, page), "r")


def test_the_whole_tree_is_looked_at_although_one_offset_would_do(kernel, parent):
    area = written(parent, 5)
    cut(parent, area)
    place = area.part(2, 2)
    ksm_page(kernel, (parent, place))
    assert len(parent.mm.vmas) == 5
    whole = parent.walk(place, 0, by=None if kernel.name != "v7.3" else "whole")
    assert [visit.maps for visit in whole] == [visit.vma is vma(parent, 2) for visit in whole]
    assert len(whole) == 5
    assert places(parent.walk(place, 0, by="whole")) == places(whole)
    assert places(parent.walk(place, 0, by="offset")) == [(vma(parent, 2), place.start, True)]
    forget_ksm(kernel)
    parent.exit()


def test_the_address_tells_the_offset_only_of_memory_that_was_never_moved(kernel, parent):
    area = written(parent, 3)
    cut(parent, area)
    place = area.part(1, 1)
    page = ksm_page(kernel, (parent, place))
    assert places(parent.walk(place, 0, by="address")) == [(vma(parent, 1), place.start, True)]
    # Memory that moved keeps its offsets: here it is as if it had come from one page further up.
    for entry in list(vma(parent, 1).anon_vma.rb_root.keys):
        kernel.anon_vma_lock_write(entry.anon_vma)
        kernel.anon_vma_interval_tree_remove(entry, entry.anon_vma)
        entry.vma.anon_pgoff += 100
        kernel.anon_vma_interval_tree_insert(entry, entry.anon_vma)
        kernel.anon_vma_unlock_write(entry.anon_vma)
    page.stable_node.items[0].pgoff += 100
    assert parent.walk(place, 0, by="address") == []
    assert places(parent.walk(place, 0, by="offset")) == [(vma(parent, 1), place.start, True)]
    assert any(visit.maps for visit in parent.walk(place, 0))
    forget_ksm(kernel)
    parent.exit()


def test_the_range_can_be_narrowed_by_a_series(kernel, parent):
    area = written(parent, 3)
    cut(parent, area)
    place = area.part(1, 1)
    page = ksm_page(kernel, (parent, place))
    kernel.ksm_walk_range = lambda item: (item.pgoff, item.pgoff)
    assert len(kernel.rmap_walk_ksm(page)) == 1
    forget_ksm(kernel)
    parent.exit()


def test_ksm_keeps_an_anon_vma_and_its_root_after_the_last_vma_is_gone(kernel, parent):
    # Trap 16, Z33: an anon_vma with an empty tree lives on, and so must the root, whose lock a walk takes.
    area = written(parent)
    child = parent.fork()
    child.write(area)
    page = ksm_page(kernel, (child, area))
    own = vma(child).anon_vma
    child.exit()
    parent.exit()
    assert (own.freed, own.root.freed, len(own.rb_root), own.refcount) == (False, False, 0, 1)
    assert page.mapcount == 0
    assert kernel.rmap_walk_ksm(page) == []
    forget_ksm(kernel)
    assert own.freed
    assert own.root.freed


def test_a_place_that_ksmd_remembers_without_a_reference_ends_in_a_freed_anon_vma(kernel, parent):
    area = written(parent)
    page = ksm_page(kernel, (parent, area))
    kernel.put_anon_vma(vma(parent).anon_vma)
    parent.exit()
    with pytest.raises(KernelBug, match="which is freed"):
        kernel.rmap_walk_ksm(page)
    kernel.stable_tree.clear()
    kernel.locks.forget()
