# SPDX-License-Identifier: GPL-2.0-only
"""The engine's replay against the specification's: the same figures, the same machine, the same complaints."""

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_events import ANONYMOUS, COLD, EXEC, EXIT, PAGE, PRIVATE, SHARED, A, anon, mmap

pytest.importorskip("numba", reason="the fast engine takes Numba")

from rmaplab.engine.choice import why_not
from rmaplab.engine.layout import FIRST, FOLIO, MACHINE, RANGE
from rmaplab.engine.replay import BREATH
from rmaplab.engine.tally import DENSE
from rmaplab.engine.view import take_snapshot
from rmaplab.errors import InputError, UsageError
from rmaplab.series import SERIES, ZOO, find
from rmaplab.workload import engines, fast_replay, packing
from rmaplab.workload.fast_replay import FastReplay
from rmaplab.workload.machine import ADVICES
from rmaplab.workload.reclaim import EVERY, PAGES, PATTERNS
from rmaplab.workload.replay import Replay
from rmaplab.workload.result import WorstWalk
from rmaplab.workload.sources import shipped_traces
from rmaplab.workload.synthetic import Synthetic
from rmaplab.workload.trace import Header, TraceWriter
from rmaplab.workload.trace_events import MARK

KNOWN = [name for name, series in {**SERIES, **ZOO}.items() if not why_not(series)]
WORKLOADS = {
    "aim7": {"processes": 5, "pages": 20},
    "churn": {"events": 1500, "processes": 12},
    "daemon": {"generations": 6, "vmas": 3},
    "mixed": {"events": 1000, "processes": 8},
    "splits": {"vmas": 40},
    "thousand": {"vmas": 9, "children": 2, "levels": 2},
    "zygote": {"apps": 3, "vmas": 10, "own": 4, "written": 5},
}
TINY = {"rows": 64, "avcs": 16}


class Told(Synthetic):
    """A workload of events that are told one by one."""

    def __init__(self, events):
        object.__setattr__(self, "told", events)

    def __str__(self):
        return "told"

    def events(self):
        return iter(self.told)


def figures(result):
    return {
        field.name: getattr(result, field.name) for field in fields(result) if field.name not in ("engine", "seconds")
    }


def machine_of(replay):
    """The engine's machine as a snapshot, its processes named as they are in the results."""
    m, names = replay.machine.m, {}
    row = int(m[MACHINE]["first_process"])
    while row:
        names[row] = replay.name_of(int(m[row]["id"]))
        row = int(m[row]["later"])
    return take_snapshot(replay.machine, names)


def both(workloads, series, *, snapshots=True, **options):
    """A result that both agree on."""
    slow, fast = Replay(workloads, find(series), **options), FastReplay(workloads, find(series), **options, **TINY)
    expected, found = slow.run(), fast.run()
    assert figures(found) == figures(expected)
    if snapshots:
        assert machine_of(fast) == slow.kernel.snapshot()
    return found


# --- the same figures --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WORKLOADS)
@pytest.mark.parametrize("series", KNOWN)
def test_generated_workloads(series, kind):
    workload = Synthetic(kind, WORKLOADS[kind])
    pattern = PATTERNS[(KNOWN.index(series) + list(WORKLOADS).index(kind)) % 3]
    result = both([workload], series, reclaim=pattern)
    assert result.events > 0


@pytest.mark.parametrize(
    ("trace", "series"),
    [
        *((trace, "v7.0") for trace in shipped_traces()),
        *((trace, series) for trace in ("generations", "pool") for series in ("v6.18", "v5.5", "v2.6.34")),
    ],
)
def test_shipped_traces(trace, series):
    both([shipped_traces()[trace]], series, snapshots=False)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_workloads_one_after_the_other(pattern):
    events = [EXEC, mmap(0, A, 4), anon(0, A, 4), ["fork", 0, 1], anon(1, A, 2), ["share", 1, 2, "vm"]]
    left, short = Told(events), Synthetic("daemon", {"generations": 3, "vmas": 40})
    result = both([left, short, left, Synthetic("churn", {"events": 800, "processes": 5})], "v7.0", reclaim=pattern)
    if pattern == "clock":
        assert result.worst_walk.process.startswith("3/")


# --- any history -------------------------------------------------------------------------------

CALLS = [
    "mmap",
    "mmap",
    "mmap",
    "anon",
    "anon",
    "anon",
    "anon",
    "anon",
    "munmap",
    "mprotect",
    "mprotect",
    "mprotect",
    "mremap",
    "mremap",
    "brk",
    "madvise",
    "madvise",
    "fork",
    "fork",
    "fork",
    "exit",
    "exit",
    "share",
    "exec",
    "other",
]


@st.composite
def histories(draw):
    """Events that a recorder could write, with addresses so near each other that VMAs merge and split."""
    alive, created, events = [0], 1, [EXEC]
    pages = st.integers(0x100, 0x118)
    lengths = st.integers(0, 6).map(lambda number: number * PAGE)
    for _ in range(draw(st.integers(1, 60))):
        task = draw(st.sampled_from(alive))
        start, length = draw(pages) * PAGE, draw(lengths)
        match draw(st.sampled_from(CALLS)):
            case "mmap":
                flags = draw(
                    st.sampled_from([PRIVATE | ANONYMOUS] * 4 + [SHARED | ANONYMOUS, PRIVATE, 0x120, 0x4022])
                )
                name, offset = (None, 0) if flags & ANONYMOUS else ("/lib/x", draw(st.integers(0, 3)) * PAGE)
                prot = draw(st.sampled_from([1, 3, 3, 3, 7]))
                events.append(["mmap", task, start, length, prot, flags, offset, name])
            case "anon":
                first = draw(st.integers(1, 5))
                runs = [[start, first], [start + (first + 1) * PAGE, 1]]
                events.append(["anon", task, runs[: draw(st.integers(1, 2))]])
            case "fork":
                events.append(["fork", task, created])
                alive.append(created)
                created += 1
            case "share":
                events.append(["share", task, created, draw(st.sampled_from(["thread", "vfork", "vm"]))])
                alive.append(created)
                created += 1
            case "exit" if len(alive) > 1:
                alive.remove(task)
                events.append(["exit", task])
            case "exec":
                name = draw(st.sampled_from(["", "/bin/x", "[heap]", "[stack]", "[vdso]"]))
                areas = [[start, start + PAGE, "rw-p", 0, name], [start + PAGE, start + 3 * PAGE, "r--s", PAGE, "/y"]]
                events.append(["exec", task, "/bin/x", areas])
            case "munmap":
                events.append(["munmap", task, start, length])
            case "mprotect":
                events.append(["mprotect", task, start, length, draw(st.sampled_from([0, 1, 3]))])
            case "mremap":
                flags, result = draw(st.sampled_from([1, 3, 5, 7])), draw(st.just(start) | pages.map(PAGE.__mul__))
                events.append(["mremap", task, start, length, draw(st.just(length) | lengths), flags, result])
            case "brk":
                events.append(["brk", task, start + draw(st.integers(0, 9)), draw(pages) * PAGE + 3])
            case "madvise":
                events.append(["madvise", task, start, length, draw(st.sampled_from([COLD, *ADVICES]))])
            case "other":
                events.append(["other", task, draw(st.sampled_from(["shmat", MARK]))])
    return events


@settings(max_examples=100, deadline=None)
@given(events=histories(), series=st.sampled_from(KNOWN), pattern=st.sampled_from(PATTERNS))
def test_any_history(events, series, pattern):
    def outcome(replay):
        try:
            return figures(replay.run())
        except InputError as crash:
            return str(crash)

    workload = [Told(events)]
    slow = Replay(workload, find(series), reclaim=pattern)
    fast = FastReplay(workload, find(series), reclaim=pattern, **TINY)
    assert outcome(fast) == outcome(slow)
    if not fast.player.crashed:
        assert machine_of(fast) == slow.kernel.snapshot()


@pytest.mark.parametrize("series", ["v7.0", "v2.6.34"])
def test_ranges_end_where_their_last_entry_ends(series):
    replay = FastReplay([Synthetic("churn", {"events": 2000, "processes": 8})], find(series), **TINY)
    replay.run()
    m, c = replay.machine.m, replay.machine.c

    def last(avc):
        vma = m[c[avc]["vma"]]
        return vma["anon_pgoff"] + (vma["vm_end"] - vma["key"] >> 12) - 1

    ranges = [row for row in range(FIRST, m[MACHINE]["used"]) if m[row]["kind"] == RANGE]
    for row in ranges:
        entries, avc = [], m[row]["head"]
        while avc:
            entries.append(avc)
            avc = c[avc]["later"]
        if series == "v7.0":
            assert m[row]["last"] == max(map(last, entries))
        below = [m[row][side] for side in ("left", "right") if m[row][side]]
        assert m[row]["top"] == max([m[row]["last"], *(m[other]["top"] for other in below)])
    assert len(ranges) > 20


# --- room --------------------------------------------------------------------------------------


def test_room_is_made_as_it_is_needed():
    events = [EXEC, mmap(0, A, 300), anon(0, A, 300)]
    events += [["mprotect", 0, A + 2 * at * PAGE, PAGE, 1] for at in range(150)]
    events += [["fork", 0, 1], ["fork", 1, 2], ["mprotect", 2, A, 300 * PAGE, 7], ["exit", 1], ["munmap", 2, A, PAGE]]
    replay = FastReplay([Told(events)], find("v7.0"), **TINY)
    replay.run()
    machine = replay.machine
    assert len(machine.m) > machine.m[MACHINE]["used"] > 300
    assert len(machine.c) > machine.m[MACHINE]["used_avcs"] > 3 * 300
    assert sum(machine.m["kind"] == FOLIO) == 300
    both([Told(events)], "v7.0")


def test_values_that_the_histograms_have_no_place_for():
    workload = Synthetic("thousand", {"vmas": 1500, "children": 2})
    replay = FastReplay([workload], find("v7.0"))
    replay.player.overflow = replay.player.overflow[:1]
    assert figures(replay.run()) == figures(Replay([workload], find("v7.0")).run())
    assert replay.result.fork_allocations == {3 * 1500: 2}
    assert DENSE < 3 * 1500


def test_a_long_run_of_pages_lets_python_have_its_turn():
    pages = BREATH + 1000
    result = FastReplay([Told([EXEC, mmap(0, A, pages), anon(0, A, pages)])], find("v7.0")).run()
    assert result.page_faults == pages
    assert result.events == 2 + pages


def test_blocks_do_not_part_what_belongs_together(monkeypatch):
    monkeypatch.setattr(packing, "BLOCK", 1)
    both([Synthetic("churn", {"events": 700, "processes": 5})], "v7.0", reclaim="clock")


# --- what is said of it ------------------------------------------------------------------------


def test_names_of_the_worst_walk():
    events = [EXEC, mmap(0, A, 1), anon(0, A), ["fork", 0, 1], ["fork", 0, 2], ["exit", 2]]
    assert both([Told(events)], "v7.0").worst_walk == WorstWalk(3, 3, 6, "2", A)
    assert both([Told([EXEC]), Told(events)], "v7.0").worst_walk.process == "1/2"


def test_damaged_traces_read_the_same(tmp_path):
    path = tmp_path / "damaged.trace"
    with TraceWriter(path, Header(("prog",), "x86_64", "6.18.0", 4096)) as writer:
        for event in [EXEC, mmap(0, A, 1), anon(0, A), EXIT]:
            writer.write(event)
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    for workload in (path, tmp_path / "missing.trace"):
        told = []
        for kind in (Replay, FastReplay):
            with pytest.raises(InputError) as caught:
                kind([workload], find("v7.0")).run()
            told.append(str(caught.value))
        assert told[0] == told[1]


def test_pages_of_another_size_are_refused_alike(tmp_path):
    path = tmp_path / "large.trace"
    with TraceWriter(path, Header(("prog",), "aarch64", "6.18.0", 65536)) as writer:
        writer.write(EXEC)
        writer.close(status=0)
    with pytest.raises(InputError, match="recorded with pages of 65536 bytes"):
        FastReplay([path], find("v7.0")).run()


def test_a_crash_is_told_by_the_specification(monkeypatch):
    replay = FastReplay([Told([EXEC])], find("v7.0"))
    replay.machine.m[MACHINE]["crashed"] = 1

    class Crashing(Replay):
        def run(self, progress=None):
            raise InputError("told: event 1: v7.0 crashed here: of what")

    monkeypatch.setattr(fast_replay, "Replay", Crashing)
    with pytest.raises(InputError, match="of what"):
        replay.run()


def test_what_the_engine_does_not_know_is_named(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from rmaplab.kernel import Kernel\n\n\nclass Mine(Kernel):\n    pass\n")
    assert why_not(find("v7.0")) == ""
    assert "mine.py" in why_not(find(str(path)))
    assert "lazy" in why_not(find("lazy"))


def test_unknown_patterns_are_refused():
    with pytest.raises(UsageError, match="unknown reclaim pattern 'lru'"):
        FastReplay([Told([EXEC])], find("v7.0"), reclaim="lru")


def test_the_clock_goes_as_the_specification_says():
    from rmaplab.engine import reclaim

    assert (reclaim.EVERY, reclaim.PAGES) == (EVERY, PAGES)
    assert PATTERNS == ("exit", "clock", "none")
    assert (reclaim.AT_EXIT, reclaim.BY_CLOCK, reclaim.NEVER) == (0, 1, 2)


# --- the end -----------------------------------------------------------------------------------


def test_it_ends_when_it_is_told_to():
    work = Synthetic("mixed", {"events": 20_000, "processes": 5})
    replay = FastReplay([work], find("v7.0"))
    heard = []

    def progress(events):
        heard.append(events)
        replay.stop()

    result = replay.run(progress)
    assert result.interrupted
    assert len(heard) == 1
    assert heard[0] <= result.events < 20_000


def test_ctrl_c_ends_it():
    def progress(events):
        raise KeyboardInterrupt

    result = FastReplay([Synthetic("daemon", {"generations": 9, "vmas": 3})], find("v7.0")).run(progress)
    assert result.interrupted
    assert figures(replace(result, interrupted=False)) == figures(
        Replay([Synthetic("daemon", {"generations": 9, "vmas": 3})], find("v7.0")).run()
    )


@pytest.mark.parametrize("interrupted", [False, True])
def test_auto_turns_to_the_engine_and_loses_nothing(interrupted, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engines, "replay_is_compiled", lambda: True)
    if interrupted:  # while the engine is loaded
        monkeypatch.setattr(engines, "_fast", interrupt)
    work = Synthetic("mixed", {"events": 5000, "processes": 5})
    result = engines.replay_on("auto", [work], find("v7.0"), head_start=0)
    assert result.engine == ("reference" if interrupted else "fast")
    assert result.interrupted == interrupted
    assert 0 < result.events < 5000 if interrupted else result.events >= 5000
