# SPDX-License-Identifier: GPL-2.0-only
"""Operations and stages: what an exploration is made of, and what a row of them adds up to."""

import functools
import operator

import pytest

from rmaplab.check.expand import Expander
from rmaplab.check.explore import Limits, explore
from rmaplab.check.histories import CORE, OPERATIONS, Bounds, calls
from rmaplab.check.monitor import monitored
from rmaplab.check.stages import MAIN, STAGES, explore_stages, stages
from rmaplab.check.state import fingerprint
from rmaplab.errors import UsageError
from rmaplab.scenario import Mremap
from rmaplab.series import find

SMALL = {
    "one": Bounds(2, 1, 1, 4, 1, ("exit", "fork", "mmap", "write")),
    "two": Bounds(1, 2, 1, 3, 1, ("mmap", "mprotect", "rwx", "write")),
}


def offered(operations, history=(), **bounds):
    kernel = monitored(find("v7.0"))()
    process = kernel.spawn("P0")
    area = process.mmap(2, 0x7F00_0000_0000)
    process.areas = {"A": area}
    for call in history:
        getattr(process, call)(area)
    return list(calls(kernel, Bounds(2, 2, 2, operations=tuple(operations), **bounds), 1))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_offers_calls_and_none_without_it(operation):
    history = ["write"]
    if operation in ("read", "write"):
        history = []
    kinds = {type(call) for call in offered([operation], history)}
    if operation == "rwx":  # rights of mmap and mprotect
        assert any(getattr(call, "prot", "") == "rwx" for call in offered(["mmap", "mprotect", "rwx"], history))
        assert not any(getattr(call, "prot", "") == "rwx" for call in offered(["mmap", "mprotect"], history))
        return
    assert kinds
    assert not kinds <= {
        type(call) for call in offered(set(OPERATIONS) - {operation, "half", "mprotect"}, history)
    } or (
        operation in ("half", "ksm", "fork-advice")  # their calls are other operations' too
    )


def test_pages_move_to_places_that_are_not_their_own():
    moves = [call for call in offered(["mremap"], ["write"]) if isinstance(call, Mremap)]
    assert {call.area for call in moves} == {"B", "Away"}
    assert {call.dontunmap for call in moves} == {False, True}


def test_an_operation_that_does_not_exist_is_refused_with_what_was_meant():
    with pytest.raises(UsageError, match="did you mean mremap"):
        Bounds(operations=("mremapp",))
    with pytest.raises(UsageError, match="there are exit"):
        Bounds(operations=("xyz",))


def test_stages_hold_all_operations_and_end_with_all_calls():
    assert list(STAGES)[-1] == MAIN
    assert STAGES[MAIN] == Bounds()
    used = {name for bounds in STAGES.values() for name in bounds.operations}
    assert used | {"exec", "half"} == set(OPERATIONS)
    assert set(CORE) <= set(OPERATIONS)
    assert {bounds.fail_alloc for bounds in stages(0).values()} == {0}
    assert stages() == STAGES


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_row_of_explorations_adds_up(jobs):
    total = explore_stages("v7.0", SMALL, jobs=jobs)
    parts = [explore("v7.0", bounds) for bounds in SMALL.values()]
    assert [part.stage for part in total.parts] == ["one", "two"]
    assert total.transitions == sum(part.transitions for part in parts)
    assert total.states == sum(part.states for part in parts)
    assert total.digest == parts[0].digest ^ parts[1].digest
    assert total.verdict == "holds"
    assert total.state_bytes > 40


def test_a_row_ends_with_the_first_violation_unless_all_are_wanted():
    first = explore_stages("v6.18+v2", SMALL)
    assert (first.verdict, [part.stage for part in first.parts]) == ("violated", ["one"])
    every = explore_stages("v6.18+v2", SMALL, stop_at_first=False)
    assert [part.stage for part in every.parts] == ["one", "two"]
    assert set(first.findings) <= set(every.findings)


@pytest.mark.parametrize("limits", [Limits(states=10), Limits(seconds=0.0), Limits(memory=1)])
def test_what_runs_out_ends_the_row_without_a_verdict(limits):
    total = explore_stages("v7.0", SMALL, limits=limits)
    assert total.verdict == "no-verdict"
    assert total.reason.endswith("of one")
    assert len(total.parts) == 1


def test_judged_by_one_invariant_alone_others_do_not_end_a_history():
    bounds = Bounds(1, 2, 1, 5, 1)
    assert set(explore("v6.18+9", bounds, stop_at_first=False).findings) > {"AV-003", "AV-011"}
    assert set(explore("v6.18+9", bounds, stop_at_first=False, only=("AV-011",)).findings) == {"AV-011"}
    past = explore("v6.18+9", bounds, stop_at_first=False, only=("AV-037",))
    assert past.findings == {}
    assert past.states > explore("v6.18+9", bounds, stop_at_first=False).states


@pytest.mark.parametrize("series", ["v7.0", "v6.18+9", "zoo/Z23", "zoo/Z12"])
@pytest.mark.parametrize(
    "bounds",
    [Bounds(3, 1, 2, 7, 0, ("exit", "fork", "half", "mmap", "write")), Bounds(3, 2, 1, 5, 1)],
    ids=["family", "all calls"],
)
def test_the_order_of_walks_makes_no_difference(monkeypatch, series, bounds):
    """With states that differ in it kept apart, the same is found and the same is reached."""
    short = explore(series, bounds, stop_at_first=False)
    marks = set()

    def ordered_mark(expander):
        marks.add(fingerprint(expander.kernel, walk_order=False))
        return fingerprint(expander.kernel)

    monkeypatch.setattr(Expander, "mark", ordered_mark)
    long = explore(series, bounds, stop_at_first=False)
    assert long.states >= short.states
    broken = {ident: finding.length for ident, finding in long.findings.items()}
    assert {ident: finding.length for ident, finding in short.findings.items()} == broken
    assert set(long.reached) == set(short.reached)
    if not broken:
        assert functools.reduce(operator.xor, marks) % (1 << 64) == short.digest
        assert len(marks) == short.states
