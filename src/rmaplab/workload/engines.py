# SPDX-License-Identifier: GPL-2.0-only
"""Replays on the specification or on the fast engine, which is loaded when it is used."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rmaplab.engine.choice import HEAD_START, replay_is_compiled, why_not
from rmaplab.errors import UsageError
from rmaplab.workload.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rmaplab.kernel import Kernel
    from rmaplab.workload.result import ReplayResult
    from rmaplab.workload.sources import Workload

__all__ = ["replay_on"]


def replay_on(
    engine: str,
    workloads: Sequence[Path | Workload],
    series: type[Kernel],
    *,
    reclaim: str = "exit",
    head_start: float = HEAD_START,
    progress: Callable[[int], None] | None = None,
) -> ReplayResult:
    """Replay workloads as :func:`rmaplab.workload.replay.replay` does, on an ``engine``.

    ``reference`` is the specification and ``fast`` the fast engine;
    :class:`UsageError` where it is not there or does not know the series.
    ``auto`` begins with the specification, and if that takes more than
    ``head_start`` seconds begins again on the engine, if it can.
    """
    reason = "" if engine == "reference" else why_not(series)
    if engine == "fast" and reason:
        raise UsageError(f"--engine fast: {reason}")
    if engine == "fast":
        return _fast(workloads, series, reclaim, progress)
    replay = Replay(workloads, series, reclaim=reclaim)
    if engine == "reference" or reason or not replay_is_compiled():
        return replay.run(progress)
    until = time.perf_counter() + head_start

    def tell(events: int) -> None:
        if progress is not None:
            progress(events)
        if time.perf_counter() > until:
            replay.stop()

    result = replay.run(tell)
    if not replay.stopping:
        return result
    try:
        return _fast(workloads, series, reclaim, progress)
    except KeyboardInterrupt:  # while it was loaded: what the specification has done stands
        return result


def _fast(
    workloads: Sequence[Path | Workload],
    series: type[Kernel],
    reclaim: str,
    progress: Callable[[int], None] | None,
) -> ReplayResult:
    from rmaplab.workload.fast_replay import FastReplay

    return FastReplay(workloads, series, reclaim=reclaim).run(progress)
