# SPDX-License-Identifier: GPL-2.0-only
"""Walks of the reverse map: from a folio to every place that may map it (mm/rmap.c and mm/ksm.c, v7.0).

A walk is described by a :class:`RmapWalkControl` and returns what it
visited.  A mapped folio's anon_vma is found by
:meth:`RmapWalk.folio_lock_anon_vma_read`, one small method for each step on
which the next one relies; a folio that is not mapped can be walked only by
who holds a reference to its anon_vma.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EFAULT
from typing import TYPE_CHECKING

from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, PMD_SIZE
from rmaplab.kernel.folio import Visit
from rmaplab.kernel.locking import ANON_VMA_LOCK, FOLIO_LOCK, READ
from rmaplab.kernel.pagetable import MigrationPte, Pte
from rmaplab.kernel.swapfile import SwapFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmaplab.kernel.objects import AnonVma, Folio, KsmRmapItem, Vma

__all__ = ["RmapWalk", "RmapWalkControl"]

ULONG_MAX = (1 << 64) - 1


@dataclass(slots=True)
class RmapWalkControl:
    """struct rmap_walk_control: what to do at each place, and when to stop.

    ``rmap_one`` gets folio, VMA and address (bytes) and says whether to go
    on; ``done`` is asked after each.  ``anon_lock`` finds and locks the
    anon_vma, by default without asking whether the folio is mapped.
    ``waiting`` is a folio being moved away: the walk is for its migration entries.
    """

    rmap_one: Callable[[Folio, Vma, int], bool]
    done: Callable[[Folio], bool] | None = None
    anon_lock: Callable[[Folio, RmapWalkControl], AnonVma | None] | None = None
    invalid_vma: Callable[[Vma], bool] | None = None
    try_lock: bool = False
    contended: bool = False
    waiting: Folio | None = None


class RmapWalk(SwapFile):
    """How an anon_vma is got hold of, and the walks over its tree."""

    # --- the anon_vma of a folio -----------------------------------------------------------

    def folio_lock_anon_vma_read(self, folio: Folio, rwc: RmapWalkControl | None = None) -> AnonVma | None:
        """The anon_vma of a mapped folio, its root locked for reading; None if the folio is not mapped.

        Safe without any other lock: a mapping means a link, and who wants to
        remove the last link waits for the root's lock.  So a folio that is
        still mapped once the lock is held cannot lose its anon_vma.
        """
        while True:
            anon_vma = self.folio_mapped_anon_vma(folio)
            if anon_vma is None:
                return None
            if self.anon_vma_trylock_read(anon_vma):
                if self.anon_mapping_changed(folio, anon_vma):
                    self.anon_vma_unlock_read(anon_vma)
                    continue
                if folio.mapcount == 0:
                    self.anon_vma_unlock_read(anon_vma)
                    return None
                return anon_vma
            if rwc is not None and rwc.try_lock:
                rwc.contended = True
                return None
            if not self.folio_pin_anon_vma(folio, anon_vma):
                return None
            self.anon_vma_lock_read(anon_vma)
            if self.anon_mapping_changed(folio, anon_vma):
                self.anon_vma_unlock_read(anon_vma)
                self.put_anon_vma(anon_vma)
                continue
            return anon_vma if self.drop_pin_locked(anon_vma) else None

    def folio_get_anon_vma(self, folio: Folio) -> AnonVma | None:
        """A reference to the anon_vma of a mapped folio, to keep it when the mappings go; None if it has none."""
        anon_vma = self.folio_mapped_anon_vma(folio)
        if anon_vma is None or not self.folio_pin_anon_vma(folio, anon_vma):
            return None
        return anon_vma

    def folio_mapped_anon_vma(self, folio: Folio) -> AnonVma | None:
        """First step: read ``mapping``, and only then whether the folio is mapped; not for KSM pages."""
        anon_vma = folio.mapping
        if anon_vma is None or folio.stable_node is not None or folio.mapcount == 0:
            return None
        if anon_vma.freed:
            raise KernelBug(f"{folio} names {anon_vma}, which is freed")
        return anon_vma

    def folio_pin_anon_vma(self, folio: Folio, anon_vma: AnonVma) -> bool:
        """A reference, unless the last is gone already; it counts only if the folio is mapped afterwards."""
        if anon_vma.refcount == 0:
            return False
        self.get_anon_vma(anon_vma)
        if folio.mapcount == 0:
            self.put_anon_vma(anon_vma)
            return False
        return True

    def drop_pin_locked(self, anon_vma: AnonVma) -> bool:
        """Drop the reference that bridged the wait for the lock; False if it was the last: unlocked, then freed."""
        if anon_vma.refcount > 1:
            anon_vma.refcount -= 1
            return True
        self.anon_vma_unlock_read(anon_vma)
        self.put_anon_vma(anon_vma)
        return False

    def anon_mapping_changed(self, folio: Folio, anon_vma: AnonVma) -> bool:
        """Whether the folio was moved meanwhile; since v7.0 not asked, as every walker holds the folio lock."""
        return False

    def anon_vma_trylock_read(self, anon_vma: AnonVma) -> bool:
        """Lock the root for reading if that needs no waiting, as ever when calls run one at a time."""
        self.anon_vma_lock_read(anon_vma)
        return True

    def anon_vma_lock_read(self, anon_vma: AnonVma) -> None:
        """Lock the whole tree that this anon_vma belongs to, for reading."""
        owner = self.anon_vma_rwsem(anon_vma)
        if owner.freed:
            raise KernelBug(f"the lock of {anon_vma} is in {owner}, which is freed")
        self.locks.acquire(ANON_VMA_LOCK, owner, READ)

    def anon_vma_unlock_read(self, anon_vma: AnonVma) -> None:
        """Release what :meth:`anon_vma_lock_read` took."""
        self.locks.release(ANON_VMA_LOCK, self.anon_vma_rwsem(anon_vma))

    def rmap_walk_anon_lock(self, folio: Folio, rwc: RmapWalkControl) -> AnonVma | None:
        """The anon_vma to walk, its root locked; without ``anon_lock`` the caller keeps it alive by a reference."""
        if rwc.anon_lock is not None:
            return rwc.anon_lock(folio, rwc)
        anon_vma = folio.mapping
        if anon_vma is not None:
            if anon_vma.freed:
                raise KernelBug(f"a walk of {folio} starts from {anon_vma}, which is freed")
            self.anon_vma_lock_read(anon_vma)
        return anon_vma

    # --- walks -------------------------------------------------------------------------------

    def rmap_walk(self, folio: Folio, rwc: RmapWalkControl) -> list[Visit]:
        """Walk a locked folio, be it KSM's or not; what was visited, in order."""
        self.vm_warn_on(not self.locks.holds(FOLIO_LOCK, folio), "rmap_walk: {} is not locked", folio)
        if folio.stable_node is not None:
            return self.rmap_walk_ksm(folio, rwc)
        return self.walk_anon_vma(folio, rwc)

    def rmap_walk_locked(self, folio: Folio, rwc: RmapWalkControl) -> list[Visit]:
        """The same for who holds the anon_vma's lock already; not for KSM pages."""
        return self.walk_anon_vma(folio, rwc, locked=True)

    def rmap_walk_anon(self, folio: Folio) -> list[Visit]:
        """Visit every VMA that may map an anonymous folio, in the order of the interval tree; only look."""
        self.locks.acquire(FOLIO_LOCK, folio)
        visits = self.walk_anon_vma(folio, self.looking())
        self.locks.release(FOLIO_LOCK, folio)
        return visits

    def walk_anon_vma(self, folio: Folio, rwc: RmapWalkControl, *, locked: bool = False) -> list[Visit]:
        """The walk itself, with or without the root's lock taken by the caller."""
        visits: list[Visit] = []
        anon_vma = folio.mapping if locked else self.rmap_walk_anon_lock(folio, rwc)
        if anon_vma is None:
            return visits
        pages = 1 << folio.order
        for vma in self.folio_vmas(folio):
            address = self.vma_address(vma, folio.index, pages)
            if address < 0:
                raise KernelBug(f"{folio} is not in {vma}, where the tree of {anon_vma} has it")
            if not self.visit(folio, vma, address, rwc, visits):
                break
        if not locked:
            self.anon_vma_unlock_read(anon_vma)
        return visits

    def folio_vmas(self, folio: Folio) -> list[Vma]:
        """VMAs that may map a folio that names an anon_vma, in the order in which a walk visits them."""
        assert folio.mapping is not None
        return self.anon_vma_vmas(folio.mapping, folio.index, folio.index + (1 << folio.order) - 1)

    def anon_vma_vmas(self, anon_vma: AnonVma, first: int, last: int) -> list[Vma]:
        """VMAs that may map pages [first, last] (page offsets) that name an anon_vma, in the order of its tree."""
        return [avc.vma for avc in anon_vma.rb_root.stab(first, last)]

    def looking(self) -> RmapWalkControl:
        """A walk that changes nothing."""
        return RmapWalkControl(lambda folio, vma, address: True, anon_lock=self.folio_lock_anon_vma_read)

    def visit(self, folio: Folio, vma: Vma, address: int, rwc: RmapWalkControl, visits: list[Visit]) -> bool:
        """One place of a walk; whether to go on."""
        if rwc.invalid_vma is not None and rwc.invalid_vma(vma):
            return True
        found = self.page_vma_mapped_walk(folio, vma, address, rwc.waiting)
        visits.append(Visit(vma, address, bool(found)))
        if self.events.listeners:
            self.events.emit("visit", vma, f"{address:#x} {'maps' if found else 'does not map'} {folio}")
        return rwc.rmap_one(folio, vma, address) and not (rwc.done is not None and rwc.done(folio))

    def vma_address(self, vma: Vma, pgoff: int, pages: int) -> int:
        """Address (bytes) of the first of ``pages`` pages from ``pgoff`` on that is in the VMA, or -EFAULT."""
        if pgoff >= vma.anon_pgoff:
            address = vma.vm_start + ((pgoff - vma.anon_pgoff) << PAGE_SHIFT)
            return address if address < vma.vm_end else -EFAULT
        return vma.vm_start if pgoff + pages > vma.anon_pgoff else -EFAULT

    def page_vma_mapped_walk(
        self, folio: Folio, vma: Vma, address: int, waiting: Folio | None = None
    ) -> list[tuple[int, Pte | MigrationPte]]:
        """The VMA's entries for pages of a folio from an address (bytes) on, or those that wait for ``waiting``.

        A huge entry comes once, with its own address.
        """
        table = vma.vm_mm.page_table
        kind, wanted = (Pte, folio) if waiting is None else (MigrationPte, waiting)
        if folio.order == 0:
            entry = table.get(address)
            return [(address, entry)] if isinstance(entry, kind) and entry.folio is wanted else []
        end = min(vma.vm_end, address + (PAGE_SIZE << folio.order))
        found: list[tuple[int, Pte | MigrationPte]] = []
        for at, entry in table.range(address, end):
            if isinstance(entry, kind) and entry.folio is wanted:
                found.append((at, entry))
        if waiting is None:
            found += [item for item in table.huge_range(address & -PMD_SIZE, end) if item[1].folio is folio]
        return found

    # --- KSM's walk ----------------------------------------------------------------------------

    def rmap_walk_ksm(self, folio: Folio, rwc: RmapWalkControl | None = None, by: str | None = None) -> list[Visit]:
        """Walk a page of KSM's stable tree: no anon_vma is its own, each merged place remembers one.

        First the mm in which ksmd merged each place, then all others: they
        may have been forked since.  A VMA that does not cover the address is
        met in vain; how many are depends on ``by`` (:meth:`ksm_walk_range`).
        """
        if rwc is None:
            self.locks.acquire(FOLIO_LOCK, folio)
            visits = self.rmap_walk_ksm(folio, self.looking(), by)
            self.locks.release(FOLIO_LOCK, folio)
            return visits
        visits = []
        items = [] if folio.stable_node is None else folio.stable_node.items
        for search_new_forks in (False, True):
            for item in items:
                if item.anon_vma.freed:
                    raise KernelBug(f"{folio}: KSM's item of {item.address:#x} names {item.anon_vma}, which is freed")
                self.anon_vma_lock_read(item.anon_vma)
                more = self.walk_ksm_item(folio, item, rwc, visits, (search_new_forks, by))
                self.anon_vma_unlock_read(item.anon_vma)
                if not more:
                    return visits
        return visits

    def walk_ksm_item(
        self,
        folio: Folio,
        item: KsmRmapItem,
        rwc: RmapWalkControl,
        visits: list[Visit],
        how: tuple[bool, str | None],
    ) -> bool:
        """One item's turn in one of the two rounds; whether the walk goes on."""
        search_new_forks, by = how
        for vma in self.ksm_vmas(item, by):
            if (vma.vm_mm is item.mm) is search_new_forks:
                continue
            if not vma.vm_start <= item.address < vma.vm_end:
                visits.append(Visit(vma, item.address, False))
            elif not self.visit(folio, vma, item.address, rwc, visits):
                return False
        return True

    def ksm_vmas(self, item: KsmRmapItem, by: str | None) -> list[Vma]:
        """The VMAs that a walk looks at for an item."""
        ranges = {
            None: self.ksm_walk_range(item),
            "whole": (0, ULONG_MAX),
            "offset": (item.pgoff, item.pgoff),
            "address": (item.address >> PAGE_SHIFT,) * 2,
        }
        return self.anon_vma_vmas(item.anon_vma, *ranges[by])

    def ksm_walk_range(self, item: KsmRmapItem) -> tuple[int, int]:
        """Page offsets that may cover an item: all, as the item has no offset but only an address."""
        return 0, ULONG_MAX
