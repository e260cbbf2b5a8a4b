# SPDX-License-Identifier: GPL-2.0-only
"""The recorder: the command runs as it would without it, with its status, signals and streams."""

import threading

import pytest
from recorder_runs import _ptrace, _trace, python  # noqa: F401 (fixtures)

from rmaplab.workload.recorder import record


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)])
def test_status_is_passed_on(trace, script, status):
    assert trace("/bin/sh", "-c", script)[0].status == status


def test_signals_and_job_control_reach_the_command(trace, capfd):
    source = """
        import os, signal
        signal.signal(signal.SIGUSR1, lambda *_: print("got", flush=True))
        os.kill(os.getpid(), signal.SIGUSR1)
        if not (child := os.fork()):
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(3)
        print(os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1]), flush=True)
        os.kill(child, signal.SIGCONT)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """
    trace(*python(source))
    assert capfd.readouterr().out.split() == ["got", "True", "3"]


def test_command_keeps_the_standard_streams(trace, capfd):
    trace("/bin/sh", "-c", "echo out; echo err >&2")
    assert capfd.readouterr() == ("out\n", "err\n")


def test_killed_in_the_middle_of_forking(trace):
    script = "while :; do /bin/true & done & sleep 0.2; kill -KILL $!; exit 0"
    assert trace("/bin/sh", "-c", script)[0].status == 0


def test_progress_is_told(tmp_path):
    told = []
    summary = record(["true"], tmp_path / "t", progress=told.append)
    assert told[-1] == sum(summary.events.values())


def test_recording_from_a_thread(tmp_path):
    summaries = []
    thread = threading.Thread(target=lambda: summaries.append(record(["true"], tmp_path / "t")))
    thread.start()
    thread.join()
    assert summaries[0].status == 0
