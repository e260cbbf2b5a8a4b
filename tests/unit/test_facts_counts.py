# SPDX-License-Identifier: GPL-2.0-only
"""What clone, fork, unlink and prepare allocate, free and lock, per series and chain length.

The expected numbers come from reading mm/rmap.c before (6.12) and after (7.0)
the clean-up series, and from the mail of its second patch.
"""

import pytest
from allocation_events import (
    ALLOCATE_AHEAD,
    CLONE_THEN_ALLOCATE,
    LEAKS,
    LENGTHS,
    ONE_LOCK,
    PER_AVC_LOCK,
    REUSABLE_LENGTHS,
    TWO_PHASES,
    Recorder,
    cloned_avcs,
    every_length,
    every_series,
    generations,
    machine,
    with_reusable_ancestor,
)
from machine_parts import BEFORE_6_16, SINCE_6_0

from rmaplab.kernel.rmap import Operation

# --- successful calls ------------------------------------------------------------------------------------


@every_series
@every_length
def test_clone_locks_once_and_allocates_one_avc_per_link(series, n):
    kernel, process, area = generations(series, n, pages=2)
    recorder = Recorder(kernel, "anon_vma_clone")
    process.mprotect(area.part(1, 1), "r")
    assert [arguments[2] for arguments in recorder.arguments] == [Operation.SPLIT]
    assert recorder.events == cloned_avcs(series, n)


@every_series
@every_length
def test_split_locks_a_second_time_to_move_the_boundary_and_allocates_nothing_there(series, n):
    kernel, process, area = generations(series, n, pages=2)
    recorder = Recorder(kernel, "split_vma")
    process.mprotect(area.part(1, 1), "r")
    assert recorder.events == [*cloned_avcs(series, n), "[", "]"]


@every_series
@every_length
def test_fork_with_new_anon_vma_locks_twice_and_makes_n_plus_two_objects_in_the_order_of_its_revision(series, n):
    kernel, process, _ = generations(series, n)
    recorder = Recorder(kernel, "anon_vma_fork")
    process.fork()
    if series in CLONE_THEN_ALLOCATE + LEAKS:
        assert recorder.allocations == [*["avc"] * n, "av", "avc"]
        assert recorder.events == [*cloned_avcs(series, n), "av", "avc", "[", "]"]
    else:
        assert recorder.allocations == ["av", "avc", *["avc"] * n]
        assert recorder.events == ["av", "avc", *cloned_avcs(series, n), "[", "]"]
    assert kernel.slab.anon_vma.wasted == kernel.slab.anon_vma_chain.wasted == 0


@every_series
@pytest.mark.parametrize("n", REUSABLE_LENGTHS)
def test_fork_with_reuse_locks_once_and_throws_two_objects_away_since_patch_2(series, n):
    kernel, process, _ = with_reusable_ancestor(series, n)
    recorder = Recorder(kernel, "anon_vma_fork")
    child = process.fork()
    assert len(child.mm.vmas[0].anon_vma_chain) == n
    wasted = [kernel.slab.anon_vma.wasted, kernel.slab.anon_vma_chain.wasted]
    if series in CLONE_THEN_ALLOCATE + LEAKS:
        assert recorder.events == cloned_avcs(series, n)
        assert wasted == [0, 0]
    else:
        assert recorder.events == ["av", "avc", *cloned_avcs(series, n), "-av", "-avc"]
        assert wasted == [1, 1]


@pytest.mark.parametrize("series", ALLOCATE_AHEAD)
@pytest.mark.parametrize("n", REUSABLE_LENGTHS)
def test_reuse_allocates_two_objects_more_than_before_patch_2_and_keeps_none_of_them(series, n):
    made, kept = [], []
    for name in ("v6.18", series):
        kernel, process, _ = with_reusable_ancestor(name, n)
        recorder = Recorder(kernel, "anon_vma_fork")
        process.fork()
        made.append(len(recorder.allocations))
        kept.append((len(kernel.live_anon_vmas), len(kernel.live_anon_vma_chains)))
    assert made[1] - made[0] == 2
    assert kept[0] == kept[1]


@every_series
@pytest.mark.parametrize("n", [1, 2])
def test_a_short_chain_offers_nothing_to_reuse_even_when_everybody_else_is_dead(series, n):
    kernel, process, _ = generations(series, n)
    for other in list(kernel.processes.values()):
        if other is not process:
            other.exit()
    child = process.fork()
    assert len(child.mm.vmas[0].anon_vma_chain) == n + 1


@every_series
@every_length
def test_unlink_locks_once_and_frees_what_nobody_else_has(series, n):
    kernel, process, _ = generations(series, n)
    recorder = Recorder(kernel, "unlink_anon_vmas")
    process.exit()
    # The own anon_vma is emptied: its AVC is kept for the second, unlocked pass.
    assert recorder.events == ["[", *["-avc"] * (n - 1), "]", "-av", "-avc"]


@every_series
def test_unlink_of_the_last_user_frees_the_whole_chain_after_the_one_lock(series):
    kernel, process, _ = generations(series, 4)
    for other in list(kernel.processes.values()):
        if other is not process:
            other.exit()
    recorder = Recorder(kernel, "unlink_anon_vmas")
    process.exit()
    assert recorder.locks == 1
    assert recorder.events[:2] == ["[", "]"]
    assert sorted(recorder.events[2:]) == ["-av"] * 4 + ["-avc"] * 4
    assert not kernel.live_anon_vmas
    assert not kernel.live_anon_vma_chains


@every_series
def test_prepare_allocates_avc_then_anon_vma_and_nests_page_table_lock_inside_one_lock(series):
    kernel, process = machine(series)
    area = process.mmap(1)
    recorder = Recorder(kernel, "anon_vma_prepare")
    process.write(area)
    assert recorder.events == ["avc", "av", "[", "(", ")", "]"]
    (root,) = kernel.live_anon_vmas.values()
    assert (root.refcount, root.num_children, root.num_active_vmas) == (1, 1, 1)


@every_series
def test_prepare_beside_a_lender_allocates_only_the_avc(series):
    kernel, process = machine(series)
    area = process.mmap(2)
    process.mprotect(area.part(1, 1), "rwx")
    process.write(area, 1)
    recorder = Recorder(kernel, "anon_vma_prepare")
    process.write(area, 0)
    assert recorder.events == ["avc", "[", "(", ")", "]"]
    (root,) = kernel.live_anon_vmas.values()
    assert (root.refcount, root.num_children, root.num_active_vmas) == (1, 1, 2)


@every_series
def test_prepare_of_a_faulted_vma_does_nothing(series):
    kernel, process = machine(series)
    area = process.mmap(2)
    process.write(area, 0)
    recorder = Recorder(kernel, "anon_vma_prepare")
    process.write(area, 1)
    assert recorder.results == [0]
    assert recorder.events == []


@every_series
@pytest.mark.parametrize("function", ["anon_vma_clone", "anon_vma_fork", "unlink_anon_vmas"])
def test_an_unfaulted_vma_costs_no_lock_and_no_object(series, function):
    kernel, process = machine(series)
    area = process.mmap(2)
    process.read(area)
    recorder = Recorder(kernel, function)
    process.fork().exit()
    process.mprotect(area.part(1, 1), "r")
    process.munmap(area)
    assert recorder.arguments
    assert recorder.events == []


@pytest.mark.parametrize("series", [name for name in SINCE_6_0 if name not in BEFORE_6_16])
def test_a_merge_into_an_unfaulted_vma_clones_one_link_under_one_lock(series):
    kernel, process = machine(series)
    high = process.mmap(1, at=0x10001000)
    process.write(high)
    process.mprotect(high, "r")
    process.mmap(1, at=0x10000000)
    recorder = Recorder(kernel, "dup_anon_vma")
    process.mprotect(high, "rw")
    assert len(process.mm.vmas) == 1
    assert recorder.events == cloned_avcs(series, 1)


def test_objects_have_the_measured_sizes():
    kernel, _, _ = generations("v7.0", 2)
    slab = kernel.slab
    assert (slab.anon_vma.size, slab.anon_vma.stride) == (96, 104)
    assert (slab.anon_vma_chain.size, slab.anon_vma_chain.stride) == (64, 64)
    assert slab.bytes == 2 * 104 + 3 * 64


def test_a_fresh_anon_vma_is_its_own_root_and_parent_with_one_reference_and_no_counts():
    kernel, _ = machine("v7.0")
    anon_vma = kernel.anon_vma_alloc()
    assert anon_vma.root is anon_vma.parent is anon_vma
    assert (anon_vma.refcount, anon_vma.num_children, anon_vma.num_active_vmas) == (1, 0, 0)
    kernel.put_anon_vma(anon_vma)
    assert not kernel.live_anon_vmas


# --- GFP_NOWAIT ------------------------------------------------------------------------------------------


def fork_position(series, k):
    """Which allocation of a fork is the k-th of its clone."""
    return k if series in CLONE_THEN_ALLOCATE + LEAKS else k + 2


@pytest.mark.parametrize("series", PER_AVC_LOCK + ONE_LOCK)
@pytest.mark.parametrize(("n", "k"), [(n, k) for n in LENGTHS for k in range(1, n + 1)])
def test_each_nowait_failure_under_the_lock_adds_one_pair_and_changes_nothing_else(series, n, k):
    kernel, process, _ = generations(series, n)
    undisturbed = kernel.copy()
    undisturbed.processes[process.name].fork()

    recorder = Recorder(kernel, "anon_vma_clone")
    kernel.slab.plan(fork_position(series, k), nowait_only=True)
    process.fork()
    assert kernel.slab.failed == 1
    locked_before = k > 1 or series in ONE_LOCK  # up to patch 3 the first allocation comes before the lock
    assert recorder.locks == recorder.events.count("]") == 1 + locked_before
    at = recorder.events.index("!avc") + 1
    if locked_before:
        assert recorder.events[at : at + 3] == ["]", "avc", "["]
    else:
        assert recorder.events[at : at + 2] == ["avc", "["]
    assert kernel.snapshot() == undisturbed.snapshot()


@pytest.mark.parametrize("series", [*TWO_PHASES, *LEAKS])
@pytest.mark.parametrize("n", LENGTHS)
def test_since_patch_8_nothing_asks_for_memory_without_waiting(series, n):
    for k in range(1, n + 3):
        kernel, process, _ = generations(series, n)
        kernel.slab.plan(k, nowait_only=True)
        process.fork()
        assert kernel.slab.count == n + 2
        assert kernel.slab.failed == 0


@every_series
@every_length
def test_allocations_inside_the_lock_vanish_with_patch_8(series, n):
    kernel, process, _ = generations(series, n)
    before = kernel.locks.allocations_under_lock
    process.fork()
    inside = n - 1 if series in PER_AVC_LOCK else n if series in ONE_LOCK else 0
    assert kernel.locks.allocations_under_lock - before == inside
    assert [report.id for report in kernel.events.take_reports()] == []
