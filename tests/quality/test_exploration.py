# SPDX-License-Identifier: GPL-2.0-only
"""Exploring again, with more workers or with other bounds gives what it must; a user's design is explored, too."""

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from explored import BOUNDS, every_series_explored, violated

from rmaplab.check.expand import Expander, Question
from rmaplab.check.explore import Limits, explore
from rmaplab.check.histories import Bounds
from rmaplab.check.steps import scenario_of
from rmaplab.scenario import format_scenario, parse


@pytest.fixture(scope="module", name="explored")
def _explored():
    return every_series_explored()


# --- the same again --------------------------------------------------------------------------------------


def facts(result):
    """Everything but the time it took."""
    known = asdict(result)
    del known["seconds"]
    return known


@pytest.mark.parametrize("series", ["v6.18+1", "v6.18+9", "v7.0"])
def test_exploring_again_gives_the_same(explored, series):
    assert facts(explore(series, BOUNDS, stop_at_first=False)) == facts(explored[series])


@pytest.mark.parametrize("series", ["v6.18", "v6.18+v2"])
@pytest.mark.parametrize("jobs", [2, 3])
def test_the_number_of_workers_does_not_show(explored, series, jobs):
    assert facts(explore(series, BOUNDS, jobs=jobs, stop_at_first=False)) == facts(explored[series])


def test_the_number_of_workers_does_not_show_when_it_stops_at_the_first_finding():
    assert facts(explore("v6.18+9", BOUNDS, jobs=2)) == facts(explore("v6.18+9", BOUNDS))


def test_neither_does_the_seed_of_pythons_hashes(explored):
    program = (
        "from rmaplab.check.explore import explore; from rmaplab.check.histories import Bounds\n"
        "result = explore('v6.18+9', Bounds(processes=2, areas=2, pages=1, calls=5), stop_at_first=False)\n"
        "print(result.states, result.transitions, result.digest, sorted(result.reached.items()))"
    )
    result = explored["v6.18+9"]
    expected = f"{result.states} {result.transitions} {result.digest} {sorted(result.reached.items())}\n"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == expected


@pytest.mark.parametrize("series", ["v6.18", "v7.0"])
def test_more_calls_reach_more_states_and_the_fewer_ones_are_among_them(explored, series):
    less = explore(series, replace(BOUNDS, calls=4), stop_at_first=False)
    assert less.states < explored[series].states
    assert less.transitions < explored[series].transitions
    assert less.reached <= explored[series].reached


def test_giving_up_is_no_verdict_and_says_why():
    result = explore("v7.0", BOUNDS, limits=Limits(states=50))
    assert result.verdict == "no-verdict"
    assert "50 states" in result.reason


# --- a user's design -------------------------------------------------------------------------------------


def design(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert len(text.splitlines()) <= 10
    return str(path)


FORGETFUL = """\
from rmaplab.kernel import Kernel


class Forgetful(Kernel):
    def anon_vma_link_child(self, vma, parent, anon_vma, avc):
        super().anon_vma_link_child(vma, parent, anon_vma, avc)
        parent.num_children -= 1
"""
RECKLESS = """\
from rmaplab.kernel import Kernel


class Reckless(Kernel):
    def maybe_reuse_anon_vma(self, dst, anon_vma):
        if anon_vma.parent.no_such_field > 1:
            dst.anon_vma = anon_vma
"""
HARMLESS = """\
from rmaplab.kernel import Kernel


class Harmless(Kernel):
    def maybe_reuse_anon_vma(self, dst, anon_vma):
        return super().maybe_reuse_anon_vma(dst, anon_vma)
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_ten_line_design_that_forgets_to_count_is_found_broken(tmp_path, jobs):
    path = design(tmp_path, FORGETFUL)
    result = explore(path, BOUNDS, jobs=jobs)
    assert (Path(result.series).name, result.verdict, result.depth) == ("mine.py", "violated", 3)
    finding = result.findings["AV-012"]
    assert (finding.length, finding.failed_allocation) == (3, None)
    assert finding.scenario.splitlines()[-1] == "P0 fork P1"
    assert violated(path, finding.scenario) >= {"AV-012", "AV-016"}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_crash_of_a_design_is_a_violation_and_no_traceback(tmp_path, jobs):
    path = design(tmp_path, RECKLESS)
    result = explore(path, BOUNDS, jobs=jobs)
    finding = result.findings["AV-045"]
    assert finding.length == 3
    assert "no_such_field" in finding.detail
    assert violated(path, finding.scenario) == {"AV-045"}


def test_a_design_that_changes_nothing_is_explored_like_the_series_it_is_made_from(tmp_path, explored):
    result = explore(design(tmp_path, HARMLESS), BOUNDS, stop_at_first=False)
    assert facts(result) == {**facts(explored["v7.0"]), "series": result.series}


def test_the_design_does_not_outlive_its_exploration(tmp_path, explored):
    explore(design(tmp_path, FORGETFUL), BOUNDS)
    assert facts(explore("v7.0", BOUNDS, stop_at_first=False)) == facts(explored["v7.0"])


def test_a_fork_that_fails_has_named_its_child():
    """As the text of a history has it, which could not be read again if the name came back."""
    start = parse("P0 mmap A 1 at=0x7f0000000000\nP0 write A\n")
    question = Question("v7.0", Bounds(3, 1, 1, 2, 2, ("fork",)), start)
    first = Expander(question).expand([((), 0, 1)]).successors
    _, failing, failures, _, named = next(successor for successor in first if successor[1].plan.n)
    second = Expander(question).expand([((failing,), failures, 1 + named)]).successors
    assert second
    for _, step, *_ in second:
        parse(format_scenario(scenario_of([failing, step], start.statements)))
