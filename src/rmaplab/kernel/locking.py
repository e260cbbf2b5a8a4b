# SPDX-License-Identifier: GPL-2.0-only
"""The locking service: who holds what, in which order, and how often.

Order, outer to inner (kernel v7.0, mm/rmap.c head comment, as far as the
modelled paths go): mmap_lock, folio lock, root rwsem of an anon_vma tree,
page_table_lock.  The model runs one call at a time, so a lock is never
contended; what is checked is order, nesting and balance.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rmaplab.kernel.events import Events

__all__ = [
    "ANON_VMA_LOCK",
    "FOLIO_LOCK",
    "MMAP_LOCK",
    "PAGE_TABLE_LOCK",
    "READ",
    "WRITE",
    "Lock",
    "Locking",
    "Mode",
]


class Lock(IntEnum):
    """Classes of lock in the order in which they nest."""

    MMAP_LOCK = 0
    FOLIO_LOCK = 1
    ANON_VMA = 2  # the rwsem of a ROOT anon_vma; no other is ever taken
    PAGE_TABLE_LOCK = 3


class Mode(IntEnum):
    """Shared or exclusive."""

    READ = 0
    WRITE = 1


MMAP_LOCK, FOLIO_LOCK, ANON_VMA_LOCK, PAGE_TABLE_LOCK = Lock
READ, WRITE = Mode


class Locking:
    """Locks held now (outermost first) and counts since the start."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.held: list[tuple[Lock, object, Mode]] = []
        self.acquisitions = [0] * len(Lock)
        self.anon_vma_held = 0
        self.allocations_under_lock = 0
        self.tree_operations = 0  # inserts and removals, all made under the root rwsem
        self.longest_hold = 0  # the most of them under one hold
        self._before = 0

    def acquire(self, lock: Lock, owner: object, mode: Mode = WRITE) -> None:
        """Take a lock of an mm, folio or root anon_vma; wrong nesting is reported."""
        for outer, other, _ in self.held:
            if outer > lock:
                self.events.report("AV-038", f"{lock.name} of {owner} taken inside {outer.name} of {other}")
            elif outer is lock is ANON_VMA_LOCK:
                self.events.report("AV-027", f"anon_vma lock of {owner} taken while {other} is held")
        self.held.append((lock, owner, mode))
        self.acquisitions[lock] += 1
        if lock is ANON_VMA_LOCK:
            self.anon_vma_held += 1
            self._before = self.tree_operations
        if self.events.listeners:
            self.events.emit("lock", owner, f"{lock.name.lower()} {mode.name.lower()}")

    def release(self, lock: Lock, owner: object) -> None:
        """Release a lock; one that is not held is reported."""
        held = self.held
        for at in range(len(held) - 1, -1, -1):
            if held[at][0] is lock and held[at][1] is owner:
                del held[at]
                break
        else:
            self.events.report("AV-029", f"{lock.name} of {owner} released but not held")
            return
        if lock is ANON_VMA_LOCK:
            self.anon_vma_held -= 1
            self.longest_hold = max(self.longest_hold, self.tree_operations - self._before)
        if self.events.listeners:
            self.events.emit("unlock", owner, lock.name.lower())

    def forget(self) -> None:
        """Give up what a call that ended left locked."""
        self.held.clear()
        self.anon_vma_held = 0

    def holds(self, lock: Lock, owner: object, mode: Mode = READ) -> bool:
        """Whether the lock is held, at least in this mode."""
        for kind, who, how in self.held:  # noqa: SIM110 (any() costs three times as much, and this is hot)
            if kind is lock and who is owner and how >= mode:
                return True
        return False
