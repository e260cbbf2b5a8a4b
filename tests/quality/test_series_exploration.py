# SPDX-License-Identifier: GPL-2.0-only
"""Which invariants each era violates, exactly: in all short histories, and from where double reuse begins."""

from dataclasses import replace

import pytest
from explored import BOUNDS, every_series_explored, violated

from rmaplab.check.explore import explore
from rmaplab.check.soak import soak
from rmaplab.scenario import parse
from rmaplab.series import SERIES, find

Z11_SCENARIO = """\
P0 mmap A 1 at=0x7f0000000000
P0 write A[0]
P0 mmap B 1 at=0x7f0000001000
fail 1
P0 munmap A[0]
"""
DEGREE = ("v3.19", "v4.0", "v5.5")
ONE_REUSED = parse("""\
P0 mmap A 1 at=0x7f0000000000
P0 write A[0]
P0 fork P1
P1 fork P2
P1 exit
P2 fork P3
""")
FAMILY = replace(BOUNDS, processes=4, areas=1, calls=3, fail_alloc=0)


@pytest.fixture(scope="module", name="explored")
def _explored():
    return every_series_explored()


def test_z11_is_the_only_bug_of_3_19_in_short_histories(explored):
    findings = explored["v3.19"].findings
    assert set(findings) == {"AV-033", "AV-050"}
    for finding in findings.values():
        assert (finding.length, finding.failed_allocation) == (4, 1)
        assert finding.scenario == Z11_SCENARIO
    assert {name: violated(name, Z11_SCENARIO) for name in SERIES if violated(name, Z11_SCENARIO)} == {
        "v3.19": set(findings)
    }


def test_z11_takes_a_failed_allocation():
    assert explore("v3.19", replace(BOUNDS, fail_alloc=0)).verdict == "holds"


@pytest.mark.parametrize("series", [name for name, logic in SERIES.items() if logic.reuses])
def test_double_reuse_is_one_fork_from_the_first_reuse_until_6_0(series):
    result = explore(series, FAMILY, ONE_REUSED, stop_at_first=False)
    if series not in DEGREE:
        assert (result.verdict, result.findings) == ("holds", {})
        return
    assert set(result.findings) == {"AV-043"}
    finding = result.findings["AV-043"]
    assert (finding.length, finding.failed_allocation) == (7, None)
    assert finding.scenario.splitlines()[-1] == "P3 fork P4"


@pytest.mark.parametrize("series", ["v2.6.32", "v2.6.34"])
def test_without_reuse_nothing_is_violated_there(series):
    assert explore(series, FAMILY, ONE_REUSED).verdict == "holds"


def test_eras_that_differ_by_bugs_and_locks_alone_reach_the_same_number_of_states(explored):
    assert explored["v4.0"].states == explored["v5.5"].states
    assert explored["v5.5"].states < explored["v6.0"].states  # whose pages have an exclusive bit
    assert explored["v7.0"].digest == explored["v7.3"].digest
    assert explored["v6.0"].digest != explored["v6.12"].digest  # which gives charged memory back
    assert explored["v6.12"].digest == explored["v6.12.112"].digest


def test_a_single_list_has_fewer_states_and_far_fewer_ways_to_fail(explored):
    old, new = explored["v2.6.32"], explored["v7.0"]
    assert old.states < new.states
    assert 0 < old.failures["points"] < new.failures["points"] / 2


# --- all operations --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "known"),
    [
        ("v2.6.32", set()),
        ("v2.6.34", set()),
        ("v3.19", {"AV-033", "AV-050"}),
        ("v5.5", {"AV-008", "AV-043"}),
        ("v6.0", set()),
        ("v6.12.112", set()),
        ("v7.3", set()),
    ],
)
def test_random_calls_of_every_kind_violate_nothing_but_what_is_known(series, known):
    result = soak(find(series), range(25), calls=40)
    assert result.operations > (500 if series == "v3.19" else 1000)  # a violation ends a history
    assert {report.id for finding in result.findings for report in finding.violations} <= known
