# SPDX-License-Identifier: GPL-2.0-only
"""Files and shared memory: what has an anon_vma, what counts against overcommit, what merges."""

import errno

import pytest
from call_failures import failures, picture, refused
from machine_parts import BASE, Delta, chain, counters, folio, vma, written

from rmaplab.kernel.flags import PAGE_SIZE, VM_NORESERVE, VM_READ, VM_SHARED, VM_WRITE, flags_name
from rmaplab.kernel.objects import FILE_PAGE
from rmaplab.series.v6_1 import V6_1

RW = VM_READ | VM_WRITE


def flags(process):
    return [flags_name(part.vm_flags) for part in process.mm.vmas]


def first_index(area, series):
    """Index of an anonymous page at the beginning of a file: the file's offset, or from v7.3 the address."""
    return area.start // PAGE_SIZE if series == "v7.3" else 0


# --- private mappings of files ---------------------------------------------------------------------------


def test_copy_on_write_takes_an_anon_vma_at_the_first_copy_only(kernel, parent, series):
    area = parent.mmap(3, file="f")
    added = Delta(kernel)
    parent.read(area)
    assert added() == (0, 0)
    assert [folio(parent, area, page) for page in range(3)] == [FILE_PAGE] * 3
    parent.write(area, 1)
    assert added() == (1, 1)
    parent.write(area, 2)
    assert added() == (0, 0)
    copies = [folio(parent, area, page) for page in (1, 2)]
    first = first_index(area, series)
    assert [copy.index for copy in copies] == [first + 1, first + 2]
    assert [copy.mapping for copy in copies] == [vma(parent).anon_vma] * 2
    assert folio(parent, area) is FILE_PAGE
    assert [visit.maps for visit in parent.walk(area, 2)] == [True]


def test_fork_copies_what_was_copied_and_leaves_the_rest_to_faults(kernel, parent):
    # Without an anon_vma nothing is copied at all, though pages are mapped; with one everything is.
    untouched = parent.mmap(1, file="f")
    area = parent.mmap(2, file="g")
    parent.read(untouched)
    parent.read(area)
    parent.write(area, 1)
    child = parent.fork()
    assert child.mm.page_table.get(untouched.start) is None
    assert [vma(child, 0).anon_vma, len(chain(child, 1))] == [None, 2]
    assert folio(child, area, 1) is folio(parent, area, 1)
    assert folio(child, area, 1).mapcount == 2
    child.write(area, 0)
    assert folio(child, area).mapping is vma(child, 1).anon_vma
    assert folio(parent, area) is FILE_PAGE


def test_a_split_shifts_the_files_offset_and_the_halves_share_the_root(kernel, parent, series):
    area = parent.mmap(4, file="f")
    parent.write(area, 3)
    parent.mprotect(area.part(2, 3), "r")
    assert [part.vm_pgoff for part in parent.mm.vmas] == [0, 2]
    assert vma(parent, 0).anon_vma is vma(parent, 1).anon_vma
    assert folio(parent, area, 3).index == first_index(area, series) + 3
    parent.munmap(area.part(2, 3))
    assert counters(vma(parent).anon_vma) == (1, 1, 1)


@pytest.mark.parametrize(
    ("file", "pgoff", "merges"), [("f", 2, True), ("f", 3, False), ("g", 2, False), (None, None, False)]
)
def test_consecutive_parts_of_one_file_merge(kernel, parent, file, pgoff, merges):
    parent.write(parent.mmap(2, at=BASE, file="f"))
    start = BASE + 2 * PAGE_SIZE
    assert kernel.do_mmap(parent.mm, start, start + PAGE_SIZE, RW, file, pgoff) == 0
    assert len(parent.mm.vmas) == (1 if merges else 2)
    assert len(kernel.live_anon_vmas) == 1


def test_a_copy_that_fails_leaves_the_anon_vma_and_the_files_page():
    def prepare(process):
        area = process.mmap(1, file="f")
        process.read(area)
        return process, area

    points = {failed.point: failed for failed in failures(prepare, lambda prepared: prepared[0].write(prepared[1]))}
    assert sorted(points) == [("page", 1), ("rmap", 1), ("rmap", 2)]
    for (kind, _), failed in points.items():
        assert failed.errno == errno.ENOMEM
        assert [entry.folio for _, entry in failed.process.mm.page_table] == [FILE_PAGE]
        assert failed.unchanged == (kind == "rmap")
        assert (vma(failed.process).anon_vma is None) == (kind == "rmap")


# --- shared mappings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [None, "f"])
def test_no_access_to_shared_memory_takes_an_anon_vma(kernel, parent, file):
    area = parent.mmap(3, file=file, shared=True)
    parent.write(area)
    parent.mprotect(area.part(1, 1), "r")
    parent.mprotect(area.part(1, 1), "rw")
    child = parent.fork()
    child.write(area)
    parent.mremap(area, at=BASE)
    assert not kernel.live_anon_vma_chains
    assert not kernel.locks.acquisitions[2]  # and the lock of none was taken
    assert refused(parent.walk, area, 0) == errno.EFAULT


def test_two_shared_anonymous_mappings_are_two_files(kernel, parent):
    # Each is a file of its own in shmem, so neighbours do not merge.
    for page in (0, 1):
        parent.mmap(1, at=BASE + page * PAGE_SIZE, shared=True)
    assert len(parent.mm.vmas) == 2
    assert [part.vm_pgoff for part in parent.mm.vmas] == [0, 0]


def test_shared_and_private_memory_do_not_lend_each_other_a_root(kernel, parent):
    parent.mmap(1, at=BASE, file="f", shared=True)
    start = BASE + PAGE_SIZE
    assert kernel.do_mmap(parent.mm, start, start + PAGE_SIZE, RW, "f", 1) == 0
    parent.write(parent.mmap(1, at=start + PAGE_SIZE))
    kernel.handle_mm_fault(parent.mm, start, True)
    assert len(kernel.live_anon_vmas) == 2


# --- overcommit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (RW, "rd wr ac"),
        (VM_READ, "rd"),
        (RW | VM_SHARED, "rd wr sh"),
        (RW | VM_NORESERVE, "rd wr nr"),
        (VM_READ | VM_NORESERVE, "rd nr"),
    ],
)
def test_private_writable_memory_is_accounted_unless_it_is_not_reserved(kernel, parent, given, shown):
    assert kernel.do_mmap(parent.mm, BASE, BASE + PAGE_SIZE, given) == 0
    assert flags(parent) == [shown]


def test_no_change_of_rights_accounts_what_is_not_reserved(kernel, parent):
    assert kernel.do_mmap(parent.mm, BASE, BASE + 2 * PAGE_SIZE, RW | VM_NORESERVE) == 0
    for access, shown in ((VM_READ, "rd nr"), (RW, "rd wr nr")):
        assert kernel.do_mprotect(parent.mm, BASE, BASE + 2 * PAGE_SIZE, access) == 0
        assert flags(parent) == [shown]
    parent.mmap(1, at=BASE + 2 * PAGE_SIZE)
    assert flags(parent) == ["rd wr nr", "rd wr ac"]


def test_a_page_copied_from_a_file_does_not_let_go_of_the_account(kernel, parent):
    # The trap is for anonymous VMAs: a file's keeps it, faulted or not.
    area = parent.mmap(1, file="f")
    parent.mprotect(area, "r")
    assert flags(parent) == ["rd ac"]
    plain = parent.mmap(1)
    parent.mprotect(plain, "r")
    faulted = written(parent)
    parent.mprotect(faulted, "r")
    gives_back = not isinstance(kernel, V6_1)
    assert flags(parent) == ["rd ac", "rd" if gives_back else "rd ac", "rd ac"]


def test_a_round_trip_of_rights_on_an_unfaulted_vma_makes_no_object(kernel, parent):
    area = parent.mmap(3)
    before = picture(parent)
    kernel.slab.plan(0)
    for prot in ("r", "rw"):
        parent.mprotect(area.part(1, 1), prot)
    assert kernel.slab.count == 0
    assert picture(parent)[1] == before[1]
