# SPDX-License-Identifier: GPL-2.0-only
"""mremap of large folios: an entry moves whole where both ends are aligned, and is split where not."""

import pytest
from huge_parts import FIRST, PAGES, holds, huge, machine, pmd, pte, small_entries, wanted
from machine_parts import chain, vma

from rmaplab.kernel.flags import PAGE_SIZE, PMD_ORDER, PMD_SIZE

FAR = 0x40000000


@pytest.fixture(name="kernel")
def _kernel():
    kernel, _ = machine(PMD_ORDER)
    yield kernel
    assert holds(kernel)


@pytest.fixture(name="process")
def _process(kernel):
    return kernel.processes["P0"]


def test_an_aligned_move_takes_the_entry_along(kernel, process):
    area = huge(process)
    folio, mapping, index = pmd(process).folio, pmd(process).folio.mapping, pmd(process).folio.index
    moved = process.mremap(area, at=FAR)
    assert moved.start == FAR
    assert list(process.mm.page_table.pmds) == [FAR]
    assert (folio.mapping, folio.index, folio.mapcount) == (mapping, index, 1)
    assert vma(process).vm_pgoff == FIRST // PAGE_SIZE != FAR // PAGE_SIZE
    process.split_folio(moved)
    assert pte(process, moved, 9).folio.index == index + 9


def test_a_move_to_an_odd_place_splits_the_entry(kernel, process):
    area = huge(process)
    folio = pmd(process).folio
    moved = process.mremap(area, at=FAR + PAGE_SIZE)
    assert not process.mm.page_table.pmds
    assert folio.mapcount == PAGES
    assert [pte(process, moved, page).page for page in range(PAGES)] == list(range(PAGES))
    assert set(process.mm.page_table.tables) == {FAR // PMD_SIZE, FAR // PMD_SIZE + 1}
    assert holds(kernel)


def test_a_part_moves_away_from_the_rest_of_its_folio(kernel, process):
    area = huge(process)
    folio = pmd(process).folio
    part = process.mremap(area.part(100, 199), at=FAR)
    assert pte(process, part, 0).folio is folio
    assert pte(process, part, 0).page == 100
    assert folio.mapcount == PAGES
    assert small_entries(process) == PAGES
    process.split_folio(part.part(0, 0))  # finds both places
    assert pte(process, part, 0).folio.index == folio.index + 100
    assert pte(process, area, 99).folio.index == folio.index + 99
    assert folio.mapcount == 0


def test_a_shared_entry_moves_in_one_process_alone(kernel, process):
    area = huge(process)
    child = process.fork()
    child.mremap(area, at=FAR)
    folio = pmd(process).folio
    assert pmd(child, FAR).folio is folio
    assert {(visit.vma, visit.address) for visit in process.walk(area, 0)} == {
        (vma(process), FIRST),
        (vma(child), FAR),
    }
    assert folio.mapping is chain(process)[0]


def test_dontunmap_leaves_an_empty_range_that_may_be_huge_again(kernel, process):
    area = huge(process)
    folio = pmd(process).folio
    process.mremap(area, at=FAR, dontunmap=True)
    assert list(process.mm.page_table.pmds) == [FAR]
    process.write(area, 0)
    assert pmd(process).folio is not folio
    assert pmd(process).folio.mapping is not folio.mapping


def test_what_is_moved_onto_is_gone(kernel, process):
    area, victim = huge(process), huge(process, at=FAR)
    lost = pmd(process, FAR).folio
    process.mremap(area, at=victim.start)
    assert lost.mapcount == 0
    assert pmd(process, FAR).folio.mapcount == 1


def test_an_entry_does_not_move_to_where_there_is_a_table(kernel, process):
    huge(process)
    process.write(process.mmap(1, at=FAR))
    assert not kernel.move_huge_pmd(process.mm, FIRST, FAR)
    assert kernel.move_huge_pmd(process.mm, FIRST, FAR + PMD_SIZE)
    assert kernel.move_huge_pmd(process.mm, FAR + PMD_SIZE, FIRST)


def test_folios_of_small_entries_move_in_pieces():
    kernel, process = machine(2)
    area = wanted(process, 4, FIRST)
    process.write(area, 0)
    folio = pte(process, area).folio
    moved = process.mremap(area.part(1, 2), at=FAR)
    assert [pte(process, moved, page).page for page in (0, 1)] == [1, 2]
    assert folio.mapcount == 4
    assert kernel.folio_mapcount_in(folio, process.mm) == 4
    assert holds(kernel)
    child = process.fork()
    process.exit()
    child.write(moved, 0)
    assert pte(child, moved, 0).folio is folio
    assert folio.exclusive == 0b0010
    assert holds(kernel)
