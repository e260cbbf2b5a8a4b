# SPDX-License-Identifier: GPL-2.0-only
"""What a page names after it was swapped out and came back, and to whom it is exclusive."""

import pytest
from machine_parts import chain, descendants, folio, vma, written
from swap_parts import IN_CACHE_UNTIL_MAPPED, entry, page_state, swap_state

from rmaplab.check.invariants import violations
from rmaplab.kernel.folio import linear_page_index
from rmaplab.kernel.pagetable import Pte


@pytest.mark.parametrize("cached", [False, True])
def test_a_page_of_one_process_comes_back_exclusive_to_its_own_anon_vma(kernel, parent, cached):
    area = parent.mmap(2)
    parent.write(area, 0)
    child = parent.fork()
    child.write(area, 1)
    own = vma(child).anon_vma
    child.swapout(area.part(1, 1), cached)
    assert swap_state(child, area, 1) == (1, cached, True)
    child.swapin(area.part(1, 1))
    assert page_state(child, area, 1) == (own, True, 1, True)  # writable at once, although it was only read
    assert folio(child, area, 1).index == linear_page_index(vma(child), area.page(1))
    assert folio(child, area, 1).slot is None


def test_a_shared_page_from_the_device_names_the_root_whoever_brings_it_back(kernel, parent):
    # Z21c: the anon_vma of the one who happened to fault first would be too small for the others.
    area = written(parent)
    _, child, grandchild = descendants(parent, 2)
    (root,) = chain(parent)
    parent.swapout(area)
    assert [swap_state(process, area) for process in (parent, child, grandchild)] == [(3, False, False)] * 3
    grandchild.swapin(area)
    assert page_state(grandchild, area) == (root, False, 1, False)
    assert {visit.vma for visit in grandchild.walk(area, 0)} == {vma(parent), vma(child), vma(grandchild)}
    grandchild.exit()
    assert violations(kernel) == []
    parent.swapin(area)
    assert page_state(parent, area)[0] is root


def test_a_shared_page_still_in_the_swap_cache_keeps_its_name_whoever_maps_it(kernel, parent):
    area = written(parent)
    _, child = descendants(parent, 1)
    child.write(area)
    grandchild = child.fork()
    named = vma(child).anon_vma
    old = folio(child, area)
    child.swapout(area, cached=True)
    assert (old.mapcount, old.slot.folio, swap_state(child, area)) == (0, old, (2, True, False))
    grandchild.swapin(area)
    assert named not in (chain(parent)[0], vma(grandchild).anon_vma)
    assert folio(grandchild, area) is old
    assert page_state(grandchild, area) == (named, False, 1, False)
    child.swapin(area)
    assert page_state(child, area) == (named, False, 2, False)
    assert old.slot is None  # its last entry is gone


def test_an_exclusive_page_in_the_swap_cache_keeps_even_an_ancestors_name(kernel, parent):
    area = written(parent)
    child = parent.fork()
    child.write(area)
    root = chain(parent)[0]
    folio(child, area).mapping = root  # exclusive, but it names the root: rule P6
    child.swapout(area, cached=True)
    child.swapin(area)
    assert page_state(child, area) == (root, True, 1, True)


@pytest.mark.parametrize("cached", [False, True])
def test_the_last_entry_of_a_shared_page_may_make_its_reader_no_owner(kernel, parent, cached):
    area = written(parent)
    child = parent.fork()
    root = chain(parent)[0]
    child.swapout(area, cached)
    parent.munmap(area)
    child.swapin(area)
    assert page_state(child, area) == (root, False, 1, False)
    child.write(area)
    assert page_state(child, area) == (vma(child).anon_vma, True, 1, True)


@pytest.mark.parametrize("cached", [False, True])
def test_a_writer_alone_owns_the_page_at_once_or_since_v7_0_by_a_second_step(kernel, parent, series, cached):
    # Before v7.0 the slot went first and nobody else was left: exclusive, under the name that it had.
    area = written(parent)
    child = parent.fork()
    root = chain(parent)[0]
    old = folio(parent, area)
    child.swapout(area, cached)
    parent.munmap(area)
    child.write(area)
    ancestor = cached and series not in IN_CACHE_UNTIL_MAPPED
    assert page_state(child, area) == (root if ancestor else vma(child).anon_vma, True, 1, True)
    assert (folio(child, area) is old) is cached


def test_a_writer_to_a_page_that_others_still_have_in_swap_gets_a_copy(kernel, parent):
    area = written(parent)
    child = parent.fork()
    parent.swapout(area)
    child.write(area)
    assert page_state(child, area) == (vma(child).anon_vma, True, 1, True)
    assert swap_state(parent, area) == (1, True, False)
    cached = entry(parent, area).slot.folio
    assert (cached.mapping, cached.mapcount) == (chain(parent)[0], 0)
    parent.read(area)
    assert folio(parent, area) is cached


def test_a_page_that_names_a_freed_anon_vma_is_never_mapped_again(kernel, parent):
    # Trap 8: the last link frees the anon_vma whatever the swap cache names; the entries went before.
    area = written(parent)
    child = parent.fork()
    child.write(area)
    own, old = vma(child).anon_vma, folio(child, area)
    child.swapout(area, cached=True)
    slot = entry(child, area).slot
    child.exit()
    assert own.freed
    assert (slot.count, slot.folio, old.slot) == (0, None, None)


def test_fork_makes_a_swapped_page_shared_in_both(kernel, parent):
    area = written(parent)
    parent.swapout(area)
    assert swap_state(parent, area) == (1, False, True)
    child = parent.fork()
    assert swap_state(parent, area) == swap_state(child, area) == (2, False, False)
    assert entry(parent, area).slot is entry(child, area).slot


def test_a_page_only_read_in_a_read_only_vma_is_exclusive_but_not_writable(kernel, parent):
    area = written(parent)
    parent.swapout(area)
    parent.mprotect(area, "r")
    parent.swapin(area)
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, False)


def test_a_page_that_was_moved_comes_back_where_its_entry_is(kernel, parent):
    # The index goes with the VMA, so a fresh page gets the right one at any address.
    area = written(parent, 3)
    parent.swapout(area)
    parent.munmap(area.part(0, 0))
    parent.swapin(area.part(2, 2))
    (rest,) = parent.mm.vmas
    assert folio(parent, area, 2).index == linear_page_index(rest, area.page(2))
    assert [visit.maps for visit in parent.walk(area, 2)] == [True]


def test_swap_entries_are_not_mappings_and_a_walk_finds_as_many_as_the_page_has(kernel, parent):
    # Rule P8: mapcount is what a full walk finds; what is swapped out is not in it.
    area = written(parent)
    family = descendants(parent, 3)
    parent.swapout(area)
    for number, process in enumerate(family, 1):
        with pytest.raises(OSError, match="address"):
            process.walk(area, 0)
        process.swapin(area)
        assert folio(process, area).mapcount == number
        assert sum(visit.maps for visit in process.walk(area, 0)) == number
        assert len(process.walk(area, 0)) == 4


def test_whatever_happens_a_page_names_an_anon_vma_of_its_vmas_chain_and_of_one_tree(kernel, parent):
    # Rules P2, P4 and P5: the tree never changes, and membership in the chain is the right question.
    area = written(parent, 2)
    root = chain(parent)[0]
    _, child, grandchild = descendants(parent, 2)
    steps = [
        lambda: child.write(area, 0),
        lambda: child.swapout(area),
        lambda: grandchild.swapin(area.part(1, 1)),
        lambda: parent.exit(),
        lambda: grandchild.write(area),
        lambda: grandchild.migrate(area),
        lambda: child.swapin(area),
        lambda: grandchild.exit(),
        lambda: child.write(area),
    ]
    for step in steps:
        step()
        for process in kernel.processes.values():
            for page in (0, 1):
                if isinstance(entry(process, area, page), Pte):
                    named = folio(process, area, page).mapping
                    assert named in chain(process)
                    assert named.root is root
