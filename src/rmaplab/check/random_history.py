# SPDX-License-Identifier: GPL-2.0-only
"""One random history: calls drawn at random, each allocation of each call failing once, every invariant checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, NamedTuple, Protocol
from zlib import crc32

from rmaplab.check.coverage import branches, shapes
from rmaplab.check.execute import NO_PLAN, Plan, execute
from rmaplab.check.histories import OPERATIONS, Bounds, calls
from rmaplab.check.invariants import violations
from rmaplab.check.state import fingerprint
from rmaplab.check.steps import Step
from rmaplab.kernel.checkpoint import drop_state
from rmaplab.kernel.process import MMAP_BASE
from rmaplab.kernel.rewind import Checkpoint
from rmaplab.kernel.slab import KINDS
from rmaplab.scenario import Call, Fork, Ksmd, Walk
from rmaplab.scenario.generator import CORE, EXTRA, Generator, ending
from rmaplab.scenario.scope import Scope
from rmaplab.scenario.tokens import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rmaplab.check.monitor import Monitor
    from rmaplab.kernel import Kernel
    from rmaplab.kernel.events import Report
    from rmaplab.scenario.generator import Drawn

__all__ = ["Drawing", "Played", "RandomHistory", "small_bounds", "swarm"]

NEEDED = ("mmap", "write")
LENGTHS = (12, 25, 60)  # calls drawn


class Drawing(NamedTuple):
    """All that a history depends on: its number's seed, and the steps that it begins with."""

    seed: str
    prefix: tuple[Step, ...] = ()


@dataclass(slots=True)
class Played:
    """What became of a history.

    ``fresh`` are the features that this process had not met before, each with
    the number of steps after which it showed, and whether something that does
    not count was broken then.  If there are any, ``taken`` are the branches of
    the whole history.  ``found`` is the first violation: its reports and the
    steps up to it.
    """

    steps: list[Step] = field(default_factory=list)
    operations: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    fresh: list[tuple[int, int, bool]] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    found: tuple[list[Report], list[Step]] | None = None


class Source(Protocol):
    """Where calls come from."""

    made: int

    def call(self, kernel: Kernel) -> Drawn:
        """The next call; some process is alive."""

    def configure(self, kernel: Kernel) -> None:
        """Make the machine one that the calls are meant for."""


def small_bounds(random: Random) -> Bounds:
    """Few operations, few pages."""
    further = [name for name in OPERATIONS if name not in _ALWAYS]
    operations = (*_ALWAYS, *random.sample(further, random.randint(0, 3)))
    pages = random.randint(1, 2)
    return Bounds(random.randint(2, 4), random.randint(1, 3 - pages), pages, operations=operations)


class Narrow:
    """Any call that the explorer would make, within small bounds of its own; deep."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.made = 0
        self.bounds = small_bounds(random)

    def call(self, kernel: Kernel) -> Drawn:
        """Each of the calls as likely as every other; only children that run are given new names."""
        call = self.random.choice(list(calls(kernel, self.bounds, self.made + 1)))
        self.made += isinstance(call, Fork)
        return call

    def configure(self, kernel: Kernel) -> None:
        """Any machine will do."""


_ALWAYS = ("exit", "fork", "mmap", "write")


def source(random: Random) -> Source:
    """Where the calls of a history come from: small bounds, or many kinds of call."""
    return Narrow(random) if random.random() < 0.5 else swarm(random)


def swarm(random: Random) -> Generator:
    """A source of calls with a taste of its own: some kinds of call often, some never, on a few areas.

    Rare combinations of few kinds come up far more often than if all were
    always mixed (Groce and others, Swarm Testing, ISSTA 2012).
    """
    areas = random.randint(1, 4)
    kinds = [kind for kind in CORE if kind not in NEEDED and (kind != "neighbours" or areas > 1)]
    core = {kind: CORE[kind] for kind in NEEDED}
    core["mmap"] = random.choice((1, CORE["mmap"]))
    core |= {kind: CORE[kind] * random.choice((1, 1, 4)) for kind in kinds if random.random() < 0.7}
    kinds = random.sample(sorted(EXTRA), random.choice((0, 0, 1, 1, 2, 2, 3, 6)))
    extra = {kind: EXTRA[kind] * random.choice((1, 1, 3)) for kind in kinds}
    processes, size = random.randint(1, 6), random.choice((1, 2, 4))
    return Generator(random, core, extra, processes, base=MMAP_BASE, areas=areas, size=size, homing=True, some=False)


def _note(scope: Scope, call: Call | Walk | Ksmd) -> None:
    if isinstance(call, Call):
        scope.called(Line("-", 0, ""), call)


class RandomHistory:
    """Plays histories on one series; what this process has seen is remembered from one to the next.

    With ``large``, half of them run on a machine with large folios, which no
    scenario can ask for.  With ``only``, ids of invariants, nothing else counts
    as a violation but a crash.  Calls come from a ``source``; unless they are
    to be ``guided``, nothing is noted of what they showed.
    """

    def __init__(
        self,
        series: type[Monitor],
        *,
        large: bool = False,
        only: Collection[str] = (),
        source: Callable[[Random], Source] = source,
        guided: bool = True,
    ) -> None:
        self.series = series
        self.large = large
        self.source = source
        self.guided = guided
        self.only = frozenset(only)
        self.features: set[int] = set()

    def play(self, drawing: Drawing, length: int | None = None) -> Played:
        """Make the steps that it begins with, then draw ``length`` more (None: its own choice)."""
        random = Random(drawing.seed)
        generator = self.source(random)
        played = Played()
        kernel = self.begin(played)
        if self.large:
            generator.configure(kernel)
        length = random.choice(LENGTHS) if length is None else length
        try:
            scope = Scope()
            for step in drawing.prefix:
                execute(kernel, step.call, step.plan, check=False)
                played.steps.append(step)
                _note(scope, step.call)
            generator.made = len(drawing.prefix)  # names that nobody has
            for _ in range(length):
                if not kernel.processes:
                    break
                call = generator.call(kernel)
                if not isinstance(call, Ksmd) and not scope.allows(call):
                    continue  # the text of a scenario could not say it: a call before it was refused
                if not self.step(kernel, call, random, played):
                    break
                _note(scope, call)
            else:
                self.end(kernel, played)
        finally:
            drop_state(kernel)
        if played.fresh and played.found is None:
            self.note_branches(played)
        return played

    def begin(self, played: Played) -> Monitor:
        """A fresh machine."""
        kernel = self.series()
        kernel.foreign |= bool(self.only)
        kernel.reached = played.reached
        kernel.spawn("P0")
        return kernel

    def step(self, kernel: Monitor, call: Drawn, random: Random, played: Played) -> bool:
        """Make a call with each of its allocations failing, undoing it, then for good; whether all held."""
        before = Checkpoint(kernel)
        execute(kernel, call, check=False)
        counts = {"rmap": kernel.slab.count, **kernel.slab.counts}
        before.restore()
        mark = fingerprint(kernel)
        for kind in KINDS:
            for n in range(1, counts[kind] + 1):
                plan = Plan(n, kind=kind)
                while plan.n:
                    if not self.make(kernel, Step(call, plan), played, mark):
                        return False
                    played.failures[kind] += 1
                    again = kernel.slab.failed > 1 and not plan.nowait
                    before.restore()
                    plan = plan._replace(nowait=True) if again else NO_PLAN
        plan = NO_PLAN
        if counts["rmap"] and random.random() < 0.05:  # go on from a failure
            plan = Plan(random.randint(1, counts["rmap"]))
        return self.make(kernel, Step(call, plan), played, None, keep=True)

    def make(self, kernel: Monitor, step: Step, played: Played, mark: int | None, *, keep: bool = False) -> bool:
        """Make one call; whether all invariants hold. A state equal to ``mark`` was judged before."""
        played.operations += 1
        call, plan = step
        outcome = execute(kernel, call, plan, check=False)
        found = outcome.violations
        crashed = bool(found) and found[0].id == "AV-045"
        if not crashed and (found or mark is None or fingerprint(kernel) != mark):
            found = [*found, *violations(kernel)]
        broken: frozenset[str] = frozenset()
        if self.only:
            broken = frozenset(report.id for report in found)
            found = [report for report in found if report.id in self.only or report.id == "AV-045"]
        name = "ksmd" if isinstance(call, Ksmd) else call.call
        if keep:
            played.steps.append(step)
            played.calls[f"{name} {outcome.errno or 'ok'}"] += 1
        if found:
            played.found = found, played.steps if keep else [*played.steps, step]
            return False
        failing = f"{plan.kind} {min(plan.n, 3)}" if plan.n else ""
        if not self.guided:
            return True
        seen = shapes(kernel, name, outcome.errno, failing)
        if broken and keep:  # not what is looked for, but perhaps the way there
            seen.add(crc32(f"{sorted(broken)} {name}".encode()))
        for feature in seen - self.features:
            self.features.add(feature)
            played.fresh.append((feature, len(played.steps), bool(broken and keep)))
        return True

    def end(self, kernel: Monitor, played: Played) -> None:
        """Every process exits, and nothing must be left."""
        for call in ending(kernel):
            if not self.make(kernel, Step(call), played, None, keep=True):
                break

    def note_branches(self, played: Played) -> None:
        """Go through the history again and see which branches it takes."""
        kernel = self.begin(Played())

        def run() -> None:
            for call, plan in played.steps:
                execute(kernel, call, plan, check=False)

        played.taken = sorted(branches(run))
        drop_state(kernel)
