# SPDX-License-Identifier: GPL-2.0-only
"""Two series on the same histories: where they part, and in what.

Both make the same calls, with the same allocation failing.  What they did is
compared after each call, aspect by aspect, with anon_vmas named after the
call that made them; for each aspect the shortest history is kept in which
the two differ in it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rmaplab.check.execute import Plan, execute
from rmaplab.check.expand import Expansion, Question
from rmaplab.check.explore import Exploration, search
from rmaplab.check.histories import Bounds, calls
from rmaplab.check.invariants import violations
from rmaplab.check.memory import resident
from rmaplab.check.monitor import monitored
from rmaplab.check.path import Path
from rmaplab.check.state import fingerprint
from rmaplab.check.steps import Step
from rmaplab.kernel.events import Report
from rmaplab.kernel.locking import ANON_VMA_LOCK
from rmaplab.kernel.pagetable import Pte
from rmaplab.notebook import HtmlTable
from rmaplab.scenario import Fork, Scenario
from rmaplab.series import find

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.check.execute import Outcome
    from rmaplab.check.expand import History
    from rmaplab.check.monitor import Monitor
    from rmaplab.kernel.events import Event
    from rmaplab.kernel.objects import AnonVma, Vma
    from rmaplab.scenario import Call, Ksmd, Walk
    from rmaplab.scenario.generator import Drawn

__all__ = ["ASPECTS", "COMPARED", "Comparison", "compare"]

ASPECTS = {
    "errno": "how a call ends",
    "VMAs": "which VMAs there are",
    "reuse": "which anon_vma a VMA gets",
    "links": "which anon_vmas a VMA is linked to",
    "pages": "what pages are named after, and which are exclusive",
    "counts": "counters of anon_vmas",
    "chain order": "order of a VMA's links",
    "tree order": "order in which a walk visits VMAs",
    "allocation order": "order of allocations and frees",
    "allocations": "number of allocations, and how many were in vain",
    "locks": "anon_vma locks taken, and allocations under them",
    "error path": "what a call that ran out of memory leaves, or does",
    "invariants": "what is violated",
}
"""In what two series can differ."""

COMPARED = {
    "family": Bounds(5, 1, 1, 9, 0, ("exit", "fork", "mmap", "write")),
    "all calls": Bounds(3, 2, 1, 5, 1),
    "moves": Bounds(2, 2, 1, 5, 1, ("fork", "mmap", "mremap", "write")),
    "swap": Bounds(2, 1, 1, 6, 1, ("exit", "fork", "mmap", "read", "swap", "write")),
}
"""Where differences are looked for, unless somebody says how far."""


@dataclass(slots=True)
class Comparison(HtmlTable):
    """What the two differ in: for each aspect a finding whose ``scenario`` is the shortest that shows it."""

    one: str
    other: str
    searches: dict[str, Exploration] = field(default_factory=dict)

    @property
    def differences(self) -> dict[str, Any]:
        """Findings by aspect, in the order of :data:`ASPECTS`."""
        best: dict[str, Any] = {}
        for result in self.searches.values():
            for aspect, finding in result.findings.items():
                known = best.get(aspect)
                if known is None or finding.length < known.length:
                    best[aspect] = finding
        return {aspect: best[aspect] for aspect in ASPECTS if aspect in best}

    @property
    def unfinished(self) -> str:
        """Why not everything was compared, if so."""
        return next((result.reason for result in self.searches.values() if result.reason), "")


def compare(one: str, other: str, bounds: dict[str, Bounds] = COMPARED, **options: Any) -> Comparison:  # noqa: ANN401 (of search())
    """Compare two series (or files) on all histories within each of the bounds.

    Differences do not end a history.  The options are those of
    :func:`rmaplab.check.explore.search`.
    """
    result = Comparison(find(one).name, find(other).name)
    for name, within in bounds.items():
        found = search(_Pair(one, other, within), stop_at_first=False, **options)
        result.searches[name] = found
        if found.reason:
            break
    return result


class _Made(NamedTuple):
    """What one kernel did in one call, as one sees it without a look at the state."""

    outcome: Outcome
    services: dict[str, Any]

    @property
    def crashed(self) -> bool:
        """Whether the modelled kernel crashed."""
        return any(report.id == "AV-045" for report in self.outcome.violations)


class _Side(Path):
    """One of the two kernels; it names each anon_vma after the step that made it."""

    def __init__(self, series: type[Monitor]) -> None:
        self.births: dict[int, tuple[int, int]] = {}
        super().__init__(series, Scenario(()), tolerant=True)

    def made(self, step: Step, outcome: Outcome) -> None:
        """Name what the step has made."""
        self.name_new(len(self.steps))

    def name_new(self, number: int) -> None:
        """Name the anon_vmas that nobody has named; those of later steps of another history are forgotten."""
        births = {ident: birth for ident, birth in self.births.items() if birth[0] < number}
        new = [ident for ident in self.kernel.live_anon_vmas if ident not in births]
        births.update((ident, (number, at)) for at, ident in enumerate(new))
        self.births = births

    def make(self, call: Call | Walk | Ksmd, plan: Plan) -> _Made:
        """Make a call from the end of the history."""
        kernel = self.kernel
        events: list[Event] = []
        kernel.events.listeners.append(events.append)
        locks, slab = kernel.locks, kernel.slab
        before = (locks.acquisitions[ANON_VMA_LOCK], locks.allocations_under_lock)
        wasted = slab.anon_vma.wasted + slab.anon_vma_chain.wasted
        outcome = execute(kernel, call, plan, check=False)
        kernel.events.listeners.clear()
        self.name_new(len(self.steps))
        order = tuple(_kind(event) for event in events if event.verb in ("alloc", "free", "fail"))
        services = {
            "allocation order": order,
            "allocations": (
                sum(what.startswith("alloc") for what in order),
                slab.anon_vma.wasted + slab.anon_vma_chain.wasted - wasted,
            ),
            "locks": (
                locks.acquisitions[ANON_VMA_LOCK] - before[0],
                locks.allocations_under_lock - before[1],
            ),
        }
        return _Made(outcome, services)

    def state(self) -> dict[str, Any]:
        """The state, aspect by aspect; what is violated beside what the call itself has shown."""
        kernel, name = self.kernel, self.name
        vmas: dict[Vma, tuple[str, int]] = {}
        for process in kernel.processes.values():
            for vma in process.mm.vmas:
                vmas.setdefault(vma, (process.name, vma.vm_start))
        counts, trees = {}, {}
        for anon_vma in kernel.live_anon_vmas.values():
            apart = (anon_vma.num_children, anon_vma.num_active_vmas) if kernel.counts_apart else None
            counts[name(anon_vma)] = (name(anon_vma.parent), name(anon_vma.root), anon_vma.refcount, apart)
            trees[name(anon_vma)] = tuple(vmas.get(avc.vma, ("?", 0)) for avc in anon_vma.rb_root)
        pages = {}
        for process in kernel.processes.values():
            for address, entry in process.mm.page_table:
                if isinstance(entry, Pte):
                    folio = entry.folio
                    named = None if folio.mapping is None else name(folio.mapping)
                    pages[process.name, address] = (named, folio.exclusive, folio.mapcount, entry.writable)
                else:
                    pages[process.name, address] = (type(entry).__name__, 0, 0, False)
        chains = {place: [name(avc.anon_vma) for avc in vma.anon_vma_chain] for vma, place in vmas.items()}
        return {
            "VMAs": {place: (v.vm_end, v.vm_pgoff, v.vm_flags) for v, place in vmas.items()},
            "reuse": {place: v.anon_vma and name(v.anon_vma) for v, place in vmas.items()},
            "links": {place: sorted(chain) for place, chain in chains.items()},
            "pages": pages,
            "counts": counts,
            "chain order": chains,
            "tree order": trees,
            "invariants": tuple(sorted({report.id for report in violations(kernel)})),
        }

    def name(self, anon_vma: AnonVma) -> str:
        """``av`` and the number of the step that made it; ``?`` for one that is gone."""
        birth = self.births.get(anon_vma.id)
        if birth is None or anon_vma.freed:
            return "?"
        step, at = birth
        return f"av@{step + 1}" + (f".{at}" if at else "")


class _Pair:
    """Expands pairs of states: each call is made by both kernels."""

    def __init__(self, one: str, other: str, bounds: Bounds) -> None:
        self.sides = [_Side(monitored(find(series))) for series in (one, other)]
        self.name = f"{one} and {other}"
        self.question = Question(self.name, bounds, Scenario(()))
        self.start = Scenario(())
        self.start_violations: list[Report] = []
        self.start_mark = self.mark()
        self.created = 1
        self.seen: dict[int, int] = {}
        self.steps: dict[Step, Step] = {}
        self.result = Expansion()

    def mark(self) -> int:
        """One fingerprint for both."""
        return hash(tuple(fingerprint(side.kernel) for side in self.sides))

    def expand(self, histories: list[History]) -> Expansion:
        """Make every call that either kernel allows from the end of each history."""
        self.result = Expansion()
        bounds = self.question.bounds
        for at, (steps, failures, created) in enumerate(histories):
            for side in self.sides:
                side.go(steps)
                side.kernel.reached = Counter()
            both = (call for side in self.sides for call in calls(side.kernel, bounds, created))
            for call in dict.fromkeys(both):
                self.try_call(at, call, failures)
        self.result.worker = resident()
        return self.result

    def try_call(self, at: int, call: Drawn, failures: int) -> None:
        """Make a call, then again with each allocation failing that either makes."""
        self.take(at, Step(call), failures)
        allocations = max(side.kernel.slab.count for side in self.sides)
        self.back()
        if failures < self.question.bounds.fail_alloc:
            for n in range(1, allocations + 1):
                self.take(at, Step(call, Plan(n)), failures + 1)
                self.back()

    def back(self) -> None:
        for side in self.sides:
            side.back()

    def take(self, at: int, step: Step, failures: int) -> None:
        """Make one transition, and compare."""
        result = self.result
        result.transitions += 1
        made = [side.make(*step) for side in self.sides]
        found = list(_unlike_deeds(*made))
        crashed = any(one.crashed for one in made)
        mark = 0 if crashed else self.mark()
        known = self.seen.get(mark)
        if known is None and not crashed:  # else it was compared before
            found += _unlike_states(*(side.state() for side in self.sides))
        if found and failures:  # whatever comes of a call that ran out of memory
            found = [("error path", "; ".join(f"{aspect}: {detail}" for aspect, detail in found))]
        if found:
            result.violations.append((at, step, [Report(*difference) for difference in found]))
        if crashed or (known is not None and known <= failures):
            return
        self.seen[mark] = failures
        forked = isinstance(step.call, Fork)
        result.successors.append((at, self.steps.setdefault(step, step), failures, mark, forked))


def _unlike_deeds(one: _Made, other: _Made) -> Iterator[tuple[str, str]]:
    """Aspects of two calls that differ, with details."""
    if one.outcome.errno != other.outcome.errno:
        yield "errno", f"{one.outcome.errno or 'ok'} and {other.outcome.errno or 'ok'}"
    broken = [sorted({report.id for report in made.outcome.violations}) for made in (one, other)]
    if broken[0] != broken[1]:
        yield "invariants", " and ".join(", ".join(ids) or "none" for ids in broken)
    for aspect, value in one.services.items():
        if value != other.services[aspect]:
            yield aspect, f"{_said(aspect, value)} and {_said(aspect, other.services[aspect])}"


def _unlike_states(one: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Aspects of two states that differ, with details; orders only of what is the same."""
    same_links = one["links"] == other["links"] and one["VMAs"] == other["VMAs"]
    for aspect, value in one.items():
        if value != other[aspect] and (same_links or not aspect.endswith("order")):
            yield aspect, _first(value, other[aspect])


def _first(one: Any, other: Any) -> str:  # noqa: ANN401 (of any aspect)
    """The first entry in which two mappings differ, or all of two tuples."""
    if isinstance(one, tuple):
        return " and ".join(", ".join(value) or "none" for value in (one, other))
    for key in sorted({*one, *other}, key=str):
        if one.get(key) != other.get(key):
            return f"{_place(key)}: {_shown(one.get(key))} and {_shown(other.get(key))}"
    return ""


def _place(key: object) -> str:
    match key:
        case (str(process), int(address)):
            return f"{process} at {address:#x}"
    return _shown(key) if isinstance(key, tuple) else str(key)


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(_place, value)) + ")"
    return "nothing" if value is None else str(value)


def _said(aspect: str, value: Any) -> str:  # noqa: ANN401 (of any aspect)
    if aspect == "allocations":
        return f"{value[0]} ({value[1]} in vain)"
    if aspect == "locks":
        return f"{value[0]} taken, {value[1]} allocations under them"
    return ", ".join(value) or "none"


def _kind(event: Event) -> str:
    """``alloc av``, ``free avc``: what was done, not to which."""
    return f"{event.verb} {event.object.rstrip('0123456789')}"
