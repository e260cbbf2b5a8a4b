# SPDX-License-Identifier: GPL-2.0-only
"""The explorer: all histories up to a bound, shortest first.

Breadth first over states that differ by more than names.  A worker is given
the histories of some states; it replays each, makes every call, then makes it
again with each of its allocations failing, and returns the fingerprints of
what came out.  Workers are asked in order, so results do not depend on their
number.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.expand import Expander, Step
from rmaplab.check.pool import workers
from rmaplab.notebook import HtmlTable
from rmaplab.scenario import Fail, Scenario, format_scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rmaplab.check.expand import Expansion, History
    from rmaplab.check.histories import Bounds
    from rmaplab.kernel.events import Report
    from rmaplab.scenario import Statement

__all__ = ["Exploration", "Finding", "Progress", "explore"]

CHUNK = 32  # histories per task: large enough to amortise the hand-over


class Node(NamedTuple):
    """A state as the way to it: the node before, the last step, what has failed so far, processes made so far."""

    parent: int
    step: Step | None
    failures: int
    created: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A violated invariant with a shortest scenario; ``failed_allocation`` is the plan of its last call.

    ``length`` counts calls; ``count`` the transitions that violated it.
    """

    id: str
    detail: str
    scenario: str
    length: int
    failed_allocation: int | None
    count: int = 1


class Progress(NamedTuple):
    """Where an exploration stands: depth in calls, states of this depth done and in all, totals."""

    depth: int
    done: int
    width: int
    states: int
    transitions: int


@dataclass(slots=True)
class Exploration(HtmlTable):
    """The result.  ``verdict`` is holds, violated or no-verdict (then ``reason`` says what ran out).

    ``reached`` counts *sometimes* properties over all transitions,
    ``failures`` what injected failures did.  ``digest`` is the exclusive or
    of all states' fingerprints: equal for equal sets of states.
    """

    series: str
    bounds: Bounds
    verdict: str = "holds"
    reason: str = ""
    states: int = 0
    transitions: int = 0
    depth: int = 0
    digest: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    reached: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)


def explore(
    series: str,
    bounds: Bounds,
    start: Scenario | None = None,
    *,
    jobs: int = 1,
    stop_at_first: bool = True,
    only_fork_fails: bool = False,
    max_states: int | None = None,
    max_seconds: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Exploration:
    """Explore a series (a name, or a file that :func:`rmaplab.series.find` takes) from the end of ``start``.

    ``jobs`` worker processes; with ``stop_at_first`` the first violation ends
    it, else states that violate something are reported and not built upon.
    Ctrl-C ends it too: the result says so and holds what was done.
    """
    expander = Expander(series, bounds, start or Scenario(()), only_fork_fails=only_fork_fails)
    search = _Search(Exploration(expander.name, bounds), expander)
    began = time.perf_counter()
    try:
        if expander.start_violations:
            search.record_start(expander.start_violations)
            return search.result
        with workers(expander, jobs) as expand:
            for depth in range(bounds.calls):
                if not search.frontier:
                    break
                search.result.depth = depth + 1
                for width, done in search.level(expand):
                    result = search.result
                    if progress is not None:
                        progress(Progress(depth + 1, done, width, len(search.visited), result.transitions))
                    if result.findings and stop_at_first:
                        return result
                    if max_states is not None and len(search.visited) > max_states:
                        return search.gave_up(f"more than {max_states} states at depth {depth + 1}")
                    if max_seconds is not None and time.perf_counter() - began > max_seconds:
                        return search.gave_up(f"{max_seconds:g} s ran out at depth {depth + 1}")
    except KeyboardInterrupt:
        search.result.interrupted = True
        return search.gave_up(f"interrupted at depth {search.result.depth}")
    finally:
        search.result.states = len(search.visited)
        search.result.digest = reduce(xor, search.visited) & 0xFFFF_FFFF_FFFF_FFFF
        search.result.seconds = time.perf_counter() - began
        if search.result.findings:
            search.result.verdict = "violated"
    return search.result


class _Search:
    """What the search knows: visited states with the fewest failures on a way there, and the frontier."""

    def __init__(self, result: Exploration, expander: Expander) -> None:
        self.result = result
        self.start = expander.start
        self.visited: dict[int, int] = {expander.start_mark: 0}
        self.nodes = [Node(0, None, 0, expander.created)]
        self.frontier = [0]

    def gave_up(self, reason: str) -> Exploration:
        """Say that there is no verdict, and why."""
        self.result.verdict, self.result.reason = "no-verdict", reason
        return self.result

    def level(self, expand: Callable[[Iterator[list[History]]], Iterator[Expansion]]) -> Iterator[tuple[int, int]]:
        """Expand the frontier, chunk by chunk; the next frontier stands when the iterator is exhausted."""
        frontier, self.frontier = self.frontier, []
        chunks = [frontier[at : at + CHUNK] for at in range(0, len(frontier), CHUNK)]
        tasks = ([self.history(index) for index in chunk] for chunk in chunks)
        done = 0
        for chunk, expansion in zip(chunks, expand(tasks), strict=True):
            self.merge(chunk, expansion)
            done += len(chunk)
            yield len(frontier), done

    def history(self, index: int) -> History:
        """The steps to a state, what has failed on the way, and the number of the next child."""
        node = self.nodes[index]
        failures, created = node.failures, node.created
        steps = []
        while node.step is not None:
            steps.append(node.step)
            node = self.nodes[node.parent]
        return steps[::-1], failures, created

    def merge(self, chunk: Sequence[int], expansion: Expansion) -> None:
        """Take over what a worker found."""
        result = self.result
        result.transitions += expansion.transitions
        result.reached.update(expansion.reached)
        result.failures.update(expansion.failures)
        for at, step, reports in expansion.violations:
            self.record(chunk[at], step, reports)
        for at, step, failures, mark, forked in expansion.successors:
            known = self.visited.get(mark)
            if known is None or failures < known:
                self.visited[mark] = failures
                self.frontier.append(len(self.nodes))
                self.nodes.append(Node(chunk[at], step, failures, self.nodes[chunk[at]].created + forked))

    def record(self, index: int, step: Step, reports: list[Report]) -> None:
        """Keep the first, hence shortest, history of each violated invariant."""
        findings = self.result.findings
        for ident in dict.fromkeys(report.id for report in reports):
            if ident in findings:
                findings[ident] = replace(findings[ident], count=findings[ident].count + 1)
            else:
                steps = [*self.history(index)[0], step]
                statements = [*self.start.statements, *_statements(steps)]
                findings[ident] = _finding(ident, reports, statements, step.plan.n)

    def record_start(self, reports: list[Report]) -> None:
        """Note that the scenario to start from violates something itself."""
        for ident in dict.fromkeys(report.id for report in reports):
            self.result.findings[ident] = _finding(ident, reports, self.start.statements, 0)


def _finding(ident: str, reports: list[Report], statements: Sequence[Statement], failed: int) -> Finding:
    return Finding(
        id=ident,
        detail=next(report.detail for report in reports if report.id == ident),
        scenario=format_scenario(Scenario(tuple(statements))),
        length=sum(not isinstance(statement, Fail) for statement in statements),
        failed_allocation=failed or None,
    )


def _statements(steps: list[Step]) -> Iterator[Statement]:
    for call, plan in steps:
        if plan.n:
            yield Fail(plan.n, plan.nowait)
        yield call
