# SPDX-License-Identifier: GPL-2.0-only
"""The recorder: which events a command leaves in its trace."""

import os
import sys

from recorder_runs import PAGE, _ptrace, _trace, anonymous, kinds, layout, python  # noqa: F401 (fixtures)

from rmaplab.workload.recorder import record


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
    # A thread that was joined has said goodbye to Python; when the kernel ends it is another matter.
    assert sorted(kinds(events, "exit")) == [["exit", task] for task in range(5)]
    assert events[-1][0] == "exit"
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


def test_what_lies_beside_a_new_mapping_is_sampled_before_it(trace):
    """Two areas that were written to keep a gap between them from becoming one with both."""
    source = """
        import ctypes, mmap
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
        libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        room = libc.mmap(None, 3 << 16, 3, 0x22, -1, 0)
        libc.munmap(room + (1 << 16), 1 << 16)
        for place in (room, room + (2 << 16)):
            ctypes.memset(place + 4096, 1, 1)
        libc.mmap(room + (1 << 16), 1 << 16, 3, 0x100022, -1, 0)  # MAP_FIXED_NOREPLACE
    """
    _, events, _ = trace(*python(source))
    room = next(event[2] for event in events if event[0] == "mmap" and event[3] == 3 << 16)
    gap = next(
        at for at, event in enumerate(events) if event[0] == "mmap" and event[2:4] == [room + (1 << 16), 1 << 16]
    )
    pages = anonymous(events[:gap], 0)
    assert not pages.missing(room + PAGE, room + 2 * PAGE)
    assert not pages.missing(room + (2 << 16) + PAGE, room + (2 << 16) + 2 * PAGE)


def test_what_lies_beside_a_cut_is_sampled_before_it(trace):
    source = """
        import ctypes, mmap
        area = mmap.mmap(-1, 1 << 18, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area[0] = 1
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        libc = ctypes.CDLL(None)
        libc.mprotect(ctypes.c_void_p(start + (1 << 15)), ctypes.c_size_t(7 * 4096), 1)
    """
    _, events, _ = trace(*python(source))
    cut = next(at for at, event in enumerate(events) if event[0] == "mprotect" and event[3:5] == [7 * PAGE, 1])
    start = events[cut][2] - (1 << 15)
    assert not anonymous(events[:cut], 0).missing(start, start + PAGE)


def test_recording_twice_gives_the_same_bytes(tmp_path):
    """Of one process: with two, their order is the scheduler's."""
    for name in "ab":
        record(["/bin/sh", "-c", "true; exec ls / > /dev/null"], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
