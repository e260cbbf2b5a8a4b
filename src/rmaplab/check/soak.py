# SPDX-License-Identifier: GPL-2.0-only
"""Random histories over all operations, every allocation of every call failing once, every invariant checked.

The explorer is exhaustive within bounds; this goes past them.  A history is
drawn from its seed alone, so a finding is named by series and seed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from rmaplab.check.execute import NO_PLAN, Plan, execute
from rmaplab.check.monitor import monitored
from rmaplab.kernel.checkpoint import drop_state
from rmaplab.kernel.slab import KINDS
from rmaplab.scenario import Fail, Scenario, format_scenario
from rmaplab.scenario.generator import Generator
from rmaplab.scenario.statements import Ksmd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmaplab.check.execute import Outcome
    from rmaplab.check.monitor import Monitor
    from rmaplab.kernel import Kernel
    from rmaplab.kernel.events import Report
    from rmaplab.scenario import Statement
    from rmaplab.scenario.generator import Drawn

__all__ = ["Soak", "SoakFinding", "soak"]

CALLS = 60  # of one history


@dataclass(frozen=True, slots=True)
class SoakFinding:
    """A history that violated something: its seed, the violations and the scenario that shows them."""

    seed: int
    violations: tuple[Report, ...]
    scenario: str


@dataclass(slots=True)
class Soak:
    """What was done.  ``operations`` counts calls made, those with a failing allocation included.

    ``calls`` counts the calls without one by name and outcome (``ok`` or an
    errno), ``failures`` the failed allocations by kind.
    """

    series: str
    histories: int = 0
    operations: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    findings: list[SoakFinding] = field(default_factory=list)

    def add(self, other: Soak) -> None:
        """Add the figures of another run on the same series."""
        self.histories += other.histories
        self.operations += other.operations
        self.calls += other.calls
        self.failures += other.failures
        self.reached += other.reached
        self.findings += other.findings


def soak(series: type[Kernel], seeds: Iterable[int], *, calls: int = CALLS) -> Soak:
    """One history of ``calls`` calls for each seed; a violation ends its history."""
    result = Soak(series.name)
    watched = monitored(series)
    for seed in seeds:
        _History(watched, seed, result).run(calls)
    return result


class _History:
    """One history under way."""

    def __init__(self, series: type[Monitor], seed: int, result: Soak) -> None:
        self.seed = seed
        self.result = result
        self.generator = Generator(Random(seed))
        self.kernel = series()
        self.kernel.reached = result.reached
        self.kernel.spawn("P0")
        self.generator.configure(self.kernel)
        self.statements: list[Statement] = []

    def run(self, calls: int) -> None:
        result = self.result
        result.histories += 1
        for _ in range(calls):
            if not self.kernel.processes or not self.step(self.generator.call(self.kernel)):
                break
        else:
            self.end()
        drop_state(self.kernel)

    def step(self, call: Drawn) -> bool:
        """Make a call on copies with each of its allocations failing, then for good; whether all held."""
        before = self.kernel.copy()
        outcome = self.make(self.kernel, call)
        ok = self.judge(outcome, call)
        counts = {**self.kernel.slab.counts, "rmap": self.kernel.slab.count}
        for kind in KINDS:
            for n in range(1, counts[kind] + 1):
                ok = ok and self.fail(before, call, Plan(n, kind=kind))
        drop_state(before)
        self.statements.append(call)
        self.result.calls[f"{'ksmd' if isinstance(call, Ksmd) else call.call} {outcome.errno or 'ok'}"] += 1
        return ok

    def fail(self, before: Monitor, call: Drawn, plan: Plan) -> bool:
        """Make a call with one allocation failing, and again with its first, unwaiting attempt alone."""
        kernel = before.copy()
        ok = self.judge(self.make(kernel, call, plan), call, plan)
        self.result.failures[plan.kind] += 1
        retried = kernel.slab.failed > 1
        drop_state(kernel)
        if ok and retried and not plan.nowait:
            return self.fail(before, call, plan._replace(nowait=True))
        return ok

    def make(self, kernel: Monitor, call: Drawn, plan: Plan = NO_PLAN) -> Outcome:
        self.result.operations += 1
        return execute(kernel, call, plan)

    def judge(self, outcome: Outcome, call: Drawn, plan: Plan = NO_PLAN) -> bool:
        """Note what a call violated."""
        if not outcome.violations:
            return True
        fail = [Fail(plan.n, plan.nowait, plan.kind)] if plan.n else []
        text = format_scenario(Scenario((*self.statements, *fail, call)))
        self.result.findings.append(SoakFinding(self.seed, tuple(outcome.violations), text))
        return False

    def end(self) -> None:
        """Every process exits, and nothing must be left."""
        for call in self.generator.ending(self.kernel):
            outcome = self.make(self.kernel, call)
            self.statements.append(call)
            if not self.judge(outcome, call):
                break
