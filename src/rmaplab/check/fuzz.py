# SPDX-License-Identifier: GPL-2.0-only
"""The fuzzer: random histories past the explorer's bounds, led by what they show that others have not.

A history either begins from nothing or goes on from one that showed a new
shape of the graph.  Histories are numbered; each depends on the seed, its
number and the corpus at the beginning of its round, so that the number of
worker processes does not show.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.corpus import Corpus, Folder
from rmaplab.check.engines import why_not_fast
from rmaplab.check.expand import Question
from rmaplab.check.histories import Bounds
from rmaplab.check.monitor import monitored
from rmaplab.check.pool import tasks_in_processes
from rmaplab.check.random_history import Drawing, Played, RandomHistory
from rmaplab.check.steps import text_of
from rmaplab.engine.choice import UnsupportedError
from rmaplab.errors import UsageError
from rmaplab.notebook import HtmlTable
from rmaplab.scenario import Scenario
from rmaplab.series import find

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rmaplab.check.steps import Step
    from rmaplab.kernel.events import Report

__all__ = ["Fuzz", "FuzzFinding", "fuzz"]

TASK = 16  # histories of a task
ROUND = 8  # tasks between two looks at the corpus
GO_ON = 0.5  # how often a history goes on from another


class FuzzFinding(NamedTuple):
    """A history that violated something: its number, the invariants, the circumstances of the first, the scenario.

    ``length`` counts calls; ``failed`` is the plan of the last.
    """

    history: int
    ids: tuple[str, ...]
    detail: str
    scenario: str
    length: int
    failed: int | None


@dataclass(slots=True)
class Fuzz(HtmlTable):
    """What was done.  ``operations`` counts calls made, those with a failing allocation included.

    ``calls`` counts the calls that histories are made of by name and outcome
    (``ok`` or an errno), ``failures`` the failed allocations by kind; ``shapes``
    and ``branches`` what was seen of :mod:`rmaplab.check.coverage`, by which the
    fast engine does not go.
    """

    series: str
    seed: int
    engine: str = "reference"
    histories: int = 0
    operations: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    shapes: int = 0
    branches: int = 0
    corpus: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    findings: list[FuzzFinding] = field(default_factory=list)

    def record(self, history: int, reports: list[Report], steps: list[Step]) -> None:
        """Keep the first history of each set of violated invariants."""
        ids = tuple(dict.fromkeys(report.id for report in reports))
        if ids not in (finding.ids for finding in self.findings):
            self.findings.append(
                FuzzFinding(history, ids, reports[0].detail, text_of(steps), len(steps), steps[-1].plan.n or None)
            )


def fuzz(
    series: str,
    *,
    seed: int = 0,
    seconds: float | None = None,
    histories: int | None = None,
    jobs: int = 1,
    folder: str | None = None,
    stop_at_first: bool = True,
    only: Collection[str] = (),
    engine: str = "reference",
    progress: Callable[[Fuzz], None] | None = None,
) -> Fuzz:
    """Play histories until the time is up or there were enough; by default for ever.

    With ``folder`` the corpus is kept there, and taken up again; then
    ``histories`` counts those of earlier runs, too.  Without ``stop_at_first``
    every history that violates a set of invariants not yet seen is kept.  With
    ``only``, ids of invariants, nothing else counts but a crash.

    ``engine``: on the specification (``reference``), or on the fast engine
    (``fast``), where nothing leads them: other histories, but hundreds of
    times as many.  :class:`rmaplab.errors.UsageError` where that is not possible.
    """
    if engine == "fast":
        if folder is not None:
            raise UsageError("--engine fast: nothing leads its histories, so there is no corpus to keep")
        if reason := why_not_fast(Question(series, Bounds(), Scenario(())), kept=False):
            raise UsageError(f"--engine fast: {reason}")
        from rmaplab.check.fast_fuzz import fuzz_fast

        try:
            return fuzz_fast(
                series,
                seed=seed,
                seconds=seconds,
                histories=histories,
                jobs=jobs,
                stop_at_first=stop_at_first,
                only=only,
                progress=progress,
            )
        except UnsupportedError as error:
            raise UsageError(f"--engine fast: the fast engine cannot take {error}") from error
    watched = monitored(find(series))
    search = _Search(Fuzz(watched.name, seed), Random(seed))
    kept = None if folder is None else Folder(folder, watched.name, seed)
    if kept is not None:
        search.earlier = kept.read(search.corpus)
    result, began = search.result, time.perf_counter()
    player = RandomHistory(watched, only=only)
    try:
        with tasks_in_processes(_Task(player).play, jobs) as play:
            search.relive(player)
            over = False
            while not over and (histories is None or search.number < histories):
                for drawings, played in play(search.round(histories)):
                    search.take(drawings, played)
                    result.seconds = time.perf_counter() - began
                    if progress is not None:
                        progress(result)
                    over = (bool(result.findings) and stop_at_first) or (
                        seconds is not None and result.seconds >= seconds
                    )
                    if over:
                        break
    except KeyboardInterrupt:
        result.interrupted = True
    finally:
        result.seconds = time.perf_counter() - began
        if kept is not None:
            kept.write(search.corpus, search.number)
    return result


class _Task:
    """Histories of one task, in whichever process."""

    def __init__(self, player: RandomHistory) -> None:
        self.player = player

    def play(self, drawings: list[Drawing]) -> tuple[list[Drawing], list[Played]]:
        """Play them; what need not be sent is dropped."""
        played = []
        for drawing in drawings:
            one = self.player.play(drawing)
            if not one.fresh:
                one.steps = []
            played.append(one)
        return drawings, played


class _Search:
    """What the fuzzer knows between two tasks."""

    def __init__(self, result: Fuzz, random: Random) -> None:
        self.result = result
        self.random = random
        self.corpus = Corpus()
        self.earlier = 0  # histories of earlier runs
        self.features: set[int] = set()
        self.branches: set[int] = set()

    @property
    def number(self) -> int:
        """The number of the next history."""
        return self.earlier + self.result.histories

    def relive(self, player: RandomHistory) -> None:
        """See again what the histories of an earlier run have shown."""
        for steps in self.corpus.entries:
            played = player.play(Drawing("", steps), 0)
            self.features.update(feature for feature, _, _ in played.fresh)
        self.count()

    def round(self, histories: int | None) -> list[list[Drawing]]:
        """The tasks of a round."""
        tasks: list[list[Drawing]] = []
        number = self.number
        last = number + ROUND * TASK if histories is None else min(histories, number + ROUND * TASK)
        while number < last:
            task = []
            for at in range(number, min(last, number + TASK)):
                draw = Random(f"{self.result.seed} {at}")
                prefix = self.corpus.choose(draw) if draw.random() < GO_ON else ()
                task.append(Drawing(f"{self.result.seed} {at}", prefix))
            tasks.append(task)
            number += len(task)
        return tasks

    def take(self, drawings: list[Drawing], played: list[Played]) -> None:
        """Add what the histories of a task have shown."""
        result = self.result
        for one in played:
            result.operations += one.operations
            result.calls += one.calls
            result.failures += one.failures
            result.reached += one.reached
            # What is new to a worker may not be new: the others' histories come between.
            new = [entry for entry in one.fresh if entry[0] not in self.features]
            self.features.update(feature for feature, _, _ in new)
            if new:
                self.branches.update(one.taken)
            lengths = [steps for _, steps, broken in new if broken]
            if one.found is not None:
                result.record(self.number, *one.found)
            elif new:
                length = max(lengths or [steps for _, steps, _ in new])
                self.corpus.add(tuple(one.steps[: max(1, length)]), broken=bool(lengths))
            result.histories += 1  # last: a history in the middle of which the run is cut is played again
        self.count()

    def count(self) -> None:
        """Bring the result's figures up to date."""
        self.result.shapes, self.result.branches = len(self.features), len(self.branches)
        self.result.corpus = len(self.corpus.entries)
