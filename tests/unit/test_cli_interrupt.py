# SPDX-License-Identifier: GPL-2.0-only
"""The command line: Ctrl-C ends every verb with what it has found so far."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
from contextlib import contextmanager, suppress

import pytest
from cli_calls import COMMAND, PAGE, _in_a_folder_of_its_own, write_trace  # noqa: F401 (a fixture)

from rmaplab.workload.trace import TraceReader

LARGE = ["check", "--processes", "4", "--pages", "3", "--calls", "30"]


@contextmanager
def at_a_terminal(*args):
    """Start the program with a terminal on stderr; yields the process and a way to wait for words there."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 200))  # a bar is cut to the width
    process = subprocess.Popen(
        [*COMMAND, *map(str, args)], stdout=subprocess.PIPE, stderr=follower, start_new_session=True
    )
    os.close(follower)
    seen = bytearray()

    def read(until=None):
        with suppress(OSError):  # the terminal's other end is closed
            while until is None or not re.search(until, seen):
                assert select.select([leader], [], [], 60)[0], f"nothing more after {seen}"
                seen.extend(os.read(leader, 4096))
        return seen.decode()

    try:
        yield process, read
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        os.close(leader)


def interrupt(args, until, *, group):
    with at_a_terminal(*args) as (process, read):
        read(until)
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        out = process.stdout.read().decode()
        assert process.wait() == 130
        assert "Traceback" not in read() + out
        with pytest.raises(ProcessLookupError):  # no worker outlives it
            os.killpg(process.pid, 0)
    return json.loads(out)


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupted_check(jobs, group):
    found = interrupt([*LARGE, "--jobs", jobs, "--json"], b"depth", group=group)
    assert found["verdict"] == "no-verdict"
    assert "interrupted" in found["reason"]
    assert found["transitions"] > 0


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupted_row_of_explorations(jobs):
    """What the first stages found stands, with the one that was cut."""
    found = interrupt(["check", "--jobs", jobs, "--json"], b"rights, depth", group=True)
    assert found["verdict"] == "no-verdict"
    assert [stage["verdict"] for stage in found["stages"]][-1] == "no-verdict"
    assert found["stages"][0]["verdict"] == "holds"


def test_an_interrupted_check_goes_on(tmp_path):
    args = ["check", "--calls", "6", "--fail-alloc", "0", "--save", "kept", "--json", "--jobs", "2"]
    cut = interrupt(args, b"depth 5", group=True)
    done = subprocess.run([*COMMAND, *args, "--resume"], capture_output=True, check=True)
    whole = subprocess.run([*COMMAND, *args[:5], *args[7:]], capture_output=True, check=True)
    went_on, never_cut = json.loads(done.stdout), json.loads(whole.stdout)
    assert cut["transitions"] < went_on["transitions"]
    for key in ("states", "transitions", "digest", "reached", "verdict"):
        assert went_on[key] == never_cut[key]


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupted_fuzz(tmp_path, jobs, group):
    args = ["fuzz", "--time", "500", "--jobs", jobs, "--json", "--corpus", "kept"]
    found = interrupt(args, b"[1-9][0-9]* histories", group=group)
    assert found["interrupted"]
    assert found["histories"] > 0
    assert json.loads((tmp_path / "kept" / "fuzz.json").read_text())["next"] == found["histories"]


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupted_fuzz_on_the_engine(jobs, group):
    pytest.importorskip("numba", reason="the fast engine takes Numba (extra `fast`)")
    args = ["fuzz", "--engine", "fast", "--time", "500", "--jobs", jobs, "--json"]
    found = interrupt(args, b"[1-9][0-9]* histories", group=group)
    assert (found["engine"], found["interrupted"]) == ("fast", True)
    assert found["histories"] > 0


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupted_comparison(jobs):
    found = interrupt(["compare", "v6.18", "v7.0", *LARGE[1:], "--jobs", jobs, "--json"], b"depth 5", group=True)
    assert found["interrupted"]
    assert "allocation order" in [difference["in"] for difference in found["differences"]]


def test_interrupted_shrinking(tmp_path):
    calls = [f"P0 mmap V{number} 2\nP0 write V{number}" for number in range(60)]
    (tmp_path / "long.rmap").write_text("\n".join([*calls, "fail 150", "P0 fork P1", ""]))
    found = interrupt(["shrink", "long.rmap", "--series", "v6.18+v2", "--json"], b"[1-9][0-9]* calls", group=False)
    assert found["interrupted"]
    assert found["violations"][0]["length"] <= found["length_before"] == 121


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
def test_interrupted_demo(tmp_path, group):
    found = interrupt(
        ["demo", "--no-record", "--jobs", "2", "--json"], rb"failing forks on v6\.18\+1: [^\r]*depth", group=group
    )
    assert found["interrupted"]
    assert [row["series"] for row in found["failing_forks"]][:1] == ["v6.18"]
    assert "Interrupted" in (tmp_path / "rmaplab-demo.html").read_text()


def test_interrupted_replay(tmp_path):
    # Enough events for the bar to move, then a sample that takes for ever.
    area, steps = 1 << 36, 1500
    events = [["mmap", 0, area, 1 << 44, 3, 0x22, 0, None]]
    events += [["anon", 0, [[area + at * 64 * PAGE, 64]]] for at in range(steps)]
    events.append(["anon", 0, [[area, 1 << 32]]])
    path = write_trace(tmp_path / "long.trace", events)
    found = interrupt(["replay", path, "--series", "v6.18", "--series", "v7.0", "--json"], b"k events", group=False)
    assert list(found["results"]) == ["v6.18"]
    assert found["results"]["v6.18"]["interrupted"]
    assert found["results"]["v6.18"]["events"] > 1000


def test_interrupted_record(tmp_path):
    with at_a_terminal("record", "-o", "t", "--", "sh", "-c", "echo ready; exec sleep 1000") as (process, read):
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 130
        assert "Traceback" not in read()
    with TraceReader(tmp_path / "t") as reader:
        assert list(reader)
        assert reader.end.interrupted
