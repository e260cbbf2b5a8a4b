# SPDX-License-Identifier: GPL-2.0-only
"""What a call that runs out of memory undoes, per series, chain length and failing allocation.

The expected numbers come from reading mm/rmap.c before (6.12) and after (7.0)
the clean-up series, and from the mail of its second patch.
"""

import errno

import pytest
from allocation_events import (
    ALLOCATE_AHEAD,
    CLONE_THEN_ALLOCATE,
    LEAKS,
    LENGTHS,
    ONE_LOCK,
    PER_AVC_LOCK,
    REUSABLE_LENGTHS,
    STALE_IF_REUSED,
    Recorder,
    cloned_avcs,
    every_length,
    every_series,
    generations,
    machine,
    with_reusable_ancestor,
)
from machine_parts import BEFORE_6_16, SINCE_6_0

from rmaplab.check.state import graph


def failing_fork(kernel, process, k):
    """Fork with the k-th allocation failing; the recorder of anon_vma_fork, and the graph before."""
    before = graph(kernel)
    recorder = Recorder(kernel, "anon_vma_fork")
    kernel.slab.plan(k)
    with pytest.raises(OSError, match="allocate memory") as error:
        process.fork()
    assert error.value.errno == errno.ENOMEM
    kernel.slab.disarm()
    return recorder, before


@every_series
@pytest.mark.parametrize(("k", "events"), [(1, ["!avc"]), (2, ["avc", "!av", "-avc"])])
def test_prepare_that_fails_keeps_nothing_and_locks_nothing(series, k, events):
    kernel, process = machine(series)
    area = process.mmap(1)
    recorder = Recorder(kernel, "anon_vma_prepare")
    kernel.slab.plan(k)
    with pytest.raises(OSError, match="allocate memory"):
        process.write(area)
    assert recorder.events == events
    assert process.mm.vmas[0].anon_vma is None
    assert not kernel.live_anon_vmas
    assert not kernel.live_anon_vma_chains


def clone_failing_at(series, k):
    """Events of a clone whose k-th allocation fails for good, with its cleaning up."""
    done = k - 1
    freed = ["-avc"] * done
    if series in PER_AVC_LOCK:
        walked = ["avc", "[", *["avc"] * (done - 1), "!avc", "]", "!avc"] if done else ["!avc", "!avc"]
        return [*walked, *(["[", *freed, "]"] if done else [])]
    if series in ONE_LOCK:
        return ["[", *["avc"] * done, "!avc", "]", "!avc", *(["[", *freed, "]"] if done else [])]
    return [*["avc"] * done, "!avc", *freed]


def fork_failing_at(series, n, k):
    """Events of a whole anon_vma_fork whose k-th allocation fails."""
    if series in CLONE_THEN_ALLOCATE + LEAKS:
        unlinked = ["[", *["-avc"] * n, "]"]
        if k <= n:
            return clone_failing_at(series, k)
        if k == n + 1:
            return [*cloned_avcs(series, n), "!av", *unlinked]
        return [*cloned_avcs(series, n), "av", "!avc", "-av", *unlinked]
    if k == 1:
        return ["!av"]
    if k == 2:
        return ["av", "!avc", "-av"]
    return ["av", "avc", *clone_failing_at(series, k - 2), "-av", "-avc"]


MATRIX = [
    (series, n, k)
    for series in SINCE_6_0
    for n in LENGTHS
    for k in range(1, n + 3)
    if k <= n or series not in LEAKS  # what it leaks is among the known bugs
]


@pytest.mark.parametrize(("series", "n", "k"), MATRIX)
def test_a_failed_fork_undoes_exactly_what_it_did(series, n, k):
    kernel, process, _ = generations(series, n)
    recorder, before = failing_fork(kernel, process, k)
    assert recorder.events == fork_failing_at(series, n, k)
    ((child, _),) = recorder.arguments
    assert recorder.results == [-errno.ENOMEM]
    assert child.anon_vma is None
    assert child.anon_vma_chain == []
    assert child.freed
    assert graph(kernel) == before
    assert len(kernel.processes) == n


@every_series
@every_length
def test_no_allocation_after_the_last_one_of_the_matrix(series, n):
    kernel, process, _ = generations(series, n)
    kernel.slab.plan(n + 3)
    process.fork()
    assert (kernel.slab.count, kernel.slab.failed) == (n + 2, 0)


@every_series
@pytest.mark.parametrize("n", REUSABLE_LENGTHS)
def test_a_reusing_fork_that_fails_gives_the_ancestor_back(series, n):
    allocations = n + 2 * (series in ALLOCATE_AHEAD)
    for k in range(1, allocations + 1):
        kernel, process, _ = with_reusable_ancestor(series, n)
        recorder, before = failing_fork(kernel, process, k)
        ((child, _),) = recorder.arguments
        assert child.freed
        assert child.anon_vma_chain == []
        # Patches 1 to 7 clean up without resetting the pointer; the VMA is not used again.
        assert child.anon_vma is None or series in STALE_IF_REUSED
        assert graph(kernel) == before
    kernel, process, _ = with_reusable_ancestor(series, n)
    kernel.slab.plan(allocations + 1)
    process.fork()
    assert kernel.slab.count == allocations


@pytest.mark.parametrize("series", [name for name in SINCE_6_0 if name not in LEAKS])
@every_length
def test_a_fork_that_fails_at_its_second_vma_tears_the_first_down(series, n):
    for k in range(1, n + 3):
        kernel, process = machine(series)
        for _ in range(2):
            process.write(process.mmap(1))
        for _ in range(n - 1):
            process = process.fork()
        recorder, before = failing_fork(kernel, process, n + 2 + k)
        assert [rc != 0 for rc in recorder.results] == [False, True]
        first = recorder.arguments[0][0]
        assert first.freed
        assert first.anon_vma_chain == []
        assert graph(kernel) == before


@pytest.mark.parametrize("series", CLONE_THEN_ALLOCATE + LEAKS)
@every_length
def test_before_patch_2_a_half_built_vma_is_unlinked_and_since_then_none_is(series, n):
    for name, expected in ((series, {n + 1, n + 2}), ("v6.18+2", set()), ("v7.0", set())):
        half_built = set()
        for k in range(1, n + 3):
            kernel, process, _ = generations(name, n)
            original = kernel.unlink_anon_vmas

            def watch(vma, k=k, original=original, half_built=half_built):
                if vma.anon_vma is None and vma.anon_vma_chain:
                    half_built.add(k)
                original(vma)

            kernel.unlink_anon_vmas = watch
            failing_fork(kernel, process, k)
        if name in (*BEFORE_6_16, "v6.18"):  # their clone, too, clears the pointer and unlinks what it has
            expected = expected | set(range(2, n + 1))
        assert half_built == expected


@every_series
@every_length
def test_a_failed_split_frees_its_avcs_and_touches_no_counter(series, n):
    for k in range(1, n + 1):
        kernel, process, area = generations(series, n, pages=2)
        before = graph(kernel)
        recorder = Recorder(kernel, "split_vma")
        kernel.slab.plan(k)
        with pytest.raises(OSError, match="allocate memory"):
            process.munmap(area.part(1, 1))
        assert recorder.events == clone_failing_at(series, k)
        assert graph(kernel) == before
        assert len(process.mm.vmas) == 1
