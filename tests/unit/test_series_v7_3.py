# SPDX-License-Identifier: GPL-2.0-only
"""v7.3: anonymous pages of private file mappings have offsets of their own; KSM's walk asks for one offset."""

import pytest

from rmaplab.check.run import run
from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.scenario import parse
from rmaplab.series import find

START = 0x7F0000000000


def ran(series, text):
    result = run(parse(text), find(series))
    assert result.violations == []
    return result.kernel


def vmas_of(series, text):
    return ran(series, text).processes["P0"].mm.vmas


@pytest.mark.parametrize(("series", "index"), [("v7.0", 1), ("v7.3", (START >> PAGE_SHIFT) + 1)])
def test_a_page_copied_from_a_file_is_indexed_by_the_files_offset_or_by_its_address(series, index):
    kernel = ran(series, f"P0 mmap A 2 at={START:#x} file=f\nP0 write A[1]")
    process = kernel.processes["P0"]
    pte = process.mm.page_table.get(START + 0x1000)
    assert pte.folio.index == index
    assert [visit.maps for visit in process.walk(process.areas["A"], 1)] == [True]


FILE_PARTS = """\
P0 mmap A 2 file=f
P0 mprotect A[1] r
P0 write A[0]
P0 mremap A[0] B at=0x7e0000000000
P0 mremap A[1] C at=0x7e0000001000
P0 mprotect C rw
"""


@pytest.mark.parametrize(("series", "count"), [("v7.0", 1), ("v7.3", 2)])
def test_parts_of_a_file_merge_only_if_their_anonymous_pages_are_adjacent_too(series, count):
    assert len(vmas_of(series, FILE_PARTS)) == count


def test_parts_that_stay_adjacent_by_both_offsets_merge_again():
    text = "P0 mmap A 3 file=f\nP0 write A\nP0 mprotect A[1] r\nP0 mremap A B\nP0 mprotect B[1] rw"
    (vma,) = vmas_of("v7.3", text)
    assert vma.vm_pgoff == 0
    assert vma.anon_pgoff != vma.vm_start >> PAGE_SHIFT


def test_an_unfaulted_file_mapping_that_moves_takes_the_offset_of_its_new_address():
    (vma,) = vmas_of("v7.3", "P0 mmap A 1 file=f\nP0 mremap A B")
    assert (vma.vm_pgoff, vma.anon_pgoff) == (0, vma.vm_start >> PAGE_SHIFT)


@pytest.mark.parametrize(("series", "at_its_address"), [("v7.0", False), ("v7.3", True)])
def test_what_dontunmap_leaves_of_a_moved_vma_has_the_offset_of_its_address(series, at_its_address):
    left, _ = vmas_of(series, "P0 mmap A 1\nP0 write A\nP0 mremap A B\nP0 mremap B C dontunmap")
    assert left.anon_vma is None
    assert (left.vm_pgoff == left.vm_start >> PAGE_SHIFT) is at_its_address
    assert (left.anon_pgoff == left.vm_pgoff) is True


@pytest.mark.parametrize(("series", "count"), [("v7.0", 1), ("v7.3", 2)])
def test_a_vma_that_stays_does_not_merge_with_its_own_copy(series, count):
    text = f"P0 mmap A 1 at={START:#x}\nP0 mremap A B at={START + 0x1000:#x} dontunmap"
    assert len(vmas_of(series, text)) == count


SPLIT = "\n".join(
    [
        "P0 mmap A 9",
        "P0 write A",
        *(f"P0 mprotect A[{page}] r" for page in range(1, 9, 2)),
        "P0 madvise A mergeable",
        "P0 ksm A[4] x",
    ]
)


@pytest.mark.parametrize(("series", "visits"), [("v7.0", 9), ("v7.3", 1)])
def test_ksms_walk_looks_at_every_vma_of_the_tree_or_at_the_one_offset(series, visits):
    process = ran(series, SPLIT).processes["P0"]
    assert len(process.walk(process.areas["A"], 4)) == visits


def test_a_forked_place_is_found_by_the_one_offset():
    kernel = ran("v7.3", SPLIT + "\nP0 fork P1")
    found = [visit.vma.vm_mm for visit in kernel.processes["P0"].walk(kernel.processes["P0"].areas["A"], 4)]
    assert found == [kernel.processes["P0"].mm, kernel.processes["P1"].mm]


def test_a_copied_state_keeps_the_offsets():
    kernel = ran("v7.3", FILE_PARTS)
    offsets = [vma.anon_pgoff for vma in kernel.processes["P0"].mm.vmas]
    assert [vma.anon_pgoff for vma in kernel.copy().processes["P0"].mm.vmas] == offsets
