# SPDX-License-Identifier: GPL-2.0-only
"""exec: a temporary stack that is moved with its pages, and the end of the old address space."""

import errno

import pytest
from call_failures import failures, picture, refused, spans
from machine_parts import Delta, chain, counters, vma, written

from rmaplab.check.monitor import monitored
from rmaplab.kernel.area import Area
from rmaplab.kernel.exec import STACK_EXPAND, STACK_TOP, STACK_TOP_MAX
from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, VM_STACK_INCOMPLETE_SETUP, flags_name
from rmaplab.series import SERIES

PAGES = 1 + STACK_EXPAND // PAGE_SIZE
POINTS_BEFORE = [("rmap", 1), ("rmap", 2), ("vma", 1), ("tree", 1), ("page", 1), ("table", 1)]
POINTS_AFTER = [("tree", 2), ("tree", 3), ("tree", 4), ("table", 2)]


def test_what_is_left_is_a_stack_of_33_pages_with_the_arguments_on_top(kernel, parent):
    old = written(parent, 3)
    area = parent.exec()
    assert area == Area(STACK_TOP - PAGES * PAGE_SIZE, PAGES) == parent.areas["stack"]
    assert list(parent.areas) == ["stack"]
    assert [flags_name(part.vm_flags) for part in parent.mm.vmas] == ["rd wr gd ac"]
    assert [address for address, _ in parent.mm.page_table] == [area.page(PAGES - 1)]
    assert parent.mm.page_table.get(old.start) is None
    assert counters(vma(parent).anon_vma) == (1, 1, 1)
    assert len(kernel.live_anon_vmas) == len(chain(parent)) == 1


def test_the_stacks_offset_is_that_of_the_temporary_place_for_ever(kernel, parent):
    # The page has the index of the place where it was written; start and offset part when the VMA moves.
    area = parent.exec()
    folio = parent.mm.page_table.get(area.page(PAGES - 1)).folio
    assert folio.index == (STACK_TOP_MAX - PAGE_SIZE) >> PAGE_SHIFT
    assert vma(parent).vm_pgoff == folio.index - (PAGES - 1) != area.start >> PAGE_SHIFT
    assert [visit.maps for visit in parent.walk(area, PAGES - 1)] == [True]


def test_on_the_way_only_the_new_place_is_found_and_no_counter_moves(kernel, parent):
    mm = kernel.bprm_mm_init()
    parent.begin_new_exec(mm)
    temporary = mm.vmas[0]
    assert temporary.vm_flags & VM_STACK_INCOMPLETE_SETUP == VM_STACK_INCOMPLETE_SETUP
    folio = mm.page_table.get(temporary.vm_start).folio
    anon_vma, before = temporary.anon_vma, counters(temporary.anon_vma)
    chained, seen = list(temporary.anon_vma_chain), []
    move = kernel.move_page_tables

    def look(vma, old, new, length, **options):
        assert (vma.vm_start, vma.vm_end) == (new, old + length)
        seen.append([(visit.address, visit.maps) for visit in kernel.rmap_walk_anon(folio)])
        moved = move(vma, old, new, length, **options)
        seen.append([(visit.address, visit.maps) for visit in kernel.rmap_walk_anon(folio)])
        return moved

    kernel.move_page_tables = look
    added = Delta(kernel)
    assert kernel.setup_arg_pages(mm) == 0
    # Before the move the walk looks where the page will be, and misses it where it is.
    assert seen == [[(STACK_TOP - PAGE_SIZE, False)], [(STACK_TOP - PAGE_SIZE, True)]]
    assert mm.vmas == [temporary]
    assert temporary.anon_vma_chain == chained
    assert counters(anon_vma) == before
    assert added() == (0, 0)
    assert not temporary.vm_flags & VM_STACK_INCOMPLETE_SETUP


def test_a_temporary_stack_is_not_migrated(kernel, parent):
    mm = kernel.bprm_mm_init()
    parent.begin_new_exec(mm)
    start = mm.vmas[0].vm_start
    folio = mm.page_table.get(start).folio
    kernel.migrate_pages(mm, start, start + PAGE_SIZE)
    assert mm.page_table.get(start).folio is folio
    assert kernel.setup_arg_pages(mm) == 0
    assert kernel.migrate_pages(mm, STACK_TOP - PAGE_SIZE, STACK_TOP) == 0
    assert mm.page_table.get(STACK_TOP - PAGE_SIZE).folio is not folio


def test_the_old_address_space_ends_after_the_new_one_is_there(kernel, parent):
    written(parent)
    old, order = parent.mm, []
    exit_mmap = kernel.exit_mmap
    kernel.exit_mmap = lambda mm: (order.append((mm is old, len(parent.mm.vmas))), exit_mmap(mm))[1]
    parent.exec()
    assert order == [(True, 1)]
    assert old.vmas == []


def test_a_child_that_runs_a_program_leaves_its_family(kernel, parent):
    area = written(parent)
    root = vma(parent).anon_vma
    child = parent.fork()
    child.exec()
    assert counters(root) == (1, 1, 1)
    assert vma(child).anon_vma.root is not root
    parent.write(area)
    # With vfork nothing was ever inherited, and the parent keeps its address space.
    other = parent.share("P2")
    mm = parent.mm
    other.exec()
    assert (parent.mm, mm.users) == (mm, 1)
    assert folio_of(parent, area).mapcount == 1
    assert other.mm is not mm


def folio_of(process, area):
    return process.mm.page_table.get(area.start).folio


def test_the_stack_is_inherited_grows_and_is_replaced_by_the_next_program(kernel, parent):
    area = parent.exec()
    child = parent.fork()
    assert child.areas == {"stack": area}
    grown = child.stack_grow(2)
    assert grown == Area(area.start - 2 * PAGE_SIZE, PAGES + 2)
    assert vma(child).vm_pgoff == vma(parent).vm_pgoff - 2
    assert child.exec() == area
    assert len(kernel.live_anon_vmas) == 2


# --- failures --------------------------------------------------------------------------------------------


def program(process):
    process.areas = {"A": written(process, 2)}
    return process


def test_a_program_that_cannot_begin_leaves_the_old_one_running():
    points = {failed.point: failed for failed in failures(program, lambda process: process.exec())}
    assert sorted(points) == sorted(POINTS_BEFORE + POINTS_AFTER)
    for point in POINTS_BEFORE:
        failed = points[point]
        # What fails while the arguments are written is E2BIG, whatever the reason.
        assert failed.errno == (errno.ENOMEM if point[0] in ("vma", "tree") else errno.E2BIG)
        assert failed.unchanged
        assert failed.process.areas == {"A": Area(spans(failed.process)[0][0], 2)}
        assert len(failed.process.kernel.live_anon_vmas) == 1


def test_a_failure_after_the_old_program_is_gone_ends_the_process():
    points = {failed.point: failed for failed in failures(program, lambda process: process.exec())}
    for point in POINTS_AFTER:
        failed = points[point]
        kernel = failed.process.kernel
        # The last tree nodes are those of the growth by 128 KiB: reported as a fault.
        assert failed.errno == (errno.EFAULT if point == ("tree", 4) else errno.ENOMEM)
        assert kernel.processes == {}
        assert not kernel.live_anon_vmas
        assert not kernel.live_anon_vma_chains
        assert failed.process.mm.vmas == []
        assert list(failed.process.mm.page_table) == []
        assert refused(failed.process.exit) == errno.ESRCH


@pytest.mark.parametrize("point", POINTS_BEFORE + POINTS_AFTER, ids=str)
@pytest.mark.parametrize("name", ["v2.6.32", "v2.6.34", "v3.19", "v6.0", "v6.12", "v6.18"])
def test_older_kernels_leave_nothing_behind_either(name, point):
    kernel = monitored(SERIES[name])()
    process = program(kernel.spawn())
    before = picture(process)
    kernel.slab.plan(point[1], kind=point[0])
    error = refused(process.exec)
    kernel.slab.disarm()
    if error is None:
        assert list(kernel.processes) == ["P0"]
    elif point in POINTS_BEFORE:
        assert picture(process) == before
    else:
        assert not kernel.live_anon_vma_chains
