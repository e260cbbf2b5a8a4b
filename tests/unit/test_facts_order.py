# SPDX-License-Identifier: GPL-2.0-only
"""Order: of chains, of the search for a reusable anon_vma, and of an interval tree's visits.

Anon_vmas are numbered by generation: A0 is the root, Ak the one that process
Pk got when it was forked.
"""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.interval_tree import IntervalTree
from rmaplab.series import SERIES

MIRRORED = ("v6.18+8", "v6.18+9", "v6.18+v2", "v7.0")
IN_ORDER = tuple(name for name in SERIES if name not in MIRRORED)

every_series = pytest.mark.parametrize("series", SERIES)
in_order = pytest.mark.parametrize("series", IN_ORDER)
mirrored = pytest.mark.parametrize("series", MIRRORED)


class Family:
    """Processes with one written page each; anon_vmas named after the process they were made for."""

    def __init__(self, series):
        self.kernel = SERIES[series]()
        self.root = self.kernel.spawn()
        self.area = self.root.mmap(1)
        self.root.write(self.area)
        self.forks = 0
        self.names = {self.vma(0).anon_vma: "A0"}

    def vma(self, number):
        return self.kernel.processes[f"P{number}"].mm.vmas[0]

    def fork(self, number):
        """Fork a process; the number of the child."""
        self.forks += 1
        self.kernel.processes[f"P{number}"].fork(f"P{self.forks}")
        self.names.setdefault(self.vma(self.forks).anon_vma, f"A{self.forks}")
        return self.forks

    def exit(self, number):
        self.kernel.processes[f"P{number}"].exit()

    def run(self, script):
        """F3 forks P3, X3 ends it; live anon_vmas at the start and after each step."""
        counts = [len(self.kernel.live_anon_vmas)]
        for step in script.split():
            (self.fork if step[0] == "F" else self.exit)(int(step[1:]))
            counts.append(len(self.kernel.live_anon_vmas))
        return counts

    def chain(self, number):
        return " ".join(self.names[avc.anon_vma] for avc in self.vma(number).anon_vma_chain)

    def active(self, number):
        return self.names[self.vma(number).anon_vma]

    @property
    def objects(self):
        return len(self.kernel.live_anon_vmas), len(self.kernel.live_anon_vma_chains)


# --- chains --------------------------------------------------------------------------------------


@in_order
@pytest.mark.parametrize(
    ("k", "chain"),
    [(1, "A1 A0"), (2, "A2 A1 A0"), (3, "A3 A2 A1 A0"), (4, "A4 A3 A2 A1 A0"), (5, "A5 A4 A3 A2 A1 A0")],
)
def test_before_patch_8_a_chain_is_newest_first_root_last(series, k, chain):
    family = Family(series)
    family.run(" ".join(f"F{parent}" for parent in range(k)))
    assert family.chain(k) == chain


@mirrored
@pytest.mark.parametrize(
    ("k", "chain"),
    [(1, "A1 A0"), (2, "A2 A0 A1"), (3, "A3 A1 A0 A2"), (4, "A4 A2 A0 A1 A3"), (5, "A5 A3 A1 A0 A2 A4")],
)
def test_since_patch_8_each_generation_mirrors_the_inherited_chain_behind_its_own(series, k, chain):
    family = Family(series)
    family.run(" ".join(f"F{parent}" for parent in range(k)))
    assert family.chain(k) == chain


@every_series
def test_a_fork_leaves_the_order_of_the_parents_chain_alone(series):
    family = Family(series)
    family.run("F0 F1 F2")
    before = family.chain(3)
    family.run("F3 F3")
    assert family.chain(3) == before


@in_order
def test_before_patch_8_a_reusing_child_has_its_parents_order(series):
    family = Family(series)
    family.run("F0 F1 F2 X1 F3")
    assert (family.active(4), family.chain(4)) == ("A1", "A3 A2 A1 A0")


@mirrored
def test_since_patch_8_a_reusing_child_has_the_mirror_of_its_parents_order(series):
    family = Family(series)
    family.run("F0 F1 F2 X1 F3")
    assert family.chain(3) == "A3 A1 A0 A2"
    assert (family.active(4), family.chain(4)) == ("A1", "A2 A0 A1 A3")


def split_pair(series, generations):
    """Chains of the two halves of a VMA that was split in the given generation."""
    kernel = SERIES[series]()
    process = kernel.spawn()
    area = process.mmap(2)
    process.write(area)
    for _ in range(generations):
        process = process.fork()
    process.mprotect(area.part(1, 1), "r")
    return [[avc.anon_vma.id for avc in vma.anon_vma_chain] for vma in process.mm.vmas]


@in_order
def test_before_patch_8_both_halves_of_a_split_have_the_same_chain(series):
    low, high = split_pair(series, 3)
    assert low == high
    assert len(low) == 4


@mirrored
def test_since_patch_8_the_halves_of_a_split_have_mirrored_chains_equal_only_as_sets(series):
    low, high = split_pair(series, 3)
    assert low == high[::-1] != high
    assert set(low) == set(high)


# --- which ancestor is reused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "reused"), [*((name, "A1") for name in IN_ORDER), *((name, "A2") for name in MIRRORED)]
)
def test_shortest_script_that_tells_the_two_orders_apart_by_the_reused_anon_vma(series, reused):
    family = Family(series)
    family.run("F0 F1 F2 F3 X1 X2")
    before = family.objects
    family.run("F4")
    assert family.active(5) == reused
    assert family.objects == (before[0], before[1] + 5)


@pytest.mark.parametrize(
    ("series", "objects"), [*((name, (7, 25)) for name in IN_ORDER), *((name, (6, 24)) for name in MIRRORED)]
)
def test_shortest_script_that_tells_the_two_orders_apart_by_counting(series, objects):
    family = Family(series)
    counts = family.run("F0 F1 F2 F3 F4 X1 X3 F5 F2")
    assert counts[:9] == [1, 2, 3, 4, 5, 6, 6, 6, 6]
    assert family.objects == objects


@in_order
def test_before_patch_8_the_counting_script_gives_what_a_running_6_18_kernel_gave(series):
    assert Family(series).run("F0 F1 F2 F3 F4 X1 X3 F5 F2") == [1, 2, 3, 4, 5, 6, 6, 6, 6, 7]


@pytest.mark.parametrize(("series", "order"), [*((n, "1234") for n in IN_ORDER), *((n, "3124") for n in MIRRORED)])
def test_ancestors_are_asked_oldest_first_before_patch_8_and_from_the_parents_head_since(series, order):
    # P5's chain is A5 A3 A1 A0 A2 A4 since patch 8.  A5 is its own, A0 has more than itself hanging on it.
    family = Family(series)
    family.run("F0 F1 F2 F3 F4 X1 X2 X3 X4")
    assert "".join(family.active(family.fork(5))[1:] for _ in range(4)) == order
    assert family.active(family.fork(5)) == f"A{family.forks}"


@every_series
@pytest.mark.parametrize("rewrite", [False, True])
def test_daemonising_for_ever_never_takes_more_than_three_anon_vmas(series, rewrite):
    family = Family(series)
    lengths = []
    for generation in range(40):
        child = family.fork(generation)
        family.exit(generation)
        if rewrite:
            family.kernel.processes[f"P{child}"].write(family.area)
        lengths.append(len(family.vma(child).anon_vma_chain))
        assert family.objects == (len(set(family.chain(child).split())), lengths[-1])
    assert lengths == [2, 3] + [3] * 38


# --- the interval tree -----------------------------------------------------------------------------------


def entry(first, last, name=None):
    """A stand-in for an AVC; its VMA covers the page offsets [first, last]."""
    vma = SimpleNamespace(vm_pgoff=first, vm_start=0x1000, vm_end=0x1000 + (last - first + 1) * PAGE_SIZE)
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
