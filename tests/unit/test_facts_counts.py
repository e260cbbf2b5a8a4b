# SPDX-License-Identifier: GPL-2.0-only
"""What clone, fork, unlink and prepare allocate, free and lock, per series and chain length.

The expected numbers come from reading mm/rmap.c before (6.12) and after (7.0)
the clean-up series, and from the mail of its second patch.
"""

import errno

import pytest

from rmaplab.check.state import graph
from rmaplab.kernel.rmap import Operation
from rmaplab.series import SERIES

CLONE_THEN_ALLOCATE = ("v6.12", "v6.18", "v6.18+1")  # fork before patch 2
LEAKS = ("v6.18+v2",)  # fork before patch 2, clone and unlink after patch 9
PER_AVC_LOCK = ("v6.12", "v6.18", "v6.18+1", "v6.18+2", "v6.18+3")  # clone allocates once before it locks
ONE_LOCK = ("v6.18+4", "v6.18+5", "v6.18+6", "v6.18+7")  # clone locks, then allocates
TWO_PHASES = ("v6.18+8", "v6.18+9", "v7.0")  # clone allocates everything, then locks
ALLOCATE_AHEAD = tuple(name for name in SERIES if name not in CLONE_THEN_ALLOCATE + LEAKS)
STALE_IF_REUSED = ("v6.18+1", "v6.18+2", "v6.18+3", *ONE_LOCK)
LENGTHS = (1, 2, 3, 4)
REUSABLE_LENGTHS = (3, 4)  # shorter chains have no ancestor without an owner but the root

every_series = pytest.mark.parametrize("series", SERIES)
every_length = pytest.mark.parametrize("n", LENGTHS)


class Recorder:
    """Events of one function: ``avc`` allocated, ``-avc`` freed, ``!avc`` failed, ``[`` ``]`` the anon_vma lock."""

    def __init__(self, kernel, function):
        self.kernel = kernel
        self.function = getattr(kernel, function)
        self.events = []
        self.results = []
        self.arguments = []
        setattr(kernel, function, self)

    def __call__(self, *arguments, **named):
        self.kernel.events.listeners.append(self.listen)
        try:
            self.results.append(self.function(*arguments, **named))
        finally:
            self.kernel.events.listeners.remove(self.listen)
        self.arguments.append(arguments)
        return self.results[-1]

    def listen(self, event):
        kind = "avc" if event.object.startswith(("avc", "anon_vma_chain")) else "av"
        match event.verb, event.detail:
            case "alloc", _:
                self.events.append(kind)
            case "free", _:
                self.events.append(f"-{kind}")
            case "fail", _:
                self.events.append(f"!{kind}")
            case "lock", "anon_vma write":
                self.events.append("[")
            case "unlock", "anon_vma":
                self.events.append("]")
            case "lock", "page_table_lock write":
                self.events.append("(")
            case "unlock", "page_table_lock":
                self.events.append(")")

    @property
    def locks(self):
        return self.events.count("[")

    @property
    def allocations(self):
        return [event for event in self.events if event in ("av", "avc")]


def machine(series):
    kernel = SERIES[series]()
    return kernel, kernel.spawn()


def generations(series, n, pages=1):
    """A kernel whose newest process has a VMA with a chain of length n: itself and its living ancestors."""
    kernel, process = machine(series)
    area = process.mmap(pages)
    process.write(area)
    for _ in range(n - 1):
        process = process.fork()
    assert [len(vma.anon_vma_chain) for vma in process.mm.vmas] == [n]
    return kernel, process, area


def with_reusable_ancestor(series, n):
    """The same, with the first child of the root dead: its anon_vma has no owner and one child."""
    kernel, process, area = generations(series, n)
    kernel.processes["P1"].exit()
    return kernel, process, area


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


def cloned_avcs(series, n):
    """Events of a clone of n links that succeeds: where the lock is taken depends on the revision."""
    if series in PER_AVC_LOCK:
        return ["avc", "[", *["avc"] * (n - 1), "]"]
    if series in ONE_LOCK:
        return ["[", *["avc"] * n, "]"]
    return [*["avc"] * n, "[", "]"]


# --- successful calls -----------------------------------------------------------------------


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


@pytest.mark.parametrize("series", [name for name in SERIES if name != "v6.12"])
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


# --- GFP_NOWAIT --------------------------------------------------------------------------------


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


# --- the failure matrix of fork ------------------------------------------------------------------


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
    for series in SERIES
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


@pytest.mark.parametrize("series", [name for name in SERIES if name not in LEAKS])
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
        if name in ("v6.12", "v6.18"):  # their clone, too, clears the pointer and unlinks what it has
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
