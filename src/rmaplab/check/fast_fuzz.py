# SPDX-License-Identifier: GPL-2.0-only
"""Random histories on the fast engine: hundreds of times as many as on the specification, led by nothing.

Histories are played in tasks of equal bounds, which are drawn from the seed
and the task's number; threads do one task each, and what they find is taken
in the order of histories.
"""

from __future__ import annotations

import errno
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from rmaplab.check.engines import with_room
from rmaplab.check.expand import Expander, Question
from rmaplab.check.fast_start import idents_of, machine_at_start, packed_bounds, told
from rmaplab.check.fast_steps import step_of
from rmaplab.check.fuzz import Fuzz
from rmaplab.check.histories import Bounds
from rmaplab.check.monitor import REACHED
from rmaplab.check.random_history import small_bounds
from rmaplab.engine.layout import REACHED as REACHED_ROW
from rmaplab.engine.search import random_history as engine
from rmaplab.engine.search.arena import Arena
from rmaplab.engine.search.steps import CALL
from rmaplab.scenario import Ksmd, Scenario
from rmaplab.series import find

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rmaplab.check.steps import Step

__all__ = ["compile_histories", "fuzz_fast"]

TASK = 250  # histories of a task
AHEAD = 4  # tasks for each thread before results are looked at
KINDS = 32  # sets of violated invariants that a task can tell of
ROOM = 520  # objects of one machine, at first


class _Task:
    """Histories with the same bounds, from ``first`` on; what became of them."""

    def __init__(self, question: Question, seed: int, first: int, last: int, *, stop_at_first: bool) -> None:
        self.expander = Expander(question)
        self.packed = packed_bounds(self.expander, stop_at_first=stop_at_first)
        self.seed, self.first, self.last = seed, first, last

    def play(self) -> _Task:
        """Play them, with as much room as it takes."""
        with_room(self._play, ROOM)
        return self

    def _play(self, room: int) -> None:
        machine = machine_at_start(self.expander, room)
        arena = Arena(engine.MACHINES - 2, room)
        arena.m[:], arena.c[:] = machine.m, machine.c
        self.counts = np.zeros(2, np.int64)
        self.outcomes = np.zeros((CALL + 1, engine.MOST_ERRNO + 1), np.int64)
        self.bad = np.zeros((KINDS, 3), np.int64)
        self.steps = np.zeros((KINDS + 1, engine.LONGEST), np.int64)
        self.done = engine.play(
            arena.m,
            arena.c,
            arena.flat_m,
            arena.flat_c,
            arena.notes,
            arena.seats,
            arena.places,
            arena.steps,
            self.packed,
            self.seed,
            self.first,
            self.last,
            self.expander.created,
            self.counts,
            self.outcomes,
            self.bad,
            self.steps,
        )
        self.reached = arena.m[:, REACHED_ROW]["reached"].sum(axis=0)

    def findings(self) -> list[tuple[int, int, list[Step]]]:
        """Number, violated invariants as bits, and steps of the histories that broke something new to the task."""
        bad = self.bad[self.bad[:, engine.LENGTH] > 0].tolist()
        return [
            (number, violated, [step_of(step, self.expander.bounds) for step in self.steps[at, :length].tolist()])
            for at, (number, length, violated) in enumerate(bad)
        ]


def fuzz_fast(
    series: str,
    *,
    seed: int,
    seconds: float | None,
    histories: int | None,
    jobs: int,
    stop_at_first: bool,
    only: Collection[str],
    progress: Callable[[Fuzz], None] | None,
) -> Fuzz:
    """Play histories until the time is up or there were enough; see :func:`rmaplab.check.fuzz.fuzz`."""
    began = time.perf_counter()
    result = Fuzz(find(series).name, seed, engine="fast")
    word = Random(f"{seed}").getrandbits(63)

    def played(first: int) -> _Task:
        bounds = small_bounds(Random(f"{seed} {first}"))
        question = Question(series, bounds, Scenario(()), only=tuple(only))
        last = first + TASK if histories is None else min(first + TASK, histories)
        return _Task(question, word, first, last, stop_at_first=stop_at_first).play()

    numbers = count(0, TASK) if histories is None else iter(range(0, histories, TASK))
    try:
        with ThreadPoolExecutor(jobs) as threads:
            while tasks := list(islice(numbers, AHEAD * jobs)):
                for done in threads.map(played, tasks):
                    _take(result, done)
                    result.seconds = time.perf_counter() - began
                    if progress is not None:
                        progress(result)
                    over = seconds is not None and result.seconds >= seconds
                    if over or (result.findings and stop_at_first):
                        return result
    except KeyboardInterrupt:
        result.interrupted = True
    result.seconds = time.perf_counter() - began
    return result


def _take(result: Fuzz, task: _Task) -> None:
    """Add what a task has done."""
    operations, failures = task.counts.tolist()
    result.operations += operations
    result.failures["rmap"] += failures
    for call, error in np.argwhere(task.outcomes).tolist():
        result.calls[f"{_name(call)} {errno.errorcode[error] if error else 'ok'}"] += int(task.outcomes[call, error])
    result.reached.update(dict(zip(REACHED, task.reached.tolist(), strict=True)))
    for number, violated, steps in task.findings():
        if set(idents_of(violated)) not in (set(finding.ids) for finding in result.findings):
            result.record(number, told(task.expander, steps[:-1], steps[-1], violated), steps)
    result.histories = task.done


def _name(call: int) -> str:
    """What a call of the engine is called."""
    made = step_of(call, Bounds()).call  # the rest of a step is above it
    return "ksmd" if isinstance(made, Ksmd) else made.call


def compile_histories() -> None:
    """Play one history, which compiles what that takes."""
    _Task(Question("v7.0", Bounds(), Scenario(())), 0, 0, 1, stop_at_first=True).play()
