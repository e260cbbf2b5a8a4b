# SPDX-License-Identifier: GPL-2.0-only
"""Migration: two passes that must find the same places, and a reference between them."""

import errno

import pytest
from huge_parts import machine
from machine_parts import chain, descendants, folio, vma, written
from swap_parts import entry, forget_ksm, ksm_page, page_state, swap_state

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.check.state import fingerprint
from rmaplab.kernel import Kernel
from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import VM_HUGEPAGE, VM_STACK_INCOMPLETE_SETUP
from rmaplab.kernel.migrate import Migration
from rmaplab.kernel.pagetable import MigrationPte


def refused(call, *arguments):
    """The errno of a call that must fail."""
    with pytest.raises(OSError, match=r"\w") as caught:
        call(*arguments)
    return caught.value.errno


def refcounts(kernel):
    return {anon_vma: anon_vma.refcount for anon_vma in kernel.live_anon_vmas.values()}


def test_the_new_page_takes_the_old_ones_place_everywhere(kernel, parent):
    area = written(parent)
    family = descendants(parent, 3)
    family[2].write(area)
    old, before = folio(parent, area), fingerprint(kernel)
    states = [page_state(process, area) for process in family]
    family[3].migrate(area)
    new = folio(parent, area)
    assert new is not old
    assert [folio(process, area) is new for process in family] == [True, True, False, True]
    assert [page_state(process, area) for process in family] == states
    assert (new.index, old.mapping, old.mapcount) == (old.index, None, 0)
    assert fingerprint(kernel) == before  # nobody can tell


@pytest.mark.parametrize("written_again", [False, True])
def test_exclusive_and_write_rights_survive(kernel, parent, written_again):
    area = written(parent)
    parent.mprotect(area, "r")  # exclusive, but not writable
    if written_again:
        parent.mprotect(area, "rw")
        parent.write(area)
    parent.migrate(area)
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, written_again)


def test_a_page_inherits_even_a_name_that_its_owner_would_not_choose(kernel, parent):
    area = written(parent)
    child = parent.fork()
    root = chain(parent)[0]
    parent.munmap(area)
    child.migrate(area)
    assert page_state(child, area) == (root, False, 1, False)


def test_between_the_passes_nothing_is_mapped_and_a_reference_holds_the_anon_vma(kernel, parent):
    area = written(parent)
    child = parent.fork()
    child.write(area)
    old, own = folio(child, area), vma(child).anon_vma
    migration = kernel.migrate_unmap(old)
    assert isinstance(migration, Migration)
    waiting = entry(child, area)
    assert isinstance(waiting, MigrationPte)
    assert (waiting.folio, waiting.exclusive, waiting.writable) == (old, True, True)
    assert (old.mapcount, old.exclusive, own.refcount) == (0, 0, 2)
    assert kernel.migrate_move(migration) == 0
    assert own.refcount == 1
    assert page_state(child, area) == (own, True, 1, True)


def test_a_fork_between_the_passes_shares_the_page_and_both_get_it_back(kernel, parent):
    area = written(parent)
    migration = kernel.migrate_unmap(folio(parent, area))
    held, kernel.locks.held = kernel.locks.held, []  # fork is another task
    child = parent.fork()
    assert [(entry(process, area).exclusive, entry(process, area).writable) for process in (parent, child)] == [
        (False, False)
    ] * 2
    kernel.locks.held = held
    kernel.migrate_move(migration)
    assert page_state(parent, area) == page_state(child, area) == (chain(parent)[0], False, 2, False)


def test_an_exit_between_the_passes_leaves_an_empty_anon_vma_for_the_second(kernel, parent):
    # Z30, and 3f6c82728f4e: without the reference the second walk would start from freed memory.
    area = written(parent)
    child = parent.fork()
    child.write(area)
    old, own = folio(child, area), vma(child).anon_vma
    migration = kernel.migrate_unmap(old)
    held, kernel.locks.held = kernel.locks.held, []
    child.exit()
    kernel.locks.held = held
    assert (own.freed, own.refcount, len(own.rb_root)) == (False, 1, 0)
    assert kernel.migrate_move(migration) == 0
    assert own.freed
    assert migration.dst.mapcount == 0


class MigratesWithoutAReference(Kernel):
    """As before 3f6c82728f4e."""

    def migration_pin(self, folio):
        return None


def test_without_the_reference_the_second_walk_starts_from_freed_memory():
    kernel = monitored(MigratesWithoutAReference)()
    parent = kernel.spawn()
    area = written(parent)
    migration = kernel.migrate_unmap(folio(parent, area))
    held, kernel.locks.held = kernel.locks.held, []
    parent.exit()
    kernel.locks.held = held
    with pytest.raises(KernelBug, match="which is freed"):
        kernel.migrate_move(migration)


def test_a_pinned_page_stays_where_it_is(kernel, parent):
    area = written(parent)
    old, before, counts = folio(parent, area), page_state(parent, area), refcounts(kernel)
    old.pins = 1
    assert refused(parent.migrate, area) == errno.EAGAIN
    assert folio(parent, area) is old
    assert page_state(parent, area) == before
    assert refcounts(kernel) == counts
    old.pins = 0


def test_a_page_that_is_shared_and_pinned_all_the_same_comes_back_whole(kernel, parent):
    # Not exclusive, so unmapping does not notice; the extra reference does, when the page is to be replaced.
    area = written(parent)
    child = parent.fork()
    old, before, counts = folio(parent, area), page_state(parent, area), refcounts(kernel)
    old.pins = 1
    assert refused(parent.migrate, area) == errno.EAGAIN
    assert folio(parent, area) is folio(child, area) is old
    assert page_state(parent, area) == page_state(child, area) == before
    assert refcounts(kernel) == counts
    old.pins = 0


def test_no_memory_changes_nothing(kernel, parent):
    area = written(parent)
    parent.fork()
    before = fingerprint(kernel)
    kernel.slab.plan(1, kind="page")
    assert refused(parent.migrate, area) == errno.ENOMEM
    kernel.slab.disarm()
    assert fingerprint(kernel) == before


def test_what_cannot_be_migrated(kernel, parent):
    area = parent.mmap(1)
    assert refused(parent.migrate, area) == errno.EFAULT
    parent.read(area)
    assert refused(parent.migrate, area) == errno.EINVAL
    parent.write(area)
    parent.swapout(area)
    assert refused(parent.migrate, area) == errno.EFAULT


def test_execs_temporary_stack_is_left_alone(kernel, parent):
    # Z38: exec moves it without the lock, so the second pass might look in the wrong place.
    area = written(parent)
    old = folio(parent, area)
    vma(parent).vm_flags |= VM_STACK_INCOMPLETE_SETUP
    assert refused(parent.migrate, area) == errno.EAGAIN
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, True)
    assert folio(parent, area) is old
    vma(parent).vm_flags &= ~VM_STACK_INCOMPLETE_SETUP
    parent.migrate(area)
    assert folio(parent, area) is not old


def test_a_page_partly_unmapped_before_a_temporary_stack_comes_back(kernel, parent):
    area = written(parent)
    child = parent.fork()
    old = folio(parent, area)
    vma(child).vm_flags |= VM_STACK_INCOMPLETE_SETUP
    assert refused(parent.migrate, area) == errno.EAGAIN
    assert folio(parent, area) is folio(child, area) is old
    assert page_state(parent, area) == (chain(parent)[0], False, 2, False)


@pytest.mark.parametrize("mapped", [False, True])
def test_the_place_in_the_swap_cache_moves_along(kernel, parent, mapped):
    area = written(parent)
    child = parent.fork()
    parent.swapout(area, cached=True)
    if mapped:
        child.swapin(area)
    old = entry(parent, area).slot.folio
    parent.migrate(area)
    new = entry(parent, area).slot.folio
    assert new is not old
    assert (new.slot, new.mapping, old.slot) == (entry(parent, area).slot, chain(parent)[0], None)
    assert swap_state(parent, area) == (2 - mapped, True, False)
    parent.swapin(area)
    child.read(area)
    assert folio(parent, area) is folio(child, area) is new


def test_a_ksm_page_migrates_by_the_places_that_ksmd_remembers(kernel, parent):
    stranger = kernel.spawn("stranger")
    area, other = written(parent), written(stranger, 2).part(1, 1)
    old = ksm_page(kernel, (parent, area), (stranger, other))
    child = parent.fork("child")
    before = fingerprint(kernel)
    child.migrate(area)
    new = folio(parent, area)
    assert new is not old
    assert folio(stranger, other) is folio(child, area) is new
    assert (new.stable_node.folio, old.stable_node, new.mapcount) == (new, None, 3)
    assert fingerprint(kernel) == before
    forget_ksm(kernel)
    for process in (parent, child, stranger):
        process.exit()


@pytest.mark.parametrize("forked", [False, True])
def test_a_large_folio_moves_as_one(forked):
    kernel, process = machine(4)
    area = process.mmap(16, at=0x10000000)
    vma(process).vm_flags |= VM_HUGEPAGE
    process.write(area, 0)
    old = folio(process, area)
    child = process.fork() if forked else process
    process.migrate(area)
    new = folio(child, area, 15)
    assert {folio(process, area, page) for page in range(16)} == {new}
    assert (new.order, new.index, new.mapcount) == (4, old.index, 32 if forked else 16)
    assert new.exclusive == (0 if forked else 0xFFFF)
    assert (old.mapcount, old.mapping) == (0, None)
    assert violations(kernel) == []


def test_a_huge_page_arrives_in_small_entries(huge_area):
    kernel, process, area = huge_area
    old = process.mm.page_table.present(area.start).folio
    process.migrate(area)
    new = folio(process, area, 511)
    assert not process.mm.page_table.pmds
    assert (new is old, new.order, new.mapcount, new.exclusive) == (False, 9, 512, (1 << 512) - 1)
    assert violations(kernel) == []


@pytest.fixture(name="huge_area")
def _huge_area():
    kernel, process = machine(9)
    area = process.mmap(512, at=0x10000000)
    vma(process).vm_flags |= VM_HUGEPAGE
    process.write(area, 0)
    assert process.mm.page_table.pmds
    return kernel, process, area


def test_a_huge_page_is_swapped_out_as_small_ones(huge_area):
    kernel, process, area = huge_area
    process.swapout(area.part(0, 2))
    assert [swap_state(process, area, page) for page in range(3)] == [(1, False, True)] * 3
    assert folio(process, area, 3).order == 0
    assert page_state(process, area, 3) == (vma(process).anon_vma, True, 1, True)
    process.swapin(area.part(1, 1))
    assert folio(process, area, 1).index == vma(process).vm_pgoff + 1
    assert violations(kernel) == []
    page = folio(process, area, 4)
    page.pins = 1
    assert refused(process.swapout, area.part(4, 4)) == errno.EBUSY
    page.pins = 0
