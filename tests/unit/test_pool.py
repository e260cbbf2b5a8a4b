# SPDX-License-Identifier: GPL-2.0-only
"""Worker processes do tasks in order, end when they are told to, and none that is gone is waited for."""

import os
import signal
import time

import pytest

from rmaplab.check.expand import Expander
from rmaplab.check.explore import explore
from rmaplab.check.histories import Bounds
from rmaplab.check.pool import tasks_in_processes
from rmaplab.errors import NoVerdictError


@pytest.fixture
def exits_on_sigterm():
    """As a program that has started Ray does."""

    def leave(number, _frame):
        raise SystemExit(number)

    before = signal.signal(signal.SIGTERM, leave)
    yield
    signal.signal(signal.SIGTERM, before)


def killed(task):
    """As by the kernel when memory runs out."""
    if task == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def deaf(_task):
    """Where what a signal's handler raises is dropped."""

    class Dropped:
        def __del__(self):
            time.sleep(60)

    Dropped()
    return os.getpid()


@pytest.mark.usefixtures("exits_on_sigterm")
def test_the_parents_handlers_do_not_keep_a_worker_alive():
    with tasks_in_processes(signal.getsignal, 2) as work:
        assert set(work([signal.SIGTERM] * 4)) == {signal.SIG_DFL}
        assert set(work([signal.SIGINT] * 4)) == {signal.SIG_IGN}


@pytest.mark.usefixtures("exits_on_sigterm")
def test_leaving_does_not_wait_for_what_is_under_way():
    before = time.monotonic()
    with tasks_in_processes(deaf, 2) as work:
        work([0, 1])
        time.sleep(0.5)
    assert time.monotonic() - before < 30


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(jobs):
    with tasks_in_processes(lambda task: time.sleep(task % 3 / 100) or -task, jobs) as work:
        assert list(work(range(20))) == [-task for task in range(20)]
        assert list(work([])) == []
        assert list(work([1])) == [-1]


def test_results_that_nobody_waited_for_are_not_the_next_ones():
    with tasks_in_processes(abs, 2) as work:
        assert next(work(range(50, 100))) == 50
        assert list(work([1, 2, 3])) == [1, 2, 3]


def test_leaving_while_large_results_are_under_way():
    """What multiprocessing.Pool does not survive: one worker holds a lock of a pipe that nobody reads any more."""
    for turn in range(100):
        with tasks_in_processes(bytes, 2) as work:
            results = work([70_000] * 40)
            for _ in range(turn % 5 + 1):
                assert len(next(results)) == 70_000


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_exception_is_raised_where_the_result_would_be(jobs):
    with tasks_in_processes(lambda task: 6 // task, jobs) as work:
        results = work([1, 2, 0, 3])
        assert [next(results), next(results)] == [6, 3]
        with pytest.raises(ZeroDivisionError) as caught:
            next(results)
    if jobs > 1:
        assert "test_pool.py" in "".join(caught.value.__notes__), "where it was raised in the worker"


def test_a_worker_that_is_gone_is_told_of():
    with (
        tasks_in_processes(killed, 2) as work,
        pytest.raises(NoVerdictError, match=r"one of 2 worker processes is gone.*--jobs"),
    ):
        list(work(range(10)))


def test_an_exploration_gives_up_when_a_worker_is_gone(monkeypatch):
    parent, expand = os.getpid(), Expander.expand

    def expand_or_die(self, histories):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return expand(self, histories)

    monkeypatch.setattr(Expander, "expand", expand_or_die)
    result = explore("v7.0", Bounds(calls=6), jobs=2)
    assert (result.verdict, result.interrupted) == ("no-verdict", False)
    assert "worker processes is gone" in result.reason
    assert result.transitions > 0
