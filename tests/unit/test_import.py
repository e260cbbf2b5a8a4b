# SPDX-License-Identifier: GPL-2.0-only
"""Traces made of what strace, perf and tracefs write: texts by hand, and the tools themselves where they are."""

import gzip
import json
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from cli_calls import _call, _file, _in_a_folder_of_its_own  # noqa: F401 (fixtures)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from rmaplab import schema
from rmaplab.errors import InputError
from rmaplab.workload.ftrace_text import EVENTS, ftrace_steps
from rmaplab.workload.importing import Importer
from rmaplab.workload.strace_text import strace_steps
from rmaplab.workload.trace import TraceReader

STRACE = """\
100 execve("/bin/prog", ["prog", "a, (b"], 0x7ffd /* 3 vars */) = 0
100 brk(NULL) = 0x555555560000
100 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
100 mmap(NULL, 5000, PROT_READ, MAP_PRIVATE, 3</lib/x.so>, 0x1000) = 0x7f0000100000
100 openat(AT_FDCWD, "/none", O_RDONLY) = -1 ENOENT (No such file or directory)
100 munmap(0x7f0000900000, 4096) = 0
100 brk(0x555555570000) = 0x555555570000
100 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD <unfinished ...>
101 mprotect(0x7f0000001000, 4096, PROT_NONE) = 0
100 <... clone resumed>, child_tidptr=0x7f) = 101
101 +++ killed by SIGKILL +++
100 exit_group(0) = ?
100 +++ exited with 0 +++
"""
PERF = """\
   sh  7248 [001]  7856.228549:    sched:sched_process_exec: filename=/usr/bin/sh pid=7248 old_pid=7248
  a name 9  7248 [001] 7856.2: syscalls:sys_enter_mmap: addr: 0x0, len: 0x2000, prot: 0x3, flags: 0x22, fd: 0, off: 0
   sh  7248 [001]  7856.228899:      syscalls:sys_exit_mmap: 0x7fe1db8d8000
   sh  7248 [001]  7856.228900:  exceptions:page_fault_user: address=0x7fe1db8d8008 ip=0x7fe1 error_code=0x6
   sh  7248 [001]  7856.228901:  exceptions:page_fault_user: address=0x7fe1db8d9008 ip=0x7fe1 error_code=0x4
   sh  7248 [001]  7856.3: syscalls:sys_enter_munmap: addr: 0x0, len: 0x1000
   sh  7248 [001]  7856.3: syscalls:sys_exit_munmap: 0xffffffffffffffea
   sh  7248 [001]  7856.4: syscalls:sys_enter_clone: clone_flags: 0x01200011, newsp: 0x00000000
   sh  7248 [001]  7856.4: sched:sched_process_fork: comm=sh pid=7248 child_comm=sh child_pid=7249
   sh  7249 [000]  7856.5: sched:sched_process_exit: comm=sh pid=7249 prio=120
"""
FTRACE = """\
# tracer: nop
              sh-7248    [001] d..1.  7856.22: sys_mmap(addr: 0, len: 2000, prot: 3, flags: 22, fd: ffffffff, off: 0)
              sh-7248    [001] .....  7856.23: sys_mmap -> 0x7fe1db8d8000
              sh-7248    [001] d..1.  7856.24: page_fault_user: address=0x7fe1db8d8008 ip=0x7fe1 error_code=0x6
"""


@pytest.fixture(name="imported")
def _imported(call, file):
    """Import a text; the events of the trace."""

    def read(text, *options):
        file(text, "in.txt")
        done = call("import", "in.txt", "-o", "out.trace", *options)
        assert done.code == 0, done.err
        with TraceReader(Path("out.trace")) as reader:
            return list(reader)

    return read


def test_calls_of_strace(imported):
    assert imported(STRACE) == [
        ["exec", 0, "/bin/prog", [[0x7FFFFFFDE000, 0x7FFFFFFFF000, "rw-p", 0, "[stack]"]]],
        ["mmap", 0, 0x7F0000000000, 8192, 3, 0x22, 0, None],
        ["mmap", 0, 0x7F0000100000, 8192, 1, 2, 4096, "/lib/x.so"],
        ["anon", 0, [[0x7F0000000000, 1], [0x7FFFFFFFE000, 1]]],
        ["brk", 0, 0x555555560000, 0x555555570000],
        ["anon", 0, [[0x555555560000, 1]]],
        ["fork", 0, 1],
        ["mprotect", 1, 0x7F0000001000, 4096, 0],
        ["exit", 1],
        ["exit", 0],
    ]


def test_times_and_brackets_do_not_matter(imported):
    plain = imported(STRACE)
    for prefix in ("12:00:01 ", "12:00:01.123456 ", "1700000000.123456 ", "     0.000012 "):
        assert imported("".join(line.replace(" ", f" {prefix}", 1) for line in STRACE.splitlines(True))) == plain
    assert imported("".join(f"[pid {line[:3]}] {line[4:]}" for line in STRACE.splitlines(True))) == plain


def test_faults_of_perf_and_tracefs(imported):
    mapped = ["mmap", 0, 0x7FE1DB8D8000, 0x2000, 3, 0x22, 0, None]
    written = ["anon", 0, [[0x7FE1DB8D8000, 1]]]
    assert imported(PERF) == [["exec", 0, "/usr/bin/sh", []], mapped, written, ["fork", 0, 1], ["exit", 1]]
    assert imported(FTRACE) == [["exec", 0, "", []], mapped, written]


def test_what_nobody_was_seen_to_map_is_made_known(imported):
    lines = [*STRACE.splitlines(True)[:2], "100 mprotect(0x7f0000000000, 8192, PROT_READ) = 0\n"]
    assert imported("".join(lines))[1:] == [
        ["anon", 0, [[0x7FFFFFFFE000, 1]]],
        ["mmap", 0, 0x7F0000000000, 8192, 3, 0x32, 0, None],
        ["mprotect", 0, 0x7F0000000000, 8192, 1],
    ]


def test_how_tasks_share(imported):
    head = STRACE.splitlines(True)[0]
    for flags, event in (
        ("CLONE_VM|CLONE_THREAD", ["share", 0, 1, "thread"]),
        ("CLONE_VM|CLONE_VFORK|SIGCHLD", ["share", 0, 1, "vfork"]),
        ("CLONE_VM", ["share", 0, 1, "vm"]),
        ("SIGCHLD", ["fork", 0, 1]),
    ):
        assert event in imported(f"{head}100 clone3({{flags={flags}, exit_signal=0}}, 88) = 101\n")
    assert ["share", 0, 1, "vfork"] in imported(
        f'{head}100 vfork( <unfinished ...>\n101 execve("x", [], 0) = 0\n100 <... vfork resumed>) = 101\n'
    )


def test_the_summary_says_what_was_assumed(call, file):
    file(STRACE, "in.txt")
    done = call("import", "in.txt", "-o", "out.trace", "--json")
    found = json.loads(done.out)
    Draft202012Validator(schema.load("import")).validate(found)
    assert found["assumed"] == {"pages written, one for each new mapping": 3}
    assert found["tasks"] == 2
    assert "assumed: 3 x pages written" in done.err


def test_gzipped_files_and_pipes(call):
    Path("in.gz").write_bytes(gzip.compress(STRACE.encode()))
    assert call("import", "in.gz", "-o", "a.trace").code == 0
    assert call("replay", "a.trace").code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "neither strace's"),
        ("hello\nworld\n", "neither strace's"),
        ("100 getpid() = 100\n", "no call on memory"),
        ("100 mmap(NULL, x, y, 3, -1, 0) = 0x7f0000000000\n", "line 1: mmap"),
        ("100 munmap(0x1001, 10) = 0\n", "no range of memory"),
        ('execve("a", [], 0) = 0\n[pid 5] getpid() = 5\n', "strace -f -o FILE"),
        (PERF.replace("len: 0x2000", "lem: 0x2000"), "line 3: sys_exit_mmap"),
    ],
)
def test_wrong_texts_are_refused_and_leave_no_trace(call, file, text, words):
    file(text, "in.txt")
    done = call("import", "in.txt", "-o", "out.trace")
    assert (done.code, done.out) == (4, "")
    assert words in done.err
    assert "in.txt" in done.err
    assert not list(Path().glob("out.trace*"))


def test_usage(call):
    assert call("import").code == 2
    assert call("import", "x").code == 2
    assert call("import", "none", "-o", "t").code == 4
    assert call("import", "--events").out.strip() == ",".join(EVENTS)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), steps=st.sampled_from([(strace_steps, STRACE), (ftrace_steps, PERF), (ftrace_steps, FTRACE)]))
def test_damaged_lines_are_refused_or_understood(data, steps):
    read, text = steps
    lines = text.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        cut = data.draw(st.integers(0, len(lines[at])))
        lines[at] = lines[at][:cut] + data.draw(st.text(max_size=4)) + lines[at][cut + data.draw(st.integers(0, 3)) :]
    events = []
    with suppress(InputError):
        Importer(events.append, touch=read is strace_steps).run(read(lines))
    assert all(isinstance(event, list) for event in events)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_strace_itself(call):
    command = ["strace", "-f", "-o", "s.txt", "sh", "-c", "true & (echo hi | cat) ; wait"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace here")
    assert call("import", "s.txt", "-o", "s.trace").code == 0
    done = json.loads(call("replay", "s.trace", "--json").out)["results"]["v7.0"]
    assert done["forks"] >= 3
    assert done["refused"] == {}
    assert done["final"]["bytes"] == 0
    assert call("record", "-q", "-o", "r.trace", "--", "sh", "-c", "true & (echo hi | cat) ; wait").code == 0
    recorded = json.loads(call("replay", "r.trace", "--json").out)["results"]["v7.0"]
    assert recorded["forks"] == done["forks"]
