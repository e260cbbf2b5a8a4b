# SPDX-License-Identifier: GPL-2.0-only
"""Moments of a replay: the machine as it is after some of the events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.gcpause import paused_gc
from rmaplab.workload.replay import Replay
from rmaplab.workload.sources import open_workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rmaplab.kernel import Kernel
    from rmaplab.workload.sources import Workload

__all__ = ["stills"]


def stills(
    workload: Workload, series: type[Kernel], number: int, progress: Callable[[int], None] | None = None
) -> Iterator[tuple[str, Kernel]]:
    """The machine at ``number`` moments, evenly over the events of a workload, each with what the last event was.

    The workload is read twice: events are counted first.  Raises
    :class:`InputError` for a trace that cannot be read.
    """
    with open_workload(workload) as reader:
        events = sum(1 for _ in reader)
    wanted = {round(events * part / number) for part in range(1, number + 1)}
    replay = Replay([workload], series, reclaim="none")
    with paused_gc(), open_workload(workload) as reader:
        for at, event in enumerate(reader, 1):
            replay.machine.play(event)
            if at in wanted:
                yield f"after {at:,} of {events:,} events: task {event[1]}, {event[0]}", replay.kernel
                if progress is not None:
                    progress(replay.result.events)
