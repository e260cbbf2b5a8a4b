# SPDX-License-Identifier: GPL-2.0-only
"""What the specification may call with side effects: slab, locks, events.

Failure injection, lock statistics and tracing plug in behind these and
nowhere else.  Every layer of the specification is a class on top of the one
below, so that a series overrides a function by its name.
"""

from __future__ import annotations

from rmaplab.kernel.events import Events
from rmaplab.kernel.locking import MMAP_LOCK, Locking
from rmaplab.kernel.objects import AnonVma, AnonVmaChain, Folio, Mm, StableNode, SwapSlot, Vma
from rmaplab.kernel.pagetable import Pte
from rmaplab.kernel.slab import Slab

__all__ = ["Services"]


class Services:
    """The three services, identities for new objects, and debug assertions."""

    def __init__(self) -> None:
        self.events = Events()
        self.locks = Locking(self.events)
        self.slab = Slab(self.events, self.locks)
        self.stable_tree: dict[str, StableNode] = {}  # KSM's pages by content
        self.idents: dict[type | str, int] = {Mm: 0, Vma: 0, Folio: 0, SwapSlot: 0, StableNode: 0, "shmem": 0}

    def new_ident(self, kind: type | str) -> int:
        """The next number for an object that the failure plan does not cover."""
        self.idents[kind] += 1
        return self.idents[kind]

    def vm_warn_on(self, condition: object, text: str, *objects: object) -> None:
        """VM_WARN_ON_ONCE: a debug assertion of the kernel itself (CONFIG_DEBUG_VM); ``{}`` stand for the objects."""
        if condition:
            self.events.report("AV-039", text.format(*objects))

    def mmap_assert_locked(self, mm: Mm, text: str) -> None:
        """``mmap_assert_locked``: held, for reading at least."""
        self.vm_warn_on(not self.locks.holds(MMAP_LOCK, mm), text)

    def set_pte(self, mm: Mm, address: int, folio: Folio, writable: bool, page: int = 0) -> None:
        """Install a present page-table entry."""
        mm.page_table.set(address, Pte(folio, writable, page))

    @property
    def live_anon_vmas(self) -> dict[int, AnonVma]:
        """Allocated anon_vmas by id."""
        return self.slab.anon_vma.live

    @property
    def live_anon_vma_chains(self) -> dict[int, AnonVmaChain]:
        """Allocated AVCs by id."""
        return self.slab.anon_vma_chain.live
