# SPDX-License-Identifier: GPL-2.0-only
"""The command line: files and standard input, and what cannot be read."""

import json
import subprocess

import pytest
from cli_calls import COMMAND, FORK, _call, _file, _in_a_folder_of_its_own, _trace, real  # noqa: F401 (fixtures)

VERBS = {"run": (), "check": (), "shrink": (), "export": ("--to", "c")}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("P0 mmap A\nP0 frobnicate B\n", "bad.rmap:1:"),
        ("P0 mmap A 1\nP0 frobnicate B\n", "bad.rmap:2:4"),
        (bytes(range(256)) * 20, "bad.rmap"),
        ("", "bad.rmap"),
        ("# nothing\n", "bad.rmap"),
        ("P0 write B\n", "bad.rmap:1:"),
    ],
)
def test_bad_scenarios(call, file, verb, content, words):
    done = call(verb, file(content, "bad.rmap"), *VERBS[verb])
    assert (done.code, done.out) == (4, "")
    assert words in done.err


@pytest.mark.parametrize("verb", [*VERBS, "replay"])
def test_missing_files_and_folders(call, tmp_path, verb):
    for path in (tmp_path / "none", tmp_path, tmp_path / "none" / "none", "x" * 5000):
        done = call(verb, path, *VERBS.get(verb, ()))
        assert (done.code, done.out) == (4, "")
        assert str(path)[:40] in done.err


@pytest.mark.parametrize(
    "content", [b"", b"junk", bytes(range(255, -1, -1)) * 99, b"\x1f\x8b", FORK.encode()], ids=range(5)
)
def test_bad_traces(call, file, content):
    done = call("replay", file(content, "bad.trace"))
    assert (done.code, done.out) == (4, "")
    assert "bad.trace" in done.err


def test_truncated_traces(call, file, trace):
    whole = trace.read_bytes()
    for length in range(0, len(whole), 7):
        done = call("replay", file(whole[:length], "cut.trace"))
        assert (done.code, done.out) == (4, "")
    assert call("replay", trace, file(whole[:40], "cut.trace"), "--json").out == ""


def test_standard_input(file):
    done = real("run", "-", "--json", text=FORK)
    assert done.code == 0
    assert len(json.loads(done.out)["final"]["anon_vmas"]) == 2
    assert real("check", "-", "--calls", "1", "-j1", text=FORK).code == 0
    done = real("run", "-", text="")
    assert (done.code, done.out) == (4, "")


def test_a_trace_from_standard_input(trace):
    with open(trace, "rb") as stream:
        assert subprocess.run([*COMMAND, "replay", "-"], stdin=stream, capture_output=True).returncode == 0
