# SPDX-License-Identifier: GPL-2.0-only
"""Every case of the merge tables: an existing range, a new one, and one that mremap copies to.

What is expected comes from the table of 5.3 in the fact sheet, not from the specification.
"""

import pytest
from machine_parts import BASE
from merge_parts import FAR, MIDDLE, PATTERNS, RW, Three, expected

from rmaplab.check.invariants import violations
from rmaplab.kernel.flags import PAGE_SIZE

RULES = pytest.mark.parametrize(("series", "old_rule"), [("v6.12", True), ("v7.0", False)])
HISTORY = pytest.mark.parametrize("forked", [False, True], ids=["parent", "child"])
EACH = pytest.mark.parametrize("pattern", PATTERNS)


@RULES
@HISTORY
@EACH
@pytest.mark.parametrize("part", ["whole", "first", "last"])
def test_an_existing_range_merges_as_the_table_says(pattern, forked, part, series, old_rule):
    three = Three(pattern, series, forked)
    folios = three.folios()
    area = {"whole": MIDDLE, "first": MIDDLE.part(0, 0), "last": MIDDLE.part(1, 1)}[part]
    three.flip(area)
    assert three.shape() == expected(pattern, part, forked, old_rule)
    assert three.folios() == folios
    assert violations(three.kernel) == []


@RULES
@HISTORY
@EACH
def test_a_new_range_merges_as_the_table_says(pattern, forked, series, old_rule):
    three = Three(pattern, series, forked)
    three.process.munmap(MIDDLE)
    assert three.kernel.do_mmap(three.process.mm, MIDDLE.start, MIDDLE.end, RW) == 0
    assert three.shape() == expected(f"{pattern[0]}U{pattern[2]}", "whole", forked, old_rule)
    assert violations(three.kernel) == []


@RULES
@HISTORY
@EACH
@pytest.mark.parametrize("dontunmap", [False, True], ids=["plain", "dontunmap"])
def test_a_range_that_mremap_copies_to_merges_as_the_table_says(pattern, forked, dontunmap, series, old_rule):
    three = Three(pattern, series, forked)
    folios = three.folios()
    away = three.take_away()
    three.process.mremap(away, at=MIDDLE.start, dontunmap=dontunmap)
    assert three.shape() == expected(pattern, "whole", forked, old_rule)
    assert three.folios() == folios
    left = [vma.anon_vma for vma in three.process.mm.vmas if vma.vm_start >= FAR]
    assert left == [None] * dontunmap
    assert violations(three.kernel) == []


@HISTORY
@EACH
def test_what_merged_is_found_by_a_walk_from_every_page(pattern, forked):
    three = Three(pattern, "v7.0", forked)
    three.process.mremap(three.take_away(), at=MIDDLE.start)
    process = three.process
    for address, pte in process.mm.page_table:
        visits = three.kernel.rmap_walk_anon(pte.folio)
        assert [visit.maps for visit in visits if (visit.vma.vm_mm, visit.address) == (process.mm, address)] == [True]


@pytest.mark.parametrize("pattern", ["XXX", "XUX"])
def test_halves_of_one_anon_vma_close_to_the_lower_vma(pattern):
    three = Three(pattern)
    survivor = three.process.mm.vmas[0]
    removed = three.process.mm.vmas[1:]
    three.flip(MIDDLE)
    assert three.process.mm.vmas == [survivor]
    assert all(vma.freed for vma in removed)
    assert survivor.anon_vma.num_active_vmas == len(three.kernel.live_anon_vma_chains) == 1


@pytest.mark.parametrize(("pattern", "source"), [("UXU", "middle"), ("UXX", "next"), ("UUX", "next")])
def test_links_come_from_the_next_vma_if_it_has_them_else_from_the_middle(pattern, source):
    three = Three(pattern)
    _, middle, following = three.process.mm.vmas
    sources = []
    clone = three.kernel.anon_vma_clone
    three.kernel.anon_vma_clone = lambda dst, src, operation: sources.append(src) or clone(dst, src, operation)
    three.flip(MIDDLE)
    assert sources == [{"middle": middle, "next": following}[source]]


@pytest.mark.parametrize("above", ["nothing", "unfaulted"])
def test_a_vma_that_was_inherited_grows_in_place_and_absorbs_what_is_unfaulted(above):
    # As measured on 6.18.44.  brk, which maps new memory, refuses the first already.
    three = Three("XUU", forked=True)
    process = three.process
    process.munmap(MIDDLE)
    if above == "nothing":
        process.munmap(type(MIDDLE)(MIDDLE.end, 2))
    process.mremap(type(MIDDLE)(BASE, 2), pages=4, move=False)
    assert three.shape() == [(0, 4 if above == "nothing" else 6, "X")]
    assert violations(three.kernel) == []
    assert process.mm.vmas[0].vm_start == BASE
    assert process.mm.vmas[0].vm_end == BASE + (4 if above == "nothing" else 6) * PAGE_SIZE
