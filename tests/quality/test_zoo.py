# SPDX-License-Identifier: GPL-2.0-only
"""The zoo: every entry's scenario shows its bug on its logic, and nothing on the fixed logic."""

from collections import Counter
from functools import cache
from importlib.resources import files

import pytest
from explored import BOUNDS

from rmaplab.check.explore import explore
from rmaplab.check.invariants import violations
from rmaplab.check.run import run
from rmaplab.cli.catalogue import CATALOGUES
from rmaplab.errors import InputError, UsageError
from rmaplab.kernel.events import KernelBug
from rmaplab.scenario import load, parse
from rmaplab.series import SERIES, ZOO, changed_functions, find

FOLDER = files("rmaplab").joinpath("data/zoo")
NUMBERS = sorted(path.name.removesuffix(".rmap") for path in FOLDER.iterdir() if path.name.endswith(".rmap"))
FOUND = {  # what each violates within the bounds of the exploration, 5 calls with one failure
    "zoo/Z01": {"AV-003", "AV-004", "AV-008", "AV-011", "AV-015"},
    "zoo/Z02": {"AV-001", "AV-015", "AV-033", "AV-039"},
    "zoo/Z07": set(),  # take mremap, which is not among the calls explored
    "zoo/Z08": set(),
    "zoo/Z09": {"AV-052"},
    "zoo/Z10": set(),  # takes three areas
    "zoo/Z11": {"AV-033", "AV-050"},
    "zoo/Z12": {"AV-049", "AV-051"},
    "zoo/Z13": set(),  # takes three areas and a failure
    "zoo/Z17": set(),  # takes mremap
    "zoo/Z20": set(),  # takes areas that differ in EXEC
    "zoo/Z21a": set(),  # takes areas that differ in EXEC
    "zoo/Z21b": {"AV-024"},
    "zoo/Z21c": set(),  # takes swap
    "zoo/Z21d": {"AV-001", "AV-015", "AV-033"},
    "zoo/Z21e": {"AV-053"},
    "zoo/Z22": set(),  # take more calls
    "zoo/Z23": set(),
    "zoo/Z25": {"AV-035", "AV-043"},
    "zoo/Z32": set(),  # takes a pin
    "zoo/Z33": set(),  # takes KSM
}


def text_of(number):
    return FOLDER.joinpath(f"{number}.rmap").read_text(encoding="utf-8")


@cache
def shown(number, series):
    """The run of an entry's scenario on a series."""
    return run(load(str(FOLDER.joinpath(f"{number}.rmap"))), find(series))


def violated(result):
    return {violation.id for violation in result.violations}


def shortened(text):
    lines = text.splitlines(keepends=True)
    for at, line in enumerate(lines):
        if line.strip() and not line.startswith(("#", "expect")):
            try:
                yield line.strip(), parse("".join(lines[:at] + lines[at + 1 :]))
            except InputError:
                continue


# --- the register ----------------------------------------------------------------------------------------


def test_every_scenario_has_its_logic_and_every_logic_its_scenario():
    assert {f"zoo/{number}" for number in NUMBERS} == set(ZOO)


def test_an_entry_is_found_by_name_like_a_series():
    assert find("zoo/Z23") is ZOO["zoo/Z23"]
    with pytest.raises(UsageError, match="zoo/Z23"):
        find("zoo/Z233")


@pytest.mark.parametrize("name", ZOO)
def test_an_entry_says_what_it_breaks_of_which_series(name):
    logic = ZOO[name]
    assert logic.name == name
    assert logic.parent in SERIES
    assert logic.summary
    assert logic.__doc__
    assert all(len(commit) == 12 for commit in logic.commits)
    assert changed_functions(logic)


def test_entries_have_a_name_and_a_class_of_their_own():
    assert set(Counter(logic.__name__ for logic in ZOO.values()).values()) == {1}


# --- the scenarios ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_the_scenario_shows_the_bug_on_its_logic(number):
    result = shown(number, f"zoo/{number}")
    assert [(expected.text, expected.found) for expected in result.expects if not expected.ok] == []
    assert result.ok
    assert result.violations
    assert violated(result) >= result.expected_ids


@pytest.mark.parametrize("number", NUMBERS)
def test_the_fixed_logic_violates_nothing_and_does_not_meet_what_is_expected_of_the_bug(number):
    result = shown(number, ZOO[f"zoo/{number}"].parent)
    assert violated(result) == set()
    assert not result.ok


@pytest.mark.parametrize("number", NUMBERS)
def test_the_default_series_violates_nothing(number):
    assert violated(shown(number, "v7.0")) == set()


@pytest.mark.parametrize("number", NUMBERS)
def test_no_line_of_the_scenario_can_go(number):
    wanted = shown(number, f"zoo/{number}").expected_ids
    for line, shorter in shortened(text_of(number)):
        left = violated(run(shorter, find(f"zoo/{number}")))
        assert not wanted <= left, line


@pytest.mark.parametrize("item", CATALOGUES["zoo"](), ids=lambda item: item["name"])
def test_the_list_names_logic_that_shows_the_bug(item):
    assert shown(item["name"], item["series"]).ok


# --- found again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_exploring_finds_exactly_these(name):
    result = explore(name, BOUNDS, stop_at_first=False)
    assert set(result.findings) == FOUND[name]
    for ident, finding in result.findings.items():
        assert ident in violated(run(parse(finding.scenario), find(name)))


# --- the way to the oops ---------------------------------------------------------------------------------

Z23_OOPS = """\
P0 mmap A 2
P0 write A[0]
P0 fork P1
P0 exit
P1 fork P2
P1 exit
P2 fork P3
P2 mprotect A[0] rwx
P3 mprotect A[0] rwx
P3 fork P4
P2 exit
P4 write A
P4 fork P5
P5 mprotect A[0] rw
P4 exit
"""


@pytest.mark.parametrize("name", ["zoo/Z23", "v3.19", "v4.0", "v5.5"])
def test_z23_ends_in_a_use_after_free(name):
    lines = {violation.id: violation.line for violation in run(parse(Z23_OOPS), find(name)).violations}
    assert lines == {
        "AV-008": 13,  # P5's two VMAs adopt one anon_vma, with different chains
        "AV-030": 14,  # their merge drops one chain, and with it the link that a page needs
        "AV-021": 15,  # the page names an anon_vma that is gone
    }


@pytest.mark.parametrize("name", [name for name, logic in SERIES.items() if not logic.counts_together])
def test_with_two_counters_or_none_the_same_calls_are_harmless(name):
    assert violated(run(parse(Z23_OOPS), find(name))) == set()


# --- what outlives its VMAs ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "expected"), [("zoo/Z32", {"AV-019"}), ("v4.0", set()), ("v7.0", set())])
def test_z32_shows_when_the_last_reference_is_not_a_vmas(name, expected):
    kernel = run(parse("P0 mmap A 1\nP0 write A\nP0 fork P1"), find(name)).kernel
    own = kernel.processes["P1"].mm.vmas[0].anon_vma
    kernel.get_anon_vma(own)  # as KSM does for a merged page, and migration for one under way
    for process in list(kernel.processes.values()):
        process.exit()
    assert kernel.live_anon_vmas == {own.id: own, own.root.id: own.root}
    kernel.events.take_reports()
    kernel.put_anon_vma(own)
    assert {report.id for report in violations(kernel)} == expected
    assert kernel.live_anon_vmas == {}


@pytest.mark.parametrize(("name", "visits"), [("zoo/Z21e", [False, True]), ("v2.6.34", [True]), ("v7.0", [True])])
def test_z21e_visits_relatives_that_cannot_map_the_page(name, visits):
    kernel = run(parse("P0 mmap A 1\nP0 write A\nP0 fork P1\nP0 write A\nP1 write A"), find(name)).kernel
    child = kernel.processes["P1"]
    assert [visit.maps for visit in child.walk(child.areas["A"], 0)] == visits


@pytest.mark.parametrize(("name", "root_is_freed"), [("zoo/Z33", True), ("v4.0", False), ("v7.0", False)])
def test_z33_shows_when_a_walk_takes_the_lock_of_an_anon_vma_that_only_ksm_keeps(name, root_is_freed):
    kernel = run(parse("P0 mmap A 1\nP0 write A\nP0 fork P1\nP1 write A"), find(name)).kernel
    own = kernel.processes["P1"].mm.vmas[0].anon_vma
    assert violations(kernel) == []
    kernel.get_anon_vma(own)
    for process in list(kernel.processes.values()):
        process.exit()
    assert own.root.freed is root_is_freed
    assert ("AV-019" in {report.id for report in violations(kernel)}) is root_is_freed
    if root_is_freed:
        with pytest.raises(KernelBug, match=f"the lock of {own} is in {own.root}, which is freed"):
            kernel.anon_vma_lock_read(own)
    else:
        kernel.anon_vma_lock_read(own)
        kernel.anon_vma_unlock_read(own)
    kernel.put_anon_vma(own)
    assert kernel.live_anon_vmas == {}
