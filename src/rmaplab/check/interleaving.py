# SPDX-License-Identifier: GPL-2.0-only
"""Every order in which the calls of a ``par`` can come.

A call is one step: the locks that the model has would let no other call in
between.  So the schedules of concurrent branches are their interleavings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.execute import execute
from rmaplab.kernel.checkpoint import drop_state
from rmaplab.kernel.events import Report
from rmaplab.scenario import format_statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.check.monitor import Monitor
    from rmaplab.scenario import Call, Par

    Branches = tuple[tuple[Call, ...], ...]

__all__ = ["interleave"]


def interleave(kernel: Monitor, par: Par) -> Iterator[Report]:
    """What any interleaving violates, the left-to-right one first; ``kernel`` itself is left alone.

    The detail of a report ends with the calls up to it.
    """
    yield from _schedules(kernel, (), par.branches)


def _schedules(kernel: Monitor, done: tuple[str, ...], branches: Branches) -> Iterator[Report]:
    for number, branch in enumerate(branches):
        if not branch:
            continue
        copy = kernel.copy()
        schedule = (*done, format_statement(branch[0]))
        found = execute(copy, branch[0]).violations
        for ident, detail in found:
            yield Report(ident, f"{detail} (in the order {' ; '.join(schedule)})")
        if not any(report.id == "AV-045" for report in found):
            yield from _schedules(copy, schedule, (*branches[:number], branch[1:], *branches[number + 1 :]))
        drop_state(copy)
