# SPDX-License-Identifier: GPL-2.0-only
"""The engine does what the specification does, call for call."""

from importlib.resources import files

import pytest

pytest.importorskip("numba", reason="the fast engine takes Numba (extra `fast`)")

import twins
from twins import SUPPORTED, DiffersError, Twin, play

from rmaplab.check.execute import NO_PLAN, Plan
from rmaplab.engine.rows import PARAMETERS, PARAMS
from rmaplab.scenario import Call, Fail, Ksmd, Walk, load, parse
from rmaplab.series import ZOO, find

FOLDER = files("rmaplab").joinpath("data/zoo")


@pytest.mark.parametrize("name", SUPPORTED)
def test_random_histories_are_the_same(name):
    assert sum(play(find(name), f"{name} {seed}") for seed in range(1000, 1004)) > 100


@pytest.mark.parametrize("number", sorted(name.removeprefix("zoo/") for name in ZOO))
@pytest.mark.parametrize("series", ["its own", "the fixed one", "v7.0", "v6.18", "v2.6.34"])
def test_zoo_scenarios_are_the_same(number, series):
    entry = ZOO[f"zoo/{number}"]
    logic = {"its own": entry, "the fixed one": find(entry.parent)}.get(series) or find(series)
    found = zoo(Twin(logic), number)
    assert bool(found) or series != "its own"


def zoo(twin, number):
    """Run an entry's scenario on both; what it violates."""
    plan, last = NO_PLAN, set()
    for statement in load(str(FOLDER.joinpath(f"{number}.rmap"))).statements:
        if isinstance(statement, Fail):
            plan = Plan(statement.n, statement.nowait, statement.kind)
        elif isinstance(statement, Call | Walk | Ksmd):
            last |= twin.make(statement, plan, snapshots=True)
            plan = NO_PLAN
        if 45 in last:
            break
    return last


SILENT = {
    "clone_checks": "nothing that these series do trips the assertions",
    "guards_need_anon_vma": "takes thousands of calls",
    "merge_checks": "nothing that these series do trips the assertions",
    "mmap_asks_behind": "has a test of its own",
    "own_locks": "the same number of locks, whoever has them",
    "unlink_checks": "nothing that these series do trips the assertions",
}


@pytest.mark.parametrize("parameter", [name for name in PARAMETERS if name not in SILENT])
def test_a_wrong_parameter_does_not_go_unnoticed(parameter, monkeypatch):
    users = [name for name in SUPPORTED if Twin(find(name)).machine.m[PARAMS][parameter]]
    assert users, "no series has it"
    machine = twins.Machine

    def wrong(*args, **options):
        made = machine(*args, **options)
        made.m[PARAMS][parameter] = 0
        return made

    monkeypatch.setattr(twins, "Machine", wrong)
    assert differs(users)


def differs(users):
    """Whether the two part in a scenario of the zoo or in some random history, of the oldest and newest users."""
    try:
        for name in users:
            if name in ZOO:
                zoo(Twin(find(name)), name.removeprefix("zoo/"))
        for seed in range(60):
            for name in (*users[:2], *users[-2:]):
                play(find(name), f"{name} {seed}")
    except (DiffersError, StopIteration):
        return True
    return False


def test_mmap_that_asks_behind_joins_two_of_three():
    calls = "P0 mmap A 1 at=0x7f0000000000\nP0 mmap C 1 at=0x7f0000002000\nP0 write C\n"
    calls += "P0 mmap B 1 at=0x7f0000001000\n"
    for series, vmas in (("v6.1", 2), ("v6.0", 2), ("v7.0", 1)):
        twin = Twin(find(series))
        for statement in parse(calls).statements:
            twin.make(statement, snapshots=True)
        assert len(twin.kernel.processes["P0"].mm.vmas) == vmas
