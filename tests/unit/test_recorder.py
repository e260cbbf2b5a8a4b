# SPDX-License-Identifier: GPL-2.0-only
import mmap
import os
import signal
import subprocess
import sys
import textwrap
import threading
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmaplab.errors import InputError
from rmaplab.workload import pagemap
from rmaplab.workload.recorder import record
from rmaplab.workload.runs import RunSet
from rmaplab.workload.syscalls import ABIS, filter_program
from rmaplab.workload.trace import TraceReader

PAGE = os.sysconf("SC_PAGESIZE")
SCRIPT = "import sys\nfrom pathlib import Path\nfrom rmaplab.workload.recorder import record\n"


@pytest.fixture(scope="module", autouse=True)
def _ptrace(tmp_path_factory):
    try:
        record(["true"], tmp_path_factory.mktemp("probe") / "t")
    except InputError as error:
        if "refused" in str(error) or "cannot record on" in str(error):
            pytest.skip(f"no ptrace here: {error}")
        raise


@pytest.fixture(params=[True, False], ids=["filter", "every-call"])
def trace(request, tmp_path):
    """Record a command; return summary, events and end."""

    def run(*command):
        path = tmp_path / "out.trace"
        summary = record(command, path, use_filter=request.param)
        with TraceReader(path) as reader:
            events = list(reader)
        assert sum(summary.events.values()) == len(events) == reader.end.events
        assert summary.status == reader.end.status
        assert reader.header.command == command
        assert os.listdir(tmp_path) == ["out.trace"]
        return summary, events, reader.end

    return run


def python(source, *arguments):
    return sys.executable, "-I", "-c", textwrap.dedent(source), *map(str, arguments)


def kinds(events, *wanted):
    return [event for event in events if event[0] in wanted]


def layout(events):
    """Follow every address space; return the mapped set of each task when it ended."""
    spaces, ended = {}, {}
    for kind, task, *rest in events:
        space = spaces.get(task)
        if kind == "exec":
            space = spaces[task] = RunSet()
            for start, end, *_ in rest[1]:
                space.add(start, end)
        elif kind == "fork":
            spaces[rest[0]] = deepcopy(space)
        elif kind == "share":
            spaces[rest[0]] = space
        elif kind == "mmap":
            run = rest[0], rest[0] + rest[1]
            if not rest[3] & 0x10:
                assert space.missing(*run) == [run], "a new mapping lies on an old one: calls out of order"
            space.add(*run)
        elif kind == "munmap":
            space.remove(rest[0], rest[0] + rest[1])
        elif kind == "mremap":
            space.remove(rest[0], rest[0] + rest[1])
            space.add(rest[4], rest[4] + rest[2])
        elif kind == "brk":
            old, new = (-(-end // PAGE) * PAGE for end in rest)
            (space.add if old < new else space.remove)(*sorted((old, new))) if old != new else None
        elif kind == "anon":
            for address, pages in rest[0]:
                grown_stack = address > (1 << 47) - (1 << 24)
                assert grown_stack or not space.missing(address, address + pages * PAGE)
        elif kind == "exit":
            ended[task] = space
    return ended


def anonymous(events, task):
    pages = RunSet()
    for _, owner, runs in kinds(events, "anon"):
        if owner == task:
            for address, count in runs:
                pages.add(address, address + count * PAGE)
    return pages


def gone(pid):
    """Wait until a process is no more (a zombie counts)."""
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return


def test_shell_with_a_background_child(trace):
    summary, events, end = trace("/bin/sh", "-c", "true & wait")
    assert events[0][:2] == ["exec", 0]
    assert events[0][2].startswith("/")
    assert any(name == "[stack]" for *_, name in events[0][3])
    assert kinds(events, "fork", "exit") == [["fork", 0, 1], ["exit", 1], ["exit", 0]]
    assert summary.tasks == 2
    assert not end.interrupted
    layout(events)


def test_children_are_numbered_in_order_and_touched_pages_are_reported(trace, tmp_path_factory):
    told = tmp_path_factory.mktemp("told") / "address"
    source = """
        import ctypes, mmap, os, sys
        area = mmap.mmap(-1, 64 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        open(sys.argv[1], "w").write(str(start))
        for page in (0, 1, 2, 7, 9):
            area[page * mmap.PAGESIZE] = 1
        area[20 * mmap.PAGESIZE]  # a read: the shared zero page
        for page in (1, 30):
            if not (child := os.fork()):
                area[page * mmap.PAGESIZE] = 2
                os._exit(0)
            os.waitpid(child, 0)
    """
    _, events, _ = trace(*python(source, told))
    start = int(told.read_text())
    assert kinds(events, "fork") == [["fork", 0, 1], ["fork", 0, 2]]
    before = events[: events.index(["fork", 0, 1])]
    pages = anonymous(before, 0)
    absent = [
        ((low - start) // PAGE, (high - start) // PAGE) for low, high in pages.missing(start, start + 32 * PAGE)
    ]
    assert absent == [(3, 7), (8, 9), (10, 32)]
    assert not anonymous(events, 1).missing(start + PAGE, start + 2 * PAGE)
    assert anonymous(events, 1).missing(start + 9 * PAGE, start + 10 * PAGE)  # still shared with the parent
    assert not anonymous(events, 2).missing(start + 30 * PAGE, start + 31 * PAGE)
    layout(events)


def test_threads_share_and_their_calls_come_in_order(trace):
    source = """
        import mmap, threading
        def work():
            for _ in range(60):
                with mmap.mmap(-1, 65536) as area:
                    area[0] = 1
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    """
    _, events, _ = trace(*python(source))
    assert kinds(events, "share") == [["share", 0, child, "thread"] for child in range(1, 5)]
    assert len(kinds(events, "munmap")) >= 240
    assert events[-1] == ["exit", 0]
    layout(events)


def test_posix_spawn_shares_until_its_exec(trace):
    _, events, _ = trace(*python("import subprocess; subprocess.run(['true'])"))
    shared = events.index(["share", 0, 1, "vfork"])
    assert next(event for event in events[shared:] if event[0] == "exec")[1] == 1


def test_exec_from_a_thread_ends_the_others(trace):
    source = """
        import os, threading
        threading.Thread(target=lambda: os.execvp("true", ["true"])).start()
        threading.Event().wait()
    """
    summary, events, _ = trace(*python(source))
    assert summary.status == 0
    (leader_end,) = (place for place, event in enumerate(events) if event == ["exit", 0])
    assert leader_end < next(place for place, event in enumerate(events) if event[:2] == ["exec", 1])
    assert events[-1] == ["exit", 1]


def test_every_call_on_areas_and_the_final_layout(trace, tmp_path_factory):
    told = tmp_path_factory.mktemp("told") / "maps"
    source = """
        import ctypes, mmap, os, sys
        libc = ctypes.CDLL(None, use_errno=True)
        libc.sbrk.restype = ctypes.c_void_p
        area = mmap.mmap(-1, 16 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area[0] = 1
        area.madvise(mmap.MADV_DONTNEED, 0, 4 * mmap.PAGESIZE)
        area.resize(4096 * mmap.PAGESIZE)
        file = open(sys.executable, "rb")
        view = mmap.mmap(file.fileno(), mmap.PAGESIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        libc.sbrk(ctypes.c_ssize_t(40 * mmap.PAGESIZE + 5))
        libc.sbrk(ctypes.c_ssize_t(-20 * mmap.PAGESIZE))
        libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(area))), ctypes.c_size_t(1))
        libc.munmap(ctypes.c_void_p(1), ctypes.c_size_t(1))  # fails, so it is not recorded
        out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
        maps = os.open("/proc/self/maps", os.O_RDONLY)
        while data := os.read(maps, 4096):
            os.write(out, data)
        os._exit(5)
    """
    summary, events, end = trace(*python(source, told))
    assert summary.status == end.status == 5
    assert ["mmap", 0, PAGE, 1, 2, 0, os.path.realpath(sys.executable)] in [
        [*event[:2], *event[3:]] for event in kinds(events, "mmap")
    ]
    assert [event[3:5] for event in kinds(events, "madvise")][-1] == [4 * PAGE, 4]
    assert [event[3:5] for event in kinds(events, "mremap")][-1] == [16 * PAGE, 4096 * PAGE]
    assert ["other", 0, "mlock"] in events
    mapped = layout(events)[0]
    for line in told.read_text().splitlines():
        if "[stack]" not in line and "[vsyscall]" not in line:
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            assert not mapped.missing(start, end), line
            mapped.remove(start, end)
    rest = mapped.missing(0, 1 << 56)
    assert len(rest) == 2  # the stack alone is left between the two
    assert rest[1][0] > 1 << 46


def test_pages_written_and_unmapped_between_samples_are_seen(trace):
    source = """
        import mmap
        area = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area[5 * mmap.PAGESIZE] = 1
        area.close()
    """
    _, events, _ = trace(*python(source))
    unmapping = next(p for p, event in enumerate(events) if event[0] == "munmap" and event[3] == 1 << 20)
    start = events[unmapping][2]
    assert events[unmapping - 1] == ["anon", 0, [[start + 5 * PAGE, 1]]]


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


def test_recording_twice_gives_the_same_bytes(tmp_path):
    for name in "ab":
        record(["/bin/sh", "-c", "true & wait; ls / > /dev/null"], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_progress_is_told(tmp_path):
    told = []
    summary = record(["true"], tmp_path / "t", progress=told.append)
    assert told[-1] == sum(summary.events.values())


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


def test_recording_from_a_thread(tmp_path):
    summaries = []
    thread = threading.Thread(target=lambda: summaries.append(record(["true"], tmp_path / "t")))
    thread.start()
    thread.join()
    assert summaries[0].status == 0


def test_unknown_machine_is_a_clear_error(tmp_path, monkeypatch):
    real = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*real[:4], "riscv64")))
    with pytest.raises(InputError, match="cannot record on riscv64: use x86_64 or aarch64"):
        record(["true"], tmp_path / "t")


def test_pagemap_with_and_without_the_scan_ioctl_agree():
    area = mmap.mmap(-1, 4096 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    reserve = mmap.mmap(-1, 1 << 32, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=0)
    for page in (*range(3), 9, 1000, 4095):
        area[page * PAGE] = 1
    areas = [run for run in pagemap.read_areas(os.getpid()) if run.end - run.start >= 4096 * PAGE]
    spans = [(run.start, run.end) for run in areas if run.end - run.start != 1 << 32]
    scanned = [pagemap.anonymous_runs(os.getpid(), span) for span in spans]
    read = [pagemap.anonymous_runs(os.getpid(), span, scan=False) for span in spans]
    assert scanned == read
    assert sum((end - start) // PAGE for runs in read for start, end in runs) >= 6
    assert pagemap.anonymous_runs(os.getpid(), scan=False)
    reserve.close()


def test_filter_jumps_stay_inside_and_end_in_a_verdict():
    for abi in ABIS.values():
        program = filter_program(abi)
        count = len(program) // 8
        for place in range(count - 2):
            assert place + 1 + max(program[place * 8 + 2 : place * 8 + 4]) < count
        assert [program[place * 8] for place in (count - 2, count - 1)] == [6, 6]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 10)), max_size=20), st.data())
def test_run_set_equals_a_set(operations, data):
    runs, model = RunSet(), set()
    for adds, start, length in operations:
        (runs.add if adds else runs.remove)(start, start + length)
        (model.update if adds else model.difference_update)(range(start, start + length))
    start = data.draw(st.integers(0, 40))
    end = data.draw(st.integers(start + 1, 50))
    missing = runs.missing(start, end)
    assert {item for low, high in missing for item in range(low, high)} == set(range(start, end)) - model
    assert all(low < high for low, high in missing)
