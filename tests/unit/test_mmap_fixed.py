# SPDX-License-Identifier: GPL-2.0-only
"""A mapping over what is there (MAP_FIXED), and what is left when it fails half way."""

import errno

import pytest
from call_failures import failures, refused, spans
from machine_parts import BASE, Delta, chain, counters, descendants, vma, written

from rmaplab.kernel.area import Area
from rmaplab.kernel.flags import PAGE_SIZE, TASK_SIZE

WHOLE = Area(BASE, 6)


def shape(process):
    return [((start - BASE) // PAGE_SIZE, (end - BASE) // PAGE_SIZE) for start, end, *_ in spans(process)]


@pytest.mark.parametrize("generation", [0, 2])
@pytest.mark.parametrize(
    ("part", "pieces"),
    [((0, 5), [(0, 6)]), ((0, 1), [(0, 2), (2, 6)]), ((4, 5), [(0, 4), (4, 6)]), ((2, 3), [(0, 2), (2, 4), (4, 6)])],
)
def test_the_new_mapping_cuts_the_old_and_takes_none_of_its_links(kernel, parent, generation, part, pieces):
    written(parent, 6, at=BASE)
    process = descendants(parent, generation)[-1]
    owner, links = vma(process).anon_vma, len(chain(process))
    new = WHOLE.part(*part)
    added = Delta(kernel)
    process.mmap(new.pages, at=new.start, prot="r")
    assert shape(process) == pieces
    at = pieces.index((part[0], part[1] + 1))
    assert vma(process, at).anon_vma is None
    assert len(process.mm.page_table.range(new.start, new.end)) == 0
    assert len(list(process.mm.page_table)) == 6 - new.pages
    kept = len(pieces) - 1
    assert added()[1] == (kept - 1) * links
    assert owner.num_active_vmas == kept


def test_it_replaces_several_vmas_and_the_holes_between_them(kernel, parent):
    for page in (0, 2, 4):
        written(parent, 1, at=BASE + page * PAGE_SIZE)
    assert len(kernel.live_anon_vmas) == 3
    parent.mmap(5, at=BASE + PAGE_SIZE)
    assert shape(parent) == [(0, 6)]
    assert [address for address, _ in parent.mm.page_table] == [BASE]
    assert len(kernel.live_anon_vmas) == 1


def test_it_merges_with_what_it_left_on_both_sides_but_not_in_a_child(kernel, parent):
    # The pages went, the anon_vma is that of the neighbours.
    written(parent, 6, at=BASE)
    child = parent.fork()
    new = WHOLE.part(2, 3)
    for process, expected in ((parent, [(0, 6)]), (child, [(0, 2), (2, 4), (4, 6)])):
        process.mmap(new.pages, at=new.start)
        assert shape(process) == expected
        assert len(list(process.mm.page_table)) == 4
    assert len(chain(parent)) == 1


def test_the_old_links_are_gone_before_the_new_vma_is_there(kernel, parent):
    written(parent, 2, at=BASE)
    order = []
    for name in ("zap_page_range", "unlink_anon_vmas", "vma_link"):
        function = getattr(kernel, name)
        setattr(kernel, name, lambda *given, name=name, function=function: (order.append(name), function(*given))[1])
    parent.mmap(2, at=BASE, prot="r")
    assert order == ["zap_page_range", "unlink_anon_vmas", "vma_link"]


@pytest.mark.parametrize("at", [0, TASK_SIZE - PAGE_SIZE, TASK_SIZE, -PAGE_SIZE])
def test_a_mapping_ends_below_the_last_page(kernel, parent, at):
    assert refused(parent.mmap, 2, at=at) == errno.ENOMEM
    assert parent.mm.vmas == []


def test_lengths_and_addresses_that_are_none_are_refused(kernel, parent):
    assert refused(parent.mmap, 0) == errno.EINVAL
    assert refused(parent.mmap, 1, at=BASE + 1) == errno.EINVAL
    area = parent.mmap(1)
    assert refused(parent.munmap, Area(area.start, 0)) == errno.EINVAL
    parent.mprotect(Area(area.start, 0), "r")
    assert refused(parent.mprotect, Area(TASK_SIZE, 1), "r") == errno.ENOMEM
    assert len(parent.mm.vmas) == 1


# --- failures --------------------------------------------------------------------------------------------


def prepare(process):
    written(process, 6, at=BASE)
    return process


@pytest.mark.parametrize("part", [(0, 5), (0, 1), (4, 5), (2, 3)])
def test_a_failure_before_the_zap_keeps_every_page_and_one_after_it_leaves_a_gap(part):
    new = WHOLE.part(*part)
    cuts = (part[0] > 0) + (part[1] < 5)
    points = failures(prepare, lambda process: process.mmap(new.pages, at=new.start, prot="r"))
    # Per cut a VMA, an AVC and tree nodes; then nodes to unmap; then the new VMA and its nodes.
    expected = {("rmap", n) for n in range(1, cuts + 1)}
    expected |= {("vma", n) for n in range(1, cuts + 2)} | {("tree", n) for n in range(1, cuts + 3)}
    assert {failed.point for failed in points} == expected
    for failed in points:
        process = failed.process
        assert failed.errno == errno.ENOMEM
        gap = failed.point in (("vma", cuts + 1), ("tree", cuts + 2))
        assert len(list(process.mm.page_table)) == (6 - new.pages if gap else 6)
        assert process.mm.lookup(new.start) is None or not gap
        if not gap:  # what was cut stays cut
            done = failed.n - 1
            assert len(process.mm.vmas) == 1 + min(done, cuts)
            assert counters(vma(process).anon_vma) == (1, 1, len(process.mm.vmas))
            assert [vma(process).vm_start, process.mm.vmas[-1].vm_end] == [WHOLE.start, WHOLE.end]


@pytest.mark.parametrize("generation", [0, 2])
def test_a_mapping_that_could_merge_is_a_vma_of_its_own_where_the_merge_lacks_memory(generation):
    new = WHOLE.part(2, 3)

    def begin(process):
        return descendants(prepare(process), generation)[-1]

    points = failures(begin, lambda process: process.mmap(new.pages, at=new.start))
    succeeded = [failed for failed in points if failed.errno is None]
    assert [failed.point for failed in succeeded] == ([] if generation else [("tree", 4)])
    for failed in succeeded:
        assert shape(failed.process) == [(0, 2), (2, 4), (4, 6)]
        assert vma(failed.process, 1).anon_vma is None
    assert all(failed.errno in (None, errno.ENOMEM) for failed in points)
