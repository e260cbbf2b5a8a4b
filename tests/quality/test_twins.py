# SPDX-License-Identifier: GPL-2.0-only
"""The engine does what the specification does, call for call."""

from importlib.resources import files

import pytest

pytest.importorskip("numba", reason="the fast engine takes Numba (extra `fast`)")

import twins
from twins import SUPPORTED, Differs, Twin, play

from rmaplab.check.execute import NO_PLAN, Plan
from rmaplab.engine.rows import PARAMETERS, PARAMS
from rmaplab.scenario import Call, Fail, Ksm, Ksmd, Swapout, Walk, load
from rmaplab.series import ZOO, find

FOLDER = files("rmaplab").joinpath("data/zoo")
UNKNOWN = (Ksm, Ksmd, Swapout)


@pytest.mark.parametrize("name", SUPPORTED)
def test_random_histories_are_the_same(name):
    assert sum(play(find(name), f"{name} {seed}") for seed in range(1000, 1004)) > 100


@pytest.mark.parametrize("number", sorted(name.removeprefix("zoo/") for name in ZOO))
@pytest.mark.parametrize("series", ["its own", "the fixed one", "v7.0", "v6.18", "v2.6.34"])
def test_zoo_scenarios_are_the_same(number, series):
    entry = ZOO[f"zoo/{number}"]
    logic = {"its own": entry, "the fixed one": find(entry.parent)}.get(series) or find(series)
    twin, plan, last = Twin(logic), NO_PLAN, set()
    for statement in load(str(FOLDER.joinpath(f"{number}.rmap"))).statements:
        if isinstance(statement, UNKNOWN):
            pytest.skip(f"the engine has no {type(statement).__name__}")
        if isinstance(statement, Fail):
            plan = Plan(statement.n, statement.nowait, statement.kind)
        elif isinstance(statement, Call | Walk):
            last |= twin.make(statement, plan, snapshots=True)
            plan = NO_PLAN
        if 45 in last:
            break
    assert bool(last) == (series == "its own") or series != "its own"


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_every_parameter_makes_a_difference(parameter, monkeypatch):
    """A wrong parameter does not go unnoticed: the comparison can fail."""
    users = [name for name in SUPPORTED if Twin(find(name)).machine.m[PARAMS][parameter]]
    assert users, "no series has it"
    machine = twins.Machine

    def wrong(*args, **options):
        made = machine(*args, **options)
        made.m[PARAMS][parameter] = 0
        return made

    monkeypatch.setattr(twins, "Machine", wrong)
    if parameter in SILENT:
        pytest.skip(SILENT[parameter])
    with pytest.raises((Differs, MemoryError)):
        for seed in range(60):
            for name in users:
                play(find(name), f"{name} {seed}")


SILENT = {}
