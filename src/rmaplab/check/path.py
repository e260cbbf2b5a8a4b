# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that is taken along histories, and back."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rmaplab.check.execute import NO_PLAN, Outcome, Plan, execute
from rmaplab.kernel.rewind import Checkpoint
from rmaplab.scenario import Call, Fail, Ksmd, Par, Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmaplab.check.monitor import Monitor
    from rmaplab.check.steps import Step
    from rmaplab.kernel.events import Report

__all__ = ["Path"]


class Path:
    """One kernel, the steps it has made from the start, and its state after each.

    ``tolerant``: states that are broken are gone on from, so an exception in
    the model's logic is a crash of the modelled kernel.  ``violations`` are
    those on the way to the start, which else ends with the first.
    """

    def __init__(self, series: type[Monitor], start: Scenario, *, tolerant: bool = False) -> None:
        self.kernel = series()
        self.kernel.foreign |= tolerant
        self.kernel.spawn("P0")
        self.violations: list[Report] = []
        self._make(start)
        self.steps: list[Step] = []
        self.checkpoints = [Checkpoint(self.kernel)]

    def _make(self, start: Scenario) -> None:
        plan = NO_PLAN
        for statement in start.statements:
            if isinstance(statement, Fail):
                plan = Plan(statement.n, statement.nowait, statement.kind)
            for call in statement.calls if isinstance(statement, Par) else (statement,):
                if not isinstance(call, Call | Ksmd):
                    continue
                outcome = execute(self.kernel, call, NO_PLAN if isinstance(call, Ksmd) else plan)
                self.violations += outcome.violations
                if outcome.violations and (not self.kernel.foreign or outcome.violations[0].id == "AV-045"):
                    return
                plan = plan if isinstance(call, Ksmd) else NO_PLAN

    def go(self, steps: Sequence[Step]) -> None:
        """Take the kernel to the end of a history, from where the last one parted from it."""
        known = 0
        for step, own in zip(steps, self.steps, strict=False):
            if step != own:
                break
            known += 1
        del self.steps[known:], self.checkpoints[known + 1 :]
        self.back()
        self.kernel.reached = Counter()  # it was counted when this was found
        for step in steps[known:]:
            self.made(step, execute(self.kernel, step.call, step.plan, check=False))
            self.steps.append(step)
            self.checkpoints.append(Checkpoint(self.kernel))

    def made(self, step: Step, outcome: Outcome) -> None:
        """A step was made on the way; for whoever keeps more than the kernel does."""

    def back(self) -> None:
        """Undo what was done since the end of the history."""
        self.checkpoints[-1].restore()
