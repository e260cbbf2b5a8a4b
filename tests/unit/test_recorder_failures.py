# SPDX-License-Identifier: GPL-2.0-only
"""The recorder: what cannot be recorded, and what is left of a recording cut short."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from recorder_runs import SCRIPT, _ptrace, gone  # noqa: F401 (a fixture)

from rmaplab.errors import InputError
from rmaplab.workload.recorder import record
from rmaplab.workload.trace import TraceReader


def test_failing_progress_leaves_a_readable_trace_and_no_process(tmp_path):
    class StopError(Exception):
        pass

    def fail(_events):
        raise StopError

    script = "sleep 600 & echo $! > pid; while :; do ls / > /dev/null; done"
    with pytest.raises(StopError):
        record(["/bin/sh", "-c", f"cd {tmp_path}; {script}"], tmp_path / "t", progress=fail)
    gone(int((tmp_path / "pid").read_text()))
    with TraceReader(tmp_path / "t") as reader:
        assert len(list(reader)) >= 1000
    assert reader.end.interrupted


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["no-such-program-here"], "no-such-program-here: cannot run it: No such file.*PATH"),
        (["/"], "/: cannot run it: Permission denied"),
        (["{tmp}/garbage"], "Exec format error"),
        (["{tmp}/closed"], "Permission denied.*chmod"),
        ([], "no command given"),
        (["true", "\0"], "NUL"),
    ],
)
def test_command_that_cannot_run(tmp_path, command, reason):
    for name, mode in (("garbage", 0o755), ("closed", 0o644)):
        (tmp_path / name).write_text("garbage")
        (tmp_path / name).chmod(mode)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match=reason):
        record([word.format(tmp=tmp_path) for word in command], tmp_path / "t")
    assert sorted(os.listdir(tmp_path)) == before


def test_unwritable_output_is_noticed_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="cannot write the trace"):
        record(["touch", str(tmp_path / "ran")], tmp_path / "missing" / "t")
    assert os.listdir(tmp_path) == []


def test_full_disk_ends_the_command(tmp_path):
    script = "echo $$ > pid; while :; do ls / > /dev/null; done"
    with pytest.raises(InputError, match="No space left"):
        record(["/bin/sh", "-c", f"cd {tmp_path}; {script}"], Path("/dev/full"))
    gone(int((tmp_path / "pid").read_text()))


def test_tracing_refused(tmp_path):
    source = f"{SCRIPT}\ntry: record(['true'], Path(sys.argv[1]))\nexcept Exception as e: sys.exit(str(e))"
    script = f'{sys.executable} -c "$0" {tmp_path}/inner 2> {tmp_path}/error'
    record(["/bin/sh", "-c", script, source], tmp_path / "outer")
    assert "true: tracing it is refused" in (tmp_path / "error").read_text()
    assert not (tmp_path / "inner").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_keeps_what_is_done(tmp_path, number):
    source = f"{SCRIPT}\nsummary = record(['sh', '-c', 'echo $$; exec sleep 600'], Path(sys.argv[1]))\nprint(summary)"
    command = [sys.executable, "-c", source, str(tmp_path / "t")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as recorder:
        child = int(recorder.stdout.readline())
        recorder.send_signal(number)
        output, _ = recorder.communicate()
    assert recorder.returncode == 0
    assert "interrupted=True" in output
    gone(child)
    with TraceReader(tmp_path / "t") as reader:
        assert next(iter(reader))[:2] == ["exec", 0]
        assert list(reader)
    assert reader.end.interrupted
    assert reader.end.status is None


def test_killed_recorder_takes_its_tree_along_and_leaves_a_partial_trace(tmp_path):
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do ls / > /dev/null; done; echo $$; exec sleep 600"
    source = f"{SCRIPT}\nrecord(['sh', '-c', {script!r}], Path(sys.argv[1]))"
    command = [sys.executable, "-c", source, str(tmp_path / "t")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as recorder:
        child = int(recorder.stdout.readline())
        recorder.kill()
    gone(child)
    assert os.listdir(tmp_path) == ["t.partial"]
    with pytest.raises(InputError, match="truncated after"), TraceReader(tmp_path / "t.partial") as reader:
        list(reader)
    with TraceReader(tmp_path / "t.partial", allow_truncated=True) as reader:
        assert len(list(reader)) >= 255
    assert reader.end.interrupted


def test_unknown_machine_is_a_clear_error(tmp_path, monkeypatch):
    real = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*real[:4], "riscv64")))
    with pytest.raises(InputError, match="cannot record on riscv64: use x86_64 or aarch64"):
        record(["true"], tmp_path / "t")


def test_an_error_at_a_threads_end_ends_the_recording(tmp_path):
    """The leader is gone by then, and what is killed while it stops at its end has to be let go on."""
    command = """
import ctypes, os, threading
libc = ctypes.CDLL(None)
def outlive():
    while open("/proc/self/stat").read().split()[2] != "Z":
        pass
    os._exit(0)
threading.Thread(target=outlive).start()
libc.syscall(ctypes.c_long(%d), ctypes.c_long(0))  # exit(2): this thread alone
"""
    number = 60 if os.uname().machine == "x86_64" else 93
    source = f"""{SCRIPT}
from rmaplab.workload import journal
def write(self, task, kind, *fields):
    if kind == "exit" and task.number == 1:
        raise OSError("the disk is full")
journal.Journal.write = write
try:
    record([sys.executable, "-c", {command % number!r}], Path(sys.argv[1]))
except OSError as error:
    sys.exit(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path / "t")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.strip() == "the disk is full"
