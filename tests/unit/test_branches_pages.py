# SPDX-License-Identifier: GPL-2.0-only
"""Pages that are not simply mapped: copies of a machine that has them, the snapshot of one, faults on them."""

import pytest
from machine_parts import BASE, folio, written
from swap_parts import entry

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.check.state import fingerprint
from rmaplab.kernel.area import Area
from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.locking import FOLIO_LOCK
from rmaplab.kernel.objects import Folio
from rmaplab.kernel.pagetable import MigrationPte
from rmaplab.kernel.walk import RmapWalkControl
from rmaplab.series import SERIES

PAGES = 4


def machine(series="v7.0"):
    kernel = monitored(SERIES[series])()
    return kernel, kernel.spawn()


def swapped(process, area):
    process.fork()
    process.swapout(area)


def cached(process, area):
    process.swapout(area, cached=True)


def pinned(process, area):
    process.pin(area)


def merged(process, area):
    process.madvise(area, "mergeable")
    process.ksm_merge(area, "same")


def merged_and_swapped(process, area):
    merged(process, area)
    process.fork()
    process.swapout(Area(area.start, 1))


def guarded(process, area):
    process.madvise(area, "guard-install")


def migrating(process, area):
    page = folio(process, area)
    process.mm.page_table.set(area.start, MigrationPte(page, True, True))


STATES = [swapped, cached, pinned, merged, merged_and_swapped, guarded, migrating]


def views(kernel):
    return kernel.snapshot(), kernel.snapshot(canonical=False), fingerprint(kernel)


@pytest.mark.parametrize("state", STATES)
def test_a_copy_has_every_kind_of_page(state):
    kernel, process = machine()
    state(process, written(process, PAGES, at=BASE))
    copy = kernel.copy()
    assert views(copy) == views(kernel)
    assert violations(copy) == violations(kernel)


@pytest.mark.parametrize("state", [state for state in STATES if state is not migrating])
def test_a_copy_with_every_kind_of_page_is_one_of_its_own(state):
    kernel, process = machine()
    area = written(process, PAGES, at=BASE)
    state(process, area)
    copy, before = kernel.copy(), views(kernel)
    for name in list(copy.processes):
        copy.processes[name].exit()
    copy.ksmd()
    assert views(kernel) == before
    assert [*copy.live_anon_vmas, *copy.live_anon_vma_chains, *copy.stable_tree] == []
    another = kernel.copy()
    for machine_ in (kernel, another):
        machine_.processes["P0"].munmap(area)
        machine_.ksmd()
    assert views(another) == views(kernel)
    assert violations(another) == []


def test_a_page_in_the_swap_cache_is_seen_though_nobody_maps_it():
    kernel, process = machine()
    area = written(process)
    page = folio(process, area)
    process.swapout(area, cached=True)
    (view,) = [view for view in kernel.snapshot(canonical=False).folios if view.id == f"folio{page.id}"]
    assert view.ptes == ()
    assert entry(process, area).slot.folio is page


def test_a_fault_on_a_page_whose_migration_was_never_finished_is_a_bug():
    _, process = machine()
    area = written(process)
    migrating(process, area)
    with pytest.raises(KernelBug, match="waits for a migration of"):
        process.read(area)


def test_a_walk_of_a_page_that_names_nothing_meets_nobody_and_takes_no_lock():
    kernel, _ = machine()
    page = Folio(kernel.new_ident(Folio))
    kernel.locks.acquire(FOLIO_LOCK, page)
    control = RmapWalkControl(lambda folio, vma, address: True)
    assert kernel.rmap_walk_anon_lock(page, control) is None
    assert kernel.rmap_walk(page, control) == []
    assert kernel.locks.anon_vma_held == 0
    kernel.locks.release(FOLIO_LOCK, page)
