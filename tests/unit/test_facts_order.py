# SPDX-License-Identifier: GPL-2.0-only
"""Order: of chains, and of the search for a reusable anon_vma.

Anon_vmas are numbered by generation: A0 is the root, Ak the one that process
Pk got when it was forked.
"""

import pytest

from rmaplab.series import SERIES

MIRRORED = ("v6.18+8", "v6.18+9", "v6.18+v2", "v7.0", "v7.3")
REUSING = tuple(name for name, logic in SERIES.items() if logic.reuses)
IN_ORDER = tuple(name for name in REUSING if name not in MIRRORED)

every_series = pytest.mark.parametrize("series", REUSING)
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
