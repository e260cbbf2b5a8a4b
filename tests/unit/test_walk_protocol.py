# SPDX-License-Identifier: GPL-2.0-only
"""How a walker gets hold of a folio's anon_vma, and what if the folio is unmapped between two of the steps."""

import pytest
from machine_parts import descendants, folio, written

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.kernel import Kernel
from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.locking import ANON_VMA_LOCK, FOLIO_LOCK
from rmaplab.kernel.walk import RmapWalkControl


class Raced(Kernel):
    """A machine in which something happens before one named step of the protocol."""

    def __init__(self):
        super().__init__()
        self.before = {}
        self.busy = False  # whether the root's lock is held by somebody else
        self.steps = []

    def step(self, name):
        self.steps.append(name)
        happening = self.before.pop(name, None)
        if happening is not None:
            happening()

    def folio_mapped_anon_vma(self, folio):
        self.step("read")
        return super().folio_mapped_anon_vma(folio)

    def anon_vma_trylock_read(self, anon_vma):
        self.step("trylock")
        return not self.busy and super().anon_vma_trylock_read(anon_vma)

    def folio_pin_anon_vma(self, folio, anon_vma):
        self.step("pin")
        return super().folio_pin_anon_vma(folio, anon_vma)

    def get_anon_vma(self, anon_vma):
        super().get_anon_vma(anon_vma)
        self.step("got")

    def anon_vma_lock_read(self, anon_vma):
        self.step("lock")
        super().anon_vma_lock_read(anon_vma)

    def anon_mapping_changed(self, folio, anon_vma):
        return folio.mapping is not anon_vma


@pytest.fixture(name="kernel")
def _kernel():
    kernel = monitored(Raced)()
    kernel.spawn()
    yield kernel
    assert violations(kernel) == []


@pytest.fixture(name="mapped")
def _mapped(kernel):
    """A page of a fork child's own, the area it is in, and the child."""
    area = written(kernel.processes["P0"])
    _, child = descendants(kernel.processes["P0"], 1)
    child.write(area)
    return folio(child, area), area, child


def unlock(kernel, anon_vma):
    assert kernel.locks.holds(ANON_VMA_LOCK, anon_vma.root)
    kernel.anon_vma_unlock_read(anon_vma)


def test_an_uncontended_lock_needs_no_reference(kernel, mapped):
    page, _, _ = mapped
    before = page.mapping.refcount
    kernel.steps.clear()
    assert kernel.folio_lock_anon_vma_read(page) is page.mapping
    assert kernel.steps == ["read", "trylock", "lock"]
    assert page.mapping.refcount == before
    unlock(kernel, page.mapping)


def test_waiting_for_the_lock_is_bridged_by_a_reference(kernel, mapped):
    page, _, _ = mapped
    before, seen = page.mapping.refcount, []
    kernel.busy = True
    kernel.steps.clear()
    kernel.before["lock"] = lambda: seen.append(page.mapping.refcount)
    assert kernel.folio_lock_anon_vma_read(page) is page.mapping
    assert kernel.steps == ["read", "trylock", "pin", "got", "lock"]
    assert (seen, page.mapping.refcount) == ([before + 1], before)
    unlock(kernel, page.mapping)


def test_who_may_not_wait_gives_up_and_says_so(kernel, mapped):
    page, _, _ = mapped
    kernel.busy = True
    rwc = RmapWalkControl(lambda folio, vma, address: True, try_lock=True)
    assert kernel.folio_lock_anon_vma_read(page, rwc) is None
    assert rwc.contended
    assert not kernel.locks.held


@pytest.mark.parametrize("busy", [False, True])
def test_a_page_that_is_not_mapped_is_not_looked_up_at_all(kernel, mapped, busy):
    page, area, child = mapped
    kernel.busy = busy
    child.munmap(area)
    kernel.steps.clear()
    assert kernel.folio_lock_anon_vma_read(page) is None
    assert kernel.folio_get_anon_vma(page) is None
    assert kernel.steps == ["read", "read"]


def test_unmapped_before_the_lock_is_had(kernel, mapped):
    # Z29, Z31: the lock may be another tree's by now; only "still mapped" proves that it is the right one.
    page, area, child = mapped
    anon_vma = page.mapping
    kernel.before["trylock"] = lambda: child.mm.page_table.clear(area.start) or kernel.folio_remove_rmap_pte(page, 0)
    assert kernel.folio_lock_anon_vma_read(page) is None
    assert not kernel.locks.held
    assert anon_vma.refcount == 1


def test_unmapped_before_the_reference_is_had(kernel, mapped):
    page, area, child = mapped
    anon_vma = page.mapping
    kernel.busy = True
    kernel.before["pin"] = lambda: child.munmap(area)
    assert kernel.folio_lock_anon_vma_read(page) is None
    assert anon_vma.freed
    assert (anon_vma.refcount, kernel.steps[-1]) == (0, "pin")  # not taken from nought


@pytest.mark.parametrize("function", ["folio_lock_anon_vma_read", "folio_get_anon_vma"])
def test_unmapped_right_behind_the_reference(kernel, mapped, function):
    # Z30: a reference to an anon_vma that was dying already would be one to somebody else's.
    page, area, child = mapped
    anon_vma = page.mapping
    kernel.busy = True
    kernel.before["got"] = lambda: child.munmap(area)
    assert getattr(kernel, function)(page) is None
    assert anon_vma.freed
    assert not kernel.locks.held


def test_the_walker_that_is_left_with_the_last_reference_frees_the_anon_vma_unlocked(kernel, mapped):
    page, area, child = mapped
    anon_vma, refcounts = page.mapping, []
    kernel.busy = True
    kernel.before["lock"] = lambda: child.munmap(area) or refcounts.append(anon_vma.refcount)
    assert kernel.folio_lock_anon_vma_read(page) is None
    assert refcounts == [1]
    assert anon_vma.freed
    assert not kernel.locks.held  # and AV-028 would tell if it had been freed inside the lock


@pytest.mark.parametrize("busy", [False, True])
def test_a_page_that_moved_while_the_lock_was_awaited_is_looked_up_again(kernel, mapped, busy):
    page, _, child = mapped
    old = page.mapping
    other = child.mmap(1)
    child.write(other)
    new = folio(child, other).mapping
    assert new.root is not old.root
    kernel.busy = busy
    kernel.before["trylock"] = lambda: setattr(page, "mapping", new)
    assert kernel.folio_lock_anon_vma_read(page) is new
    assert old.refcount == 1
    assert not kernel.locks.holds(ANON_VMA_LOCK, old.root)
    unlock(kernel, new)
    page.mapping = old


def test_a_reference_keeps_an_anon_vma_whose_page_is_gone(kernel, mapped):
    page, area, child = mapped
    anon_vma = kernel.folio_get_anon_vma(page)
    child.munmap(area)
    assert (anon_vma.freed, anon_vma.refcount, len(anon_vma.rb_root)) == (False, 1, 0)
    kernel.put_anon_vma(anon_vma)
    assert anon_vma.freed


def test_who_holds_a_reference_can_walk_a_page_that_is_not_mapped(kernel, mapped):
    page, area, child = mapped
    child.fork()
    anon_vma = kernel.folio_get_anon_vma(page)
    for process in (child, kernel.processes["P2"]):
        process.mm.page_table.clear(area.start)
        kernel.folio_remove_rmap_pte(page, 0)
    kernel.locks.acquire(FOLIO_LOCK, page)
    looking = RmapWalkControl(lambda folio, vma, address: True)
    assert [visit.maps for visit in kernel.rmap_walk(page, looking)] == [False, False]
    looking.anon_lock = kernel.folio_lock_anon_vma_read
    assert kernel.rmap_walk(page, looking) == []
    kernel.locks.release(FOLIO_LOCK, page)
    kernel.put_anon_vma(anon_vma)


def test_without_a_reference_such_a_walk_meets_a_freed_anon_vma(kernel, mapped):
    page, area, child = mapped
    child.munmap(area)
    kernel.locks.acquire(FOLIO_LOCK, page)
    with pytest.raises(KernelBug, match="which is freed"):
        kernel.rmap_walk(page, RmapWalkControl(lambda folio, vma, address: True))
    kernel.locks.forget()


def test_a_mapped_page_that_names_a_freed_anon_vma_is_the_end(kernel, mapped):
    page, area, child = mapped
    other = child.mmap(1)
    child.write(other)
    named = folio(child, other).mapping
    child.munmap(other)
    kept, page.mapping = page.mapping, named
    with pytest.raises(KernelBug, match=f"names {named}, which is freed"):
        child.walk(area, 0)
    kernel.locks.forget()
    page.mapping = kept


def test_a_freed_root_is_noticed_before_its_lock_is_taken(kernel, mapped):
    # Z33: a reference to the anon_vma alone does not keep the root, whose lock every walk needs.
    page, _, _ = mapped
    root = page.mapping.root
    assert root is not page.mapping
    root.freed = True
    with pytest.raises(KernelBug, match=f"is in {root}, which is freed"):
        kernel.folio_lock_anon_vma_read(page)
    root.freed = False
