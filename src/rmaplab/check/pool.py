# SPDX-License-Identifier: GPL-2.0-only
"""Worker processes, or none."""

from __future__ import annotations

import gc
import signal
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

from rmaplab.gcpause import paused_gc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from multiprocessing.pool import Pool

    from rmaplab.check.expand import Expansion, History
    from rmaplab.check.explore import Expands

    Expand = Callable[[Iterable[list[History]]], Iterator[Expansion]]
    Workers = Callable[[Expands, int], AbstractContextManager[Expand]]

T = TypeVar("T")
R = TypeVar("R")

__all__ = ["tasks_in_processes", "workers"]

WORTH_IT = 4  # lists for each process
_work: Callable[[Any], Any]


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
    """A function that does ``work`` for each of some tasks, in order, in ``jobs`` processes (1: this one)."""
    pool = _pool(work, jobs) if jobs > 1 else None
    with paused_gc():  # states are full of cycles and short-lived: collected between tasks instead
        if pool is None:
            yield lambda tasks: map(_collecting(work), tasks)
        else:
            with pool:
                yield lambda tasks: pool.imap(_do, tasks)


def _pool(work: Callable[[T], R], jobs: int) -> Pool | None:
    """Forked workers, which share what the parent has; None where the system has no semaphores to offer."""
    # Ctrl-C waits until the workers are there: in the middle of a fork it would be lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return get_context("fork").Pool(jobs, _start_worker, (work,))
    except OSError:  # no usable /dev/shm
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(work: Callable[[Any], Any]) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how the pool ends it, whatever the parent does on one (Ray: exit)
    gc.freeze()  # what the parent has made is not the worker's to collect
    _work = _collecting(work)


def _do(task: object) -> Any:  # noqa: ANN401 (whatever the work is)
    return _work(task)


def _collecting(work: Callable[[T], R]) -> Callable[[T], R]:
    def work_and_collect(task: T) -> R:
        done = work(task)
        gc.collect(1)
        return done

    return work_and_collect
