# SPDX-License-Identifier: GPL-2.0-only
"""Runs a scenario on one series."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from rmaplab.check.execute import NO_PLAN, Plan, execute
from rmaplab.check.interleaving import interleave
from rmaplab.check.monitor import monitored
from rmaplab.notebook import HtmlTable
from rmaplab.scenario import (
    ExpectCount,
    ExpectInvariants,
    ExpectProcessCount,
    ExpectResult,
    ExpectViolates,
    Fail,
    Ksmd,
    Par,
    Snapshot,
    Walk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rmaplab.check.monitor import Monitor
    from rmaplab.kernel import Kernel
    from rmaplab.kernel.events import Event, Report
    from rmaplab.scenario import Call, Expect, Scenario
    from rmaplab.snapshot import Snapshot as StateSnapshot

__all__ = ["Expected", "RunResult", "StatementResult", "Violation", "run"]


@dataclass(frozen=True, slots=True)
class StatementResult:
    """What became of a call: errno name or None; for a walk, (process, address, maps it) in order."""

    line: int
    text: str
    errno: str | None
    walk: tuple[tuple[str, int, bool], ...] | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """The verdict on an ``expect`` line; ``found`` says what was there instead."""

    line: int
    text: str
    ok: bool
    found: str


@dataclass(frozen=True, slots=True)
class Violation:
    """The first time an invariant broke: its id, the line, and the circumstances."""

    id: str
    line: int
    detail: str


@dataclass(slots=True)
class RunResult(HtmlTable):
    """All that a run brought to light; ``kernel`` is the machine at its end."""

    series: str
    scenario: str
    kernel: Monitor
    statements: list[StatementResult] = field(default_factory=list)
    snapshots: dict[str, StateSnapshot] = field(default_factory=dict)
    expects: list[Expected] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    expected_ids: set[str] = field(default_factory=set)
    crashed: bool = False

    @property
    def ok(self) -> bool:
        """Every expectation met, and nothing violated unless a line expects a violation.

        One bug breaks several invariants, so whoever expects one need not list them all.
        """
        return all(expected.ok for expected in self.expects) and not (self.violations and not self.expected_ids)


def run(
    scenario: Scenario, series: type[Kernel], *, on_event: Callable[[int, Event], None] | None = None
) -> RunResult:
    """Run every statement; ``on_event`` is told the line and each step of the kernel.

    A call that the kernel refuses is noted with its errno and the run goes
    on; after a crash of the modelled kernel only ``expect`` lines are judged.
    """
    kernel = monitored(series)()
    kernel.spawn("P0")
    runner = _Runner(RunResult(series.name, scenario.name, kernel))
    if on_event is not None:
        tell = on_event
        kernel.events.listeners.append(lambda event: tell(runner.line, event))
    for statement in scenario.statements:
        runner.line = statement.line
        match statement:
            case Fail(n=n, nowait=nowait, kind=kind):
                runner.plan = Plan(n, nowait, kind)
            case Snapshot(name=name):
                runner.result.snapshots[name] = kernel.snapshot(canonical=False)
            case ExpectCount() | ExpectProcessCount() | ExpectInvariants() | ExpectViolates() | ExpectResult():
                runner.expect(statement)
            case Par():
                runner.par(statement)
            case _:
                runner.call(statement)
    return runner.result


class _Runner:
    """The state of a run between two statements."""

    def __init__(self, result: RunResult) -> None:
        self.result = result
        self.plan = NO_PLAN
        self.line = 0
        self.latest: dict[tuple[str, str], str] = {}

    def call(self, statement: Call | Walk | Ksmd) -> None:
        """Make a call, under the failure plan if one was set before it."""
        result = self.result
        if result.crashed:
            return
        plan = NO_PLAN if isinstance(statement, Walk | Ksmd) else self.plan
        outcome = execute(result.kernel, statement, plan)
        if plan is self.plan:
            self.plan = NO_PLAN
        if not isinstance(statement, Ksmd):
            self.latest[statement.process, statement.call] = outcome.errno or "ok"
        self.note(outcome.violations, statement.line)
        result.crashed |= any(report.id == "AV-045" for report in outcome.violations)
        walk = None
        if outcome.visits is not None:
            names = {process.mm: name for name, process in reversed(result.kernel.processes.items())}
            walk = tuple((names.get(v.vma.vm_mm, "?"), v.address, v.maps) for v in outcome.visits)
        result.statements.append(StatementResult(statement.line, statement.text, outcome.errno, walk))

    def par(self, statement: Par) -> None:
        """Try every interleaving on copies, then go on from the left-to-right order."""
        if self.result.crashed:
            return
        self.note(interleave(self.result.kernel, statement), statement.line)
        for call in statement.calls:
            self.call(call)

    def note(self, reports: Iterable[Report], line: int) -> None:
        """Keep the first violation of each invariant."""
        known = {violation.id for violation in self.result.violations}
        for ident, detail in reports:
            if ident not in known:
                known.add(ident)
                self.result.violations.append(Violation(ident, line, detail))

    def expect(self, statement: Expect) -> None:
        """Judge an ``expect`` line against the state it stands in."""
        ids = [violation.id for violation in self.result.violations]
        wanted: object
        found: object
        match statement:
            case ExpectCount(what=what, count=wanted):
                found = self.counts()[what]
            case ExpectProcessCount(process=process, what=what, count=wanted):
                found = self.process_counts(process)[what]
            case ExpectInvariants():
                wanted, found = "none violated", ", ".join(ids) or "none violated"
            case ExpectViolates(id=ident):
                self.result.expected_ids.add(ident)
                wanted, found = ident, ident if ident in ids else ", ".join(ids) or "none violated"
            case ExpectResult(process=process, call=call, result=wanted):
                found = self.latest.get((process, call), "no such call")
            case _:
                assert_never(statement)
        self.result.expects.append(Expected(statement.line, statement.text, found == wanted, str(found)))

    def counts(self) -> dict[str, int]:
        """What ``expect WHAT N`` can ask for."""
        snapshot = self.result.kernel.snapshot(canonical=False)
        return {
            "anon_vmas": snapshot.slab.anon_vma,
            "anon_vma_chains": snapshot.slab.anon_vma_chain,
            "bytes": snapshot.slab.bytes,
            "folios": len(snapshot.folios),
            "processes": len(snapshot.processes),
            "swap_slots": len(snapshot.swap),
            "vmas": sum(len(process.vmas) for process in snapshot.processes),
        }

    def process_counts(self, name: str) -> dict[str, int]:
        """What ``expect P1 WHAT N`` can ask for; all 0 for a process that does not run."""
        snapshot = self.result.kernel.snapshot(canonical=False)
        process = next((process for process in snapshot.processes if process.name == name), None)
        if process is None:
            return {"anon_vma_chains": 0, "folios": 0, "vmas": 0}
        folios = sum(any(pte.mm == process.mm for pte in folio.ptes) for folio in snapshot.folios)
        chains = sum(len(vma.chain) for vma in process.vmas)
        return {"anon_vma_chains": chains, "folios": folios, "vmas": len(process.vmas)}
