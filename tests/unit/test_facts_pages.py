# SPDX-License-Identifier: GPL-2.0-only
"""Which faults take an anon_vma, what a folio names, and who is visited on a walk.

The names and comments say which short cut of a plausible but wrong model a test catches.
"""

import pytest
from machine_parts import chain, descendants, folio, vma, written

from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.series.unlocked_walk import UnlockedWalk

# --- faults ----------------------------------------------------------------------------------------------


def test_a_read_fault_takes_no_anon_vma_but_a_write_after_it_does(kernel, parent):
    area = parent.mmap(1)
    parent.read(area)
    assert vma(parent).anon_vma is None
    assert folio(parent, area).mapping is None
    parent.write(area)
    assert folio(parent, area).mapping is vma(parent).anon_vma is not None


def test_shared_memory_never_takes_an_anon_vma(kernel, parent):
    for area in (parent.mmap(1, shared=True), parent.mmap(1, file="f", shared=True)):
        parent.write(area)
    parent.fork().write(area)
    assert not kernel.live_anon_vmas


def test_a_private_file_page_becomes_anonymous_at_the_first_write_with_the_files_offset(kernel, parent):
    area = parent.mmap(3, file="f")
    parent.read(area)
    assert not kernel.live_anon_vmas
    parent.write(area, 2)
    offset = area.page(2) // PAGE_SIZE if kernel.name == "v7.3" else 2  # v7.3 goes by the address
    assert (folio(parent, area, 2).mapping, folio(parent, area, 2).index) == (vma(parent).anon_vma, offset)
    assert folio(parent, area, 1).mapping is None


@pytest.mark.parametrize(("prot", "call"), [("r", "write"), ("none", "read"), ("none", "write")])
def test_a_refused_fault_makes_nothing(kernel, parent, prot, call):
    area = parent.mmap(1, prot=prot)
    with pytest.raises(OSError, match="address"):
        getattr(parent, call)(area)
    assert not kernel.live_anon_vmas
    assert parent.mm.page_table.get(area.start) is None


# --- what a folio names ----------------------------------------------------------------------------------


def page_state(process, area, page=0):
    entry = process.mm.page_table.get(area.page(page))
    return entry.folio.mapping, entry.folio.exclusive, entry.folio.mapcount, entry.writable


def test_a_new_page_names_its_vmas_own_anon_vma_not_the_root(kernel, parent):
    area = parent.mmap(2)
    parent.write(area, 0)
    _, child, grandchild = descendants(parent, 2)
    grandchild.write(area, 1)
    assert page_state(grandchild, area, 1) == (vma(grandchild).anon_vma, True, 1, True)
    assert folio(grandchild, area, 1).index == vma(grandchild).vm_pgoff + 1
    child.write(area, 0)
    assert page_state(child, area, 0) == (vma(child).anon_vma, True, 1, True)


def test_fork_shares_pages_under_their_old_name_read_only_in_both(kernel, parent):
    area = written(parent)
    (root,) = chain(parent)
    child = parent.fork()
    assert page_state(parent, area) == page_state(child, area) == (root, False, 2, False)
    assert list(root.rb_root) == [vma(parent).anon_vma_chain[0], child.mm.vmas[0].anon_vma_chain[-1]]
    assert len(vma(child).anon_vma.rb_root) == 1


def test_child_writes_first_copies_and_a_walk_of_the_old_page_still_visits_it_in_vain(kernel, parent):
    area = written(parent)
    (root,) = chain(parent)
    child = parent.fork()
    child.write(area)
    assert page_state(child, area) == (vma(child).anon_vma, True, 1, True)
    assert page_state(parent, area) == (root, False, 1, False)  # alone, but not known to be
    walk = parent.walk(area, 0)
    assert [(visit.vma.vm_mm, visit.maps) for visit in walk] == [(parent.mm, True), (child.mm, False)]
    assert [visit.vma.vm_mm for visit in child.walk(area, 0)] == [child.mm]
    parent.write(area)
    assert page_state(parent, area) == (root, True, 1, True)


def test_parent_writes_first_copies_and_the_last_mapper_moves_the_old_page_to_itself(kernel, parent):
    area = written(parent)
    (root,) = chain(parent)
    child = parent.fork()
    old = folio(child, area)
    index = old.index
    parent.write(area)
    assert page_state(parent, area) == (root, True, 1, True)
    assert folio(parent, area) is not old
    assert page_state(child, area) == (root, False, 1, False)
    child.write(area)
    assert folio(child, area) is old
    assert page_state(child, area) == (vma(child).anon_vma, True, 1, True)
    assert old.index == index


def test_parent_exits_first_and_its_root_stays_for_the_child(kernel, parent):
    area = written(parent)
    (root,) = chain(parent)
    child = parent.fork()
    parent.exit()
    assert [avc.vma for avc in root.rb_root] == [vma(child)]
    assert (root.num_active_vmas, root.num_children) == (0, 2)
    assert page_state(child, area) == (root, False, 1, False)
    child.write(area)
    assert page_state(child, area) == (vma(child).anon_vma, True, 1, True)
    assert not root.freed
    child.munmap(area)
    assert root.freed


def test_a_page_shared_by_k_children_has_k_plus_one_mappings_all_found_by_a_walk(kernel, parent):
    area = written(parent)
    for children in range(1, 5):
        parent.fork()
        assert page_state(parent, area)[2] == children + 1
        assert sum(visit.maps for visit in parent.walk(area, 0)) == children + 1


def test_the_last_of_several_mappers_need_not_copy(kernel, parent):
    area = written(parent)
    old = folio(parent, area)
    first, second = parent.fork(), parent.fork()
    parent.munmap(area)
    first.write(area)
    assert (folio(first, area) is old, old.mapcount) == (False, 1)
    second.write(area)
    assert folio(second, area) is old
    assert old.mapping is vma(second).anon_vma


def test_a_write_to_an_exclusive_page_does_not_move_it(kernel, parent):
    # A model that moves on every write fault would hide pages that name an ancestor although exclusive.
    area = written(parent)
    child = parent.fork()
    parent.exit()
    child.write(area)
    page, root = folio(child, area), chain(child)[-1]
    page.mapping = root  # as a swap-in from the swap cache would leave it
    child.mprotect(area, "r")
    child.mprotect(area, "rw")
    child.write(area)
    assert page.mapping is root
    assert page_state(child, area) == (root, True, 1, True)


def test_exclusive_pages_are_writable_as_soon_as_the_rights_come_back(kernel, parent):
    # Seen on 6.12.117 and 7.3.4; shared pages wait for the fault that copies them.
    area = written(parent)
    page = folio(parent, area)
    parent.mprotect(area, "r")
    assert not page_state(parent, area)[3]
    parent.mprotect(area, "rw")
    assert folio(parent, area) is page
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, True)
    child = parent.fork()
    for process in (parent, child):
        process.mprotect(area, "r")
        process.mprotect(area, "rw")
        assert not page_state(process, area)[3]


def adopted(kernel, parent):
    """P4 adopted P1's anon_vma and is the last to map a page that P3 made."""
    area = parent.mmap(1)
    parent.write(area)
    _, child, _, maker = descendants(parent, 3)
    child.exit()
    maker.write(area)
    heir = maker.fork()
    maker.exit()
    return area, heir


def test_after_reuse_a_page_moves_up_the_tree_when_its_last_mapper_writes(kernel, parent):
    # "The new anon_vma is below the old one" holds only as long as nothing was reused.
    area, heir = adopted(kernel, parent)
    old, new = folio(heir, area).mapping, vma(heir).anon_vma
    assert old.parent.parent is new
    heir.write(area)
    assert folio(heir, area).mapping is new
    assert kernel.reached["folio moved up the tree by its last mapper"] == 1


def test_after_reuse_the_right_test_is_membership_in_the_chain_not_ancestry(kernel, parent):
    area, heir = adopted(kernel, parent)
    named, own = folio(heir, area).mapping, vma(heir).anon_vma
    ancestors = {own, own.parent, own.parent.parent}
    assert named not in ancestors
    assert named in chain(heir)
    assert [visit.maps for visit in heir.walk(area, 0)] == [True]


def test_after_reuse_new_pages_are_walked_in_relatives_that_cannot_map_them(kernel, parent):
    area, heir = adopted(kernel, parent)
    heir.write(area)
    visits = heir.walk(area, 0)
    assert [visit.maps for visit in visits] == [False, True]  # P2, linked to P1's anon_vma, for nothing


def test_a_walk_takes_the_folio_lock_since_v7_0_and_inside_it_the_roots_for_reading(kernel, parent):
    area = written(parent)
    child = parent.fork()
    child.write(area)
    events = []
    kernel.events.listeners.append(lambda event: events.append(event))
    child.walk(area, 0)
    if not isinstance(kernel, UnlockedWalk):
        first, last = events.pop(0), events.pop()
        assert (first.verb, first.detail) == ("lock", "folio_lock write")
        assert (last.verb, last.detail) == ("unlock", "folio_lock")
    assert [(event.verb, event.detail) for event in events] == [
        ("lock", "anon_vma read"),
        ("visit", f"{area.start:#x} maps {folio(child, area)}"),
        ("unlock", "anon_vma"),
    ]
    root = vma(parent).anon_vma
    assert [event.object for event in events] == [str(root), str(vma(child)), str(root)]
