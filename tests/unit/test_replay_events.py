# SPDX-License-Identifier: GPL-2.0-only
"""Replaying traces written by hand: what each event does to the objects."""

import pytest
from replay_events import (
    ANONYMOUS,
    COLD,
    DONTDUMP,
    DONTFORK,
    DONTNEED,
    EXEC,
    EXIT,
    GUARD_INSTALL,
    HUGEPAGE,
    MERGEABLE,
    NOHUGEPAGE,
    PAGE,
    PRIVATE,
    RW,
    SHARED,
    WIPEONFORK,
    A,
    B,
    R,
    _play,  # noqa: F401 (a fixture)
    anon,
    final,
    mmap,
)


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


def test_mremap_moves_pages_and_links(play):
    result = play(EXEC, mmap(0, A, 2), anon(0, A, 2), ["mremap", 0, A, 2 * PAGE, 3 * PAGE, 1, B], anon(0, B, 3), EXIT)
    assert not result.approximated
    assert not result.refused
    assert result.allocations == 2 + 1  # the copy's link; the page behind the two takes none
    assert result.walk_visits == {1: 1}


def test_a_part_that_moves_stays_in_its_tree(play):
    begin = [EXEC, mmap(0, A, 3), anon(0, A, 3), ["fork", 0, 1]]
    result = play(*begin, ["mremap", 1, A + PAGE, PAGE, PAGE, 3, B])
    assert final(result) == (2, 1 + 3 * 2)
    assert not result.refused


def test_mremap_leaves_an_empty_vma_behind_if_asked_to(play):
    events = [EXEC, mmap(0, A, 1), anon(0, A), ["mremap", 0, A, PAGE, PAGE, 5, B]]
    assert final(play(*events)) == (1, 1)
    assert final(play(*events, anon(0, A))) == (2, 2)
    assert play(*events, series="v2.6.32").refused == {"mremap EINVAL": 1}  # the flag came with v5.7


def test_mremap_maps_a_shared_area_twice(play):
    flags = SHARED | ANONYMOUS
    result = play(
        EXEC, mmap(0, A, 1, flags=flags), ["mremap", 0, A, 0, PAGE, 1, B], ["munmap", 0, A, PAGE], anon(0, B)
    )
    assert not result.refused


@pytest.mark.parametrize(
    ("call", "refused"),
    [
        (["mremap", 0, A, 0, PAGE, 1, B], "mremap EINVAL"),  # only a shared area can be mapped twice
        (["mremap", 0, B, PAGE, PAGE, 1, A], "mremap EFAULT"),  # no such area
        (["mremap", 0, A, PAGE, 2 * PAGE, 1, A], "mremap ENOMEM"),  # no room
    ],
)
def test_an_mremap_that_the_model_refuses_is_counted(play, call, refused):
    result = play(EXEC, mmap(0, A, 1), mmap(0, A + PAGE, 1, R), anon(0, A), call)
    assert result.refused == {refused: 1}
    assert final(result) == (1, 1)


def test_unmodelled_calls_are_counted_by_name(play):
    result = play(
        EXEC,
        mmap(0, A, 1),
        anon(0, A),
        ["madvise", 0, A, PAGE, COLD],
        ["madvise", 0, A, PAGE, COLD],
        ["madvise", 0, A, PAGE, DONTNEED],
        ["other", 0, "shmat"],
        ["other", 0, "clone-untraced"],
    )
    assert result.unmodelled == {"madvise 20": 2, "shmat": 1, "clone-untraced": 1}
    assert result.events == 8 + 1 - 1  # the sample of one page counts as one fault
    assert final(result) == (1, 1)


@pytest.mark.parametrize(
    ("advice", "objects"),
    [
        (DONTFORK, (1, 2)),  # the child has the other part alone
        (WIPEONFORK, (1, 2)),
        (DONTDUMP, (1, 2)),
        (NOHUGEPAGE, (1, 2)),
        (HUGEPAGE, (1, 2)),
        (MERGEABLE, (1, 2)),
        (GUARD_INSTALL, (1, 1)),
        (DONTNEED, (1, 1)),
    ],
)
def test_advice_is_followed(play, advice, objects):
    begin = [EXEC, mmap(0, A, 2), anon(0, A, 2), ["madvise", 0, A, PAGE, advice]]
    result = play(*begin)
    assert final(result) == objects
    assert not result.refused
    assert not result.unmodelled
    assert bool(result.approximated) == (advice in (HUGEPAGE, MERGEABLE))
    forked = play(*begin, ["fork", 0, 1])
    added = final(forked)[0] - objects[0], final(forked)[1] - objects[1]
    assert added == ((1, 2) if objects == (1, 1) or advice in (DONTFORK, WIPEONFORK) else (2, 4))


def test_what_advice_parts_its_opposite_joins(play):
    begin = [EXEC, mmap(0, A, 2), anon(0, A, 2)]
    for advice in (DONTFORK, NOHUGEPAGE, DONTDUMP, WIPEONFORK, MERGEABLE):
        back = {NOHUGEPAGE: HUGEPAGE}.get(advice, advice + 1)
        result = play(*begin, *(["madvise", 0, A, PAGE, number] for number in (advice, back)))
        assert final(result) == ((1, 2) if advice == NOHUGEPAGE else (1, 1))


def test_advice_that_a_series_does_not_know_is_refused(play):
    result = play(EXEC, mmap(0, A, 1), ["madvise", 0, A, PAGE, GUARD_INSTALL], series="v6.12")
    assert result.refused == {"madvise EINVAL": 1}


def test_a_page_below_a_stack_makes_it_grow(play):
    areas = [[B, B + 9 * PAGE, "rw-p", 0, "[stack]"]]
    begin = [["exec", 0, "/bin/prog", areas], anon(0, B + 8 * PAGE)]
    result = play(*begin, anon(0, B - 3 * PAGE))
    assert final(result) == (1, 1)
    assert not result.refused
    assert play(*begin, ["munmap", 0, B, 9 * PAGE], anon(0, B - 3 * PAGE)).refused == {"page fault EFAULT": 1}


def test_the_heap_grows_in_one_vma_wherever_it_begins(play):
    low = 0x10 * PAGE
    grow = [["brk", 0, low + at * PAGE, low + (at + 1) * PAGE] for at in range(3)]
    events = [EXEC, *grow, anon(0, low, 3), ["fork", 0, 1]]
    assert final(play(*events)) == (2, 3)
    # What is mapped right below the heap is not a part of it.
    result = play(EXEC, mmap(0, low - PAGE, 1), *grow, anon(0, low - PAGE, 4), ["fork", 0, 1])
    assert final(result) == (1 + 2, 2 + 4)


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
    assert result.refused == {
        "page fault EFAULT": 2,
        "mprotect ENOMEM": 1,
        "munmap EINVAL": 1,
        "mmap ENOMEM": 2,
        "madvise ENOMEM": 1,
    }
    assert final(result) == (0, 0)


def test_samples_are_written_whatever_the_rights_are_by_now(play):
    result = play(EXEC, mmap(0, A, 1, R), anon(0, A))
    assert final(result) == (1, 1)
    assert not result.refused
