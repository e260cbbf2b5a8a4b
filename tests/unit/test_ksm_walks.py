# SPDX-License-Identifier: GPL-2.0-only
"""How much of a tree a walk of a KSM page looks at: all of it, one offset, or what the address suggests."""

import pytest
from ksm_parts import end, found, holds, mergeable, merged, visited
from machine_parts import BASE, vma, written

from rmaplab.check.run import run
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.scenario import parse
from rmaplab.series import find

FAR = BASE + (1 << 30)
SPLITS = 300  # 20,000 in the report that led to the search by offset


@pytest.fixture(params=["v6.18", "v6.18+8", "v7.0", "v7.3"], name="series")
def _series(request):
    return request.param


def cut(process, area):
    """Every other page loses its write permission: each page is a VMA of its own."""
    for page in range(1, area.pages, 2):
        process.mprotect(area.part(page, page), "r")


@pytest.mark.parametrize("series", ["v6.18", "v7.0", "v7.3"])
def test_after_many_splits_one_visit_of_all_is_of_use(kernel, parent):
    area = mergeable(parent, SPLITS)
    cut(parent, area)
    middle = area.part(SPLITS // 2, SPLITS // 2)
    parent.ksm_merge(middle, "X")
    assert len(parent.mm.vmas) == SPLITS
    counts = {by: [maps for _, _, maps in visited(parent, middle, by=by)] for by in ("whole", "offset", "address")}
    assert counts == {"whole": counts["whole"], "offset": [True], "address": [True]}
    assert (len(counts["whole"]), sum(counts["whole"])) == (SPLITS, 1)
    end(kernel)


def test_vmas_split_before_the_first_fault_are_in_no_tree_and_cost_nothing(kernel, parent):
    area = parent.mmap(SPLITS // 3)
    cut(parent, area)
    parent.write(area.part(0, 0))
    parent.madvise(area.part(0, 0), "mergeable")
    parent.ksm_merge(area.part(0, 0), "X")
    assert len(parent.walk(area, 0)) == 1
    end(kernel)


def test_every_place_of_a_page_walks_its_tree_once_in_each_round(kernel, parent):
    # n places in n VMAs of one anon_vma: each item looks at all of them.
    area = mergeable(parent, 5)
    cut(parent, area)
    parent.ksm_merge(area, "X")
    whole = visited(parent, area, by="whole")
    assert (len(whole), sum(maps for _, _, maps in whole)) == (25, 5)
    by_offset = visited(parent, area, by="offset")
    assert {(one, address) for one, address, maps in by_offset if maps} == {
        (parent.mm.lookup(area.page(page)), area.page(page)) for page in range(5)
    }
    assert len(by_offset) == 5
    end(kernel)


def test_a_fork_doubles_the_visits_and_finds_the_child_in_the_second_round(kernel, parent):
    area = mergeable(parent, 3)
    cut(parent, area)
    place = area.part(2, 2)
    parent.ksm_merge(place, "X")
    child = parent.fork()
    whole = visited(parent, place, by="whole")
    assert [one.vm_mm for one, _, _ in whole] == [parent.mm] * 3 + [child.mm] * 3
    for by in ("offset", "address"):
        assert [one.vm_mm for one, _, _ in visited(parent, place, by=by)] == [parent.mm, child.mm]
        assert (
            found(parent, place, by=by) == found(parent, place) == {(parent.mm, place.start), (child.mm, place.start)}
        )
    end(kernel)


def test_after_a_move_the_address_no_longer_tells_the_offset(kernel, parent):
    # A move takes merged pages apart, so the page is merged at the new place.
    area = mergeable(parent, 3, at=BASE)
    moved = parent.mremap(area, at=FAR)
    parent.ksm_merge(moved.part(1, 1), "X")
    assert vma(parent).vm_pgoff == BASE // PAGE_SIZE
    assert visited(parent, moved, 1, by="address") == []
    expected = [(vma(parent), FAR + PAGE_SIZE, True)]
    assert visited(parent, moved, 1, by="offset") == visited(parent, moved, 1, by="whole") == expected
    end(kernel)


def test_after_a_move_the_address_may_even_hit_the_wrong_vma(kernel, parent):
    # Two halves of one VMA change places: what is found by address is the other half, which does not map the page.
    area = mergeable(parent, 2, at=BASE)
    parent.mremap(area.part(0, 0), at=FAR)
    parent.mremap(area.part(1, 1), at=BASE)
    parent.ksm_merge(area.part(0, 0), "X")
    own = parent.mm.lookup(BASE)
    other = parent.mm.lookup(FAR)
    assert own.anon_vma is other.anon_vma
    assert visited(parent, area, 0, by="address") == [(other, BASE, False)]
    assert visited(parent, area, 0, by="offset") == [(own, BASE, True)]
    end(kernel)


def test_the_offset_of_the_merge_stays_right_when_the_vma_is_split_or_merged(kernel, parent):
    area = merged(parent, 3, at=BASE)
    for change in (lambda: parent.mprotect(area.part(1, 2), "r"), lambda: parent.mprotect(area.part(1, 2), "rw")):
        change()
        assert holds(kernel)
        assert (
            found(parent, area, by="offset") == found(parent, area) == {(parent.mm, area.page(n)) for n in range(3)}
        )
    end(kernel)


def test_a_vma_of_another_tree_at_the_same_address_is_not_visited(kernel, parent):
    area = merged(parent, at=BASE)
    stranger = kernel.spawn("stranger")
    written(stranger, at=BASE)
    assert visited(parent, area) == [(vma(parent), BASE, True)]
    end(kernel)


@pytest.mark.parametrize(("by", "visits"), [("", 4), (" by=whole", 4), (" by=offset", 1), (" by=address", 0)])
def test_the_same_in_a_scenario(by, visits):
    text = (
        "P0 mmap A 4\nP0 write A\nP0 mremap A B\nP0 mprotect B[1] r\nP0 mprotect B[3] r\n"
        f"P0 madvise B[2] mergeable\nP0 ksm B[2] X\nwalk P0 B[2]{by}\nexpect invariants hold\n"
    )
    result = run(parse(text), find("v7.0"))
    (walk,) = [statement.walk for statement in result.statements if statement.walk is not None]
    assert result.ok
    assert len(walk) == visits
    assert sum(maps for _, _, maps in walk) == (visits > 0)


@pytest.mark.parametrize(("series", "error"), [("v7.0", None), ("v7.3", "EAGAIN")])
def test_a_swap_entry_that_comes_to_a_merged_address_is_missed_by_the_walk_of_one_offset(series, error):
    text = (
        "P0 mmap A 2\nP0 write A\nP0 madvise A mergeable\nP0 ksm A X\n"
        "P0 mmap C 1\nP0 write C\nP0 madvise C mergeable\nP0 ksm C X\n"
        "P0 swapout A cached\nP0 swapin C\nP0 mremap A[1] B fixed=A[0]\nP0 swapin B\nksmd\nP0 migrate C\n"
    )
    result = run(parse(text), find(series))
    assert [statement.errno for statement in result.statements if statement.errno] == [error] * (error is not None)
    assert result.violations == []
