# SPDX-License-Identifier: GPL-2.0-only
"""Every allocation of every kind fails once, in every case of a merge, a split, a new mapping and a move."""

import errno

import pytest
from machine_parts import BASE
from merge_parts import MIDDLE, PATTERNS, RW, Three, expected

from rmaplab.check.invariants import violations
from rmaplab.check.state import graph
from rmaplab.kernel.process import Area
from rmaplab.kernel.slab import KINDS

HISTORY = pytest.mark.parametrize("forked", [False, True], ids=["parent", "child"])
EACH = pytest.mark.parametrize("pattern", PATTERNS)


def fail_each(prepare, call, kinds=KINDS):
    """Fail the first, second, … allocation of each kind that the call makes; the machine, what was before, the errno.

    At least one there must be.
    """
    points = 0
    for kind in kinds:
        for n in range(1, 40):
            three = prepare()
            before = three.state(), graph(three.kernel), three.folios()
            three.kernel.slab.plan(n, kind=kind)
            error = None
            try:
                call(three)
            except OSError as caught:
                error = caught.errno
            failed = three.kernel.slab.failed
            three.kernel.slab.disarm()
            if not failed:
                assert error is None
                break
            points += 1
            yield three, before, error
    assert points


def unchanged(three, before):
    return (three.state(), graph(three.kernel), three.folios()) == before


@HISTORY
@EACH
@pytest.mark.parametrize("part", [(0, 1), (0, 0), (1, 1)], ids=["whole", "first", "last"])
def test_a_merge_that_fails_changes_nothing(pattern, forked, part):
    area = MIDDLE.part(*part)

    def call(three):
        three.flip(area)

    if part == (0, 1) and expected(pattern, "whole", forked) == Three(pattern, forked=forked).shape():
        return  # nothing merges, nothing is split: nothing to allocate
    for three, before, error in fail_each(lambda: Three(pattern, forked=forked), call):
        assert error == errno.ENOMEM
        assert unchanged(three, before)
        assert violations(three.kernel) == []


@HISTORY
@EACH
def test_a_mapping_that_cannot_merge_for_want_of_memory_is_a_vma_of_its_own(pattern, forked):
    # What fails is the merge, not the call, unless there is no VMA or no place in the tree to be had.
    def prepare():
        three = Three(pattern, forked=forked)
        three.process.munmap(MIDDLE)
        return three

    def call(three):
        rc = three.kernel.do_mmap(three.process.mm, MIDDLE.start, MIDDLE.end, RW)
        three.process._check(rc)

    merges = len(expected(f"{pattern[0]}U{pattern[2]}", "whole", forked)) < 3
    for three, before, error in fail_each(prepare, call):
        assert violations(three.kernel) == []
        assert graph(three.kernel) == before[1]
        if merges:
            assert error is None
            assert [part[:2] for part in three.shape()] == [(0, 2), (2, 4), (4, 6)]
        else:
            assert error == errno.ENOMEM
            assert unchanged(three, before)


@HISTORY
@EACH
@pytest.mark.parametrize("dontunmap", [False, True], ids=["plain", "dontunmap"])
def test_a_move_loses_no_page_whatever_fails(pattern, forked, dontunmap):
    # A merge that fails gives way to a VMA of its own; an old place that cannot be unmapped stays, empty.
    def prepare():
        three = Three(pattern, forked=forked)
        three.away = three.take_away()
        return three

    def call(three):
        three.process.mremap(three.away, at=MIDDLE.start, dontunmap=dontunmap)

    for three, (_, _, folios), error in fail_each(prepare, call):
        assert three.folios() == folios
        assert violations(three.kernel) == []
        old, new = three.process.mm.lookup(three.away.start), three.process.mm.lookup(MIDDLE.start)
        if error is None:
            assert new is not None
            assert three.process.mm.page_table.range(three.away.start, three.away.end) == []
        else:
            assert error == errno.ENOMEM
            assert new is None
            assert (old.anon_vma is None) == (pattern[1] == "U")
            assert three.process.mm.page_table.range(MIDDLE.start, MIDDLE.end) == []


@pytest.mark.parametrize("part", [(0, 0), (1, 1), (2, 2)])
@pytest.mark.parametrize("name", ["munmap", "mprotect"])
def test_a_split_that_fails_touches_no_page(name, part):
    area = Area(BASE, 3).part(*part)

    def prepare():
        three = Three("UUU")
        three.process.mmap(3, at=BASE)
        three.process.write(Area(BASE, 3))
        three.names[three.process.mm.vmas[0].anon_vma] = "X"
        return three

    def call(three):
        getattr(three.process, name)(area, *(("r",) if name == "mprotect" else ()))

    for three, before, error in fail_each(prepare, call):
        assert error == errno.ENOMEM
        assert three.state()[1] == before[0][1]
        assert violations(three.kernel) == []
        if name == "mprotect" and part != (1, 1):  # else an edge may be split off already
            assert unchanged(three, before)


@pytest.mark.parametrize("kind", ["vma", "tree"])
def test_a_mapping_without_neighbours_needs_a_vma_and_a_place_in_the_tree(kind):
    points = list(fail_each(lambda: Three("UUU"), lambda three: three.process.mmap(1), [kind]))
    assert [error for _, _, error in points] == [errno.ENOMEM]
    assert all(unchanged(three, before) for three, before, _ in points)


@pytest.mark.parametrize(("kind", "count"), [("vma", 3), ("tree", 1)])
def test_a_fork_needs_a_tree_and_a_vma_each_or_leaves_nothing(kind, count):
    points = list(fail_each(lambda: Three("XUX"), lambda three: three.process.fork(), [kind]))
    assert [error for _, _, error in points] == [errno.ENOMEM] * count
    for three, before, _ in points:
        assert graph(three.kernel) == before[1]
        assert three.folios() == before[2]
        assert violations(three.kernel) == []


def test_links_taken_over_are_given_back_if_the_tree_has_no_room():
    # Between the two steps the VMA is faulted; afterwards it is not.
    three = Three("UXU")
    prev = three.process.mm.vmas[0]
    seen = []
    unlink = three.kernel.unlink_anon_vmas
    three.kernel.unlink_anon_vmas = lambda vma: seen.append((vma, vma.anon_vma)) or unlink(vma)
    before = graph(three.kernel)
    three.kernel.slab.plan(1, kind="tree")
    with pytest.raises(OSError, match="allocate memory"):
        three.flip(MIDDLE)
    assert seen == [(prev, three.process.mm.vmas[1].anon_vma)]
    assert (prev.anon_vma, prev.anon_vma_chain) == (None, [])
    assert graph(three.kernel) == before
