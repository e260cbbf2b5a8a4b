# SPDX-License-Identifier: GPL-2.0-only
"""What `check` does when nobody says how far: a row of small explorations, each with operations of its own.

All operations together reach a few calls deep; some of them alone reach the
bugs that take ten.  Each stage is exhaustive within its bounds.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmaplab.check.explore import Exploration, Limits, Progress, explore
from rmaplab.check.histories import Bounds
from rmaplab.engine.choice import HEAD_START

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MAIN", "STAGES", "explore_stages", "stages"]

MAIN = "all calls"
STAGES = {
    "family": Bounds(4, 1, 1, 9, 1, ("exit", "fork", "mmap", "write")),
    "rights": Bounds(1, 3, 1, 6, 1, ("mmap", "mprotect", "munmap", "rwx", "write")),
    "parts": Bounds(2, 1, 2, 6, 1, ("exit", "fork", "mmap", "mprotect", "munmap", "read", "write")),
    "inherited rights": Bounds(2, 2, 1, 6, 1, ("fork", "mmap", "mprotect", "rwx", "write")),
    "moves": Bounds(2, 2, 1, 6, 1, ("fork", "mmap", "mremap", "write")),
    "parts moved": Bounds(1, 2, 2, 5, 1, ("mmap", "mremap", "write")),
    "advice on forks": Bounds(2, 1, 2, 6, 1, ("exit", "fork", "fork-advice", "mmap", "munmap", "write")),
    "swap": Bounds(3, 1, 1, 8, 1, ("exit", "fork", "mmap", "read", "swap", "write")),
    "migration and pins": Bounds(2, 1, 2, 6, 1, ("exit", "fork", "migrate", "mmap", "munmap", "pin", "write")),
    "KSM": Bounds(2, 1, 1, 9, 1, ("exit", "fork", "ksm", "mmap", "munmap", "write")),
    MAIN: Bounds(),
}


def stages(fail_alloc: int | None = None) -> dict[str, Bounds]:
    """The stages by name, the one with all calls last; ``fail_alloc`` failed allocations in each, if given."""
    if fail_alloc is None:
        return STAGES
    return {name: replace(bounds, fail_alloc=fail_alloc) for name, bounds in STAGES.items()}


def explore_stages(
    series: str,
    stages: Mapping[str, Bounds] = STAGES,
    *,
    stop_at_first: bool = True,
    progress: Callable[[str, Progress], None] | None = None,
    **options: Any,  # noqa: ANN401 (of :func:`explore`)
) -> Exploration:
    """Explore stage after stage; the sum of them, with each in ``parts``.

    The options are those of :func:`rmaplab.check.explore.explore`; a file to
    save in is that of the last stage alone, which takes most of the time.
    """
    total: Exploration | None = None
    save, resume, last = options.pop("save", None), options.pop("resume", False), list(stages)[-1]
    limits = options.pop("limits", None) or Limits()
    left, began = limits, time.perf_counter()
    for name, bounds in stages.items():
        tell = None if progress is None else _teller(progress, name)
        if name == last:
            options |= {"save": save, "resume": resume and save is not None and Path(save).exists()}
        part = explore(
            series,
            bounds,
            stop_at_first=stop_at_first,
            progress=tell,
            limits=left,
            head_start=HEAD_START - (time.perf_counter() - began),
            **options,
        )
        part.stage = name
        if total is None:
            total = Exploration(part.series, bounds)
        total.add(part)
        left = Limits(
            None if limits.states is None else limits.states - total.states,
            None if limits.seconds is None else limits.seconds - total.seconds,
            limits.memory,
        )
        if part.interrupted or part.verdict == "no-verdict" or (part.findings and stop_at_first):
            break
    assert total is not None
    return total


def _teller(progress: Callable[[str, Progress], None], name: str) -> Callable[[Progress], None]:
    return lambda now: progress(name, now)
