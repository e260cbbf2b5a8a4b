# SPDX-License-Identifier: GPL-2.0-only
"""Replaying traces written by hand: what each event does to the objects, and to the counts."""

import contextlib
import gc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmaplab.errors import InputError
from rmaplab.series import SERIES, find
from rmaplab.workload.replay import replay
from rmaplab.workload.trace import Header, TraceWriter

PAGE = 4096
A, B = 0x100 * PAGE, 0x200 * PAGE  # far apart
PRIVATE, SHARED, ANONYMOUS = 0x02, 0x01, 0x20
R, RW = 1, 3
DONTNEED, DONTFORK = 4, 10
EXEC = ["exec", 0, "/bin/prog", []]
EXIT = ["exit", 0]
CALLS = [
    "mmap",
    "mmap",
    "anon",
    "anon",
    "anon",
    "fork",
    "fork",
    "exit",
    "share",
    "exec",
    "munmap",
    "mprotect",
    "mremap",
    "brk",
    "madvise",
    "other",
]


def mmap(task, address, pages, prot=RW, flags=PRIVATE | ANONYMOUS, offset=0, name=None):
    return ["mmap", task, address, pages * PAGE, prot, flags, offset, name]


def anon(task, address, pages=1):
    return ["anon", task, [[address, pages]]]


@pytest.fixture
def play(tmp_path):
    """Write events to a trace, replay it, return the result."""

    def write_and_replay(*events, series="v7.0", page_size=PAGE, **options):
        path = tmp_path / "hand.trace"
        with TraceWriter(path, Header(("prog",), "x86_64", "6.18.0", page_size)) as writer:
            for event in events:
                writer.write(event)
            writer.close(status=0)
        return replay([path], find(series), **options)

    return write_and_replay


def final(result):
    return result.final.anon_vma, result.final.anon_vma_chain


@pytest.mark.parametrize(
    ("events", "objects"),
    [
        ([mmap(0, A, 2)], (0, 0)),
        ([mmap(0, A, 2), anon(0, A)], (1, 1)),
        ([mmap(0, A, 2), anon(0, A, 2)], (1, 1)),
        ([mmap(0, A, 1), mmap(0, B, 1, R), anon(0, A), anon(0, B)], (2, 2)),
        ([mmap(0, A, 1, flags=SHARED | ANONYMOUS), anon(0, A)], (0, 0)),
        ([mmap(0, A, 1, name="/lib/x", flags=PRIVATE), anon(0, A)], (1, 1)),
        # Neighbours with the same rights share one anon_vma, those with others do as well.
        ([mmap(0, A, 1), anon(0, A), mmap(0, A + PAGE, 1), anon(0, A + PAGE)], (1, 1)),
        ([mmap(0, A, 1), anon(0, A), ["munmap", 0, A, PAGE]], (0, 0)),
        ([mmap(0, A, 3), anon(0, A, 3), ["munmap", 0, A + PAGE, PAGE]], (1, 2)),
        ([mmap(0, A, 3), anon(0, A, 3), ["mprotect", 0, A + PAGE, PAGE, R]], (1, 3)),
        ([mmap(0, A, 2), anon(0, A, 2), ["mprotect", 0, A, PAGE, R], ["mprotect", 0, A, PAGE, RW]], (1, 1)),
        # MAP_FIXED over the middle of an area: the pieces on both sides stay.
        ([mmap(0, A, 3), anon(0, A, 3), mmap(0, A + PAGE, 1, R)], (1, 2)),
        ([mmap(0, A, 1), anon(0, A), mmap(0, A, 1)], (0, 0)),
        ([mmap(0, A, 1), anon(0, A), ["madvise", 0, A, PAGE, DONTNEED]], (1, 1)),
        ([mmap(0, A, 1), anon(0, A), ["fork", 0, 1]], (2, 3)),
        ([mmap(0, A, 1), ["fork", 0, 1]], (0, 0)),
        ([mmap(0, A, 1), anon(0, A), ["fork", 0, 1], ["exit", 1]], (1, 1)),
        ([mmap(0, A, 1), anon(0, A), ["fork", 0, 1], ["exec", 1, "/bin/x", []]], (1, 1)),
        ([mmap(0, A, 1), anon(0, A), ["share", 0, 1, "thread"]], (1, 1)),
        ([mmap(0, A, 1), ["share", 0, 1, "thread"], anon(1, A)], (1, 1)),
        ([mmap(0, A, 1), anon(0, A), ["share", 0, 1, "vfork"], ["exec", 1, "/bin/x", []]], (1, 1)),
        ([mmap(0, A, 1), anon(0, A), ["exec", 0, "/bin/x", []]], (0, 0)),
        ([["brk", 0, A, A + 2 * PAGE], anon(0, A, 2)], (1, 1)),
        ([["brk", 0, A + 5, A + PAGE + 7], anon(0, A + PAGE)], (1, 1)),
        ([["brk", 0, A, A + 2 * PAGE], anon(0, A, 2), ["brk", 0, A + 2 * PAGE, A]], (0, 0)),
        # The heap of a fork child grows into a second VMA with an anon_vma of its own.
        (
            [["brk", 0, A, A + PAGE], anon(0, A), ["fork", 0, 1], ["brk", 1, A + PAGE, A + 2 * PAGE]],
            (2, 3),
        ),
        ([["other", 0, "shmat"]], (0, 0)),
    ],
)
def test_objects_after_each_event(play, events, objects):
    result = play(EXEC, *events)
    assert final(result) == objects
    assert result.final.bytes == 104 * objects[0] + 64 * objects[1]
    assert not result.refused
    alive = {0} | {event[2] for event in events if event[0] in ("fork", "share")}
    alive -= {event[1] for event in events if event[0] == "exit"}
    assert final(play(EXEC, *events, *(["exit", task] for task in sorted(alive)))) == (0, 0)


def test_exec_makes_the_areas_it_names(play):
    areas = [
        [A, A + PAGE, "r-xp", 0, "/bin/prog"],
        [A + PAGE, A + 2 * PAGE, "rw-p", PAGE, "/bin/prog"],
        [A + 2 * PAGE, A + 4 * PAGE, "rw-p", 0, "[heap]"],
        [B, B + PAGE, "rw-s", 0, "/dev/shm/x"],
        [B + PAGE, B + 9 * PAGE, "rw-p", 0, "[stack]"],
        [B + 20 * PAGE, B + 21 * PAGE, "---p", 0, ""],
    ]
    result = play(
        ["exec", 0, "/bin/prog", areas], anon(0, A + PAGE), anon(0, A + 2 * PAGE), anon(0, B), anon(0, B + 5 * PAGE)
    )
    assert final(result) == (3, 3)
    assert result.page_faults == 4
    assert not result.refused


def test_the_last_user_tears_the_address_space_down(play):
    begin = [EXEC, mmap(0, A, 1), anon(0, A), ["share", 0, 1, "vfork"]]
    assert final(play(*begin, ["exit", 1])) == (1, 1)
    assert final(play(*begin, ["exit", 0])) == (1, 1)
    assert final(play(*begin, ["exit", 1], EXIT)) == (0, 0)
    # One walk: the address space ends once.
    assert sum(play(*begin, ["exit", 1], EXIT).walk_visits.values()) == 1


def test_mremap_in_place(play):
    begin = [EXEC, mmap(0, A, 2), anon(0, A, 2)]
    grown = play(*begin, ["mremap", 0, A, 2 * PAGE, 4 * PAGE, 1, A], anon(0, A + 3 * PAGE))
    assert final(grown) == (1, 1)  # still one VMA
    assert not grown.approximated
    assert not grown.refused
    shrunk = play(*begin, ["mremap", 0, A, 2 * PAGE, PAGE, 0, A], anon(0, A + PAGE))
    assert shrunk.refused == {"page fault EFAULT": 1}
    assert not shrunk.approximated
    same = play(*begin, ["mremap", 0, A, 2 * PAGE, 2 * PAGE, 0, A])
    assert final(same) == (1, 1)
    assert not same.refused


def test_mremap_that_moves_is_approximated(play):
    result = play(EXEC, mmap(0, A, 2), anon(0, A, 2), ["mremap", 0, A, 2 * PAGE, 3 * PAGE, 1, B], anon(0, B, 3))
    assert result.approximated.total() == 1
    assert final(result) == (1, 1)
    assert not result.refused


@pytest.mark.parametrize(
    "call",
    [
        ["mremap", 0, A, 0, PAGE, 1, B],  # a second mapping of a shared area
        ["mremap", 0, A, PAGE, PAGE, 4, B],  # MREMAP_DONTUNMAP
        ["mremap", 0, B, PAGE, PAGE, 1, A],  # no such area
    ],
)
def test_mremap_of_other_kinds_is_left_out(play, call):
    result = play(EXEC, mmap(0, A, 1), anon(0, A), call)
    assert result.unmodelled == {"mremap": 1}
    assert final(result) == (1, 1)


def test_unmodelled_calls_are_counted_by_name(play):
    result = play(
        EXEC,
        mmap(0, A, 1),
        anon(0, A),
        ["madvise", 0, A, PAGE, DONTFORK],
        ["madvise", 0, A, PAGE, DONTFORK],
        ["madvise", 0, A, PAGE, DONTNEED],
        ["other", 0, "shmat"],
        ["other", 0, "clone-untraced"],
    )
    assert result.unmodelled == {"madvise 10": 2, "shmat": 1, "clone-untraced": 1}
    assert result.events == 8 + 1 - 1  # the sample of one page counts as one fault
    assert final(result) == (1, 1)


def test_dontneed_gives_the_page_up(play):
    events = [EXEC, mmap(0, A, 1), anon(0, A)]
    kept, dropped = play(*events, EXIT), play(*events, ["madvise", 0, A, PAGE, DONTNEED], EXIT)
    assert kept.walk_visits == {1: 1}
    assert dropped.walk_visits == {}


def test_what_the_model_refuses_is_counted(play):
    result = play(
        EXEC,
        anon(0, A, 2),
        ["mprotect", 0, A, PAGE, R],
        ["munmap", 0, A, 0],
        mmap(0, 0, 1),
        mmap(0, 1 << 56, 1),
        ["madvise", 0, B, PAGE, DONTNEED],
        ["munmap", 0, B, PAGE],
    )
    assert result.refused == {"page fault EFAULT": 2, "mprotect ENOMEM": 1, "munmap EINVAL": 1, "mmap ENOMEM": 2}
    assert final(result) == (0, 0)


def test_samples_are_written_whatever_the_rights_are_by_now(play):
    result = play(EXEC, mmap(0, A, 1, R), anon(0, A))
    assert final(result) == (1, 1)
    assert not result.refused


def test_counts_of_forks_and_chains(play):
    events = [
        EXEC,
        mmap(0, A, 1),
        anon(0, A),
        mmap(0, B, 1, R),
        ["fork", 0, 1],
        ["fork", 1, 2],
        ["share", 2, 3, "vm"],
    ]
    result = play(*events)
    assert result.forks == 2
    assert result.vma_forks == 2  # B has no anon_vma
    assert result.reuses == 0
    assert result.chain_length == {2: 1, 3: 1}
    assert final(result) == (3, 1 + 2 + 3)
    assert result.allocations == 3 + 6
    assert result.page_faults == 1
    assert result.events == len(events)  # the sample stands for one fault


def test_walks_visit_parent_and_children(play):
    events = [EXEC, mmap(0, A, 1), anon(0, A), ["fork", 0, 1], ["fork", 0, 2]]
    result = play(*events, ["exit", 0], ["exit", 2], ["exit", 1])
    assert result.walk_visits == {3: 1, 2: 1, 1: 1}


def reuse(times):
    """Generations: each child forks a successor and exits, so the successor's forks find an anon_vma to adopt."""
    events = [EXEC, mmap(0, A, 1), anon(0, A)]
    for task in range(times + 1):
        events += [["fork", task, task + 1], ["exit", task]]
    return events


@pytest.mark.parametrize("times", [2, 3, 5])
def test_allocating_ahead_wastes_two_objects_a_reuse(play, times):
    # The patch allocates anon_vma and AVC first, and throws both away when an ancestor's anon_vma is adopted.
    before, after = (play(*reuse(times), ["exit", times + 1], series=name) for name in ("v6.18+1", "v6.18+2"))
    assert before.reuses == after.reuses > 0
    assert before.wasted_allocations == 0
    assert after.wasted_allocations == 2 * after.reuses
    assert after.allocations == before.allocations + after.wasted_allocations
    assert final(before) == final(after) == (0, 0)
    assert before.lock_acquisitions == after.lock_acquisitions
    assert before.peak.anon_vma <= after.peak.anon_vma <= before.peak.anon_vma + 1


def test_events_and_ends_are_alike_on_all_series(play):
    events = [*reuse(3), mmap(4, B, 3), anon(4, B, 3), ["mprotect", 4, B + PAGE, PAGE, R], ["munmap", 4, B, PAGE]]
    results = [play(*events, series=name) for name in SERIES]
    assert len({result.events for result in results}) == 1
    assert len({(result.forks, result.vma_forks, result.page_faults) for result in results}) == 1
    assert all(not result.refused for result in results)
    ended = [play(*events, ["exit", 4], series=name) for name in SERIES]
    assert {final(result) for result in ended} == {(0, 0)}


def test_peak_is_the_largest_at_any_time(play):
    result = play(EXEC, mmap(0, A, 1), anon(0, A), ["fork", 0, 1], ["exit", 1], EXIT)
    assert (result.peak.anon_vma, result.peak.anon_vma_chain, result.peak.bytes) == (2, 3, 2 * 104 + 3 * 64)


def test_several_traces_add_up_on_one_machine(tmp_path, play):
    once = play(*reuse(2), ["exit", 3])
    path = tmp_path / "hand.trace"
    thrice = replay([path, path, path], find("v7.0"))
    for name in ("events", "forks", "vma_forks", "reuses", "page_faults", "allocations"):
        assert getattr(thrice, name) == 3 * getattr(once, name)
    assert final(thrice) == (0, 0)
    assert thrice.peak == once.peak
    assert thrice.chain_length.total() == 3 * once.chain_length.total()


def test_tasks_left_over_by_one_trace_do_not_meet_the_next(tmp_path, play):
    play(EXEC, mmap(0, A, 1), anon(0, A))
    path = tmp_path / "hand.trace"
    assert final(replay([path, path], find("v7.0"))) == (2, 2)


def test_the_same_trace_gives_the_same_figures(play):
    first, second = play(*reuse(3)), play(*reuse(3))
    first.seconds = second.seconds = 0.0
    assert first == second


def test_progress_is_told_rising_totals(play):
    told = []
    result = play(EXEC, mmap(0, A, 1), *[["madvise", 0, A, PAGE, DONTNEED]] * 2500, progress=told.append)
    assert told
    assert told == sorted(told)
    assert told[-1] <= result.events


def test_an_interrupted_replay_keeps_its_figures(play):
    def interrupt(_events):
        raise KeyboardInterrupt

    result = play(
        EXEC, mmap(0, A, 1), anon(0, A), *[["madvise", 0, A, PAGE, DONTNEED]] * 2500, EXIT, progress=interrupt
    )
    assert result.interrupted
    assert 0 < result.events < 2500
    assert final(result) == (1, 1)


def test_garbage_collection_is_left_as_found(play):
    play(EXEC, EXIT)
    assert gc.isenabled()
    gc.disable()
    try:
        play(EXEC, EXIT)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_crash_of_the_model_names_trace_and_event(play, tmp_path):
    design = tmp_path / "crash.py"
    design.write_text(
        "from rmaplab.kernel import Kernel\nfrom rmaplab.kernel.events import KernelBug\n"
        "class Crash(Kernel):\n    def anon_vma_fork(self, vma, pvma):\n        raise KernelBug('oops')\n"
    )
    with pytest.raises(InputError, match=r"hand\.trace: event 4: .*crash.py crashed here: oops"):
        play(EXEC, mmap(0, A, 1), anon(0, A), ["fork", 0, 1], series=str(design))


def test_an_exception_in_a_design_is_a_crash_too(play, tmp_path):
    design = tmp_path / "crash.py"
    design.write_text(
        "from rmaplab.kernel import Kernel\n"
        "class Crash(Kernel):\n    def anon_vma_fork(self, vma, pvma):\n        raise AttributeError('oops')\n"
    )
    with pytest.raises(InputError, match=r"event 4: .*crash.py crashed here: .*oops"):
        play(EXEC, mmap(0, A, 1), anon(0, A), ["fork", 0, 1], series=str(design))


def test_a_trace_with_larger_pages_is_refused(play):
    big = 4 * PAGE
    area = ["mmap", 0, A, 2 * big, RW, PRIVATE | ANONYMOUS, 0, None]
    with pytest.raises(InputError, match="pages of 16384 bytes"):
        play(EXEC, area, EXIT, page_size=big)


@st.composite
def histories(draw):
    """Events that a recorder could write: tasks live as the format demands, addresses are anything near."""
    alive, created, events = [0], 1, [EXEC]
    addresses = st.integers(0x100, 0x110).map(lambda page: page * PAGE)
    lengths = st.integers(0, 5).map(lambda pages: pages * PAGE)
    for _ in range(draw(st.integers(0, 25))):
        task = draw(st.sampled_from(alive))
        start, length = draw(addresses), draw(lengths)
        kind = draw(st.sampled_from(CALLS))
        match kind:
            case "mmap":
                flags = draw(st.sampled_from([PRIVATE | ANONYMOUS, SHARED | ANONYMOUS, PRIVATE, PRIVATE | 0x120]))
                name = None if flags & ANONYMOUS else "/lib/x"
                events.append(["mmap", task, start, length, draw(st.integers(0, 7)), flags, 0, name])
            case "anon":
                events.append(["anon", task, [[start, draw(st.integers(1, 4))]]])
            case "fork" | "share":
                extra = [draw(st.sampled_from(["thread", "vfork", "vm"]))] if kind == "share" else []
                events.append([kind, task, created, *extra])
                alive.append(created)
                created += 1
            case "exit":
                if len(alive) > 1:
                    alive.remove(task)
                    events.append(["exit", task])
            case "exec":
                name = draw(st.sampled_from(["", "/bin/x", "[heap]", "[stack]", "[vdso]"]))
                areas = [[start, start + PAGE, "rw-p", 0, name], [start + PAGE, start + 3 * PAGE, "r--s", PAGE, "/y"]]
                events.append(["exec", task, "/bin/x", areas])
            case "munmap":
                events.append(["munmap", task, start, length])
            case "mprotect":
                events.append(["mprotect", task, start, length, draw(st.integers(0, 7))])
            case "mremap":
                result = draw(st.just(start) | addresses)
                events.append(["mremap", task, start, length, draw(lengths), draw(st.integers(0, 7)), result])
            case "brk":
                events.append(["brk", task, start + draw(st.integers(0, 9)), draw(addresses) + 3])
            case "madvise":
                events.append(["madvise", task, start, length, draw(st.sampled_from([DONTNEED, DONTFORK, 12]))])
            case "other":
                events.append(["other", task, "shmat"])
    return events, alive


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), series=st.sampled_from(["v6.12", "v6.18", "v6.18+1", "v6.18+2", "v6.18+9", "v7.0"]))
def test_any_history_ends_with_nothing_left(play, history, series):
    events, alive = history
    result = play(*events, *(["exit", task] for task in alive), series=series)
    assert final(result) == (0, 0)
    assert result.final.bytes == 0
    assert result.vma_forks == result.chain_length.total()
    assert result.reuses <= result.vma_forks
    assert result.events == sum(sum(run[1] for run in e[2]) if e[0] == "anon" else 1 for e in events) + len(alive)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories())
def test_any_history_costs_two_objects_more_a_reuse_with_the_patch(play, history):
    events, _ = history
    before, after = play(*events, series="v6.18+1"), play(*events, series="v6.18+2")
    assert before.wasted_allocations == 0
    assert after.wasted_allocations == 2 * after.reuses
    assert before.final == after.final
    assert before.refused == after.refused


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_traces_are_input_errors(tmp_path, play, data):
    play(*reuse(1))
    path = tmp_path / "hand.trace"
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path / "damaged.trace"
    damaged.write_bytes(content)
    with contextlib.suppress(InputError):
        replay([damaged], find("v7.0"))


@pytest.mark.parametrize("content", [b"", b"junk", bytes(range(256)), b"\x1f\x8b\x08\x00"])
def test_junk_is_refused(tmp_path, content):
    path = tmp_path / "junk.trace"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"junk\.trace"):
        replay([path], find("v7.0"))
