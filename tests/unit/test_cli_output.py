# SPDX-License-Identifier: GPL-2.0-only
"""The command line: what it prints and where, and what cannot be written."""

import json
import os
import signal
import subprocess

import pytest
from cli_calls import (
    COMMAND,
    FORK,
    SMALL,
    _call,  # noqa: F401 (a fixture)
    _file,  # noqa: F401 (a fixture)
    _in_a_folder_of_its_own,  # noqa: F401 (a fixture)
    _trace,  # noqa: F401 (a fixture)
    real,
)

FAILING = "P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\n"


@pytest.mark.parametrize(
    "args",
    [
        *(("run", "a.rmap"), ("list", "zoo"), ("doctor",), (*SMALL, "-j1"), ("replay", "hand.trace")),
        ("fuzz", "--histories", "20", "-j1"),
        ("shrink", "bad.rmap", "--series", "v6.18+v2"),
        ("compare", "v6.18", "v7.0", "--calls", "3", "-j1"),
    ],
)
def test_output_files(call, file, trace, tmp_path, args):
    file(FORK)
    file(FAILING, "bad.rmap")
    printed = call(*args, "--json")
    done = call(*args, "--json", "-o", "out.json")
    assert (done.code, done.out) == (printed.code, "")
    assert json.loads((tmp_path / "out.json").read_text()).keys() == json.loads(printed.out).keys()
    assert call(*args, "-o", "-").out
    for bad in ("/no/such/dir/x", tmp_path):
        done = call(*args, "-o", bad)
        assert (done.code, done.out) == (4, "")
        assert str(bad) in done.err


def test_full_disk():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "list", "series"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode == 4
    assert "No space left" in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        *(("run", "a.rmap"), ("list", "series"), ("doctor",), (*SMALL, "-j1"), ("replay", "hand.trace")),
        ("fuzz", "--histories", "20", "-j1"),
        ("compare", "v7.0", "v7.3", "--calls", "3", "-j1"),
    ],
    ids=lambda args: args[0],
)
def test_json_is_one_document_and_quiet_is_quiet(call, file, trace, args):
    file(FORK)
    done = call(*args, "--json")
    assert done.code == 0
    assert json.loads(done.out)["kind"] == args[0]
    assert done.out.endswith("}\n")
    assert call(*args, "-q").err == ""
    assert call(*args, "--seed", "7").code == 0
    text = call(*args).out
    assert text.endswith("\n")
    assert "\x1b" not in text


def test_json_of_record_is_one_document(call):
    json.loads(call("record", "--json", "-o", "t", "--", "echo", "hello").out)


@pytest.mark.parametrize("args", [("list", "series"), ("list", "invariants", "--json"), ("doctor",)])
def test_closed_pipe(args):
    with subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE


def test_pipes_to_others_do_not_end_the_program(call):
    """A guest that dies is reported; the pipe to it must not take the program along."""
    call("list", "series")
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN


@pytest.mark.parametrize(
    "closing",
    [
        "<&-",
        ">&-",
    ],
)
def test_closed_streams(closing):
    command = f'"$@" {closing}'
    done = subprocess.run(["sh", "-c", command, "sh", *COMMAND, "run", "-"], input="", capture_output=True, text=True)
    assert done.returncode == 4
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("setting", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_escape_sequences_in_a_pipe(setting):
    done = real("list", "invariants", env={**os.environ, **setting})
    assert done.code == 0
    assert "\x1b" not in done.out + done.err


@pytest.mark.parametrize(
    "args",
    [
        *(("run", "a.rmap", "--json", "-v"), ("run", "a.rmap", "-v"), ("list", "series", "--json")),
        ("shrink", "bad.rmap", "--series", "v6.18+v2", "--json"),
        *(("export", "bad.rmap", "--series", "v6.18+v2", "--to", to) for to in ("ascii", "c", "dot", "sarif", "svg")),
    ],
)
def test_same_input_same_bytes(file, args):
    file(FORK)
    file(FAILING, "bad.rmap")
    outs = {real(*args, env={**os.environ, "PYTHONHASHSEED": seed}).out for seed in ("0", "1", "2")}
    assert len(outs) == 1
    assert outs.pop()
