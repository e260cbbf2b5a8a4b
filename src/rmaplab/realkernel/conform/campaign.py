# SPDX-License-Identifier: GPL-2.0-only
"""Many programs on a kernel and on the model, by several workers, each with a guest of its own."""

from __future__ import annotations

import signal
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context, util
from typing import TYPE_CHECKING, Self

from rmaplab.errors import RmaplabError
from rmaplab.realkernel.conform.programs import drawing
from rmaplab.realkernel.conform.run import Conformance, Pair, shrink
from rmaplab.realkernel.guest.wire import GuestError
from rmaplab.realkernel.guests import can_fail, lacking, open_guest, series_of
from rmaplab.series import find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rmaplab.realkernel.conform.run import Drawing, Mismatch, Program
    from rmaplab.realkernel.guest.wire import Guest

    Opener = Callable[[], Guest]

__all__ = ["Campaign", "conform"]

CHUNK = 10  # programs that a worker is given at a time
SHORTENED = 3  # mismatches of a chunk that are worth it


@dataclass(frozen=True)
class Campaign:
    """What is to be done: ``opener`` makes a guest, ``without`` are calls and advice that it lacks.

    Of given programs each is run, of seeds the program that each stands for,
    in which with ``failing`` some calls run out of memory.
    """

    series: str
    opener: Opener
    without: frozenset[str] = frozenset()
    failing: bool = False

    @classmethod
    def on(cls, kernel: str, series: str | None = None) -> Self:
        """On a guest by its name, with all that its kernel can do; by default with the series that it follows.

        :class:`rmaplab.errors.InputError` for a guest that is not there.
        """
        return cls(series or series_of(kernel), partial(open_guest, kernel), lacking(kernel), can_fail(kernel))


class _Worker:
    """One guest and what it is compared with."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.guest = campaign.opener()
        self.pair = Pair(find(campaign.series), self.guest)
        self.series = self.pair.series

    def programs(self, jobs: Iterable[int | Program]) -> Conformance:
        """Run programs; what was done since the last call."""
        self.pair.tally = tally = Conformance(self.guest.release, self.series.name)
        for job in jobs:
            seed = job if isinstance(job, int) else None
            found = self.pair.run(self.drawing(job) if isinstance(job, int) else job, seed)
            if found is not None:
                tally.mismatches.append(self.examined(found) if len(tally.mismatches) < SHORTENED else found)
        return tally

    def drawing(self, seed: int) -> Drawing:
        """The program that a seed stands for."""
        campaign = self.campaign
        return partial(drawing, seed=seed, without=campaign.without, failing=campaign.failing)

    def examined(self, found: Mismatch) -> Mismatch:
        """Shortened, or marked as one that does not come again."""
        tally, self.pair.tally = self.pair.tally, Conformance(self.guest.release, self.series.name)
        again = self.pair.run(found.program)
        if again is None:
            found = found._replace(what=("not seen again:", *found.what))
        else:
            found = shrink(again._replace(seed=found.seed), self.pair.run)
        self.pair.tally = tally
        return found


_worker: _Worker | RmaplabError | None = None


def _start(campaign: Campaign) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    try:
        _worker = _Worker(campaign)
    except RmaplabError as error:
        _worker = error  # for the parent, when it asks for something
        return
    util.Finalize(None, _worker.guest.close, exitpriority=10)


def _run(jobs: Sequence[int | Program]) -> Conformance:
    if isinstance(_worker, RmaplabError):
        raise _worker
    assert _worker is not None
    return _worker.programs(jobs)


def conform(
    campaign: Campaign,
    jobs: Iterable[int | Program],
    *,
    workers: int = 1,
    progress: Callable[[Conformance], None] = lambda so_far: None,
    enough: Callable[[], bool] = lambda: False,
) -> Conformance:
    """Run programs, given as seeds or as they are, until ``enough`` says so; Ctrl-C keeps what was done.

    :class:`rmaplab.errors.InputError` for a guest that cannot be opened,
    :class:`GuestError` for a worker that is gone.
    """
    chunks = _chunks(jobs, CHUNK)
    total: Conformance | None = None
    if workers == 1:
        worker = _Worker(campaign)
        try:
            total = Conformance(worker.guest.release, campaign.series)
            for chunk in chunks:
                total.add(worker.programs(chunk))
                progress(total)
                if enough():
                    break
        except KeyboardInterrupt:
            assert total is not None
            total.add(worker.pair.tally)
            total.interrupted = True
        finally:
            worker.guest.close()
        return total
    with ProcessPoolExecutor(workers, get_context("fork"), _start, (campaign,)) as pool:
        try:
            return _pooled(pool, chunks, workers, progress, enough)
        except BrokenProcessPool as error:
            raise GuestError(
                f"one of {workers} workers was killed, perhaps for want of memory: try fewer, with --jobs"
            ) from error


def _pooled(
    pool: ProcessPoolExecutor,
    chunks: Iterator[list[int | Program]],
    workers: int,
    progress: Callable[[Conformance], None],
    enough: Callable[[], bool],
) -> Conformance:
    total: Conformance | None = None
    running: set[Future[Conformance]] = {pool.submit(_run, chunk) for chunk in islice(chunks, 2 * workers)}
    done: set[Future[Conformance]] = set()
    interrupted = False
    while running or done:
        try:
            if not done:
                done, running = wait(running, return_when=FIRST_COMPLETED)
            if not interrupted and not enough():
                running |= {pool.submit(_run, chunk) for chunk in islice(chunks, len(done))}
            while done:
                part = done.pop().result()
                if total is None:
                    total = part
                else:
                    total.add(part)
                progress(total)
        except KeyboardInterrupt:
            interrupted = True
            running = {future for future in running if not future.cancel()}
    assert total is not None
    total.interrupted = interrupted
    return total


def _chunks(jobs: Iterable[int | Program], size: int) -> Iterator[list[int | Program]]:
    iterator = iter(jobs)
    while chunk := list(islice(iterator, size)):
        yield chunk
