# SPDX-License-Identifier: GPL-2.0-only
"""Random histories over all operations, every allocation of every call failing once, every invariant checked.

A history is drawn from its seed alone, so a finding is named by series and
seed; some run on machines with large folios, which no scenario can ask for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rmaplab.check.monitor import monitored
from rmaplab.check.random_history import Drawing, RandomHistory
from rmaplab.check.steps import text_of
from rmaplab.scenario.generator import Generator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmaplab.check.random_history import Played
    from rmaplab.kernel import Kernel
    from rmaplab.kernel.events import Report

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
    player = RandomHistory(monitored(series), large=True, source=Generator, guided=False)
    for seed in seeds:
        result.add(_judged(series.name, seed, player.play(Drawing(str(seed)), calls)))
    return result


def _judged(series: str, seed: int, played: Played) -> Soak:
    """What came of one history."""
    findings = []
    if played.found is not None:
        reports, steps = played.found
        findings.append(SoakFinding(seed, tuple(reports), text_of(steps)))
    return Soak(series, 1, played.operations, played.calls, played.failures, played.reached, findings)
