# SPDX-License-Identifier: GPL-2.0-only
"""The explorer finds the bugs that are known, with the shortest scenario there is, and no others.

Z01: a merge that fails leaves an anon_vma pointer that nothing backs (patch 1
to 9, mended by 3a206a8649f8).  Z02: a fork that fails leaks its AVCs (the
eight-patch posting).
"""

from dataclasses import replace

import pytest
from explored import BOUNDS, every_series_explored, violated

from rmaplab.check.explore import explore
from rmaplab.check.invariants import INVARIANTS
from rmaplab.check.monitor import HALF_BUILT
from rmaplab.check.run import run
from rmaplab.errors import InputError
from rmaplab.scenario import Fail, format_statement, parse
from rmaplab.series import SERIES, find

PATCHED = [f"v6.18+{patch}" for patch in range(1, 10)]
SOUND = ["v2.6.32", "v2.6.34", "v4.0", "v5.5", "v6.0", "v6.12", "v6.12.112", "v6.18", "v7.0", "v7.3"]
SINCE_PATCH_2 = [*PATCHED[1:], "v7.0", "v7.3"]
Z01 = {"AV-003", "AV-004", "AV-008", "AV-011", "AV-015"}
Z01_SCENARIO = """\
P0 mmap A 1 at=0x7f0000000000
P0 write A[0]
P0 mprotect A[0] r
P0 mmap B 1 at=0x7f0000001000
fail 1
P0 mprotect A[0] rw
"""
Z02_SCENARIO = """\
P0 mmap A 1 at=0x7f0000000000
P0 write A[0]
fail 2
P0 fork P1
"""
FAILURES = ("points", "half-built", "leaked", "dangling")


@pytest.fixture(scope="module", name="explored")
def _explored():
    return every_series_explored()


def shortened(text):
    """The scenario without one of its lines, for each line that can go."""
    lines = text.splitlines(keepends=True)
    for at in range(len(lines)):
        shorter = "".join(lines[:at] + lines[at + 1 :])
        try:
            yield lines[at].strip(), parse(shorter)
        except InputError:
            continue


# --- what is found ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("series", SOUND)
def test_series_without_a_known_bug_hold(explored, series):
    result = explored[series]
    assert (result.verdict, result.findings, result.depth) == ("holds", {}, BOUNDS.calls)
    assert result.failures["points"] > 0
    assert result.reached["fork failed"] > 0 or series == "v2.6.32"  # where fork takes no memory


@pytest.mark.parametrize("series", [*PATCHED, "v6.18+v2"])
def test_z01_is_found_in_five_calls_with_one_failed_allocation(explored, series):
    findings = explored[series].findings
    assert explored[series].verdict == "violated"
    assert set(findings) >= Z01
    for ident in Z01 - {"AV-015"}:  # which a leak violates, too
        finding = findings[ident]
        assert (finding.length, finding.failed_allocation) == (5, 1)
        assert finding.scenario == Z01_SCENARIO
        assert finding.detail


@pytest.mark.parametrize("series", PATCHED[1:])
def test_z01_is_the_only_bug_of_patches_2_to_9(explored, series):
    assert set(explored[series].findings) == Z01


@pytest.mark.parametrize("series", PATCHED[1:])
def test_z01_ends_a_search_that_stops_at_the_first_finding(series):
    result = explore(series, BOUNDS)
    assert (result.verdict, result.depth) == ("violated", 5)
    assert "AV-003" in result.findings


@pytest.mark.parametrize("series", ["v6.18+1", "v6.18+v2"])
def test_z01_is_one_call_from_a_start_scenario_where_another_bug_comes_first(series):
    start = parse("".join(Z01_SCENARIO.splitlines(keepends=True)[:4]))
    result = explore(series, replace(BOUNDS, calls=1, processes=1), start)
    assert set(result.findings) == Z01
    assert result.findings["AV-003"].scenario == Z01_SCENARIO


@pytest.mark.parametrize("series", [*PATCHED[1:], "v7.0"])
@pytest.mark.parametrize("bound", [{"calls": 4}, {"fail_alloc": 0}, {"areas": 1}])
def test_z01_needs_five_calls_a_failure_and_two_areas(series, bound):
    assert explore(series, replace(BOUNDS, **bound)).verdict == "holds"


def test_z01_takes_four_calls_where_rights_differ_in_exec():
    text = """\
P0 mmap A 1 at=0x7f0000000000
P0 mmap B 1 at=0x7f0000001000 prot=rwx
P0 write B
fail 1
P0 mprotect B rw
"""
    assert violated("v6.18+9", text) == Z01
    assert violated("v7.0", text) == violated("v6.18", text) == violated("v6.12", text) == set()


@pytest.mark.parametrize(
    ("then", "ident"),
    [
        ("P0 write B", "AV-030"),  # takes the pointer for an anon_vma of its own: the page is never found
        ("P0 munmap A", "AV-018"),  # frees the anon_vma that the pointer leads to
        ("P0 munmap B\nP0 munmap A", "AV-039"),  # one owner, uncounted twice
        ("P0 fork P1\nP0 munmap B\nP0 munmap A", "AV-017"),
    ],
)
def test_z01_does_harm_whatever_comes_next(then, ident):
    assert ident not in Z01
    assert ident in violated("v6.18+9", Z01_SCENARIO + then)
    assert violated("v7.0", Z01_SCENARIO + then) == set()


def test_z02_is_found_in_three_calls_leaked_and_dangling(explored):
    result = explored["v6.18+v2"]
    for ident in ("AV-001", "AV-015", "AV-033"):
        finding = result.findings[ident]
        assert (finding.length, finding.failed_allocation) == (3, 2)
        assert finding.scenario == Z02_SCENARIO
    assert "points to freed" in result.findings["AV-001"].detail
    assert "2 AVCs allocated, 1 on lists" in result.findings["AV-015"].detail
    assert result.failures["leaked"] >= result.failures["dangling"] > 0


@pytest.mark.parametrize("n", [2, 3])
def test_z02_leaks_at_either_allocation_after_the_clone(n):
    text = Z02_SCENARIO.replace("fail 2", f"fail {n}")
    assert violated("v6.18+v2", text) >= {"AV-001", "AV-015", "AV-033"}
    assert violated("v6.18+9", text) == violated("v6.18", text) == set()


def test_z02_leaves_one_link_for_each_of_the_parents():
    text = "P0 mmap A 1\nP0 write A\nP0 fork P1\nP1 fork P2\nfail 4\nP2 fork P3"
    result = run(parse(text), SERIES["v6.18+v2"])
    dangling = [avc for avc in result.kernel.live_anon_vma_chains.values() if avc.vma.freed]
    assert len(dangling) == 3
    assert {avc.anon_vma.freed for avc in dangling} == {False}


def test_without_patch_2_the_assertion_of_patch_1_fires_in_three_calls(explored):
    finding = explored["v6.18+1"].findings["AV-039"]
    assert (finding.length, finding.failed_allocation) == (3, 2)
    assert finding.scenario == Z02_SCENARIO
    assert "half-built" in finding.detail
    assert set(explored["v6.18+1"].findings) == {*Z01, "AV-039"}


def test_before_the_series_half_built_vmas_are_unlinked_and_nothing_is_wrong_with_that(explored):
    result = explored["v6.18"]
    assert result.reached[HALF_BUILT] > 0
    assert result.failures["half-built"] > 0
    assert result.findings == {}


@pytest.mark.parametrize("series", SINCE_PATCH_2)
def test_since_patch_2_no_half_built_vma_is_unlinked_and_nothing_leaks(explored, series):
    result = explored[series]
    assert result.reached[HALF_BUILT] == 0
    assert [result.failures[what] for what in FAILURES[1:]] == [0, 0, 0]


# --- what is reported ------------------------------------------------------------------------------------


@pytest.mark.parametrize("series", [*PATCHED, "v6.18+v2"])
def test_a_found_scenario_read_back_and_run_violates_the_same_invariant(explored, series):
    for ident, finding in explored[series].findings.items():
        assert finding.id == ident
        assert ident in violated(series, finding.scenario)


@pytest.mark.parametrize("series", ["v6.18+1", "v6.18+9", "v6.18+v2"])
def test_no_line_of_a_found_scenario_can_go(explored, series):
    for ident, finding in explored[series].findings.items():
        tried = 0
        for line, scenario in shortened(finding.scenario):
            left = {violation.id for violation in run(scenario, find(series)).violations}
            assert ident not in left, line
            tried += 1
        assert tried >= finding.length - 1


@pytest.mark.parametrize("series", ["v6.18+1", "v6.18+9", "v6.18+v2"])
def test_a_found_scenario_is_in_canonical_form_and_its_counts_are_right(explored, series):
    for finding in explored[series].findings.values():
        statements = parse(finding.scenario).statements
        assert "".join(f"{format_statement(statement)}\n" for statement in statements) == finding.scenario
        plans = [statement for statement in statements if isinstance(statement, Fail)]
        assert finding.length == len(statements) - len(plans)
        assert [plan.n for plan in plans] == [finding.failed_allocation]
        assert finding.count >= 1


def test_every_finding_names_a_known_invariant_and_stands_under_its_id(explored):
    for result in explored.values():
        assert set(result.findings) <= set(INVARIANTS)
