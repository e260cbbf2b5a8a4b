# SPDX-License-Identifier: GPL-2.0-only
"""Replaying traces written by hand: the figures of whole traces, on one series and on all."""

import gc

import pytest
from replay_events import (
    DONTNEED,
    EXEC,
    EXIT,
    PAGE,
    A,
    B,
    R,
    _play,  # noqa: F401 (a fixture)
    anon,
    final,
    mmap,
    reuse,
)

from rmaplab.series import SERIES, find
from rmaplab.workload.replay import replay


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
