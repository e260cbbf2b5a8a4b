# SPDX-License-Identifier: GPL-2.0-only
"""Worker processes that expand states, or none."""

from __future__ import annotations

import gc
import signal
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING

from rmaplab.gcpause import paused_gc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.pool import Pool

    from rmaplab.check.expand import Expander, Expansion, History

    Expand = Callable[[Iterator[list[History]]], Iterator[Expansion]]

__all__ = ["workers"]

_expander: Expander


@contextmanager
def workers(expander: Expander, jobs: int) -> Iterator[Expand]:
    """A function that expands lists of histories, in order, in ``jobs`` processes (1: this one)."""
    pool = _pool(expander, jobs) if jobs > 1 else None
    with paused_gc():  # states are full of cycles and short-lived: collected between chunks instead
        if pool is None:
            yield lambda tasks: map(_collecting(expander.expand), tasks)
        else:
            with pool:
                yield lambda tasks: pool.imap(_expand, tasks)


def _pool(expander: Expander, jobs: int) -> Pool | None:
    """Forked workers, which share the parent's expander; None where the system has no semaphores to offer."""
    # Ctrl-C waits until the workers are there: in the middle of a fork it would be lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return get_context("fork").Pool(jobs, _start_worker, (expander,))
    except OSError:  # no usable /dev/shm
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(expander: Expander) -> None:
    global _expander
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    gc.freeze()  # what the parent has made is not the worker's to collect
    _expander = expander


def _expand(histories: list[History]) -> Expansion:
    return _collecting(_expander.expand)(histories)


def _collecting(expand: Callable[[list[History]], Expansion]) -> Callable[[list[History]], Expansion]:
    def expand_and_collect(histories: list[History]) -> Expansion:
        expansion = expand(histories)
        gc.collect(1)
        return expansion

    return expand_and_collect
