# SPDX-License-Identifier: GPL-2.0-only
"""The command line: exit codes, streams, messages, interruption."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from contextlib import contextmanager, suppress
from typing import NamedTuple

import pytest

from rmaplab.cli.main import main
from rmaplab.workload.trace import Header, TraceReader, TraceWriter

PAGE = 4096
COMMAND = [sys.executable, "-m", "rmaplab"]
FORK = "P0 mmap A 1\nP0 write A\nP0 fork P1\nexpect anon_vmas 2\n"
VERBS = ("demo", "run", "check", "record", "replay", "list", "doctor")
LARGE = ["check", "--processes", "4", "--pages", "3", "--calls", "30"]
SMALL = ["check", "--areas", "1", "--calls", "4"]


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Files go to a temporary folder; the reaction to SIGPIPE, which a verb changes, is put back."""
    monkeypatch.chdir(tmp_path)
    old = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, old)


@pytest.fixture
def call(capfd):
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


@pytest.fixture
def file(tmp_path):
    def write(content, name="a.rmap"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def trace(tmp_path):
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


# --- usage: exit 2 --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "VERB"),
        (["frob"], "'frob'"),
        (["run"], "SCENARIO"),
        (["replay"], "TRACE"),
        (["list"], "what"),
        (["list", "sries"], "'sries'"),
        (["record", "--", "true"], "-o"),
        (["record", "-o", "t"], "COMMAND"),
        (["record", "-o", "t", "--"], "COMMAND"),
        (["check", "--frob"], "--frob"),
        (["check", "--calls", "many"], "many"),
        (["check", "--series"], "--series"),
        (["check", "--series", "v6.81"], "did you mean v6.18?"),
        (["check", "--series", "v7"], "v7"),
        (["check", "--design", "nope"], "rmaplab list series"),
        (["run", "a.rmap", "--series", "v9"], "unknown series 'v9'"),
        (["replay", "x.trace", "--series", "v7.0", "--series", "v6.19+1"], "did you mean"),
        (["check", "--processes", "0"], "processes"),
        (["check", "--areas", "0"], "areas"),
        (["check", "--areas", "27"], "26"),
        (["check", "--pages", "0"], "pages"),
        (["check", "--pages", "-1"], "pages"),
        (["check", "--calls", "-1"], "calls"),
        (["check", "--fail-alloc", "-1"], "fail"),
        (["doctor", "--seed", "x"], "x"),
        (["demo", "--html"], "--html"),
    ],
)
def test_usage(call, args, words):
    done = call(*args)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("rmaplab: ")
    assert words in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    "option", [("--jobs", "0"), ("--jobs", "-3"), ("--time", "-1"), ("--time", "nan"), ("--max-states", "-1")]
)
def test_bounds_that_mean_nothing(call, option):
    assert call(*SMALL, *option).code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_the_common_options(call, verb):
    done = call(verb, "--help")
    assert done.code == 0
    for option in ("--json", "-q", "-v", "--seed", "-o"):
        assert option in done.out


def test_version(call):
    done = call("--version")
    assert done.code == 0
    assert done.out.startswith("rmaplab ")


# --- unreadable input, unwritable output: exit 4 ----------------------------------------------


@pytest.mark.parametrize("verb", ["run", "check"])
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
    done = call(verb, file(content, "bad.rmap"))
    assert (done.code, done.out) == (4, "")
    assert words in done.err


@pytest.mark.parametrize("verb", ["run", "check", "replay"])
def test_missing_files_and_folders(call, tmp_path, verb):
    for path in (tmp_path / "none", tmp_path, tmp_path / "none" / "none", "x" * 5000):
        done = call(verb, path)
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


@pytest.mark.parametrize(
    "args", [("run", "a.rmap"), ("list", "zoo"), ("doctor",), (*SMALL, "-j1"), ("replay", "hand.trace")]
)
def test_output_files(call, file, trace, tmp_path, args):
    file(FORK)
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


# --- streams --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [("run", "a.rmap"), ("list", "series"), ("doctor",), (*SMALL, "-j1"), ("replay", "hand.trace")],
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


@pytest.mark.parametrize("args", [("list", "series"), ("list", "invariants", "--json"), ("doctor",)])
def test_closed_pipe(args):
    with subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, -signal.SIGPIPE)


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
    "args", [("run", "a.rmap", "--json", "-v"), ("run", "a.rmap", "-v"), ("list", "series", "--json")]
)
def test_same_input_same_bytes(file, args):
    file(FORK)
    outs = {real(*args, env={**os.environ, "PYTHONHASHSEED": seed}).out for seed in ("0", "1", "2")}
    assert len(outs) == 1
    assert outs.pop()


# --- run ------------------------------------------------------------------------------------


def test_run_verdicts(call, file):
    assert call("run", file(FORK)).code == 0
    done = call("run", file(FORK + "expect anon_vmas 5\n"))
    assert done.code == 1
    assert "FAIL  line 5: expect anon_vmas 5 (found 2)" in done.out
    broken = file("P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\n")
    assert call("run", broken, "--series", "v7.0").code == 0
    done = call("run", broken, "--series", "v6.18+v2")
    assert done.code == 1
    assert "violated at line 4: AV-001" in done.out
    announced = file("P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\nexpect violates AV-001\n")
    assert call("run", announced, "--series", "v6.18+v2").code == 0
    assert call("run", announced, "--series", "v7.0").code == 1


def test_verbose_run_tells_the_steps(call, file):
    path = file(FORK)
    assert len(call("run", path, "-v").out) > len(call("run", path).out)


# --- check ----------------------------------------------------------------------------------


def test_check_verdicts(call):
    assert call(*SMALL).code == 0
    done = call(*SMALL, "--series", "v6.18+v2")
    assert done.code == 1
    assert "  | P0 mmap A 1" in done.out
    for bound in (["--max-states", "9"], ["--time", "0"]):
        done = call(*SMALL, *bound)
        assert done.code == 3
        assert "no-verdict" in done.out
        assert json.loads(call(*SMALL, *bound, "--json").out)["verdict"] == "no-verdict"


def test_check_from_where_a_scenario_ends(call, file):
    path = file("P0 mmap A 1\nP0 write A\n")
    done = call("check", path, "--calls", "1", "--json", "--series", "v6.18+v2")
    assert done.code == 1
    assert json.loads(done.out)["violations"][0]["scenario"].startswith("P0 mmap A 1")


@pytest.mark.parametrize("ending", ["", "P0 exit\n"])
def test_check_from_a_scenario_that_violates_something(call, file, ending):
    path = file("P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\n" + ending)
    assert call("run", path, "--series", "v6.18+1").code == 1
    assert call("check", path, "--series", "v6.18+1", "--fail-alloc", "0", "--calls", "1").code == 1


@pytest.mark.parametrize(
    "more", [[], ["--series", "v6.18+v2"], ["--series", "v6.18+1", "--all"], ["--max-states", "20"]]
)
def test_jobs_and_repetition_change_nothing(call, more):
    found = []
    for jobs in ("1", "2", "1", "3"):
        document = json.loads(call(*SMALL, *more, "--json", "--jobs", jobs).out)
        del document["seconds"]
        found.append(document)
    assert found[0] == found[1] == found[2] == found[3]


# --- designs --------------------------------------------------------------------------------

DESIGN = "from rmaplab.kernel import Kernel\nclass Mine(Kernel):\n    def anon_vma_fork(self, vma, pvma):\n"


def test_design_files(call, file):
    file(DESIGN + "        return super().anon_vma_fork(vma, pvma)\n", "fine.py")
    done = call(*SMALL, "--design", "fine.py", "--json", "--jobs", "2")
    assert done.code == 0
    assert json.loads(done.out)["series"] == "fine.py"
    for text, words in (
        ("", "no class"),
        ("class (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("\0", "bad.py"),
    ):
        file(text, "bad.py")
        done = call(*SMALL, "--design", "bad.py")
        assert (done.code, done.out) == (4, "")
        assert words in done.err
    assert call(*SMALL, "--design", "none.py").code == 4
    os.mkdir("folder.py")
    assert call(*SMALL, "--design", "folder.py").code == 4


@pytest.mark.parametrize("body", ["raise ValueError('boom')", "return None", "vma.anon_vma = 7", "return 1 / 0"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_designs_that_crash_are_violations(call, file, body, jobs):
    file(DESIGN + f"        {body}\n", "crash.py")
    done = call(*SMALL, "--design", "crash.py", "--jobs", jobs, "--json")
    assert done.code == 1
    assert "AV-045" in [found["id"] for found in json.loads(done.out)["violations"]]
    done = call("run", file(FORK), "--design", "crash.py", "--json")
    assert done.code == 1
    assert "AV-045" in [found["id"] for found in json.loads(done.out)["violations"]]


def test_designs_that_crash_in_a_replay(call, file, trace):
    file(DESIGN + "        raise ValueError('boom')\n", "crash.py")
    done = call("replay", trace, "--design", "crash.py")
    assert (done.code, done.out) == (4, "")
    assert "hand.trace: event 4: crash.py crashed here" in done.err


@pytest.mark.parametrize("args", [("replay", "hand.trace"), ("run", "a.rmap"), SMALL], ids=lambda args: args[0])
def test_designs_that_cannot_start(call, file, trace, args):
    file(FORK)
    file(
        "from rmaplab.kernel import Kernel\nclass Mine(Kernel):\n    def __init__(self):\n        1 / 0\n", "init.py"
    )
    assert call(*args, "--design", "init.py").code in (1, 4)


def test_design_that_exits(call, file):
    file("import sys\nsys.exit(0)\n", "leave.py")
    assert call(*SMALL, "--design", "leave.py").code == 4


def test_two_designs_of_one_name(call, file, trace):
    for folder in ("a", "b"):
        os.mkdir(folder)
        file(DESIGN + "        return super().anon_vma_fork(vma, pvma)\n", f"{folder}/mine.py")
    done = call("replay", trace, "--design", "a/mine.py", "--design", "b/mine.py", "--json")
    assert done.code == 2 or len(json.loads(done.out)["results"]) == 2


# --- record and replay ------------------------------------------------------------------------


def test_record_and_replay(call, tmp_path):
    done = call("record", "-o", "t", "--", "sh", "-c", "(true); exit 3")
    assert done.code == 0
    assert "status 3" in done.err
    with TraceReader(tmp_path / "t") as reader:
        assert list(reader)
        assert reader.end.status == 3
    done = call("replay", "t", "--series", "v6.18+1", "--design", "v6.18+2", "--json")
    assert done.code == 0
    results = json.loads(done.out)["results"]
    assert list(results) == ["v6.18+1", "v6.18+2"]
    assert results["v6.18+1"]["events"] == results["v6.18+2"]["events"] > 0


def test_record_refuses(call, file):
    file("", "plain")
    for command, words in (
        (["/no/such/program"], "No such file"),
        (["./plain"], "chmod"),
        (["."], "denied"),
        ([""], "command"),
    ):
        done = call("record", "-o", "t", "--", *command)
        assert (done.code, done.out) == (4, "")
        assert words in done.err
        assert not os.path.exists("t")
    for bad in ("/no/such/dir/t", ".", "/dev/full"):
        assert call("record", "-o", bad, "--", "true").code == 4


def test_quiet_record(call):
    assert call("record", "-q", "-o", "t", "--", "true") == Done(0, "", "")


def test_replay_compares_each_series_once(call, trace):
    done = call("replay", trace, "--series", "v6.18", "--series", "v7.0", "--series", "v6.18")
    assert done.out.splitlines()[0].split() == ["v6.18", "v7.0"]


# --- list and doctor ------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["designs", "invariants", "series", "workloads", "zoo"])
def test_lists(call, what):
    assert call("list", what).out
    items = json.loads(call("list", what, "--json").out)["items"]
    text = call("list", what).out
    assert all((item.get("name") or item["id"]) in text for item in items)


def test_doctor(call):
    done = call("doctor")
    assert done.code == 0
    assert all(line.startswith(("ok ", "missing ", " ")) for line in done.out.splitlines())


# --- Ctrl-C ---------------------------------------------------------------------------------


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
