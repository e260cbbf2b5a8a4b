# SPDX-License-Identifier: GPL-2.0-only
"""Worker processes, or none.

Each worker is spoken to by a pipe of its own.  They share no queue and no
lock, so any of them may be killed at any time, by the pool or by others,
without the rest waiting for what it held (as those of multiprocessing.Pool
do, now and then, when it is left while large results are under way).
"""

from __future__ import annotations

import gc
import signal
import traceback
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from rmaplab.errors import NoVerdictError
from rmaplab.gcpause import paused_gc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from rmaplab.check.expand import Expansion, History
    from rmaplab.check.explore import Expands

    Expand = Callable[[Iterable[list[History]]], Iterator[Expansion]]
    Workers = Callable[[Expands, int], AbstractContextManager[Expand]]

T = TypeVar("T")
R = TypeVar("R")

__all__ = ["tasks_in_processes", "workers"]

WORTH_IT = 4  # lists for each process


@contextmanager
def workers(expander: Expands, jobs: int) -> Iterator[Expand]:
    """A function that expands lists of histories, in order, in ``jobs`` processes (1: this one).

    They are started for the first lists that are worth it; small explorations end before.
    """
    with ExitStack() as stack:
        alone = stack.enter_context(tasks_in_processes(expander.expand, 1))
        together: Expand | None = None

        def expand(shards: Iterable[list[History]]) -> Iterator[Expansion]:
            nonlocal together
            shards = iter(shards)
            if together is None and jobs > 1:
                first = list(islice(shards, WORTH_IT * jobs))
                if len(first) == WORTH_IT * jobs:
                    together = stack.enter_context(tasks_in_processes(expander.expand, jobs))
                shards = chain(first, shards)
            return (together or alone)(shards)

        yield expand


@contextmanager
def tasks_in_processes(work: Callable[[T], R], jobs: int) -> Iterator[Callable[[Iterable[T]], Iterator[R]]]:
    """A function that does ``work`` for each of some tasks, in order, in ``jobs`` processes (1: this one).

    An exception of ``work`` is raised here; :class:`rmaplab.errors.NoVerdictError`
    for a process that is gone.  Leaving does not wait for what is under way.
    """
    with paused_gc():  # states are full of cycles and short-lived: collected between tasks instead
        if jobs == 1:
            yield lambda tasks: map(_collecting(work), tasks)
            return
        pool = _Pool(_collecting(work))
        try:
            pool.start(jobs)
            yield pool.imap
        finally:
            pool.end()


class _Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection


class _Pool(Generic[T, R]):
    """Forked workers, which share what the parent has."""

    def __init__(self, work: Callable[[T], R]) -> None:
        self.work = work
        self.workers: list[_Worker] = []
        self.under_way: dict[Connection, int] = {}  # the numbers of the tasks that they have been given

    def start(self, jobs: int) -> None:
        """Start them.  Ctrl-C waits until they are there: in the middle of a fork it would be lost."""
        context = get_context("fork")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(jobs):
                ours, theirs = context.Pipe()
                with theirs:
                    process = context.Process(target=_serve, args=(self.work, ours, theirs), daemon=True)
                    process.start()
                self.workers.append(_Worker(process, ours))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end(self) -> None:
        """Kill them, whatever they do."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()

    def imap(self, tasks: Iterable[T]) -> Iterator[R]:
        """Begin with some tasks; the results in their order."""
        while self.under_way:  # for somebody who has gone away
            self._speak(self.under_way.popitem()[0].recv)
        idle, waiting = [worker.pipe for worker in self.workers], enumerate(tasks)
        self._give(idle, waiting)
        return self._results(idle, waiting)

    def _give(self, idle: list[Connection], waiting: Iterator[tuple[int, T]]) -> None:
        """Whoever has nothing to do is given the next task."""
        for pipe, (number, task) in zip(tuple(idle), waiting, strict=False):
            self._speak(pipe.send, task)
            idle.remove(pipe)
            self.under_way[pipe] = number

    def _results(self, idle: list[Connection], waiting: Iterator[tuple[int, T]]) -> Iterator[R]:
        under_way = self.under_way
        done: dict[int, tuple[Any, Exception | None]] = {}  # results, or what was raised instead
        turn = 0
        while under_way or done:
            ready = wait([*under_way], 0 if turn in done else None)
            for pipe in [pipe for pipe in under_way if pipe in ready]:
                done[under_way.pop(pipe)] = self._speak(pipe.recv)
                idle.append(pipe)
            self._give(idle, waiting)
            if turn in done:
                result, error = done.pop(turn)
                if error is not None:
                    raise error
                yield result
                turn += 1

    def _speak(self, call: Callable[..., Any], *args: T) -> Any:  # noqa: ANN401 (of the pipe)
        try:
            return call(*args)
        except (EOFError, ConnectionError):
            raise NoVerdictError(
                f"one of {len(self.workers)} worker processes is gone, perhaps for want of memory: "
                "try fewer, with --jobs"
            ) from None


def _serve(work: Callable[[T], R], parents: Connection, pipe: Connection) -> None:
    """What a worker does, until its parent is gone."""
    parents.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever the parent does on one (Ray: exit)
    gc.freeze()  # what the parent has made is not the worker's to collect
    with suppress(EOFError, ConnectionError):
        while True:
            task = pipe.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = work(task), None
            except Exception as error:  # the parent's to deal with
                error.add_note(f"in a worker process:\n{traceback.format_exc()}")
                answer = None, error
            pipe.send(answer)


def _collecting(work: Callable[[T], R]) -> Callable[[T], R]:
    def work_and_collect(task: T) -> R:
        done = work(task)
        gc.collect(1)
        return done

    return work_and_collect
