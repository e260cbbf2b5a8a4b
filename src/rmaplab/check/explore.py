# SPDX-License-Identifier: GPL-2.0-only
"""The explorer: all histories up to a bound, shortest first.

Breadth first over states that differ by more than names.  A worker is given
the histories of some states; it goes to each, makes every call, then makes it
again with each of its allocations failing, and returns the fingerprints of
what came out.  Workers are asked in order, so results do not depend on their
number, nor on where they run.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from rmaplab.check import pool
from rmaplab.check.engines import explore_fast, why_not_fast
from rmaplab.check.expand import Expander, Question
from rmaplab.check.exploration import Exploration, Finding, Limits, Progress
from rmaplab.check.memory import resident
from rmaplab.check.progress_file import load_search, save_search
from rmaplab.check.states import States
from rmaplab.check.steps import scenario_of
from rmaplab.engine.choice import HEAD_START, UnsupportedError, search_is_compiled
from rmaplab.errors import NoVerdictError, UsageError
from rmaplab.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rmaplab.check.expand import Expansion, History
    from rmaplab.check.histories import Bounds
    from rmaplab.check.pool import Workers
    from rmaplab.check.steps import Step
    from rmaplab.kernel.events import Report

__all__ = ["Exploration", "Finding", "Limits", "Progress", "explore", "search"]

CHUNK = 32  # histories per task: large enough to amortise the hand-over
SAVE_EVERY = 60.0  # seconds between two saves
ENGINE_TAKES = 256 << 20  # bytes of memory, with Numba and the first tables


class Expands(Protocol):
    """What :func:`search` is led by: :class:`rmaplab.check.expand.Expander`, or one for two kernels."""

    name: str
    question: Question
    start: Scenario
    start_mark: int
    start_violations: list[Report]
    created: int

    def expand(self, histories: list[History]) -> Expansion:
        """Make every call from the end of each history."""


def explore(
    series: str,
    bounds: Bounds,
    start: Scenario | None = None,
    *,
    jobs: int = 1,
    stop_at_first: bool = True,
    only_fork_fails: bool = False,
    only: Sequence[str] = (),
    limits: Limits | None = None,
    workers: Workers = pool.workers,
    save: str | None = None,
    resume: bool = False,
    engine: str = "reference",
    head_start: float = HEAD_START,
    progress: Callable[[Progress], None] | None = None,
) -> Exploration:
    """Explore a series (a name, or a file that :func:`rmaplab.series.find` takes) from the end of ``start``.

    ``jobs`` worker processes, or threads of the engine; with ``stop_at_first`` the first violation ends
    it, else states that violate something are reported and not built upon.
    With ``only``, ids of invariants, nothing else counts as a violation but a crash.
    Ctrl-C ends it too: the result says so and holds what was done.  With
    ``save``, a path, what is known is kept there now and then and where it
    gave up, and ``resume`` goes on from that; :class:`rmaplab.errors.InputError`
    if the file is not one of the same exploration.

    ``engine``: on the specification (``reference``), or on the fast engine
    (``fast``; :class:`rmaplab.errors.UsageError` where that is not possible).
    ``auto`` begins with the specification, and if that takes more than
    ``head_start`` seconds begins again on the engine, if it can.
    """
    question = Question(series, bounds, start or Scenario(()), only_fork_fails, tuple(only))
    kept = save is not None or workers is not pool.workers
    reason = "" if engine == "reference" else why_not_fast(question, kept=kept)
    if engine == "fast" and reason:
        raise UsageError(f"--engine fast: {reason}")
    options: dict[str, Any] = {"stop_at_first": stop_at_first, "progress": progress, "jobs": jobs}
    given = limits or Limits()
    roomy = given.memory is None or given.memory > ENGINE_TAKES
    turns = engine == "auto" and not reason and roomy and search_is_compiled()
    if engine == "fast" or (turns and head_start <= 0):
        try:
            return explore_fast(question, limits=limits, **options)
        except UnsupportedError as error:
            if engine == "fast":
                raise UsageError(f"--engine fast: the fast engine cannot take {error}") from error
            turns = False

    def on_specification(limits: Limits | None) -> Exploration:
        expander = Expander(question)
        return search(expander, limits=limits, workers=workers, save=save, resume=resume, **options)

    if not turns or (given.seconds is not None and given.seconds <= head_start):
        return on_specification(limits)
    result = on_specification(given._replace(seconds=head_start))
    if not result.reason or result.interrupted or result.seconds <= head_start:
        return result
    if given.seconds is not None:
        given = given._replace(seconds=given.seconds - result.seconds)
    try:
        return explore_fast(question, limits=given, **options)
    except UnsupportedError:
        return on_specification(given)
    except KeyboardInterrupt:  # while it was loaded: what the specification has found stands
        result.interrupted, result.reason = True, f"interrupted at depth {result.depth}"
        return result


def search(
    expander: Expands,
    *,
    jobs: int = 1,
    stop_at_first: bool = True,
    limits: Limits | None = None,
    workers: Workers = pool.workers,
    save: str | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Exploration:
    """Breadth first by an expander, whatever it looks for; see :func:`explore`."""
    question, bounds = expander.question, expander.question.bounds
    search = _Search(Exploration(expander.name, bounds), expander)
    result, limits = search.result, limits or Limits()
    if expander.start_violations:
        result.record(expander.start_violations, lambda: expander.start, 0)
        return search.end()
    if resume and save is not None:
        load_search(save, question, search)
    try:
        with workers(expander, jobs) as expand:
            saved = time.perf_counter()
            while search.advance(bounds.calls):
                for _ in search.level(expand):
                    if progress is not None:
                        progress(search.progress())
                    if result.findings and stop_at_first:
                        return search.end()
                    reason = search.exceeded(limits)
                    if reason:
                        return search.gave_up(reason)
                    if save is not None and time.perf_counter() - saved > SAVE_EVERY:
                        save_search(save, question, search)
                        saved = time.perf_counter()
    except KeyboardInterrupt:
        result.interrupted = True
        return search.gave_up(f"interrupted at depth {result.depth}")
    except NoVerdictError as error:  # a worker is gone
        return search.gave_up(str(error))
    finally:
        if save is not None and not (result.findings and stop_at_first):
            save_search(save, question, search)
    return search.end()


class _Search:
    """What the search knows: the states, those to expand now, and those that the next level begins with."""

    def __init__(self, result: Exploration, expander: Expands) -> None:
        self.result = result
        self.start = expander.start
        self.states = States(expander.start_mark, expander.created)
        self.frontier = [0]
        self.done = 0  # of the frontier
        self.next: list[int] = []
        self.began = self.level_began = time.perf_counter()
        self.level_done = 0
        self.memory: dict[int, int] = {}

    def progress(self) -> Progress:
        """For whoever watches."""
        since = time.perf_counter() - self.level_began
        left = since * (len(self.frontier) - self.done) / (self.done - self.level_done or 1)
        states, transitions = len(self.states), self.result.transitions
        return Progress(self.result.depth, self.done, len(self.frontier), states, transitions, left)

    def end(self) -> Exploration:
        """The result, with all its figures."""
        result = self.result
        result.states, result.digest = len(self.states), self.states.digest()
        result.state_bytes = self.states.bytes_each()
        result.seconds += time.perf_counter() - self.began
        if result.findings:
            result.verdict = "violated"
        return result

    def gave_up(self, reason: str) -> Exploration:
        """Say that there is no verdict, and why."""
        self.result.verdict, self.result.reason = "no-verdict", reason
        return self.end()

    def exceeded(self, limits: Limits) -> str:
        """Which limit is exceeded, if any."""
        used = 0
        if limits.memory is not None:
            own, size = resident()
            used = sum(size for worker, size in self.memory.items() if worker != own) + size
        seconds = time.perf_counter() - self.began
        return limits.exceeded(len(self.states), seconds, used, self.result.depth)

    def advance(self, calls: int) -> bool:
        """Whether there is something to expand: what is left of the frontier, or the next one in its place."""
        result = self.result
        if self.done == len(self.frontier) and result.depth:
            if not self.next or result.depth >= calls:
                return False
            self.frontier, self.next, self.done = self.next, [], 0
        elif result.depth:
            return True
        if calls:
            result.depth += 1
        return calls > 0

    def level(self, expand: Callable[[Iterable[list[History]]], Iterator[Expansion]]) -> Iterator[None]:
        """Expand what is left of the frontier, chunk by chunk."""
        self.level_began, self.level_done = time.perf_counter(), self.done
        chunks = [self.frontier[at : at + CHUNK] for at in range(self.done, len(self.frontier), CHUNK)]
        tasks = ([self.states.history(index) for index in chunk] for chunk in chunks)
        for chunk, expansion in zip(chunks, expand(tasks), strict=True):
            self.merge(chunk, expansion)
            self.done += len(chunk)
            yield

    def merge(self, chunk: Sequence[int], expansion: Expansion) -> None:
        """Take over what a worker found."""
        result = self.result
        result.transitions += expansion.transitions
        result.reached.update(expansion.reached)
        result.failures.update(expansion.failures)
        worker, size = expansion.worker
        self.memory[worker] = size
        for at, step, reports in expansion.violations:
            self.record(chunk[at], step, reports)
        for at, step, failures, mark, forked in expansion.successors:
            number = self.states.add(chunk[at], step, failures, mark, forked)
            if number is not None:
                self.next.append(number)

    def record(self, index: int, step: Step, reports: list[Report]) -> None:
        """Keep the first, hence shortest, history of each violated invariant."""

        def scenario() -> Scenario:
            return scenario_of([*self.states.history(index)[0], step], self.start.statements)

        self.result.record(reports, scenario, step.plan.n)
