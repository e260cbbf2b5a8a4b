# SPDX-License-Identifier: GPL-2.0-only
"""Explorations on the fast engine and on the specification: transitions a second on one core."""

from __future__ import annotations

from dataclasses import replace

from rmaplab.check.engines import explore_fast
from rmaplab.check.expand import Question
from rmaplab.check.explore import explore
from rmaplab.check.fuzz import fuzz
from rmaplab.check.histories import Bounds
from rmaplab.check.stages import explore_stages
from rmaplab.scenario import Scenario, parse

START = parse("P0 mmap A 1 at=0x7f0000000000\nP0 write A\n")
FAMILY = Bounds(6, 1, 1, 12, 0, ("exit", "fork"))  # one VMA in up to six processes
SMALLER = Bounds(4, 1, 1, 14, 0, ("exit", "fork"))
FAILING = Bounds(5, 1, 1, 10, 1, ("exit", "fork", "write"))
LONGER = replace(FAILING, calls=12)
ALL_CALLS = Bounds()


def searching(bounds: Bounds, *, started: bool = True, jobs: int = 1) -> float:
    """Transitions a second on the engine; the digest, which nobody waits for in a search, is left out."""
    question = Question("v7.0", bounds, START if started else Scenario(()))
    result = explore_fast(question, stop_at_first=True, limits=None, progress=None, jobs=jobs, digest=False)
    assert result.verdict == "holds"
    return result.transitions / result.seconds


def with_two_threads() -> float:
    """How many times the transitions a second of one thread two threads make."""
    return searching(LONGER, jobs=2) / searching(LONGER)


def times_as_fast(bounds: Bounds, smaller: Bounds, *, started: bool = True) -> float:
    """How many times the specification's transitions a second, which are measured on fewer calls."""
    start = START if started else None
    slow = explore("v7.0", smaller, start)
    return searching(bounds, started=started) / (slow.transitions / slow.seconds)


def playing() -> float:
    """Calls a second of random histories, each allocation failing once and each state judged; one thread."""
    result = fuzz("v7.0", histories=20_000, engine="fast")
    assert not result.findings
    return result.operations / result.seconds


def default_check() -> float:
    """Seconds of what `rmaplab check` does without bounds, with one worker for what is not on the engine."""
    result = explore_stages("v7.0", engine="auto")
    assert result.verdict == "holds"
    return result.seconds
