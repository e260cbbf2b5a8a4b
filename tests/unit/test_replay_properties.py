# SPDX-License-Identifier: GPL-2.0-only
"""Replaying traces: what holds for any history that a recorder could write."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay_events import (
    ANONYMOUS,
    COLD,
    EXEC,
    PAGE,
    PRIVATE,
    SHARED,
    _play,  # noqa: F401 (a fixture)
    final,
)

from rmaplab.series import SERIES
from rmaplab.workload.machine import ADVICES

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
                events.append(["madvise", task, start, length, draw(st.sampled_from([COLD, *ADVICES]))])
            case "other":
                events.append(["other", task, "shmat"])
    return events, alive


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), series=st.sampled_from(list(SERIES)))
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
