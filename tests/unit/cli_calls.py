# SPDX-License-Identifier: GPL-2.0-only
"""Calls of the command line, in this process and as the real program, and files for them."""

import subprocess
import sys
from typing import NamedTuple

import pytest

from rmaplab.cli.main import main
from rmaplab.workload.trace import Header, TraceWriter

PAGE = 4096
COMMAND = [sys.executable, "-m", "rmaplab"]
FORK = "P0 mmap A 1\nP0 write A\nP0 fork P1\nexpect anon_vmas 2\n"
SMALL = ["check", "--areas", "1", "--calls", "4"]


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Files go to a temporary folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(name="call")
def _call(capfd):
    """Run a verb in this process."""

    def run(*args):
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Done(code, out, err)

    return run


@pytest.fixture(name="file")
def _file(tmp_path):
    def write(content, name="a.rmap"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(name="trace")
def _trace(tmp_path):
    return write_trace(tmp_path / "hand.trace", [["fork", 0, 1], ["exit", 1], ["exit", 0]])


def write_trace(path, events):
    with TraceWriter(path, Header(("prog",), "x86_64", "6.18.0", PAGE)) as writer:
        for event in (
            ["exec", 0, "/bin/prog", []],
            ["mmap", 0, 16 * PAGE, PAGE, 3, 0x22, 0, None],
            ["anon", 0, [[16 * PAGE, 1]]],
            *events,
        ):
            writer.write(event)
        writer.close(status=0)
    return path


def real(*args, text=None, **options):
    """Run the real program."""
    done = subprocess.run([*COMMAND, *map(str, args)], input=text, capture_output=True, text=True, **options)
    assert "Traceback" not in done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr)
