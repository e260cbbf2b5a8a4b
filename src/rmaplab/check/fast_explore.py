# SPDX-License-Identifier: GPL-2.0-only
"""Explorations on the fast engine: the same states, counts and shortest histories as on the specification.

The engine says which transitions violate which invariants.  What is told of a
violation comes from the specification, which makes the same calls again.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from rmaplab.check.expand import Expander, Expansion, Question
from rmaplab.check.exploration import Exploration, Limits, Progress
from rmaplab.check.fast_steps import area_name, area_start, step_of
from rmaplab.check.histories import Bounds
from rmaplab.check.memory import resident
from rmaplab.check.monitor import REACHED
from rmaplab.check.registry import INVARIANTS
from rmaplab.check.steps import Step, scenario_of, text_of
from rmaplab.engine.choice import UnsupportedError
from rmaplab.engine.layout import MACHINE
from rmaplab.engine.layout import REACHED as REACHED_ROW
from rmaplab.engine.machine import Machine
from rmaplab.engine.search import explore as loop
from rmaplab.engine.search import steps as alphabet
from rmaplab.engine.search.arena import Arena
from rmaplab.engine.search.judge import HAS_ROOT_LOCK
from rmaplab.scenario import STACK, Scenario
from rmaplab.series import find

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmaplab.kernel import Area

__all__ = ["FastSearch", "compile_search"]

ROOM = 520  # objects of one machine, at first; no two machines begin at the same place of a page of memory
BUDGET = 200_000  # transitions between two looks at limits and Ctrl-C
IDS = {ident: int(ident[3:]) for ident in INVARIANTS}


class FastSearch:
    """One exploration; ``room`` objects a machine.  :class:`UnsupportedError`: it begins where the engine cannot.

    Without ``digest`` the states are not summed up, which takes a second way through all of them.
    """

    def __init__(self, question: Question, *, room: int = ROOM, digest: bool = True) -> None:
        self.digest = digest
        self.expander = Expander(question)
        self.bounds = question.bounds
        self.result = Exploration(self.expander.name, question.bounds, engine="fast")
        self.arena = Arena(question.bounds.calls, room)
        self._load(room)
        self.limits = self._bounds(question)
        self.table = np.zeros(1 << 18, np.int64)  # of states by their hashes
        self.fewest = np.zeros(1 << 18, np.uint8)  # failures on a way to each
        self.parents, self.ways = np.zeros(1 << 18, np.int32), np.zeros(1 << 18, np.int64)
        self.failed, self.created = np.zeros(1 << 18, np.uint8), np.zeros(1 << 18, np.uint16)
        self.created[0] = self.expander.created
        self.counts = np.zeros(8, np.int64)
        self.counts[loop.STATES] = self.counts[loop.NUMBERS] = 1
        self.bad = np.zeros((1 << 18, 3), np.int64)
        self.steps: dict[int, Step] = {}
        arena = self.arena
        loop.enter_start(arena.m[0], arena.c[0], arena.notes, arena.seats, arena.places, self.table)
        self.began = self.level_began = time.perf_counter()

    def _load(self, room: int) -> None:
        """Put the machine at the start of all histories in every place of the arena."""
        machine = Machine(find(self.expander.question.series), room, 2 * room, keeps=True, watched=True)
        kernel = self.expander.kernel
        machine.load(kernel)
        process = machine.m[MACHINE]["first_process"]
        for name, own in kernel.processes.items():
            if not re.fullmatch(r"P\d{1,3}", name):
                raise UnsupportedError(f"a process that is called {name}")
            machine.m[process]["id"] = int(name[1:])
            for area, place in own.areas.items():
                number = self._number_of(area, place)
                if number is not None:
                    machine.m[process]["area_pages"][number] = place.pages
            process = machine.m[process]["later"]
        self.arena.m[:] = machine.m
        self.arena.c[:] = machine.c
        self.arena.way[0] = 0

    def _number_of(self, name: str, area: Area) -> int | None:
        """By what number the engine knows an area; None for one that no call is made on."""
        bounds = self.bounds
        numbers = {area_name(number): number for number in range(bounds.areas)} | {"Away": alphabet.AWAY}
        if name in numbers and area.start == area_start(numbers[name], bounds):
            return numbers[name]
        if name == STACK:
            return None
        raise UnsupportedError(f"an area {name} at {area.start:#x}")

    def _bounds(self, question: Question) -> Any:  # noqa: ANN401 (numpy tells no shapes)
        bounds, series = question.bounds, self.expander.series
        allowed = sum(1 << IDS[ident] for ident, one in INVARIANTS.items() if one.holds_for(series))
        if question.only:
            allowed &= sum(1 << IDS[ident] for ident in question.only)
        return np.array(
            [
                bounds.processes,
                bounds.areas,
                bounds.pages,
                bounds.fail_alloc,
                sum(alphabet.HAS[name] for name in bounds.operations),
                question.only_fork_fails,
                sum((name in series.unknown_advice) << at for at, name in enumerate(alphabet.ADVICE)),
                allowed,
                HAS_ROOT_LOCK if series.has_root_lock else 0,
            ],
            np.int64,
        )

    # --- the search ------------------------------------------------------------------------------

    def run(
        self,
        *,
        stop_at_first: bool = True,
        limits: Limits | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Exploration:
        """Explore to the end of the bounds, or until something ends it; see :func:`rmaplab.check.explore.explore`."""
        result, limits = self.result, limits or Limits()
        if self.expander.start_violations:
            result.record(self.expander.start_violations, lambda: self.expander.start, 0)
            return self._end()
        first, last = 0, 1
        try:
            while first < last and result.depth < self.bounds.calls:
                result.depth += 1
                done = first
                self.level_began = time.perf_counter()
                while done < last:
                    done = self._expand(done, last, self._budget(limits))
                    if progress is not None:
                        progress(self._progress(first, done, last))
                    if result.findings and stop_at_first:
                        return self._end()
                    if reason := self._exceeded(limits):
                        return self._gave_up(reason)
                first, last = last, int(self.counts[loop.NUMBERS])
        except KeyboardInterrupt:
            result.interrupted = True
            return self._gave_up(f"interrupted at depth {result.depth}")
        return self._end()

    def _budget(self, limits: Limits) -> int:
        """Transitions until limits are to be looked at: none leads to more than one state."""
        if limits.states is None:
            return BUDGET
        return min(BUDGET, limits.states - int(self.counts[loop.STATES]))

    def _expand(self, done: int, last: int, budget: int) -> int:
        """Go on for so many transitions; the first state that is left to do."""
        arena, counts = self.arena, self.counts
        self._make_room()
        done = loop.expand(
            arena.m,
            arena.c,
            arena.flat_m,
            arena.flat_c,
            arena.way,
            arena.notes,
            arena.seats,
            arena.places,
            arena.steps,
            self.limits,
            done,
            last,
            budget,
            self.table,
            self.fewest,
            self.parents,
            self.ways,
            self.failed,
            self.created,
            counts,
            self.bad,
        )
        for state, step, found in self.bad[: counts[loop.FOUND]].tolist():
            self._record(state, step, found)
        counts[loop.FOUND] = 0
        return done

    def _make_room(self) -> None:
        """Let tables grow that are getting full."""
        if 2 * self.counts[loop.STATES] > len(self.table) - loop.SPARE:
            larger, fewest = np.zeros(2 * len(self.table), np.int64), np.zeros(2 * len(self.table), np.uint8)
            loop.grow_table(self.table, self.fewest, larger, fewest)
            self.table, self.fewest = larger, fewest
        if self.counts[loop.NUMBERS] > len(self.parents) - loop.SPARE:
            for name in ("parents", "ways", "failed", "created"):
                old = getattr(self, name)
                new = np.zeros(2 * len(old), old.dtype)
                new[: len(old)] = old
                setattr(self, name, new)

    # --- what came out -----------------------------------------------------------------------------

    def _record(self, state: int, step: int, found: int) -> None:
        """Count the violations of a transition; of new ones the specification tells the circumstances."""
        idents = [ident for ident, number in IDS.items() if found >> number & 1]
        if all(ident in self.result.findings for ident in idents):
            self.result.count(idents)
            return
        history, last = self._history(state), self._step(step)
        expander = self.expander
        expander.result, expander.seen = Expansion(), {}
        expander.path.go(history)
        expander.take(0, last, 0)
        expander.path.back()
        reports = expander.result.violations[0][2] if expander.result.violations else []
        if {report.id for report in reports} != set(idents):
            raise AssertionError(
                f"the engine finds {idents}, the specification {sorted({report.id for report in reports})} in: "
                + text_of([*history, last]).replace("\n", " / ")
            )
        self.result.record(reports, lambda: scenario_of([*history, last], expander.start.statements), last.plan.n)

    def _history(self, state: int) -> list[Step]:
        """The steps to a state."""
        steps = []
        while state:
            steps.append(self._step(int(self.ways[state])))
            state = int(self.parents[state])
        return steps[::-1]

    def _step(self, number: int) -> Step:
        """A step by its number; equal ones are one object."""
        step = self.steps.get(number)
        if step is None:
            step = self.steps[number] = step_of(number, self.bounds)
        return step

    def _progress(self, first: int, done: int, last: int) -> Progress:
        since = time.perf_counter() - self.level_began
        left = since * (last - done) / (done - first or 1)
        states, transitions = int(self.counts[loop.STATES]), int(self.counts[loop.TRANSITIONS])
        return Progress(self.result.depth, done - first, last - first, states, transitions, left)

    def _exceeded(self, limits: Limits) -> str:
        states = int(self.counts[loop.STATES])
        return limits.exceeded(states, time.perf_counter() - self.began, resident()[1], self.result.depth)

    def _digest(self) -> int:
        """The exclusive or of all states' fingerprints."""
        arena, found = self.arena, 0
        for first in range(0, int(self.counts[loop.NUMBERS]), BUDGET):
            last = min(first + BUDGET, int(self.counts[loop.NUMBERS]))
            found ^= loop.digest(
                arena.m,
                arena.c,
                arena.flat_m,
                arena.flat_c,
                arena.way,
                arena.notes,
                arena.shapes,
                arena.out,
                self.limits,
                first,
                last,
                self.parents,
                self.ways,
                self.failed,
            )
        return found & 0xFFFF_FFFF_FFFF_FFFF

    def _gave_up(self, reason: str) -> Exploration:
        self.result.verdict, self.result.reason = "no-verdict", reason
        return self._end()

    def _end(self) -> Exploration:
        """The result, with all its figures."""
        result, counts = self.result, self.counts
        result.states, result.transitions = int(counts[loop.STATES]), int(counts[loop.TRANSITIONS])
        if self.digest and not result.interrupted:  # it would take as long again
            result.digest = self._digest()
        tables = (self.table, self.fewest, self.parents, self.ways, self.failed, self.created)
        result.state_bytes = sum(table.nbytes for table in tables) // result.states
        reached = self.arena.m[-1, REACHED_ROW]["reached"].tolist()
        result.reached.update({name: count for name, count in zip(REACHED, reached, strict=True) if count})
        failures = {"points": loop.POINTS, "half-built": loop.HALF, "leaked": loop.LEAKED, "dangling": loop.DANGLING}
        if counts[loop.POINTS]:
            result.failures.update({name: int(counts[at]) for name, at in failures.items()})
        result.seconds += time.perf_counter() - self.began
        if result.findings:
            result.verdict = "violated"
        return result


def compile_search() -> None:
    """Use every entry once, which compiles it."""
    search = FastSearch(Question("v7.0", Bounds(calls=1), Scenario(())))
    search.run()
    loop.grow_table(search.table, search.fewest, search.table.copy(), search.fewest.copy())
