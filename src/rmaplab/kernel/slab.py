# SPDX-License-Identifier: GPL-2.0-only
"""The slab service: allocates the two kinds of object, counts them, and fails on demand.

Sizes as measured on x86-64 kernels without lock debugging: an anon_vma is 96
bytes at a stride of 104 (the free pointer may not overlay an RCU-typesafe
object that has a constructor), an anon_vma_chain 64.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from rmaplab.kernel.objects import AnonVma, AnonVmaChain

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmaplab.kernel.events import Events
    from rmaplab.kernel.locking import Locking

__all__ = ["GFP_KERNEL", "GFP_NOWAIT", "KINDS", "Gfp", "KmemCache", "Slab"]

KINDS = ("rmap", "vma", "tree", "page", "table")
"""What can run out: anon_vmas and AVCs, VMAs, maple-tree nodes, pages, page-table pages."""

T = TypeVar("T", AnonVma, AnonVmaChain)


class Gfp(Enum):
    """How hard an allocation may try."""

    KERNEL = "GFP_KERNEL"  # may sleep and reclaim
    NOWAIT = "GFP_NOWAIT"  # may not; the caller has a way to go on


GFP_KERNEL, GFP_NOWAIT = Gfp.KERNEL, Gfp.NOWAIT


class KmemCache(Generic[T]):
    """One cache: its live objects by id, and totals since the start.

    ``wasted`` counts the objects freed without ever having been linked.
    ``embedded`` of the live ones are part of another object and take nothing
    from the cache, and ``spared`` of all that were made never took anything:
    in designs that defer an allocation.
    """

    def __init__(self, name: str, constructor: Callable[[int], T], size: int, stride: int) -> None:
        self.name = name
        self.constructor: Callable[[int], T] = constructor
        self.size = size
        self.stride = stride
        self.live: dict[int, T] = {}
        self.made = 0
        self.embedded = 0
        self.spared = 0
        self.peak = 0
        self.wasted = 0

    @property
    def allocations(self) -> int:
        """Allocations that succeeded."""
        return self.made - self.spared

    @property
    def in_use(self) -> int:
        """Objects that are allocated now."""
        return len(self.live) - self.embedded

    def make(self) -> T:
        """The next object; its cost is the caller's to count."""
        self.made += 1
        obj = self.constructor(self.made)
        self.live[obj.id] = obj
        return obj


class Slab:
    """The caches, the bytes they hold, and the failure plan.

    A plan names the n-th allocation to come of one kind.  A GFP_NOWAIT attempt
    that fails and its GFP_KERNEL retry are one allocation.  Anon_vmas and AVCs
    are the kind ``rmap``; of the others (:data:`KINDS`) only whether they
    succeed matters, so :meth:`reserve` is all there is of them.
    """

    def __init__(self, events: Events, locks: Locking) -> None:
        self.events = events
        self.locks = locks
        self.anon_vma: KmemCache[AnonVma] = KmemCache("anon_vma", AnonVma, 96, 104)
        self.anon_vma_chain: KmemCache[AnonVmaChain] = KmemCache("anon_vma_chain", AnonVmaChain, 64, 64)
        self.bytes = 0
        self.peak_bytes = 0
        self.count = 0  # anon_vmas and AVCs asked for since the plan was last set
        self.counts = dict.fromkeys(KINDS[1:], 0)  # the same for each other kind
        self.failed = 0  # attempts that failed since then
        self._fail_at = 0
        self._nowait_only = False
        self._retrying = False
        self._fail_kind = "rmap"
        self._fail_other_at = 0

    def plan(self, n: int, *, nowait_only: bool = False, kind: str = "rmap") -> None:
        """Fail the n-th allocation of a kind from now (0: none); with ``nowait_only``, its first attempt alone."""
        self.count = 0
        for other in self.counts:
            self.counts[other] = 0
        self.failed = 0
        self._fail_at = n if kind == "rmap" else 0
        self._fail_kind = kind
        self._fail_other_at = 0 if kind == "rmap" else n
        self._nowait_only = nowait_only
        self._retrying = False

    def disarm(self) -> None:
        """Drop the plan; the counts and ``failed`` stay readable."""
        self._fail_at = self._fail_other_at = 0

    @property
    def failing(self) -> bool:
        """Whether a plan is set."""
        return self._fail_at != 0 or self._fail_other_at != 0

    def reserve(self, kind: str) -> bool:
        """Whether an allocation of a kind other than ``rmap`` succeeds."""
        self.counts[kind] += 1
        if self.locks.anon_vma_held:
            self.events.report("AV-025", f"allocation of a {kind} under an anon_vma lock")
        if kind != self._fail_kind or self.counts[kind] != self._fail_other_at:
            return True
        self.failed += 1
        if self.events.listeners:
            self.events.emit("fail", kind, GFP_KERNEL.value)
        return False

    def alloc(self, cache: KmemCache[T], gfp: Gfp) -> T | None:
        """A new object, or None if the plan says so."""
        if not self._granted(cache, gfp):
            return None
        obj = cache.make()
        self._charge(cache)
        if self.events.listeners:
            self.events.emit("alloc", obj, gfp.value)
        return obj

    def embed(self, cache: KmemCache[T]) -> T:
        """A new object that is part of another, of which there is room in any case: it cannot fail."""
        obj = cache.make()
        obj.embedded = True
        cache.embedded += 1
        cache.spared += 1
        return obj

    def detach(self, cache: KmemCache[T], obj: T, gfp: Gfp) -> bool:
        """Allocate what was embedded, as the same object; False if the plan says so."""
        if not self._granted(cache, gfp):
            return False
        obj.embedded = False
        cache.embedded -= 1
        cache.spared -= 1
        self._charge(cache)
        if self.events.listeners:
            self.events.emit("alloc", obj, gfp.value)
        return True

    def _granted(self, cache: KmemCache[T], gfp: Gfp) -> bool:
        if self._retrying and gfp is GFP_KERNEL:
            self._retrying = False
        else:
            self.count += 1
        if self.locks.anon_vma_held:
            self.locks.allocations_under_lock += 1
            if gfp is GFP_KERNEL:
                self.events.report("AV-025", f"GFP_KERNEL allocation of an {cache.name} under an anon_vma lock")
        if self.count != self._fail_at or (self._nowait_only and gfp is not GFP_NOWAIT):
            return True
        self._retrying = gfp is GFP_NOWAIT
        self.failed += 1
        if self.events.listeners:
            self.events.emit("fail", cache.name, gfp.value)
        return False

    def _charge(self, cache: KmemCache[T]) -> None:
        if cache.in_use > cache.peak:
            cache.peak = cache.in_use
        self.bytes += cache.stride
        if self.bytes > self.peak_bytes:
            self.peak_bytes = self.bytes

    def free(self, cache: KmemCache[T], obj: T) -> None:
        """Return an object; freeing it twice is reported and changes nothing."""
        if obj.freed:
            self.events.report("AV-018", f"{obj} is freed twice")
            return
        obj.freed = True
        del cache.live[obj.id]
        if obj.embedded:
            cache.embedded -= 1
            return
        if not obj.linked:
            cache.wasted += 1
        self.bytes -= cache.stride
        if self.events.listeners:
            self.events.emit("free", obj)
