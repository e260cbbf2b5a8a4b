# SPDX-License-Identifier: GPL-2.0-only
"""Explorations on the engine and on the specification: the same states, counts and shortest counterexamples."""

import os
import signal
import threading

import pytest

pytest.importorskip("numba", reason="the fast engine takes Numba (extra `fast`)")

from rmaplab.check.explore import Limits, explore
from rmaplab.check.histories import Bounds
from rmaplab.check.stages import STAGES
from rmaplab.engine.choice import OPERATIONS, why_not
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


def test_limits():
    bounds = Bounds(6, 1, 1, 14, 0, ("exit", "fork", "mmap", "write"))
    found = explore("v7.0", bounds, engine="fast", limits=Limits(states=20_000))
    assert 20_000 < found.states < 21_000  # a level has many times as many
    found = explore("v7.0", Bounds(calls=7), engine="fast", limits=Limits(states=1000))
    assert found.verdict == "no-verdict"
    assert found.reason.startswith("more than 1000 states at depth")
    assert explore("v7.0", Bounds(calls=7), engine="fast", limits=Limits(memory=1 << 20)).verdict == "no-verdict"


def test_interrupted():
    bounds = Bounds(6, 1, 1, 14, 1, ("exit", "fork", "mmap", "write"))
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    explore("v7.0", Bounds(calls=2), engine="fast")  # compiled by now
    timer.start()
    found = explore("v7.0", bounds, engine="fast")
    timer.join()
    assert found.interrupted
    assert found.verdict == "no-verdict"
    assert found.transitions > 1000


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
    assert explore("v7.0", bounds, engine="auto").engine == "reference"
    turned = explore("v7.0", bounds, engine="auto", head_start=0.05)
    assert turned.engine == "fast"
    assert turned.digest == explore("v7.0", bounds).digest
    assert explore("lazy", bounds, engine="auto", head_start=0.05).engine == "reference"
