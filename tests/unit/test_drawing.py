# SPDX-License-Identifier: GPL-2.0-only
"""The drawing of a state: what stands below the table, and the counters of each era."""

import pytest

from rmaplab.check.run import run
from rmaplab.report.drawing import WIDTH, draw
from rmaplab.scenario import parse
from rmaplab.series import find


def drawn(text, series="v7.0"):
    return draw(run(parse(text), find(series)).kernel.snapshot(canonical=False))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("P0 mmap A 1\nP0 write A", "folio1 -> av1, exclusive, mapped by P0 (w)"),
        ("P0 mmap A 1\nP0 write A\nP0 fork P1", "folio1 -> av1, mapcount 2, mapped by P0, P1"),
        ("P0 mmap A 1\nP0 pin A", "folio1 -> av1, exclusive, pinned, mapped by P0 (w)"),
        ("P0 mmap A 1\nP0 pin A\nP0 pin A", "folio1 -> av1, exclusive, pinned 2 times, mapped by P0 (w)"),
        (
            "P0 mmap A 512 at=0x7f0000000000\nP0 madvise A hugepage\nP0 write A[0]",
            "folio1 -> av1, 512 pages, exclusive, mapped by P0 (w)",
        ),
        (
            "P0 mmap A 1\nP0 write A\nP0 madvise A mergeable\nP0 ksm A zeros",
            "folio1 -> KSM page zeros, mapcount 1, mapped by P0",
        ),
        ("P0 mmap A 1\nP0 write A\nP0 swapout A cached", "folio1 -> av1, mapcount 0, mapped nowhere"),
        (
            "P0 mmap A 1\nP0 write A\nP0 swapout A cached",
            "slot1: swapped out by P0 (exclusive), folio1 is in the swap cache",
        ),
        ("P0 mmap A 1\nP0 write A\nP0 fork P1\nP0 swapout A", "slot1: swapped out by P0, P1"),
        ("P0 mmap A 2\nP0 madvise A guard-install", "P0: 2 guard pages"),
        ("P0 mmap A 1\nP0 madvise A guard-install", "P0: 1 guard page"),
    ],
)
def test_a_line_for_each_folio_slot_and_guarded_process(text, line):
    lines = drawn(text)
    assert line in lines
    assert max(map(len, lines)) <= WIDTH


def test_many_folios_and_slots_of_a_kind_share_a_line():
    five = "P0 mmap A 6\nP0 write A[0..4]"
    assert drawn(five)[-1] == "folio1 ... folio5 -> av1, exclusive, mapped by P0 (w) (5)"
    assert drawn(f"{five}\nP0 swapout A[0..4]")[-1] == "slot1 ... slot5: swapped out by P0 (exclusive) (5)"
    assert [line.split()[0] for line in drawn(five.replace("4", "3"))[-4:]] == [
        "folio1",
        "folio2",
        "folio3",
        "folio4",
    ]
    lines = drawn(f"{five}\nP0 fork P1\nP1 write A[2]")
    assert [line.split(" -> ")[0] for line in lines if "folio" in line] == [
        "folio1",
        "folio2",
        "folio3",
        "folio4",
        "folio5",
        "folio6",
    ]


FAMILY = "P0 mmap A 1\nP0 write A\nP0 fork P1"


@pytest.mark.parametrize(
    ("series", "heading", "root"),
    [("v7.0", "refs kids vmas", ["2", "2", "1"]), ("v4.0", "refs degree", ["2", "3"]), ("v2.6.34", "refs", ["1"])],
)
def test_the_counters_are_those_of_the_series(series, heading, root):
    lines = drawn(FAMILY, series)
    assert lines[1].split() == ["1p", "rw-", "1p", "rw-", *heading.split()]
    (row,) = (line for line in lines if line.startswith("av1"))
    assert row.split()[3:] == root
