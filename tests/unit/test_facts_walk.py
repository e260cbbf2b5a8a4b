# SPDX-License-Identifier: GPL-2.0-only
"""Order of an interval tree's visits, and so of a walk: by start, then by insertion."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.interval_tree import IntervalTree
from rmaplab.series import SERIES

every_series = pytest.mark.parametrize("series", [name for name in SERIES if SERIES[name].has_interval_trees])


def entry(first, last, name=None):
    """A stand-in for an AVC; its VMA covers the page offsets [first, last]."""
    vma = SimpleNamespace(anon_pgoff=first, vm_start=0x1000, vm_end=0x1000 + (last - first + 1) * PAGE_SIZE)
    return Entry(vma, name)


class Entry:
    """What a tree asks of an AVC: a hash by identity and a VMA."""

    def __init__(self, vma, name):
        self.vma = vma
        self.name = name

    def __repr__(self):
        return f"{self.name}"


def tree_of(*entries):
    tree = IntervalTree()
    for avc in entries:
        tree.insert(avc)
    return tree


def test_visits_go_by_start_then_by_insertion():
    late, second, first, early = (entry(9, 9), entry(5, 5), entry(5, 20), entry(1, 2))
    assert list(tree_of(late, first, early, second)) == [early, first, second, late]
    assert list(tree_of(second, first)) == [second, first]


def test_an_entry_put_back_goes_behind_its_equals():
    first, second, third = (entry(5, 5, name) for name in "abc")
    tree = tree_of(first, second, third)
    tree.remove(first)
    assert list(tree) == [second, third]
    tree.insert(first)
    assert list(tree) == [second, third, first]


def test_a_long_entry_with_an_early_start_is_found_behind_short_ones():
    long, short = entry(0, 100), [entry(n, n) for n in range(1, 50)]
    tree = tree_of(*short, long)
    assert list(tree.stab(60, 60)) == [long]
    assert list(tree.stab(30, 30)) == [long, short[29]]
    assert list(tree.stab(101, 200)) == []


def test_both_ends_of_a_range_and_of_a_query_are_inclusive():
    tree = tree_of(entry(3, 5))
    assert [bool(list(tree.stab(first, last))) for first, last in ((0, 2), (0, 3), (5, 9), (6, 9), (4, 4))] == [
        False,
        True,
        True,
        False,
        True,
    ]


def test_the_key_is_the_range_at_insertion_so_a_changed_vma_shows():
    avc = entry(3, 5)
    tree = tree_of(avc)
    avc.vma.vm_end += PAGE_SIZE
    assert tree.keys[avc] == (3, 5)


INTERVALS = st.tuples(st.integers(0, 12), st.integers(0, 6)).map(lambda pair: (pair[0], sum(pair)))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), INTERVALS),
        st.tuples(st.just("remove"), st.integers(0, 40)),
        st.tuples(st.just("again"), st.integers(0, 40)),
        st.tuples(st.just("stab"), INTERVALS),
    ),
    max_size=40,
)


@given(STEPS)
def test_tree_equals_a_list_sorted_by_start_and_stable_by_insertion(steps):
    tree, model = IntervalTree(), []
    for step, value in steps:
        if step == "insert":
            avc = entry(*value)
            tree.insert(avc)
            model.append((value, avc))
        elif step == "stab":
            met = [(key, avc) for key, avc in model if key[0] <= value[1] and value[0] <= key[1]]
            met.sort(key=lambda item: item[0][0])
            assert list(tree.stab(*value)) == [avc for _, avc in met]
        elif model:
            key, avc = model.pop(value % len(model))
            tree.remove(avc)
            assert avc not in tree
            if step == "again":
                tree.insert(avc)
                model.append((key, avc))
        assert len(tree) == len(model)
        assert list(tree) == [avc for _, avc in sorted(model, key=lambda item: item[0][0])]
        assert tree.keys == {avc: key for key, avc in model}


def test_removing_what_is_not_there_is_an_error():
    tree = tree_of(entry(1, 1))
    with pytest.raises(KeyError):
        tree.remove(entry(1, 1))


def walked(process, area, page):
    """Names of the processes that a walk of the page visits, in order."""
    owners = {other.mm: name for name, other in process.kernel.processes.items()}
    return [owners[visit.vma.vm_mm] for visit in process.walk(area, page)]


@every_series
def test_fork_stands_behind_its_parent_and_a_split_behind_everybody(series):
    kernel = SERIES[series]()
    parent = kernel.spawn()
    area = parent.mmap(3)
    parent.write(area)
    parent.fork("P1").fork("P2")
    parent.fork("P3")
    assert walked(parent, area, 0) == ["P0", "P1", "P2", "P3"]
    parent.mprotect(area.part(2, 2), "r")  # the new VMA is the part below: inserted last
    assert walked(parent, area, 0) == ["P1", "P2", "P3", "P0"]
    kernel.processes["P1"].mprotect(area.part(0, 0), "r")  # the old VMA keeps its start: put back last
    assert walked(parent, area, 0) == ["P2", "P3", "P0", "P1"]


@every_series
def test_a_merge_puts_the_survivor_back_behind_its_equals(series):
    kernel = SERIES[series]()
    parent = kernel.spawn()
    area = parent.mmap(2)
    parent.write(area)
    parent.mprotect(area.part(1, 1), "r")
    parent.fork("P1")
    assert walked(parent, area, 0) == ["P0", "P1"]
    parent.mprotect(area.part(1, 1), "rw")
    assert len(parent.mm.vmas) == 1
    assert walked(parent, area, 0) == ["P1", "P0"]


@every_series
def test_a_walk_visits_by_start_even_if_the_later_start_was_inserted_first(series):
    kernel = SERIES[series]()
    parent = kernel.spawn()
    area = parent.mmap(2)
    parent.write(area)
    parent.mprotect(area.part(0, 0), "r")
    (root,) = kernel.live_anon_vmas.values()
    assert [avc.vma for avc in root.rb_root] == parent.mm.vmas
    assert list(root.rb_root.keys) != list(root.rb_root)
