# SPDX-License-Identifier: GPL-2.0-only
"""Worker processes end when they are told to, whatever the program that has them made of its signals."""

import os
import signal
import time

import pytest

from rmaplab.check.pool import tasks_in_processes


@pytest.fixture
def exits_on_sigterm():
    """As a program that has started Ray does."""

    def leave(number, _frame):
        raise SystemExit(number)

    before = signal.signal(signal.SIGTERM, leave)
    yield
    signal.signal(signal.SIGTERM, before)


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
