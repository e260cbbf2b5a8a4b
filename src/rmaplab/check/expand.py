# SPDX-License-Identifier: GPL-2.0-only
"""One step of the explorer: every call from a state, with every way its allocations can fail."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.execute import Plan, execute
from rmaplab.check.histories import Bounds, calls
from rmaplab.check.invariants import violations
from rmaplab.check.memory import resident
from rmaplab.check.monitor import HALF_BUILT, monitored
from rmaplab.check.path import Path
from rmaplab.check.state import fingerprint
from rmaplab.check.steps import Step
from rmaplab.scenario import Call, Fail, Fork, Ksmd, Par, Scenario
from rmaplab.series import find

if TYPE_CHECKING:
    from rmaplab.kernel.events import Report
    from rmaplab.scenario.generator import Drawn

    History = tuple[list[Step], int, int]
    """Steps, allocations that failed in them, and the number of the next child."""

__all__ = ["Expander", "Expansion", "Question"]


class Question(NamedTuple):
    """What is explored: all that a worker, on whatever machine, has to be told before it is given histories.

    ``only`` are the invariants to judge by, beside crashes; empty for all.
    """

    series: str
    bounds: Bounds
    start: Scenario
    only_fork_fails: bool = False
    only: tuple[str, ...] = ()


@dataclass(slots=True)
class Expansion:
    """What came out of a list of states; a state is named by its position in the list.

    ``successors``: state, step, failures so far, fingerprint, whether it named
    a process.  ``failures`` counts what injected failures did: points (one a
    failed allocation), forks that sent a half-built VMA to unlink_anon_vmas,
    AVCs left behind (leaked) and those of them whose VMA is freed (dangling).
    ``worker`` is the process that did it and its memory in bytes.
    """

    transitions: int = 0
    successors: list[tuple[int, Step, int, int, bool]] = field(default_factory=list)
    violations: list[tuple[int, Step, list[Report]]] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    worker: tuple[int, int] = (0, 0)


class Expander:
    """Expands states given as histories, and remembers which states it has judged.

    There is one kernel, on a :class:`rmaplab.check.path.Path`; histories come
    one beside the other, so most of the way is known.
    """

    def __init__(self, question: Question) -> None:
        self.series = monitored(find(question.series))
        self.name = self.series.name
        self.question = question
        self.bounds = question.bounds
        self.only_fork_fails = question.only_fork_fails
        self.only = frozenset(question.only)
        start = question.start
        kept = (statement for statement in start.statements if isinstance(statement, Call | Fail | Ksmd | Par))
        self.start = Scenario(tuple(kept), start.name)
        self.path = Path(self.series, self.start, tolerant=bool(self.only))
        self.kernel = self.path.kernel
        self.start_violations = [report for report in self.path.violations if self.counts(report)]
        self.start_mark = self.mark()
        self.created = 1 + max((int(name[1:]) for name in _names(start) if re.fullmatch(r"P\d+", name)), default=0)
        self.seen: dict[int, int] = {}  # judged states: the fewest failures on a way there
        self.steps: dict[Step, Step] = {}  # equal steps are one object, which is sent once
        self.result = Expansion()

    def counts(self, report: Report) -> bool:
        """Whether a violation is one of those looked for."""
        return not self.only or report.id in self.only or report.id == "AV-045"

    def mark(self) -> int:
        """What tells states apart: two that differ in nothing but the order of walks are one."""
        return fingerprint(self.kernel, walk_order=False)

    def expand(self, histories: list[History]) -> Expansion:
        """Make every call from the end of each history."""
        self.result = Expansion()
        kernel = self.kernel
        for at, (steps, failures, created) in enumerate(histories):
            self.path.go(steps)
            kernel.reached = self.result.reached
            for call in list(calls(kernel, self.bounds, created)):
                self.try_call(at, call, failures)
        self.result.worker = resident()
        return self.result

    def try_call(self, at: int, call: Drawn, failures: int) -> None:
        """Make a call, then again with each of its allocations failing; the kernel is left as it was."""
        slab = self.kernel.slab
        self.take(at, Step(call), failures)
        allocations = slab.count
        self.path.back()
        if failures >= self.bounds.fail_alloc or (self.only_fork_fails and not isinstance(call, Fork)):
            return
        for n in range(1, allocations + 1):
            if self.try_failing(at, Step(call, Plan(n)), failures + 1):
                self.take(at, Step(call, Plan(n, nowait=True)), failures + 1)
                self.path.back()

    def try_failing(self, at: int, step: Step, failures: int) -> bool:
        """Make a call that fails to allocate; whether a GFP_NOWAIT attempt came first, which may fail alone, too."""
        kernel, reached, counts = self.kernel, self.result.reached, self.result.failures
        half_built = reached[HALF_BUILT]
        links = len(kernel.live_anon_vma_chains)
        self.take(at, step, failures)
        counts["points"] += 1
        counts["half-built"] += reached[HALF_BUILT] > half_built
        if isinstance(step.call, Fork):
            live = kernel.live_anon_vma_chains
            counts["leaked"] += len(live) - links
            counts["dangling"] += sum(avc.vma.freed for avc in live.values())
        nowait_first = kernel.slab.failed > 1
        self.path.back()
        return nowait_first

    def take(self, at: int, step: Step, failures: int) -> None:
        """Make one transition, and judge the state it leads to unless that was done before."""
        kernel, result, seen = self.kernel, self.result, self.seen
        result.transitions += 1
        outcome = execute(kernel, step.call, step.plan, check=False)
        found = outcome.violations
        crashed = bool(found) and found[0].id == "AV-045"
        mark = 0 if crashed else self.mark()
        known = seen.get(mark)
        if not found and known is not None and known <= failures:
            return
        if not crashed and (found or known is None):
            found = [*found, *violations(kernel)]
        if self.only:
            found = [report for report in found if self.counts(report)]
        if found:
            result.violations.append((at, step, found))
            return
        seen[mark] = failures
        forked = isinstance(step.call, Fork)  # one that fails has named its child, too
        result.successors.append((at, self.steps.setdefault(step, step), failures, mark, forked))


def _names(scenario: Scenario) -> list[str]:
    calls = (s.calls if isinstance(s, Par) else (s,) for s in scenario.statements)
    return [call.child for branch in calls for call in branch if isinstance(call, Fork)]
