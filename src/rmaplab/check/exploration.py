# SPDX-License-Identifier: GPL-2.0-only
"""What an exploration is told, tells on its way, and results in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.notebook import HtmlTable
from rmaplab.scenario import Fail, Scenario, format_scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rmaplab.check.histories import Bounds
    from rmaplab.kernel.events import Report

__all__ = ["Exploration", "Finding", "Limits", "Progress"]


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
    """Where an exploration stands: depth in calls, states of this depth done and in all, totals.

    ``left`` are the seconds that the rest of this depth will take, as far as can be told.
    """

    depth: int
    done: int
    width: int
    states: int
    transitions: int
    left: float = 0.0


class Limits(NamedTuple):
    """What an exploration may use up before it gives up: states, seconds, and bytes of all its processes together."""

    states: int | None = None
    seconds: float | None = None
    memory: int | None = None

    def exceeded(self, states: int, seconds: float, memory: int, depth: int) -> str:
        """Which of them is exceeded, if any, and at what depth."""
        if self.states is not None and states > self.states:
            return f"more than {self.states} states at depth {depth}"
        if self.seconds is not None and seconds > self.seconds:
            return f"{self.seconds:g} s ran out at depth {depth}"
        if self.memory is not None and memory > self.memory:
            return f"more than {self.memory >> 20} MiB of memory at depth {depth}"
        return ""


@dataclass(slots=True)
class Exploration(HtmlTable):
    """The result.  ``verdict`` is holds, violated or no-verdict (then ``reason`` says what ran out).

    ``reached`` counts *sometimes* properties over all transitions,
    ``failures`` what injected failures did.  ``digest`` is the exclusive or
    of all states' fingerprints: equal for equal sets of states.
    ``state_bytes`` is what one state takes in the explorer's tables.
    A sum of explorations has them in ``parts``, each with the name of its ``stage``.
    ``engine``: what it ran on, ``reference`` or ``fast``; of a sum what the last did.
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
    state_bytes: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)
    engine: str = "reference"
    stage: str = ""
    parts: list[Exploration] = field(default_factory=list)

    def record(self, reports: list[Report], scenario: Callable[[], Scenario], failed: int) -> None:
        """Count the violations of one transition, and keep the first, hence shortest, scenario of each invariant."""
        for ident in dict.fromkeys(report.id for report in reports):
            if ident in self.findings:
                self.count([ident])
            else:
                self.findings[ident] = _finding_of(ident, reports, scenario(), failed)

    def count(self, idents: Iterable[str]) -> None:
        """Count a transition that violated invariants of which there are findings."""
        for ident in idents:
            self.findings[ident] = replace(self.findings[ident], count=self.findings[ident].count + 1)

    def add(self, part: Exploration) -> None:
        """Add another exploration of the same series: its figures to the sum, its findings where they are new."""
        self.parts.append(part)
        self.bounds, self.depth, self.engine = part.bounds, part.depth, part.engine
        self.states += part.states
        self.transitions += part.transitions
        self.digest ^= part.digest
        self.seconds += part.seconds
        self.interrupted |= part.interrupted
        self.state_bytes = max(self.state_bytes, part.state_bytes)
        self.reached += part.reached
        self.failures += part.failures
        for ident, finding in part.findings.items():
            known = self.findings.get(ident)
            if known is None or finding.length < known.length:
                self.findings[ident] = finding
        if part.verdict == "no-verdict":
            self.reason = f"{part.reason} of {part.stage}" if part.stage else part.reason
        self.verdict = "violated" if self.findings else "no-verdict" if self.reason else "holds"


def _finding_of(ident: str, reports: list[Report], scenario: Scenario, failed: int) -> Finding:
    """The first violation of an invariant among reports, with the scenario that shows it."""
    return Finding(
        id=ident,
        detail=next(report.detail for report in reports if report.id == ident),
        scenario=format_scenario(scenario),
        length=sum(not isinstance(statement, Fail) for statement in scenario.statements),
        failed_allocation=failed or None,
    )
