# SPDX-License-Identifier: GPL-2.0-only
"""The shrinker: the smallest scenario that it finds with the same violation.

Calls are taken out, in ever smaller groups; what is left is made simpler:
one page instead of several, a mapping made right at once instead of changed
later, earlier names, no failure.  Whatever still violates the same invariant
and is smaller takes the place of what was there, until nothing is.  Then the
explorer looks for something shorter that is made of the same operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rmaplab.check.execute import execute
from rmaplab.check.explore import Limits, explore
from rmaplab.check.histories import Bounds
from rmaplab.check.monitor import monitored
from rmaplab.check.rewriting import rewritings, weight
from rmaplab.check.steps import Step, steps_of, text_of
from rmaplab.kernel.checkpoint import drop_state
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.scenario import (
    Exec,
    Exit,
    Fork,
    Ksm,
    Ksmd,
    Migrate,
    Mmap,
    Mprotect,
    Mremap,
    Munmap,
    Pin,
    Read,
    Scenario,
    Swapin,
    Swapout,
    Unpin,
    Write,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rmaplab.kernel import Kernel
    from rmaplab.kernel.events import Report

    Steps = tuple[Step, ...]

__all__ = ["Shrunk", "shrink", "violated"]

EXPLORED = 6_000  # states
MOST_AREAS = 4
_OPERATION: dict[type, str] = {
    Exec: "exec",
    Exit: "exit",
    Fork: "fork",
    Ksm: "ksm",
    Ksmd: "ksm",
    Migrate: "migrate",
    Mmap: "mmap",
    Mprotect: "mprotect",
    Mremap: "mremap",
    Munmap: "munmap",
    Pin: "pin",
    Read: "read",
    Swapin: "swap",
    Swapout: "swap",
    Unpin: "pin",
    Write: "write",
}


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest scenario found, all that it violates, and how much was tried; ``length`` counts calls."""

    id: str
    scenario: str
    length: int
    before: int
    ids: tuple[str, ...]
    detail: str
    tries: int
    failed: int | None
    interrupted: bool = False


def violated(series: type[Kernel], steps: Steps, *, tolerant: bool = False) -> dict[str, str]:
    """The invariants that the last of the steps breaks, with the circumstances.

    None if an earlier one breaks any, unless that is tolerated.
    """
    kernel = monitored(series)()
    kernel.foreign |= tolerant
    kernel.spawn("P0")
    try:
        found: list[Report] = []
        for number, (call, plan) in enumerate(steps, 1):
            found = execute(kernel, call, plan).violations
            if found and number < len(steps) and (not tolerant or found[0].id == "AV-045"):
                return {}
        return {report.id: report.detail for report in reversed(found)}
    finally:
        drop_state(kernel)


def shrink(
    series: type[Kernel],
    scenario: Scenario,
    ident: str | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Shrunk | None:
    """A smaller scenario with the violation ``ident`` (None: the first that the scenario shows).

    None if it does not show it.  ``progress`` is told the length and the
    number of tries.  Ctrl-C ends it with the smallest so far.
    """
    search = _Search(series, ident, progress)
    if not search.begin(steps_of(scenario)):
        return None
    before, interrupted = len(search.best), False
    try:
        search.run()
    except KeyboardInterrupt:
        interrupted = True
    found = search.violations()
    ids = tuple(sorted(found))
    assert search.ident is not None
    text = text_of(search.best)
    detail = found[search.ident]
    failed = search.best[-1].plan.n or None
    return Shrunk(search.ident, text, len(search.best), before, ids, detail, search.tries, failed, interrupted)


class _Search:
    """The smallest so far, and what was tried."""

    def __init__(self, series: type[Kernel], ident: str | None, progress: Callable[[int, int], None] | None) -> None:
        self.series = series
        self.ident = ident
        self.progress = progress
        self.tries = 0
        self.tried: set[Steps] = set()
        self.best: Steps = ()

    def begin(self, steps: Steps) -> bool:
        """Cut the steps behind the first that shows the violation; whether any does."""
        kernel = monitored(self.series)()
        kernel.foreign = True
        kernel.spawn("P0")
        self.strict = True
        earlier: set[str] = set()
        for number, (call, plan) in enumerate(steps, 1):
            found = [report.id for report in execute(kernel, call, plan).violations]
            if found and self.ident is None:
                self.ident = found[0]
            if self.ident in found:
                self.best = steps[:number]
                self.strict = not earlier
                return True
            earlier.update(found)
            if "AV-045" in found:
                break
        return False

    def shows(self, steps: Steps) -> bool:
        """Whether these steps show the violation with their last, and nothing before (unless the original did)."""
        if steps in self.tried or not steps:
            return False
        self.tried.add(steps)
        self.tries += 1
        if self.progress is not None:
            self.progress(len(self.best), self.tries)
        return self.ident in self.violations(steps)

    def violations(self, steps: Steps | None = None) -> dict[str, str]:
        """What the last of the steps breaks; as the original, it may have broken something else before."""
        return violated(self.series, self.best if steps is None else steps, tolerant=not self.strict)

    def run(self) -> None:
        """Until a whole round leaves it as it is."""
        while True:
            before = self.best
            self.take_out()
            self.simplify()
            if self.best == before and not self.explore():
                return

    def explore(self) -> bool:
        """Look for something shorter among all histories of the same operations; whether there was."""
        assert self.ident is not None
        for bounds in _bounds(self.best):
            result = explore(self.series.name, bounds, only=(self.ident,), limits=Limits(states=EXPLORED))
            if result.interrupted:
                raise KeyboardInterrupt
            self.tries += result.transitions
            finding = result.findings.get(self.ident)
            if finding is not None and self.better(steps_of(parse(finding.scenario))):
                return True
        return False

    def take_out(self) -> None:
        """Drop groups of calls, halves first, then single ones and pairs that are apart."""
        size = max(1, len(self.best) // 2)
        while size:
            at = 0
            while at < len(self.best):
                if not self.better(self.best[:at] + self.best[at + size :]):
                    at += size
            size //= 2
        for first in range(len(self.best) - 1, 0, -1):
            for second in range(first):
                if first < len(self.best):
                    kept = (step for at, step in enumerate(self.best) if at not in (first, second))
                    self.better(tuple(kept))

    def better(self, steps: Steps) -> bool:
        """Take the steps if they show it."""
        if self.shows(steps):
            self.best = steps
            return True
        return False

    def simplify(self) -> None:
        """Make single calls simpler, and rewrite pairs; each is smaller by :func:`weight`."""
        changed = True
        while changed:
            changed = False
            for candidate in rewritings(self.best):
                if weight(candidate) < weight(self.best) and self.better(candidate):
                    changed = True
                    break


def _bounds(steps: Steps) -> Iterator[Bounds]:
    """Bounds around the steps, one call less; none if the explorer does not know one of their operations."""
    operations = {"write"}
    alive, most, pages, areas = {"P0"}, 1, 1, {0}
    for call, _ in steps:
        known = _OPERATION.get(type(call))
        if known is None:
            return
        operations.add(known)
        if getattr(call, "prot", "rw") not in ("r", "rw"):
            operations.add("rwx")
        if isinstance(call, Fork):
            alive.add(call.child)
            most = max(most, len(alive))
        elif isinstance(call, Exit):
            alive.discard(call.process)
        elif isinstance(call, Mmap):
            pages = max(pages, call.pages)
            areas.add(0 if call.at is None else call.at)
    fails = sum(bool(step.plan.n) for step in steps)
    if len(steps) > 3:  # something altogether simpler
        yield Bounds(1, 1, 2, min(4, len(steps) - 1), fails, ("mmap", "mprotect", "munmap", "write"))
    span = (max(areas) - min(areas - {0}, default=0)) // (pages * PAGE_SIZE) + 1
    if span > MOST_AREAS or len(steps) < 2:
        return
    yield Bounds(most + 1, span, pages, len(steps) - 1, fails, tuple(sorted(operations)))
    if span > 1 and pages == 1:  # pages of one area instead of areas
        operations |= {"mprotect"}
        yield Bounds(most + 1, 1, 2, len(steps) - 1, fails, tuple(sorted(operations - {"rwx"})))
