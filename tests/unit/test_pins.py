# SPDX-License-Identifier: GPL-2.0-only
"""Long-term pins: what they make exclusive, what fork does with them, and what they keep from happening."""

import errno

import pytest
from huge_parts import huge
from huge_parts import machine as huge_machine
from machine_parts import BASE, counters, folio, vma, written
from swap_parts import entry, page_state

from rmaplab.check.invariants import violations
from rmaplab.check.state import graph
from rmaplab.kernel.flags import PMD_ORDER
from rmaplab.kernel.objects import FILE_PAGE, ZERO_PAGE

SINCE_6_2 = ["v6.12", "v6.18", "v7.0", "v7.3"]
BOTH = pytest.mark.parametrize("write", [True, False], ids=["write", "read"])


@pytest.fixture(params=["v6.0", "v6.12", "v6.18", "v6.18+2", "v6.18+8", "v7.0", "v7.3"], name="series")
def _series(request):  # fewer than elsewhere: these differ in what matters here
    return request.param


def refused(call, *args, **options):
    with pytest.raises(OSError) as error:  # noqa: PT011 (the errno is looked at)
        call(*args, **options)
    return error.value.errno


def holds(kernel):
    assert violations(kernel) == []
    return True


# --- taking and dropping ---------------------------------------------------------------------------------


@BOTH
def test_a_pin_of_an_exclusive_page_changes_nothing_but_the_pins(kernel, parent, write):
    area = written(parent)
    before, page = page_state(parent, area), folio(parent, area)
    for pins in (1, 2):
        parent.pin(area, write=write)
        assert (page_state(parent, area), folio(parent, area), page.pins) == (before, page, pins)
    for pins in (1, 0):
        parent.unpin(area)
        assert page.pins == pins
    assert refused(parent.unpin, area) == errno.EINVAL


def test_a_pin_for_writing_faults_the_page_in_as_a_write_does(kernel, parent):
    area = parent.mmap(2)
    parent.read(area, 1)  # the zero page
    parent.pin(area)
    for page in (0, 1):
        assert page_state(parent, area, page) == (vma(parent).anon_vma, True, 1, True)
        assert folio(parent, area, page).pins == 1


def test_a_pin_for_writing_copies_a_page_that_fork_has_shared(kernel, parent):
    area = written(parent)
    child = parent.fork()
    shared = folio(parent, area)
    child.pin(area)
    assert page_state(child, area) == (vma(child).anon_vma, True, 1, True)
    assert (folio(parent, area), shared.pins, shared.mapcount) == (shared, 0, 1)
    parent.pin(area)  # the last who maps it takes it over
    assert folio(parent, area) is shared
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, True)


def test_a_pin_for_reading_unshares_and_leaves_the_page_protected(kernel, parent):
    area = written(parent)
    child = parent.fork()
    child.pin(area, write=False)
    assert page_state(child, area) == (vma(child).anon_vma, True, 1, False)
    assert folio(child, area) is not folio(parent, area)
    pinned = folio(child, area)
    child.write(area)  # the device goes on seeing what the process writes
    assert folio(child, area) is pinned
    parent.pin(area, write=False)
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, False)


@pytest.mark.parametrize("series", SINCE_6_2)
def test_a_pin_for_reading_replaces_the_zero_page(kernel, parent):
    area = parent.mmap(2)
    parent.read(area, 0)
    assert entry(parent, area, 0).folio is ZERO_PAGE
    assert not kernel.live_anon_vmas
    parent.pin(area, write=False)
    for page in (0, 1):
        assert page_state(parent, area, page) == (vma(parent).anon_vma, True, 1, False)


@pytest.mark.parametrize("series", SINCE_6_2)
def test_a_pin_for_reading_copies_a_private_files_page(kernel, parent):
    area = parent.mmap(1, prot="r", file="libc")
    parent.read(area)
    assert entry(parent, area).folio is FILE_PAGE
    parent.pin(area, write=False)
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, False)


@pytest.mark.parametrize("series", ["v6.0"])
@pytest.mark.parametrize("file", [None, "libc"])
def test_before_v6_2_such_a_pin_keeps_what_is_nobodys_own(kernel, parent, file):
    area = parent.mmap(1, file=file)
    parent.pin(area, write=False)
    assert entry(parent, area).folio is (ZERO_PAGE if file is None else FILE_PAGE)
    parent.write(area)  # and from now on the device sees another page
    assert folio(parent, area).pins == 0


@BOTH
def test_a_pin_of_shared_memory_takes_no_anon_vma(kernel, parent, write):
    area = parent.mmap(1, shared=True)
    parent.pin(area, write=write)
    assert entry(parent, area).folio is FILE_PAGE
    assert not kernel.live_anon_vmas
    parent.unpin(area)
    assert refused(parent.unpin, area) == errno.EINVAL


@BOTH
def test_a_swapped_page_is_brought_in_and_made_exclusive(kernel, parent, write):
    area = written(parent)
    child = parent.fork()
    parent.swapout(area)
    child.pin(area, write=write)
    assert holds(kernel)
    mapping, exclusive, mapcount, writable = page_state(child, area)
    assert (mapping, exclusive, mapcount, writable) == (vma(child).anon_vma, True, 1, write)
    parent.swapin(area)
    assert folio(parent, area) is not folio(child, area)


def test_a_merged_page_is_never_pinned_but_copied(kernel, parent):
    area = written(parent, 2)
    parent.madvise(area, "mergeable")
    parent.ksm_merge(area, "X")
    merged = folio(parent, area)
    parent.pin(area.part(0, 0), write=False)
    parent.pin(area.part(1, 1))
    assert (merged.pins, merged.mapcount) == (0, 0)
    assert [page_state(parent, area, page)[1:] for page in (0, 1)] == [(True, 1, False), (True, 1, True)]
    parent.munmap(area)
    kernel.ksmd()


@pytest.mark.parametrize(
    ("prot", "write"), [("none", False), ("none", True), ("r", True), ("x", False), ("w", False)], ids=str
)
def test_no_pin_without_the_right_even_of_a_page_that_is_there(kernel, parent, prot, write):
    area = written(parent)
    parent.mprotect(area, prot)
    assert refused(parent.pin, area, write=write) == errno.EFAULT
    assert folio(parent, area).pins == 0
    assert refused(parent.unpin, area) == errno.EINVAL


@pytest.mark.parametrize("series", ["v6.18", "v7.0", "v7.3"])  # v6.13 made guards
def test_no_pin_of_a_hole_or_a_guard_and_what_came_before_stays_pinned(kernel, parent):
    area = written(parent, 3)
    parent.madvise(area.part(1, 1), "guard-install")
    assert refused(parent.pin, area) == errno.EFAULT
    assert [folio(parent, area, page).pins for page in (0, 2)] == [1, 0]
    parent.munmap(area.part(2, 2))
    assert refused(parent.pin, area.part(2, 2)) == errno.EFAULT


@pytest.mark.parametrize("series", SINCE_6_2)
@pytest.mark.parametrize("prepare", ["missing", "zero page", "shared"])
@BOTH
def test_no_memory_no_pin(kernel, parent, prepare, write):
    area = parent.mmap(1)
    if prepare == "shared":
        parent.write(area)
        parent.fork()
    elif prepare == "zero page":
        parent.read(area)
    kernel.slab.plan(1, kind="page")
    assert refused(parent.pin, area, write=write) == errno.ENOMEM
    kernel.slab.disarm()
    assert holds(kernel)
    assert refused(parent.unpin, area) == errno.EINVAL
    parent.pin(area, write=write)
    assert folio(parent, area).pins == 1


# --- who drops it ------------------------------------------------------------------------------------------


def test_a_page_that_moved_is_unpinned_at_either_address_and_the_page_there_first(kernel, parent):
    area = written(parent, at=BASE)
    parent.pin(area)
    first = folio(parent, area)
    moved = parent.mremap(area)
    parent.mmap(1, at=BASE)
    parent.pin(area)
    second = folio(parent, area)
    assert (first.pins, second.pins) == (1, 1)
    parent.unpin(area)
    assert (first.pins, second.pins) == (1, 0)
    parent.unpin(area)  # the page that was pinned here
    assert (first.pins, second.pins) == (0, 0)
    assert refused(parent.unpin, moved) == errno.EINVAL


def test_a_page_that_is_unmapped_stays_pinned_until_it_is_let_go(kernel, parent):
    area = written(parent)
    parent.pin(area)
    page = folio(parent, area)
    parent.munmap(area)
    assert (page.pins, page.mapcount, len(kernel.live_anon_vmas)) == (1, 0, 0)
    parent.unpin(area)
    assert page.pins == 0


def test_a_child_has_no_pins_and_the_parents_exit_drops_its_own(kernel, parent):
    area = written(parent)
    parent.pin(area)
    child = parent.fork()
    page = folio(parent, area)
    assert refused(child.unpin, area) == errno.EINVAL
    parent.exit()
    assert (page.pins, page.mapcount) == (0, 0)


def test_exec_drops_them_and_a_thread_that_ends_does_not(kernel, parent):
    area = written(parent)
    parent.pin(area)
    page = folio(parent, area)
    thread = parent.share("T")
    thread.exit()
    assert page.pins == 1
    parent.exec()
    assert page.pins == 0


# --- fork --------------------------------------------------------------------------------------------------


@BOTH
def test_fork_copies_a_pinned_page_at_once_onto_the_childs_own_anon_vma(kernel, parent, write):
    area = written(parent, 2)
    parent.pin(area.part(0, 0), write=write)
    pinned, other = folio(parent, area, 0), folio(parent, area, 1)
    child = parent.fork()
    assert folio(parent, area, 0) is pinned
    assert page_state(parent, area, 0) == (vma(parent).anon_vma, True, 1, True)
    assert page_state(child, area, 0) == (vma(child).anon_vma, True, 1, True)
    assert folio(child, area, 0).pins == 0
    assert folio(child, area, 1) is other  # not pinned: shared
    assert page_state(child, area, 1) == (vma(parent).anon_vma, False, 2, False)
    grandchild = child.fork()
    assert folio(grandchild, area, 0) is folio(child, area, 0)


def test_once_let_go_a_page_is_shared_like_any_other(kernel, parent):
    area = written(parent)
    parent.pin(area)
    parent.unpin(area)
    child = parent.fork()
    assert folio(child, area) is folio(parent, area)


@pytest.mark.parametrize("n", [1, 2])
def test_a_copy_that_fails_fails_the_fork_and_leaves_the_graph_and_the_pinned_page(kernel, parent, n):
    area = written(parent, 3)
    parent.pin(area.part(1, 2))
    before = graph(kernel), page_state(parent, area, 1), page_state(parent, area, 2)
    kernel.slab.plan(n, kind="page")
    assert refused(parent.fork, "child") == errno.ENOMEM
    kernel.slab.disarm()
    assert holds(kernel)
    assert (graph(kernel), page_state(parent, area, 1), page_state(parent, area, 2)) == before
    assert page_state(parent, area, 0) == (vma(parent).anon_vma, False, 1, False)  # was shared for a moment
    assert counters(vma(parent).anon_vma) == (1, 1, 1)
    assert folio(parent.fork("child"), area, 1) is not folio(parent, area, 1)


# --- what a pin forbids ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda process, area: process.swapout(area), errno.EBUSY),
        (lambda process, area: process.swapout(area, cached=True), errno.EBUSY),
        (lambda process, area: process.migrate(area), errno.EAGAIN),
        (lambda process, area: process.ksm_merge(area, "X"), errno.EBUSY),
    ],
    ids=["swapout", "swapout cached", "migrate", "ksm"],
)
@BOTH
def test_a_pinned_page_is_not_taken_away(kernel, parent, call, error, write):
    area = written(parent)
    parent.madvise(area, "mergeable")
    parent.pin(area, write=write)
    before, page = page_state(parent, area), folio(parent, area)
    assert refused(call, parent, area) == error
    assert holds(kernel)
    assert (page_state(parent, area), folio(parent, area)) == (before, page)
    parent.unpin(area)
    call(parent, area)
    assert holds(kernel)
    parent.munmap(area)
    kernel.ksmd()


@pytest.mark.parametrize("series", ["v6.12", "v6.18", "v7.0"])
def test_a_pinned_page_is_not_moved_by_uffdio_move(kernel, parent):
    src, dst = written(parent), parent.mmap(1)
    parent.pin(src)
    page = folio(parent, src)
    assert refused(parent.uffd_move, src, dst) == errno.EBUSY
    assert folio(parent, src) is page
    parent.unpin(src)
    parent.uffd_move(src, dst)
    assert folio(parent, dst) is page


@pytest.mark.parametrize("order", [2, PMD_ORDER])
def test_a_large_folio_is_pinned_as_a_whole_and_neither_split_nor_moved(order):
    kernel, process = huge_machine(order)
    area = huge(process)
    process.pin(area.part(1, 1))
    whole = process.mm.page_table.present(area.page(0)).folio
    assert (whole.pins, whole.order) == (1, order)
    for call, error in (("split_folio", errno.EAGAIN), ("migrate", errno.EAGAIN), ("swapout", errno.EBUSY)):
        assert refused(getattr(process, call), area.part(0, 0)) == error
        assert holds(kernel)
        assert process.mm.page_table.present(area.page(0)).folio is whole
    process.unpin(area.part(1, 1))
    process.split_folio(area.part(0, 0))
    assert process.mm.page_table.present(area.page(0)).folio.order == 0
    assert holds(kernel)
