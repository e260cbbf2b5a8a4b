# SPDX-License-Identifier: GPL-2.0-only
"""The package's Python face: the verbs as functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmaplab.check.explore import Exploration, explore
from rmaplab.check.histories import Bounds
from rmaplab.check.monitor import Monitor, monitored
from rmaplab.check.run import RunResult
from rmaplab.check.run import run as run_scenario
from rmaplab.check.stages import explore_stages
from rmaplab.notebook import draw_with
from rmaplab.scenario import Scenario, parse
from rmaplab.series import DEFAULT, find
from rmaplab.snapshot import Snapshot
from rmaplab.workload.replay import replay as replay_traces

if TYPE_CHECKING:
    from os import PathLike

    from rmaplab.workload.result import ReplayResult

__all__ = ["Kernel", "check", "replay", "run"]


def Kernel(series: str = DEFAULT) -> Monitor:  # noqa: N802 (reads as the class it makes)
    """A machine with the logic of a series, its invariants watched; see ``Monitor.check``.

    Raises :class:`~rmaplab.errors.UsageError` for a series that does not exist.
    """
    return monitored(find(series))()


def run(scenario: Scenario | str, series: str = DEFAULT) -> RunResult:
    """Run a scenario, given parsed or as text."""
    return run_scenario(parse(scenario) if isinstance(scenario, str) else scenario, find(series))


def check(series: str = DEFAULT, start: Scenario | None = None, *, jobs: int = 1, **bounds: Any) -> Exploration:  # noqa: ANN401 (fields of Bounds)
    """Explore all histories within bounds (fields of :class:`~rmaplab.check.histories.Bounds`) up to a violation.

    Without bounds and start, the stages of :mod:`rmaplab.check.stages`.
    """
    if start is None and not bounds:
        return explore_stages(series, jobs=jobs)
    return explore(series, Bounds(**bounds), start, jobs=jobs)


def replay(*traces: str | PathLike[str], series: str = DEFAULT) -> ReplayResult:
    """Replay recorded traces, one after the other, on one machine."""
    return replay_traces([Path(trace) for trace in traces], find(series))


# --- pictures in notebooks; what draws them is loaded when one is wanted ---------------------

_MOST_DRAWN = 60  # VMAs


def _draw_snapshot(state: Snapshot) -> str:
    from rmaplab.report.svg import state_svg

    vmas = sum(len(process.vmas) for process in state.processes)
    return state_svg(state) if 0 < vmas <= _MOST_DRAWN else ""


def _draw_counterexample(found: Exploration) -> str:
    """The first of an exploration: its calls, and the graph before and after the last."""
    from rmaplab.check.retrace import retrace
    from rmaplab.report.documents import step_documents
    from rmaplab.report.svg import svg

    finding = next(iter(found.findings.values()), None)
    if finding is None:
        return ""
    steps = step_documents(retrace(find(found.series), parse(finding.scenario)))
    return svg(f"{found.series}: {finding.id}: {finding.detail}", steps) if steps else ""


draw_with(Snapshot, _draw_snapshot)
draw_with(Exploration, _draw_counterexample)
