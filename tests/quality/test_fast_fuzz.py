# SPDX-License-Identifier: GPL-2.0-only
"""Random histories on the engine: the specification does in each what the engine did, and finds what it found."""

from collections import Counter
from dataclasses import asdict

import pytest

pytest.importorskip("numba", reason="the fast engine takes Numba (extra `fast`)")

from rmaplab.check import engines, fast_fuzz
from rmaplab.check.execute import execute
from rmaplab.check.expand import Question
from rmaplab.check.fast_steps import step_of
from rmaplab.check.fuzz import fuzz
from rmaplab.check.histories import OPERATIONS, Bounds
from rmaplab.check.invariants import HARM
from rmaplab.check.monitor import monitored
from rmaplab.check.run import run
from rmaplab.check.steps import text_of
from rmaplab.errors import UsageError
from rmaplab.scenario import Scenario, parse
from rmaplab.series import ZOO, find

EVERYTHING = Bounds(4, 2, 2, operations=tuple(OPERATIONS))


def facts(result):
    return asdict(result) | {"seconds": None}


def fast(series, **options):
    return fuzz(series, engine="fast", **options)


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("series", ["v2.6.34", "v6.0", "v6.1", "v6.12", "v6.12.112", "v6.18", "v7.0", "v7.3"])
def test_the_specification_does_the_same(series, number):
    """Call by call; and what is written down can be read again."""
    task = fast_fuzz._Task(Question(series, EVERYTHING, Scenario(())), 7, number, number + 1, stop_at_first=True)
    task.play()
    assert task.findings() == []
    steps = [step_of(step, EVERYTHING) for step in task.steps[0].tolist() if step]
    kernel = monitored(find(series))()
    kernel.spawn("P0")
    outcomes = Counter()
    for call, plan in steps:
        outcome = execute(kernel, call, plan)
        assert outcome.violations == []
        outcomes[outcome.errno or "ok"] += 1
    assert not kernel.processes
    result = fast_fuzz.Fuzz(series, 7)
    fast_fuzz._take(result, task)
    ended = Counter()
    for name, count in result.calls.items():
        ended[name.split()[1]] += count
    assert ended == outcomes
    assert run(parse(text_of(steps)), find(series)).violations == []


def test_histories_are_long_and_some_of_all_calls():
    result = fast("v7.0", histories=5000)
    assert (result.engine, result.histories, result.findings) == ("fast", 5000, [])
    assert sum(result.calls.values()) > 25 * result.histories
    assert {name.split()[0] for name in result.calls} >= {"exec", "exit", "fork", "ksm", "migrate", "mmap", "swapin"}
    assert result.failures["rmap"] > result.histories
    assert sum(count > 0 for count in result.reached.values()) >= 10


def test_the_same_seed_gives_the_same_whoever_does_it():
    one, three = (facts(fast("v6.18", seed=3, histories=1100, jobs=jobs)) for jobs in (1, 3))
    assert one == three
    assert one["operations"] != fast("v6.18", seed=4, histories=1100).operations


def test_room_makes_no_difference(monkeypatch):
    roomy = facts(fast("v7.0", histories=300))
    monkeypatch.setattr(fast_fuzz, "ROOM", 40)
    assert facts(fast("v7.0", histories=300)) == roomy
    monkeypatch.setattr(engines, "MOST_ROOM", 20)
    with pytest.raises(UsageError, match="cannot take a state of more than 40 objects"):
        fast("v7.0", histories=300)


@pytest.mark.parametrize("entry", ["zoo/Z01", "zoo/Z12", "zoo/Z21b", "zoo/Z23", "zoo/Z25"])
def test_what_it_finds_is_a_scenario_that_shows_it(entry):
    result = fast(entry, histories=50_000, jobs=2)
    finding = result.findings[0]
    assert result.histories == finding.history + 1
    shown = {violation.id for violation in run(parse(finding.scenario), find(entry)).violations}
    assert set(finding.ids) <= shown
    assert not set(finding.ids) & {v.id for v in run(parse(finding.scenario), find(ZOO[entry].parent)).violations}


def test_all_kinds_are_found_when_all_are_wanted():
    result = fast("zoo/Z12", histories=2000, stop_at_first=False)
    assert {ident for finding in result.findings for ident in finding.ids} >= {"AV-043", "AV-051"}
    assert len({finding.ids for finding in result.findings}) == len(result.findings)
    assert result.histories == 2000


def test_it_goes_on_through_what_does_not_count():
    result = fast("zoo/Z23", histories=100_000, jobs=2, only=HARM)
    assert [finding.ids for finding in result.findings] == [("AV-030",)]


@pytest.mark.parametrize(
    ("series", "options", "named"),
    [
        ("v7.0", {"folder": "corpus"}, "no corpus to keep"),
        ("lazy", {}, "_allocate_embedded, which the fast engine does not know"),
    ],
)
def test_what_it_cannot_do_it_refuses(series, options, named):
    with pytest.raises(UsageError, match=named):
        fast(series, histories=1, **options)


def test_ctrl_c_keeps_what_was_done():
    def interrupt(now):
        if now.histories >= 500:
            raise KeyboardInterrupt

    result = fast("v7.0", histories=5000, progress=interrupt)
    assert (result.interrupted, result.histories) == (True, 500)


def test_it_ends_when_the_time_is_up():
    assert 0 < fast("v7.0", seconds=0.05).seconds < 30
