# SPDX-License-Identifier: GPL-2.0-only
"""One step of the explorer: every call from a state, with every way its allocations can fail."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.execute import NO_PLAN, Plan, execute
from rmaplab.check.histories import calls
from rmaplab.check.invariants import violations
from rmaplab.check.monitor import HALF_BUILT, monitored
from rmaplab.check.state import fingerprint
from rmaplab.kernel.checkpoint import drop_state
from rmaplab.scenario import Call, Fail, Fork, Ksmd, Par, Scenario
from rmaplab.series import find

if TYPE_CHECKING:
    from rmaplab.check.histories import Bounds
    from rmaplab.check.monitor import Monitor
    from rmaplab.kernel.events import Report

    History = tuple[list["Step"], int, int]
    """Steps, allocations that failed in them, and the number of the next child."""

__all__ = ["Expander", "Expansion", "Step"]


class Step(NamedTuple):
    """One call of a history, with its failure plan."""

    call: Call
    plan: Plan = NO_PLAN


@dataclass(slots=True)
class Expansion:
    """What came out of a list of states; a state is named by its position in the list.

    ``successors``: state, step, failures so far, fingerprint, whether it made
    a process.  ``failures`` counts what injected failures did: points (one a
    failed allocation), forks that sent a half-built VMA to unlink_anon_vmas,
    AVCs left behind (leaked) and those of them whose VMA is freed (dangling).
    """

    transitions: int = 0
    successors: list[tuple[int, Step, int, int, bool]] = field(default_factory=list)
    violations: list[tuple[int, Step, list[Report]]] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


class Expander:
    """Expands states given as histories, and remembers which states it has judged."""

    def __init__(self, series: str, bounds: Bounds, start: Scenario, *, only_fork_fails: bool) -> None:
        self.series = monitored(find(series))
        self.name = self.series.name
        self.bounds = bounds
        self.only_fork_fails = only_fork_fails
        kept = (statement for statement in start.statements if isinstance(statement, Call | Fail | Ksmd | Par))
        self.start = Scenario(tuple(kept), start.name)
        self.start_violations: list[Report] = []
        self.start_mark = fingerprint(self.begin(judge=True))
        self.created = 1 + max((int(name[1:]) for name in _names(start) if re.fullmatch(r"P\d+", name)), default=0)
        self.seen: set[tuple[int, int]] = set()
        self.result = Expansion()

    def begin(self, *, judge: bool = False) -> Monitor:
        """The state that the exploration starts from; ``judge`` notes what the way there violates."""
        kernel = self.series()
        kernel.spawn("P0")
        plan = NO_PLAN
        for statement in self.start.statements:
            if isinstance(statement, Fail):
                plan = Plan(statement.n, statement.nowait, statement.kind)
                continue
            for call in statement.calls if isinstance(statement, Par) else (statement,):
                assert isinstance(call, Call | Ksmd)
                outcome = execute(kernel, call, NO_PLAN if isinstance(call, Ksmd) else plan, check=judge)
                if judge and outcome.violations:
                    self.start_violations += outcome.violations
                    return kernel
                plan = plan if isinstance(call, Ksmd) else NO_PLAN
        return kernel

    def expand(self, histories: list[History]) -> Expansion:
        """Make every call from the end of each history."""
        self.result = Expansion()
        for at, (steps, failures, created) in enumerate(histories):
            base = self.begin()
            for call, plan in steps:
                execute(base, call, plan, check=False)
            base.reached = self.result.reached
            for call in calls(base, self.bounds, created):
                self.try_call(at, base, call, failures)
            drop_state(base)
        return self.result

    def try_call(self, at: int, base: Monitor, call: Call, failures: int) -> None:
        """Make a call, then again with each of its allocations failing."""
        kernel = base.copy()
        self.take(at, kernel, Step(call), failures)
        allocations = kernel.slab.count
        drop_state(kernel)
        if failures >= self.bounds.fail_alloc or (self.only_fork_fails and not isinstance(call, Fork)):
            return
        for n in range(1, allocations + 1):
            if self.try_failing(at, base, Step(call, Plan(n)), failures + 1):
                nowait = base.copy()
                self.take(at, nowait, Step(call, Plan(n, nowait=True)), failures + 1)
                drop_state(nowait)

    def try_failing(self, at: int, base: Monitor, step: Step, failures: int) -> bool:
        """Make a call that fails to allocate; whether a GFP_NOWAIT attempt came first, which may fail alone, too."""
        half_built = base.reached[HALF_BUILT]
        broken = base.copy()
        self.take(at, broken, step, failures)
        counts = self.result.failures
        counts["points"] += 1
        counts["half-built"] += base.reached[HALF_BUILT] > half_built
        if isinstance(step.call, Fork):
            live = broken.live_anon_vma_chains
            counts["leaked"] += len(live) - len(base.live_anon_vma_chains)
            counts["dangling"] += sum(avc.vma.freed for avc in live.values())
        nowait_first = broken.slab.failed > 1
        drop_state(broken)
        return nowait_first

    def take(self, at: int, kernel: Monitor, step: Step, failures: int) -> None:
        """Make one transition, and judge the state it leads to unless that was done before."""
        result = self.result
        result.transitions += 1
        outcome = execute(kernel, step.call, step.plan, check=False)
        found = outcome.violations
        crashed = bool(found) and found[0].id == "AV-045"
        mark = 0 if crashed else fingerprint(kernel)
        if not found and (mark, failures) in self.seen:
            return
        if not crashed:
            found = [*found, *violations(kernel)]
        if found:
            result.violations.append((at, step, found))
            return
        self.seen.add((mark, failures))
        forked = isinstance(step.call, Fork) and outcome.errno is None
        result.successors.append((at, step, failures, mark, forked))


def _names(scenario: Scenario) -> list[str]:
    calls = (s.calls if isinstance(s, Par) else (s,) for s in scenario.statements)
    return [call.child for branch in calls for call in branch if isinstance(call, Fork)]
