# SPDX-License-Identifier: GPL-2.0-only
"""Explorations on the fast engine: the same states, counts and shortest histories as on the specification.

The engine says which transitions violate which invariants.  What is told of a
violation comes from the specification, which makes the same calls again.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import reduce
from itertools import repeat
from operator import xor
from typing import TYPE_CHECKING

from rmaplab.check.expand import Expander, Question
from rmaplab.check.exploration import Exploration, Limits, Progress
from rmaplab.check.fast_shard import Shard
from rmaplab.check.fast_start import idents_of, machine_at_start, packed_bounds, told
from rmaplab.check.fast_steps import step_of
from rmaplab.check.histories import Bounds
from rmaplab.check.memory import resident
from rmaplab.check.monitor import REACHED
from rmaplab.check.steps import Step, scenario_of
from rmaplab.engine.search import states as found
from rmaplab.engine.search import steps as alphabet
from rmaplab.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FastSearch", "compile_search"]

ROOM = 520  # objects of one machine, at first; no two machines begin at the same place of a page of memory
BUDGET = 200_000  # transitions between two looks at limits and Ctrl-C
ALONE = 50_000  # transitions before threads are worth their beginning
DIGESTED = 20_000  # states that are summed up at a time
PART, LEAST_PART = 1024, 64  # states that a thread is given: as many as it has room for


class FastSearch:
    """One exploration; ``room`` objects a machine, ``jobs`` threads.

    Without ``digest`` the states are not summed up, which takes a second way
    through all of them.  :class:`UnsupportedError`: it begins where the engine
    cannot; MemoryError: it takes more room; OverflowError: a call makes more
    allocations than steps can name.
    """

    def __init__(self, expander: Expander, *, room: int = ROOM, jobs: int = 1, digest: bool = True) -> None:
        self.digest = digest
        self.expander = expander
        self.bounds = expander.question.bounds
        self.result = Exploration(expander.name, self.bounds, engine="fast")
        self.room, self.jobs = room, jobs
        self.machine = machine_at_start(expander, room)
        self.main = self._shard(apart=False)
        self.apart: list[Shard] = []  # one for each thread, once there is work for them
        self.part = PART
        self.packed = packed_bounds(expander, stop_at_first=False)  # see run()
        self.steps: dict[int, Step] = {}
        self.main.enter_start()
        self.main.states[0]["created"] = expander.created
        self.began = self.level_began = time.perf_counter()

    def _shard(self, *, apart: bool) -> Shard:
        return Shard(self.machine, self.bounds.calls, self.room, apart=apart)

    # --- the search ------------------------------------------------------------------------------

    def run(
        self,
        *,
        stop_at_first: bool = True,
        limits: Limits | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Exploration:
        """Explore to the end of the bounds, or until something ends it; see :func:`rmaplab.check.explore.explore`."""
        self.packed[alphabet.STOPS] = stop_at_first
        with ThreadPoolExecutor(self.jobs) as self.threads:
            reason = self._search(limits or Limits(), progress)
            if reason:
                self.result.verdict, self.result.reason = "no-verdict", reason
            return self._end()

    def _search(self, limits: Limits, progress: Callable[[Progress], None] | None) -> str:
        """Level after level; why it gave up, if it did."""
        result = self.result
        if self.expander.start_violations:
            result.record(self.expander.start_violations, lambda: self.expander.start, 0)
            return ""
        first, last = 0, 1
        try:
            while first < last and result.depth < self.bounds.calls:
                result.depth += 1
                done = first
                self.level_began = time.perf_counter()
                while done < last:
                    done = self._expand(done, last, limits)
                    if progress is not None:
                        progress(self._progress(first, done, last))
                    if result.findings and self.packed[alphabet.STOPS]:
                        return ""
                    if reason := self._exceeded(limits):
                        return reason
                first, last = last, int(self.main.counts[found.NUMBERS])
        except KeyboardInterrupt:
            result.interrupted = True
            return f"interrupted at depth {result.depth}"
        return ""

    def _expand(self, done: int, last: int, limits: Limits) -> int:
        """Go on for a while; the first state that is left to do."""
        counts = self.main.counts
        budget = BUDGET if limits.states is None else min(BUDGET, limits.states - int(counts[found.STATES]))
        self.main.make_room(self.main.spare)
        until = min(last, done + self.jobs * self.part)
        together = self.jobs > 1 and counts[found.TRANSITIONS] >= ALONE and until - done >= self.jobs * LEAST_PART
        if together and budget == BUDGET and self._together(done, until):
            return until
        done = self.main.expand(self.main, self.packed, done, last, budget)
        self._take_violations(self.main)
        return done

    def _together(self, first: int, last: int) -> bool:
        """Expand states in threads, a part in each.  False if one did not get to its end: nothing has happened then.

        Violations end all at the chunk that has the first; whoever goes on alone finds which that is.
        """
        if not self.apart:
            self.apart = [self._shard(apart=True) for _ in range(self.jobs)]
        cuts = [first + (last - first) * at // self.jobs for at in range(self.jobs + 1)]

        def expand(shard: Shard, first: int, last: int) -> bool:
            shard.forget()
            with suppress(MemoryError):
                return shard.expand(self.main, self.packed, first, last, 1 << 62) == last
            return False

        ended = list(self.threads.map(expand, self.apart, cuts, cuts[1:]))
        if self.packed[alphabet.STOPS] and any(shard.counts[found.FOUND] for shard in self.apart):
            return False
        if not all(ended):
            self.part //= 2
            return False
        for shard in self.apart:
            self.main.take_over(shard)
            self._take_violations(shard)
        return True

    # --- what came out -----------------------------------------------------------------------------

    def _take_violations(self, shard: Shard) -> None:
        for state, step, violated in shard.bad[: shard.counts[found.FOUND]].tolist():
            self._record(state, step, violated)
        shard.counts[found.FOUND] = 0

    def _record(self, state: int, step: int, violated: int) -> None:
        """Count the violations of a transition; of new ones the specification tells the circumstances."""
        idents = idents_of(violated)
        if all(ident in self.result.findings for ident in idents):
            self.result.count(idents)
            return
        history, last = self._history(state), self._step(step)
        reports = told(self.expander, history, last, violated)
        start = self.expander.start.statements
        self.result.record(reports, lambda: scenario_of([*history, last], start), last.plan.n)

    def _history(self, state: int) -> list[Step]:
        """The steps to a state."""
        steps = []
        while state:
            steps.append(self._step(int(self.main.states[state]["way"])))
            state = int(self.main.states[state]["parent"])
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
        states, transitions = int(self.main.counts[found.STATES]), int(self.main.counts[found.TRANSITIONS])
        return Progress(self.result.depth, done - first, last - first, states, transitions, left)

    def _exceeded(self, limits: Limits) -> str:
        states = int(self.main.counts[found.STATES])
        return limits.exceeded(states, time.perf_counter() - self.began, resident()[1], self.result.depth)

    def _digest(self) -> int:
        """The exclusive or of all states' fingerprints."""
        shards, number = self.apart or [self.main], int(self.main.counts[found.NUMBERS])
        total = 0
        for begin in range(0, number, len(shards) * DIGESTED):
            cuts = [min(begin + at * DIGESTED, number) for at in range(len(shards) + 1)]
            parts = self.threads.map(Shard.digest, shards, repeat(self.main), repeat(self.packed), cuts, cuts[1:])
            total = reduce(xor, parts, total)
        return total & 0xFFFF_FFFF_FFFF_FFFF

    def _end(self) -> Exploration:
        """The result, with all its figures."""
        result, counts = self.result, self.main.counts
        result.states, result.transitions = int(counts[found.STATES]), int(counts[found.TRANSITIONS])
        if self.digest and not result.interrupted:  # it would take as long again
            try:
                result.digest = self._digest()
            except KeyboardInterrupt:
                result.interrupted = True
        result.state_bytes = self.main.bytes_each
        reached = zip(REACHED, self.main.reached.tolist(), strict=True)
        result.reached.update({name: count for name, count in reached if count})
        failures = {
            "points": found.POINTS,
            "half-built": found.HALF,
            "leaked": found.LEAKED,
            "dangling": found.DANGLING,
        }
        if counts[found.POINTS]:
            result.failures.update({name: int(counts[at]) for name, at in failures.items()})
        result.seconds += time.perf_counter() - self.began
        if result.findings:
            result.verdict = "violated"
        return result


def compile_search() -> None:
    """Use every entry once, which compiles it."""
    search = FastSearch(Expander(Question("v7.0", Bounds(calls=1), Scenario(()))))
    search.run()
    search.main.make_room(len(search.main.table))
    search.main.take_over(search._shard(apart=True))
