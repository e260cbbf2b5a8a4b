# SPDX-License-Identifier: GPL-2.0-only
"""Explorations on the engine and on the specification: the same states, counts and shortest counterexamples."""

import os
import signal
import sys
import threading
from dataclasses import replace

import pytest

pytest.importorskip("numba", reason="the fast engine takes Numba (extra `fast`)")

from rmaplab.check import engines, fast_explore, fast_shard
from rmaplab.check import stages as rows
from rmaplab.check.explore import Limits, explore
from rmaplab.check.histories import Bounds
from rmaplab.check.stages import STAGES, explore_stages
from rmaplab.engine.choice import OPERATIONS, why_not
from rmaplab.engine.search.explore import CHUNK
from rmaplab.errors import UsageError
from rmaplab.scenario import parse
from rmaplab.series import SERIES, ZOO, find

SUPPORTED = [name for name in (*SERIES, *ZOO) if not why_not(find(name))]
FIELDS = ("verdict", "reason", "states", "transitions", "depth", "digest", "reached", "failures", "findings")
SMALL = {
    "all calls": Bounds(calls=4),
    "moves": Bounds(2, 2, 1, 3, 1, ("fork", "mmap", "mremap", "write", "rwx", "mprotect", "fork-advice")),
    "pages": Bounds(2, 1, 1, 4, 2, ("exit", "fork", "ksm", "migrate", "mmap", "munmap", "pin", "swap", "write")),
}


def same(series, bounds, start=None, **options):
    fast = explore(series, bounds, start, engine="fast", **options)
    slow = explore(series, bounds, start, **options)
    assert fast.engine == "fast"
    assert {name: getattr(fast, name) for name in FIELDS} == {name: getattr(slow, name) for name in FIELDS}
    return fast


@pytest.mark.parametrize("bounds", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("series", SUPPORTED)
def test_small_explorations_are_the_same(series, bounds):
    same(series, bounds, stop_at_first=False)


@pytest.mark.parametrize(
    "name", [name for name, bounds in STAGES.items() if set(bounds.operations) <= set(OPERATIONS)]
)
def test_the_stages_of_check_are_the_same(name):
    bounds = STAGES[name]
    same(
        "v7.0",
        Bounds(
            *(getattr(bounds, part) for part in ("processes", "areas", "pages")),
            bounds.calls - 1,
            1,
            bounds.operations,
        ),
    )


@pytest.mark.parametrize("series", ["zoo/Z01", "zoo/Z02", "zoo/Z12", "zoo/Z21b", "zoo/Z25"])
def test_the_first_violation_ends_both_at_the_same_place(series):
    found = same(series, Bounds(calls=5))
    assert found.verdict == "violated"
    assert found.findings


def test_only_some_invariants_count():
    bounds = Bounds(4, 1, 1, 8, 0, ("exit", "fork", "mmap", "write"))
    found = same("zoo/Z23", bounds, only=("AV-043",))
    assert list(found.findings) == ["AV-043"]
    same("zoo/Z22", Bounds(3, 1, 1, 6, 1, ("exit", "fork", "mmap", "write")), only=("AV-021", "AV-030"))


def test_only_forks_fail():
    same("v6.18+v2", Bounds(calls=5), only_fork_fails=True, stop_at_first=False)


def test_from_a_scenario():
    start = parse("P0 mmap A 2 at=0x7f0000000000\nP0 write A\nP0 fork P1\nP1 mprotect A[0] r\n")
    same("v7.0", Bounds(3, 1, 2, 3, 1), start)


WIDE = "".join(f"P0 mmap {name} 8 at={0x7F0000000000 + 0x8000 * at:#x}\n" for at, name in enumerate("ABC"))
WIDE += "P0 write A[0..1]\n" + "".join(f"P0 fork P{number}\n" for number in range(1, 6))


def test_more_ways_on_than_there_was_room_for(monkeypatch):
    monkeypatch.setattr(fast_explore, "ROOM", 24)
    found = same("v7.0", Bounds(6, 3, 8, 1, 1), parse(WIDE), stop_at_first=False)
    assert found.transitions > 32 * 24  # calls that one state has room for, at first


def test_states_too_large_are_left_to_the_specification(monkeypatch):
    monkeypatch.setattr(fast_explore, "ROOM", 24)
    monkeypatch.setattr(engines, "MOST_ROOM", 20)
    bounds, start = Bounds(2, 1, 1, 1, 0), parse(WIDE)
    with pytest.raises(UsageError, match="cannot take a state of more than 24 objects"):
        explore("v7.0", bounds, start, engine="fast")
    assert explore("v7.0", bounds, start, engine="auto", head_start=0).engine == "reference"


@pytest.mark.parametrize(
    ("start", "named"),
    [
        ("P0 mmap A 65 at=0x7f0000000000\n", "area A of 65 pages"),
        ("P0 fork P1023\nP1023 exit\n", "a process that was called P1023"),
    ],
)
def test_what_a_step_has_no_room_for_is_left_to_the_specification(start, named):
    bounds = Bounds(2, 1, 1, 1, 0)
    with pytest.raises(UsageError, match=named):
        explore("v7.0", bounds, parse(start), engine="fast")
    assert explore("v7.0", bounds, parse(start), engine="auto", head_start=0).engine == "reference"


@pytest.mark.parametrize("start", ["P0 mmap A 64 at=0x7f0000000000\nP0 write A[63]\n", "P0 fork P1022\nP1022 exit\n"])
def test_the_largest_that_a_step_has_room_for(start):
    same("v7.0", Bounds(2, 1, 1, 1, 0), parse(start))


# Seventy VMAs whose chains grow with each generation, as no anon_vma is used again.
GENERATIONS = "".join(
    f"P0 mmap {name} 10 at={0x7F0000000000 + 0xA000 * at:#x}\nP0 write {name}\n"
    + "".join(f"P0 mprotect {name}[{page}] r\n" for page in range(0, 10, 2))
    for at, name in enumerate("ABCDEFG")
) + "".join(f"P{number} fork P{number + 1}\nP{number} exit\n" for number in range(57))


def test_a_fork_of_more_allocations_than_a_step_can_name_is_refused():
    bounds = Bounds(2, 7, 10, 1, 1, ("fork",))
    with pytest.raises(UsageError, match="cannot take a call that makes thousands of allocations"):
        explore("v2.6.34", bounds, parse(GENERATIONS), engine="fast")
    unfailing = explore("v2.6.34", replace(bounds, fail_alloc=0), parse(GENERATIONS), engine="fast")
    assert (unfailing.verdict, unfailing.transitions) == ("holds", 1)


@pytest.fixture
def threads_at_once(monkeypatch):
    """Threads from the first states on, each with a few."""
    for name, value in (("ALONE", 0), ("PART", CHUNK), ("LEAST_PART", 1)):
        monkeypatch.setattr(fast_explore, name, value)


@pytest.mark.usefixtures("threads_at_once")
@pytest.mark.parametrize("stop_at_first", [True, False])
@pytest.mark.parametrize("series", ["v7.0", "v6.0", *ZOO])
def test_threads_change_nothing(series, stop_at_first):
    if series in SUPPORTED:
        same(series, SMALL["all calls"], stop_at_first=stop_at_first, jobs=3)


@pytest.mark.usefixtures("threads_at_once")
def test_a_part_without_room_is_done_alone(monkeypatch):
    monkeypatch.setattr(fast_shard, "SPARE_APART", 1)
    monkeypatch.setattr(fast_explore, "PART", 1024)
    same("v7.0", Bounds(5, 1, 1, 8, 1, ("exit", "fork", "mmap", "write")), jobs=2)


def test_threads_begin_when_there_is_work_for_them(monkeypatch):
    made = []
    together = fast_explore.FastSearch._together
    monkeypatch.setattr(fast_explore.FastSearch, "_together", lambda *args: made.append(together(*args)) or made[-1])
    bounds = Bounds(6, 1, 1, 12, 0, ("exit", "fork", "mmap", "write"))
    alone = explore("v7.0", bounds, engine="fast")
    assert not made
    both = explore("v7.0", bounds, engine="fast", jobs=2)
    assert made.count(True) > 10
    assert made.count(False) < 5  # parts are made smaller until there is room for what they lead to
    assert {name: getattr(both, name) for name in FIELDS} == {name: getattr(alone, name) for name in FIELDS}
    assert not explore("v7.0", Bounds(calls=4), engine="fast", jobs=2).findings


def test_limits():
    bounds = Bounds(6, 1, 1, 14, 0, ("exit", "fork", "mmap", "write"))
    found = explore("v7.0", bounds, engine="fast", limits=Limits(states=20_000))
    assert 20_000 < found.states < 21_000  # a level has many times as many
    found = explore("v7.0", Bounds(calls=7), engine="fast", limits=Limits(states=1000))
    assert found.verdict == "no-verdict"
    assert found.reason.startswith("more than 1000 states at depth")
    assert explore("v7.0", Bounds(calls=7), engine="fast", limits=Limits(memory=1 << 20)).verdict == "no-verdict"


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted(jobs):
    bounds = Bounds(6, 1, 1, 14, 1, ("exit", "fork", "mmap", "write"))
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    explore("v7.0", Bounds(calls=2), engine="fast")  # compiled by now
    timer.start()
    found = explore("v7.0", bounds, engine="fast", jobs=jobs)
    timer.join()
    assert found.interrupted
    assert found.verdict == "no-verdict"
    assert found.transitions > 1000


def test_interrupted_while_states_are_summed_up(monkeypatch):
    def digest(_search):
        raise KeyboardInterrupt

    monkeypatch.setattr(fast_explore.FastSearch, "_digest", digest)
    found = explore("v7.0", Bounds(calls=3), engine="fast")
    assert (found.verdict, found.interrupted, found.digest) == ("holds", True, 0)
    assert found.transitions > 100


@pytest.mark.usefixtures("threads_at_once")
def test_the_digest_is_that_of_one_thread(monkeypatch):
    one = explore("v7.0", Bounds(calls=5), engine="fast").digest
    monkeypatch.setattr(fast_explore, "DIGESTED", 100)
    assert explore("v7.0", Bounds(calls=5), engine="fast", jobs=3).digest == one


def test_progress():
    told = []
    explore("v7.0", Bounds(calls=4), engine="fast", progress=told.append)
    assert [now.depth for now in told] == [1, 2, 3, 4]
    assert told[-1].done == told[-1].width


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bounds": Bounds(areas=26)}, "no room"),
        ({"series": "v2.6.32"}, "anon_vma_chain_free"),
        ({"series": "lazy"}, "_allocate_embedded"),
        ({"save": "file"}, "saved"),
    ],
)
def test_what_it_cannot_do_is_said(options, reason):
    options = {"series": "v7.0", "bounds": Bounds(calls=1)} | options
    with pytest.raises(UsageError, match=reason):
        explore(options.pop("series"), options.pop("bounds"), engine="fast", **options)


def test_a_function_put_in_its_place_is_noticed(monkeypatch):
    monkeypatch.setattr(find("v7.0"), "anon_vma_clone", lambda self, dst, src, operation: 0)
    with pytest.raises(UsageError, match="anon_vma_clone"):
        explore("v7.0", Bounds(calls=1), engine="fast")


def test_auto_turns_to_the_engine_when_there_is_much_to_do():
    bounds = Bounds(calls=5)
    assert explore("v7.0", bounds, engine="auto", head_start=600).engine == "reference"
    turned = explore("v7.0", bounds, engine="auto", head_start=0.05)
    assert turned.engine == "fast"
    assert turned.digest == explore("v7.0", bounds).digest
    assert explore("lazy", bounds, engine="auto", head_start=0.05).engine == "reference"


def test_auto_goes_to_the_end_of_the_bounds_whatever_is_found_on_the_way():
    """What the specification finds before its time is up does not end the exploration."""
    bounds = Bounds(calls=5)
    whole = explore("zoo/Z12", bounds, stop_at_first=False)
    turned = explore("zoo/Z12", bounds, stop_at_first=False, engine="auto", head_start=whole.seconds / 5)
    assert (turned.engine, turned.reason) == ("fast", "")
    assert (turned.states, turned.findings) == (whole.states, whole.findings)


def test_auto_leaves_a_little_memory_to_the_specification(monkeypatch):
    limits = Limits(memory=1 << 40)
    assert explore("v7.0", Bounds(calls=5), engine="auto", head_start=0.05, limits=limits).engine == "fast"
    monkeypatch.setattr(sys.modules[explore.__module__], "ENGINE_TAKES", limits.memory)
    little = explore("v7.0", Bounds(calls=5), engine="auto", head_start=0.05, limits=limits)
    assert (little.engine, little.verdict) == ("reference", "holds")


def test_a_row_of_explorations_that_has_turned_to_the_engine_stays_there(monkeypatch):
    monkeypatch.setattr(rows, "HEAD_START", 0.2)
    engines_used = [part.engine for part in explore_stages("v7.0", engine="auto").parts]
    assert engines_used[-1] == "fast"
    assert engines_used == sorted(engines_used, reverse=True)  # and so not once more back
