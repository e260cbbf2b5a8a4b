# SPDX-License-Identifier: GPL-2.0-only
"""The command line: the verdicts of run and check."""

import json

import pytest
from cli_calls import FORK, SMALL, _call, _file, _in_a_folder_of_its_own  # noqa: F401 (fixtures)


def test_run_verdicts(call, file):
    assert call("run", file(FORK)).code == 0
    done = call("run", file(FORK + "expect anon_vmas 5\n"))
    assert done.code == 1
    assert "FAIL  line 5: expect anon_vmas 5 (found 2)" in done.out
    broken = file("P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\n")
    assert call("run", broken, "--series", "v7.0").code == 0
    done = call("run", broken, "--series", "v6.18+v2")
    assert done.code == 1
    assert "violated at line 4: AV-001" in done.out
    announced = file("P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\nexpect violates AV-001\n")
    assert call("run", announced, "--series", "v6.18+v2").code == 0
    assert call("run", announced, "--series", "v7.0").code == 1


def test_verbose_run_tells_the_steps(call, file):
    path = file(FORK)
    assert len(call("run", path, "-v").out) > len(call("run", path).out)


def test_check_verdicts(call):
    assert call(*SMALL).code == 0
    done = call(*SMALL, "--series", "v6.18+v2")
    assert done.code == 1
    assert "  | P0 mmap A 1" in done.out
    for bound in (["--max-states", "9"], ["--time", "0"], ["--memory", "1M"]):
        done = call(*SMALL, *bound)
        assert done.code == 3
        assert "no-verdict" in done.out
        assert json.loads(call(*SMALL, *bound, "--json").out)["verdict"] == "no-verdict"


def test_check_from_where_a_scenario_ends(call, file):
    path = file("P0 mmap A 1\nP0 write A\n")
    done = call("check", path, "--calls", "1", "--json", "--series", "v6.18+v2")
    assert done.code == 1
    assert json.loads(done.out)["violations"][0]["scenario"].startswith("P0 mmap A 1")


@pytest.mark.parametrize("ending", ["", "P0 exit\n"])
def test_check_from_a_scenario_that_violates_something(call, file, ending):
    path = file("P0 mmap A 1\nP0 write A\nfail 2\nP0 fork P1\n" + ending)
    assert call("run", path, "--series", "v6.18+1").code == 1
    assert call("check", path, "--series", "v6.18+1", "--fail-alloc", "0", "--calls", "1").code == 1


@pytest.mark.parametrize(
    "more", [[], ["--series", "v6.18+v2"], ["--series", "v6.18+1", "--all"], ["--max-states", "20"]]
)
def test_jobs_and_repetition_change_nothing(call, more):
    found = []
    for jobs in ("1", "2", "1", "3"):
        document = json.loads(call(*SMALL, *more, "--json", "--jobs", jobs).out)
        del document["seconds"]
        found.append(document)
    assert found[0] == found[1] == found[2] == found[3]
