# SPDX-License-Identifier: GPL-2.0-only
"""fork of several VMAs: each allocation fails once, and nothing of the child is left."""

import errno

import pytest
from call_failures import failures, picture
from machine_parts import BASE, written

from rmaplab.kernel.area import Area
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.pagetable import Pte
from rmaplab.series import SERIES

GAP = 64 * PAGE_SIZE


def family(process):
    """A page, a copied page of a file, something wiped, something left out, and nothing but a zero page."""
    for place, advice in enumerate((None, None, "wipeonfork", "dontfork")):
        area = written(process, 2, at=BASE + place * GAP)
        if advice:
            process.madvise(area, advice)
    area = process.mmap(1, at=BASE + 4 * GAP, file="f")
    process.write(area)
    process.read(process.mmap(1, at=BASE + 5 * GAP))
    return process


def protected(picture):
    """The same, but for rights to write and exclusive swap entries, which fork takes from what it has copied."""
    graph, vmas, entries = picture
    return graph, vmas, [entry[:3] for entry in entries]


@pytest.mark.parametrize("name", ["v6.12", "v6.18", "v6.18+9", "v7.0"])
def test_a_fork_that_fails_takes_the_child_down_and_gives_the_parent_its_pages_back(name):
    points = failures(family, lambda process: process.fork(), series=SERIES[name])
    # The whole tree first, then one node to leave out what is not copied; four of six are faulted.
    assert {failed.n for failed in points if failed.kind == "tree"} == {1, 2}
    assert {failed.n for failed in points if failed.kind == "vma"} == {1, 2, 3, 4, 5}
    assert {failed.n for failed in points if failed.kind == "rmap"} == set(range(1, 10))
    for failed in points:
        assert failed.errno == errno.ENOMEM
        assert list(failed.process.kernel.processes) == ["P0"]
        assert protected(picture(failed.process)) == protected(failed.before)
        folios = [entry.folio for _, entry in failed.process.mm.page_table if isinstance(entry, Pte)]
        assert [folio.mapcount for folio in folios if folio.anon] == [1] * 9
        failed.process.write(Area(BASE, 2))  # they are this process's alone again, though write-protected
        assert protected(picture(failed.process)) == protected(failed.before)


def test_the_pinned_page_is_copied_at_once_or_the_fork_fails():
    def prepare(process):
        area = written(process, 3, at=BASE)
        process.pin(area.part(1, 1))
        return process

    points = failures(prepare, lambda process: process.fork(), kinds=("page", "table"))
    assert {failed.point for failed in points} == {("page", 1), ("table", 1)}
    for failed in points:
        assert failed.errno == errno.ENOMEM
        assert protected(picture(failed.process)) == protected(failed.before)
        pinned = failed.process.mm.page_table.get(BASE + PAGE_SIZE)
        assert pinned.writable
        assert (pinned.folio.exclusive, pinned.folio.pins) == (1, 1)
