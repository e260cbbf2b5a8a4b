# SPDX-License-Identifier: GPL-2.0-only
"""UFFDIO_MOVE of large folios: whole by the huge entry, or split first."""

from errno import EAGAIN, EBUSY, EEXIST

import pytest
from huge_parts import ALL, FIRST, PAGES, holds, huge, machine, pmd, pte, small_entries, wanted
from machine_parts import vma

from rmaplab.kernel.flags import PAGE_SIZE, PMD_ORDER

DST = 0x40000000


@pytest.fixture(name="kernel")
def _kernel():
    kernel, _ = machine(2, PMD_ORDER)
    yield kernel
    assert holds(kernel)


@pytest.fixture(name="process")
def _process(kernel):
    return kernel.processes["P0"]


@pytest.fixture(name="dst")
def _dst(process):
    return process.mmap(PAGES, at=DST)


def refused(process, src, dst):
    with pytest.raises(OSError, match=r"\w") as caught:
        process.uffd_move(src, dst)
    return caught.value.errno


def test_an_aligned_huge_page_moves_whole(kernel, process, dst):
    src = huge(process)
    folio, tables = pmd(process).folio, kernel.slab.counts["table"]
    process.uffd_move(src, dst)
    assert list(process.mm.page_table.pmds) == [DST]
    assert (folio.mapping, folio.index) == (vma(process, 1).anon_vma, DST // PAGE_SIZE)
    assert (folio.mapcount, folio.exclusive, pmd(process, DST).writable) == (1, ALL, True)
    assert kernel.slab.counts["table"] == tables  # the one set aside moves along
    process.munmap(src)
    process.write(dst, 3)
    assert folio.mapcount == 1


@pytest.mark.parametrize(("first", "pages", "to"), [(0, 4, 0), (0, PAGES - 1, 0), (1, PAGES - 1, 0), (4, 4, 8)])
def test_a_part_of_it_is_split_off_and_moves_page_by_page(kernel, process, dst, first, pages, to):
    src = huge(process)
    folio, index = pmd(process).folio, pmd(process).folio.index
    process.uffd_move(src.part(first, first + pages - 1), dst.part(to, to + pages - 1))
    assert not process.mm.page_table.pmds
    assert folio.mapcount == 0
    moved = [pte(process, dst, to + page).folio for page in range(pages)]
    assert {(page.order, page.mapping, page.exclusive) for page in moved} == {(0, vma(process, 1).anon_vma, 1)}
    assert [page.index for page in moved] == [DST // PAGE_SIZE + to + page for page in range(pages)]
    stay = [page for page in range(PAGES) if pte(process, src, page)]
    assert len(stay) == PAGES - pages
    assert all(pte(process, src, page).folio.index == index + page for page in stay)
    assert holds(kernel)


def test_a_page_table_in_the_way_splits_it_too(process, dst):
    src = huge(process)
    process.write(dst, PAGES - 1)
    assert refused(process, src, dst) == EAGAIN  # all but the last, whose place is taken
    assert pte(process, src, PAGES - 1) is not None
    assert small_entries(process) == PAGES + 1


def test_a_huge_page_in_the_way_is_not_overwritten(process):
    src, dst = huge(process), huge(process, at=DST)
    assert refused(process, src, dst) == EEXIST
    assert refused(process, src.part(0, 0), dst.part(1, 1)) == EEXIST
    assert pmd(process).folio.mapcount == 1


@pytest.mark.parametrize("pages", [PAGES, 1])
def test_a_shared_huge_page_stays_and_is_not_even_split(process, dst, pages):
    src = huge(process)
    child = process.fork()
    assert refused(process, src.part(0, pages - 1), dst.part(0, pages - 1)) == EBUSY
    assert pmd(process).folio is pmd(child).folio


def test_a_pinned_huge_page_stays(process, dst):
    src = huge(process)
    pmd(process).folio.pins = 1
    assert refused(process, src, dst) == EBUSY
    assert pmd(process).folio.mapcount == 1


def test_a_part_of_a_pinned_huge_page_waits_for_the_pin_to_go(process, dst):
    """The entry is split by then; the folio cannot be, and the kernel tries again and again."""
    src = huge(process)
    folio = pmd(process).folio
    folio.pins = 1
    assert refused(process, src.part(0, 0), dst.part(0, 0)) == EAGAIN
    assert (folio.mapcount, pte(process, src).folio) == (PAGES, folio)
    folio.pins = 0
    process.uffd_move(src.part(0, 0), dst.part(0, 0))
    assert folio.mapcount == 0


def test_a_large_folio_of_small_entries_is_split_before_it_moves(process, dst):
    src = wanted(process, 8, FIRST)
    process.write(src, 5)
    folio = pte(process, src, 5).folio
    process.uffd_move(src.part(5, 5), dst.part(0, 0))
    assert folio.mapcount == 0
    assert [pte(process, src, page) and pte(process, src, page).folio.order for page in range(4, 8)] == [
        0,
        None,
        0,
        0,
    ]
    assert pte(process, dst).folio.index == DST // PAGE_SIZE


def test_of_a_large_folio_the_first_page_is_asked_whether_it_is_exclusive(process, dst):
    src = wanted(process, 4, FIRST)
    process.write(src, 0)
    child = process.fork()
    process.exit()
    child.write(src, 2)  # in place: page 2 is exclusive now, page 0 is not
    assert refused(child, src.part(2, 2), dst.part(2, 2)) == EBUSY
    child.write(src, 0)
    child.uffd_move(src.part(2, 2), dst.part(2, 2))
    assert pte(child, dst, 2).folio.mapping is vma(child, 1).anon_vma
    assert refused(child, src.part(1, 1), dst.part(1, 1)) == EBUSY  # split by now: every page for itself
