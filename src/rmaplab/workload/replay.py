# SPDX-License-Identifier: GPL-2.0-only
"""Replays workloads on the modelled kernel and adds up what they cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.gcpause import paused_gc
from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.locking import Lock
from rmaplab.series import is_foreign
from rmaplab.workload.machine import Machine
from rmaplab.workload.metering import metered, objects, sample
from rmaplab.workload.reclaim import Reclaim
from rmaplab.workload.result import Objects, ReplayResult
from rmaplab.workload.sources import open_workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rmaplab.kernel import Kernel
    from rmaplab.workload.sources import Workload

__all__ = ["Replay", "replay"]

PROGRESS_EVERY = 1000  # trace events
KEEP_EVERY = 250_000


def replay(
    workloads: Sequence[Path | Workload],
    series: type[Kernel],
    *,
    reclaim: str = "exit",
    progress: Callable[[int], None] | None = None,
) -> ReplayResult:
    """Replay workloads one after the other on one machine; ``progress`` is told the events so far.

    ``reclaim`` chooses the pages that are walked (:mod:`rmaplab.workload.reclaim`).
    Raises :class:`InputError` for a trace that cannot be read.  Ctrl-C ends
    it early: the result says so.
    """
    return Replay(workloads, series, reclaim=reclaim).run(progress)


class Replay:
    """A replay that can be interrupted, and gone on with.

    ``workload`` and ``event`` tell where it is: the number of the workload, and of the events of it that are done.
    """

    def __init__(self, workloads: Sequence[Path | Workload], series: type[Kernel], *, reclaim: str = "exit") -> None:
        self.workloads = workloads
        self.foreign = is_foreign(series)
        self.result = ReplayResult(series.name, reclaim)
        self.kernel = metered(series)(self.result)
        self.reclaim = Reclaim(reclaim, self.kernel, self.result)
        self.machine = Machine(self.kernel, self.result, self.reclaim)
        self.workload = 0
        self.event = 0
        self.until_sample = 1
        self.stopping = False
        self.keep: Callable[[], None] | None = None

    def stop(self) -> None:
        """End after the present event; safe in a signal handler."""
        self.stopping = True

    def run(self, progress: Callable[[int], None] | None = None) -> ReplayResult:
        """Go on to the end, or to Ctrl-C or :meth:`stop`; ``keep`` is called now and then, and then."""
        began = time.perf_counter()
        self.result.interrupted = self.stopping = False
        with paused_gc():
            try:
                while self.workload < len(self.workloads):
                    self._play(progress)
                    self.workload, self.event, self.machine.tasks = self.workload + 1, 0, {}
            except KeyboardInterrupt:
                self.result.interrupted = True
        self.result.seconds += time.perf_counter() - began
        if self.stopping and self.keep is not None:
            self.keep()
        return self._finish()

    def _play(self, progress: Callable[[int], None] | None) -> None:
        """Replay the present workload from the present event on; what runs at its end stays."""
        machine, place = self.machine, self.workloads[self.workload]
        machine.prefix = f"{self.workload}/" if len(self.workloads) > 1 else ""
        with open_workload(place) as reader:
            if reader.header.page_size != PAGE_SIZE:
                raise InputError(
                    f"{place}: recorded with pages of {reader.header.page_size} bytes; the model's have {PAGE_SIZE}: "
                    "record it on a machine with such pages"
                )
            done = self.event
            for number, event in enumerate(reader, 1):
                if number <= done:
                    continue
                self.event = number
                try:
                    machine.play(event)
                    self._look()
                except Exception as crash:
                    if not (self.foreign or isinstance(crash, KernelBug)):
                        raise
                    raise InputError(
                        f"{place}: event {number}: {self.result.series} crashed here: {crash}"
                    ) from crash
                if progress is not None and number % PROGRESS_EVERY == 0:
                    progress(self.result.events)

    def _look(self) -> None:
        """What is looked at between two events."""
        self.reclaim.tick()
        self.until_sample -= 1
        if self.until_sample == 0:
            timeline = self.result.timeline
            timeline.add(sample(self.kernel, self.result.events))
            self.until_sample = timeline.step
        if self.keep is not None and self.event % KEEP_EVERY == 0:
            self.keep()
        if self.stopping:
            raise KeyboardInterrupt

    def _finish(self) -> ReplayResult:
        """The result with the services' counts."""
        result, slab, locks = self.result, self.kernel.slab, self.kernel.locks
        caches = (slab.anon_vma, slab.anon_vma_chain)
        result.peak = Objects(slab.anon_vma.peak, slab.anon_vma_chain.peak, slab.peak_bytes)
        result.final = objects(self.kernel)
        result.allocations = sum(cache.allocations for cache in caches)
        result.wasted_allocations = sum(cache.wasted for cache in caches)
        result.lock_acquisitions = {lock.name.lower(): locks.acquisitions[lock] for lock in Lock}
        result.allocations_under_lock = locks.allocations_under_lock
        result.tree_operations_under_lock = locks.tree_operations
        result.longest_hold = locks.longest_hold
        return result
