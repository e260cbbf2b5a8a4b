# SPDX-License-Identifier: GPL-2.0-only
"""UFFDIO_MOVE: what may be moved, what the page names afterwards, which error each obstacle gives."""

from errno import EAGAIN, EBUSY, EEXIST, EFAULT, EINVAL, ENOENT, ENOMEM

import pytest
from huge_parts import holds, machine
from machine_parts import BASE, chain, counters, folio, vma, written

from rmaplab.kernel.flags import PAGE_SIZE, VM_LOCKED
from rmaplab.kernel.locking import ANON_VMA_LOCK
from rmaplab.kernel.objects import ZERO_PAGE, SwapSlot
from rmaplab.kernel.pagetable import GuardMarker, MigrationPte, SwapPte

SRC, DST = BASE, BASE + 0x100000


@pytest.fixture(name="kernel")
def _kernel():
    kernel, _ = machine()
    yield kernel
    assert holds(kernel)


@pytest.fixture(name="process")
def _process(kernel):
    return kernel.processes["P0"]


@pytest.fixture(name="src")
def _src(process):
    return written(process, 4, at=SRC)


@pytest.fixture(name="dst")
def _dst(process):
    return process.mmap(4, at=DST)


def refused(process, src, dst):
    with pytest.raises(OSError, match=r"\w") as caught:
        process.uffd_move(src, dst)
    return caught.value.errno


def entry(process, area, page=0):
    return process.mm.page_table.get(area.page(page))


# --- what a move does ------------------------------------------------------------------------------------


def test_the_page_names_the_destinations_anon_vma_and_its_place_there(kernel, process, src, dst):
    page, old = folio(process, src, 1), vma(process, 0).anon_vma
    process.uffd_move(src.part(1, 1), dst.part(3, 3))
    new = vma(process, 1).anon_vma
    assert new is not old
    assert new.root is not old.root
    assert (page.mapping, page.index) == (new, dst.page(3) // PAGE_SIZE)
    assert (page.mapcount, page.exclusive) == (1, 1)
    assert entry(process, src, 1) is None
    assert (entry(process, dst, 3).folio, entry(process, dst, 3).writable) == (page, True)
    assert folio(process, src, 0).mapping is old
    assert [visit.maps for visit in process.walk(dst, 3)] == [True]


def test_the_old_anon_vma_can_go_and_the_page_stays(kernel, process, src, dst):
    process.uffd_move(src, dst)
    process.munmap(src)
    assert len(kernel.live_anon_vmas) == 1
    assert [folio(process, dst, page).index - dst.start // PAGE_SIZE for page in range(4)] == [0, 1, 2, 3]
    process.write(dst)


def test_a_move_within_one_vma_changes_the_index_only(process, src):
    process.munmap(src.part(2, 3))
    area = process.mmap(2, at=src.page(2))
    page, anon_vma = folio(process, src, 0), vma(process).anon_vma
    assert len(process.mm.vmas) == 1
    process.uffd_move(src.part(0, 1), area)
    assert (page.mapping, page.index) == (anon_vma, src.page(2) // PAGE_SIZE)
    assert counters(anon_vma) == (1, 1, 1)


def test_a_page_that_its_child_gave_up_moves_from_the_ancestors_anon_vma(kernel, process, src, dst):
    """Exclusive by write fault, so its mapping is the writer's own; then it goes to another tree."""
    child = process.fork()
    process.exit()
    child.write(src, 0)
    page = folio(child, src)
    assert page.mapping is vma(child).anon_vma is not chain(child)[-1]
    child.uffd_move(src.part(0, 0), dst.part(0, 0))
    assert page.mapping is vma(child, 1).anon_vma
    assert refused(child, src.part(1, 1), dst.part(1, 1)) == EBUSY  # not written since the fork


def test_a_moved_page_is_shared_by_the_next_fork_under_its_new_name(kernel, process, src, dst):
    process.uffd_move(src, dst)
    child = process.fork()
    assert folio(child, dst).mapping is vma(process, 1).anon_vma
    assert {visit.vma for visit in process.walk(dst, 0)} == {vma(process, 1), vma(child, 1)}
    assert refused(process, dst, src) == EBUSY


def test_the_zero_page_moves_too(process, src, dst):
    area = process.mmap(1, at=SRC + 0x40000)
    process.read(area)
    process.uffd_move(area, dst.part(0, 0))
    assert entry(process, dst).folio is ZERO_PAGE
    assert entry(process, area) is None
    assert not entry(process, dst).writable


# --- the destination is prepared first --------------------------------------------------------------------


def test_the_destination_has_an_anon_vma_even_if_nothing_moves(kernel, process, dst):
    source = process.mmap(1, at=SRC)
    assert refused(process, source, dst.part(0, 0)) == ENOENT
    assert vma(process, 0).anon_vma is None
    assert vma(process, 1).anon_vma is not None


@pytest.mark.parametrize("fails", [1, 2])
def test_without_memory_for_it_nothing_happens(kernel, process, src, dst, fails):
    kernel.slab.plan(fails)
    before = kernel.snapshot()
    assert refused(process, src, dst) == ENOMEM
    assert kernel.snapshot() == before


def test_the_page_table_of_the_destination_may_be_missing_too(kernel, process, src):
    far = process.mmap(4, at=BASE + 0x10000000)
    kernel.slab.plan(1, kind="table")
    assert refused(process, src, far) == ENOMEM
    assert folio(process, src).mapping is vma(process).anon_vma
    kernel.slab.disarm()
    process.uffd_move(src, far)
    assert folio(process, far).mapping is vma(process, 1).anon_vma


# --- pages that cannot be moved ------------------------------------------------------------------------------


def test_a_shared_page_stays(kernel, process, src, dst):
    process.fork()
    before = folio(process, src).mapping
    assert refused(process, src, dst) == EBUSY
    assert folio(process, src).mapping is before


def test_a_page_of_one_process_that_is_not_exclusive_stays(process, src, dst):
    process.fork().exit()
    assert folio(process, src).mapcount == 1
    assert refused(process, src, dst) == EBUSY
    process.write(src)
    process.uffd_move(src, dst)


def test_a_pinned_page_stays(process, src, dst):
    folio(process, src).pins = 1
    assert refused(process, src, dst) == EBUSY
    assert entry(process, src) is not None


def test_an_occupied_place_is_not_overwritten_whatever_is_there(process, src, dst):
    process.read(dst, 0)
    assert refused(process, src, dst) == EEXIST
    process.mm.page_table.set(dst.page(1), GuardMarker())
    assert refused(process, src.part(1, 1), dst.part(1, 1)) == EEXIST


def test_a_hole_has_nothing_to_move(process, src, dst):
    process.munmap(src.part(1, 1))
    process.mmap(1, at=src.page(1))
    assert refused(process, src.part(1, 1), dst.part(1, 1)) == ENOENT


def test_an_occupied_place_comes_before_a_hole(process, src, dst):
    process.munmap(src.part(1, 1))
    process.mmap(1, at=src.page(1))
    process.read(dst, 1)
    assert refused(process, src.part(1, 1), dst.part(1, 1)) == EEXIST


def test_guards_and_pages_under_way_are_left_alone(process, src, dst):
    table, page = process.mm.page_table, folio(process, src)
    table.set(src.page(0), GuardMarker())
    assert refused(process, src, dst) == EFAULT
    table.set(src.page(0), MigrationPte(page, True, True))
    assert refused(process, src, dst) == EAGAIN
    table.clear(src.page(0))
    page.mapcount = 0


def test_pages_before_the_obstacle_have_moved_and_the_call_says_try_again(kernel, process, src, dst):
    folio(process, src, 2).pins = 1
    assert refused(process, src, dst) == EAGAIN
    assert [entry(process, dst, page) is not None for page in range(4)] == [True, True, False, False]
    assert [entry(process, src, page) is not None for page in range(4)] == [False, False, True, True]
    assert holds(kernel)


# --- VMAs that do not fit ---------------------------------------------------------------------------------------


def test_a_range_without_a_vma(process, src, dst):
    process.munmap(dst)
    assert refused(process, src, dst) == ENOENT
    process.mmap(4, at=DST)
    process.munmap(src)
    assert refused(process, src, dst) == ENOENT


@pytest.mark.parametrize(
    "how", [{"shared": True}, {"file": "f"}, {"prot": "r"}, {"prot": "rwx"}, {"file": "f", "shared": True}]
)
@pytest.mark.parametrize("end", ["src", "dst"])
def test_a_vma_of_another_kind_is_refused(kernel, process, how, end):
    areas = {"src": process.mmap(1, at=SRC), "dst": process.mmap(1, at=DST)}
    process.write(areas["src"])
    before = areas[end]
    process.munmap(before)
    areas[end] = process.mmap(1, at=before.start, **how)
    assert refused(process, areas["src"], areas["dst"]) == EINVAL


def test_two_read_only_vmas_are_refused_and_locked_goes_with_locked_only(process, src, dst):
    for area in (src, dst):
        process.mprotect(area, "r")
    assert refused(process, src, dst) == EINVAL
    for area in (src, dst):
        process.mprotect(area, "rw")
    vma(process, 1).vm_flags |= VM_LOCKED
    assert refused(process, src, dst) == EINVAL
    vma(process, 0).vm_flags |= VM_LOCKED
    process.uffd_move(src, dst)


def test_a_range_over_two_vmas_is_refused_at_either_end(process, src, dst):
    process.mprotect(dst.part(3, 3), "r")
    assert refused(process, src, dst) == EINVAL
    process.mprotect(dst.part(3, 3), "rw")
    process.mprotect(src.part(2, 3), "r")
    assert refused(process, src, dst) == EINVAL
    process.uffd_move(src.part(0, 1), dst.part(0, 1))


def test_both_ends_have_one_length(process, src, dst):
    assert refused(process, src, dst.part(0, 1)) == EINVAL


# --- swap -------------------------------------------------------------------------------------------------------


def swapped(process, area, *, exclusive, cached):
    """The state that swapping the first page out leaves behind."""
    page, slot = folio(process, area), SwapSlot(process.kernel.new_ident(SwapSlot))
    page.mapcount, page.exclusive = 0, 0
    slot.count = 1
    if cached:
        slot.folio, page.slot = page, slot
    process.mm.page_table.set(area.start, SwapPte(slot, exclusive))
    return page, slot


@pytest.mark.parametrize("cached", [False, True])
def test_a_swap_entry_moves_and_the_cached_page_is_renamed(process, src, dst, cached):
    page, slot = swapped(process, src, exclusive=True, cached=cached)
    old = page.mapping, page.index
    process.uffd_move(src.part(0, 0), dst.part(0, 0))
    assert (entry(process, dst).slot, entry(process, dst).exclusive) == (slot, True)
    assert entry(process, src) is None
    renamed = (vma(process, 1).anon_vma, dst.start // PAGE_SIZE)
    assert (page.mapping, page.index) == (renamed if cached else old)
    assert page.exclusive == 0
    assert slot.count == 1


def test_a_swap_entry_that_others_may_share_stays(process, src, dst):
    swapped(process, src, exclusive=False, cached=False)
    assert refused(process, src, dst) == EBUSY


# --- series -----------------------------------------------------------------------------------------------------


def test_only_the_folio_is_locked(kernel, process, src, dst):
    process.write(dst.part(3, 3))  # the destination has its anon_vma
    taken = kernel.locks.acquisitions[ANON_VMA_LOCK]
    process.uffd_move(src.part(0, 0), dst.part(0, 0))
    assert kernel.locks.acquisitions[ANON_VMA_LOCK] == taken


def test_the_ioctl_does_not_exist_before_it_was_made(kernel, process, src, dst, monkeypatch):
    monkeypatch.setattr(type(kernel), "has_uffdio_move", False)
    assert refused(process, src, dst) == EINVAL
    assert vma(process, 1).anon_vma is None
