# SPDX-License-Identifier: GPL-2.0-only
"""Replays workloads on the engine: the same figures as :mod:`rmaplab.workload.replay`, many times faster.

Needs Numba (extra ``fast``).  The specification has the last word: where the
modelled kernel crashes, the replay is made again on it, to tell why.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from errno import errorcode
from typing import TYPE_CHECKING, Any

from rmaplab.engine.calls import BRK, MADVISE, MMAP, MPROTECT, MREMAP, MUNMAP
from rmaplab.engine.layout import IDS, LOCKS, SLAB
from rmaplab.engine.machine import Machine
from rmaplab.engine.replay import ANON, AREA, Player
from rmaplab.engine.tally import CHAIN_LENGTH, FORK_ALLOCATIONS, FORK_LOCKS, FORK_TREE_OPERATIONS, WALK_VISITS
from rmaplab.errors import InputError, UsageError
from rmaplab.gcpause import paused_gc
from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.locking import Lock
from rmaplab.series import ZOO
from rmaplab.workload.packing import Packer
from rmaplab.workload.reclaim import PATTERNS
from rmaplab.workload.replay import Replay
from rmaplab.workload.result import Objects, ReplayResult, Sample, WorstWalk
from rmaplab.workload.sources import open_workload
from rmaplab.workload.synthetic import Synthetic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from rmaplab.workload.sources import Workload
    from rmaplab.workload.trace import Event

__all__ = ["FastReplay", "compile_replay"]

_CALLS = {
    MMAP: "mmap",
    AREA: "exec",
    MUNMAP: "munmap",
    MPROTECT: "mprotect",
    MREMAP: "mremap",
    BRK: "brk",
    MADVISE: "madvise",
    ANON: "page fault",
}
"""What a refused call is counted as, by its kind."""


class FastReplay:
    """A replay on the engine, of a series that it knows (:func:`rmaplab.engine.choice.why_not`).

    It begins with room for so many ``rows`` and ``avcs``, and gets more as it needs it.
    """

    def __init__(
        self,
        workloads: Sequence[Path | Workload],
        series: type[Kernel],
        *,
        reclaim: str = "exit",
        rows: int = 1 << 14,
        avcs: int = 1 << 15,
    ) -> None:
        if reclaim not in PATTERNS:
            raise UsageError(f"unknown reclaim pattern {reclaim!r}; there are {', '.join(PATTERNS)}")
        self.workloads = workloads
        self.series = series
        self.result = ReplayResult(series.name, reclaim, engine="fast")
        self.machine = Machine(series, rows, avcs, keeps=series in ZOO.values())
        self.player = Player(self.machine, PATTERNS.index(reclaim))
        self.packer = Packer(series, self.machine.file)
        self.bases: list[int] = []  # what is added to the task numbers of each workload
        self.stopping = False

    def stop(self) -> None:
        """End soon; safe in a signal handler."""
        self.stopping = True

    def run(self, progress: Callable[[int], None] | None = None) -> ReplayResult:
        """Replay to the end, or to Ctrl-C or :meth:`stop`."""
        began = time.perf_counter()
        with paused_gc():
            try:
                for place in self.workloads:
                    self._play(place, progress)
            except KeyboardInterrupt:
                self.result.interrupted = True
        if self.player.crashed:
            return self._crashed(progress)
        self.result.seconds = time.perf_counter() - began
        return self._finish()

    def _play(self, place: Path | Workload, progress: Callable[[int], None] | None) -> None:
        """Replay one workload; what runs at its end stays."""
        with open_workload(place) as reader:
            if reader.header.page_size != PAGE_SIZE:
                raise InputError(
                    f"{place}: recorded with pages of {reader.header.page_size} bytes; the model's have {PAGE_SIZE}: "
                    "record it on a machine with such pages"
                )
            self.play(reader, progress)

    def play(self, events: Iterable[Event], progress: Callable[[int], None] | None = None) -> None:
        """Play the checked events of one workload; the result gets its figures at the end of a run."""
        self.bases.append(self.bases[-1] + self.packer.tasks if self.bases else 0)
        self.player.tally[0]["base"] = self.bases[-1]
        for rows in self.packer.blocks(events):
            self._play_rows(rows)
            if self.player.crashed:
                return
            if progress is not None:
                progress(int(self.player.tally[0]["events"]))

    def _play_rows(self, rows: Any) -> None:  # noqa: ANN401 (numpy tells no shapes)
        player, tally, timeline = self.player, self.player.tally[0], self.result.timeline
        player.reserve(self.packer.tasks, len(self.packer.names))
        at = 0
        while at < len(rows) and not player.crashed:
            at = player.play(rows, at)
            if tally["marked"]:
                self.result.marks.append(self._objects())
            if tally["sampled"]:
                timeline.add(Sample(int(tally["events"]), *player.sample.tolist()))
                tally["until_sample"] = timeline.step
            if self.stopping:
                raise KeyboardInterrupt

    def _crashed(self, progress: Callable[[int], None] | None) -> ReplayResult:
        """What the specification says of it."""
        self.result = Replay(self.workloads, self.series, reclaim=self.result.reclaim).run(progress)
        return self.result

    def _objects(self) -> Objects:
        slab = self.machine.m[SLAB]
        return Objects(int(slab["live_anon_vmas"]), int(slab["live_avcs"]), int(slab["bytes"]))

    def _finish(self) -> ReplayResult:
        """The result with what was counted."""
        result, player, m = self.result, self.player, self.machine.m
        tally, slab, locks, made = player.tally[0], m[SLAB], m[LOCKS], m[IDS]
        for name in ("events", "forks", "vma_forks", "reuses", "page_faults", "walk_maps"):
            setattr(result, name, int(tally[name]))
        result.peak = Objects(int(slab["peak_anon_vmas"]), int(slab["peak_avcs"]), int(slab["peak_bytes"]))
        result.final = self._objects()
        result.allocations = int(made["anon_vmas"] + made["avcs"])
        result.wasted_allocations = int(slab["wasted"])
        result.lock_acquisitions = {
            lock.name.lower(): int(locks[name])
            for lock, name in zip(
                Lock, ("mmap_locks", "folio_locks", "anon_vma_locks", "page_table_locks"), strict=True
            )
        }
        result.allocations_under_lock = int(locks["allocations_under_lock"])
        result.tree_operations_under_lock = int(locks["tree_operations"])
        result.longest_hold = int(locks["longest_hold"])
        result.chain_length = Counter(player.histogram(CHAIN_LENGTH))
        result.fork_allocations = Counter(player.histogram(FORK_ALLOCATIONS))
        result.fork_locks = Counter(player.histogram(FORK_LOCKS))
        result.fork_tree_operations = Counter(player.histogram(FORK_TREE_OPERATIONS))
        result.walk_visits = Counter(player.histogram(WALK_VISITS))
        if tally["worst_visits"] >= 0:
            visits, maps, event, number, address = (
                int(tally[f"worst_{name}"]) for name in ("visits", "maps", "event", "process", "address")
            )
            result.worst_walk = WorstWalk(visits, maps, event, self.name_of(number), address)
        for (counter, name), count in zip(self.packer.names, player.counts.tolist(), strict=False):
            if count:
                getattr(result, counter)[name] = count
        for kind, call in _CALLS.items():
            for number in player.refused[kind].nonzero()[0].tolist():
                result.refused[f"{call} {errorcode[number]}"] = int(player.refused[kind, number])
        return result

    def name_of(self, number: int) -> str:
        """The name of a process, whose number is one among those of all workloads."""
        workload = bisect_right(self.bases, number) - 1
        task = number - self.bases[workload]
        return f"{workload}/{task}" if len(self.workloads) > 1 else str(task)


def compile_replay() -> None:
    """Use every entry once, which compiles it."""
    FastReplay([Synthetic("daemon", {"generations": 2, "vmas": 1})], Kernel, rows=64, avcs=16).run()
