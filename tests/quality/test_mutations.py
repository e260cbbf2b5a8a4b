# SPDX-License-Identifier: GPL-2.0-only
"""Every invariant can fail: corrupted states, and series with one plausible mistake each.

A mutant is run beside the series it was made from, on the same scenario: the
mutant must be reported, its origin must not.
"""

import mutants_cloning
import mutants_keeping
import mutants_linking
import mutants_merging
import mutants_paging
import page_corruptions  # noqa: F401 (adds to CORRUPTIONS)
import pytest
from corruptions import CORRUPTIONS, folios, healthy

from rmaplab.check.invariants import INVARIANTS, InvariantViolation, violations
from rmaplab.check.run import run
from rmaplab.scenario import parse
from rmaplab.series import SERIES

MUTANTS = {
    **mutants_linking.MUTANTS,
    **mutants_cloning.MUTANTS,
    **mutants_merging.MUTANTS,
    **mutants_paging.MUTANTS,
    **mutants_keeping.MUTANTS,
}


# --- corrupted states ------------------------------------------------------------------------------------


CASES = [
    pytest.param(ident, corrupt, id=f"{ident} {corrupt.__name__.replace('_', ' ')}")
    for ident, ways in CORRUPTIONS.items()
    for corrupt in ways
]


def test_the_state_to_be_corrupted_is_healthy_and_rich():
    kernel, p0, p1, p2 = healthy()
    assert violations(kernel) == []
    assert [len(process.mm.vmas) for process in (p0, p1, p2)] == [2, 3, 2]
    assert {folio.mapcount for folio in folios(p0)} == {2, 3}


@pytest.mark.parametrize(("ident", "corrupt"), CASES)
def test_a_corrupted_state_is_reported(ident, corrupt):
    kernel, *processes = healthy()
    corrupt(kernel, *processes)
    found = violations(kernel)
    assert ident in {report.id for report in found}
    assert all(report.detail for report in found)


def test_a_violation_is_raised_with_id_place_and_statement():
    kernel, p0, _, _ = healthy()
    kernel.check()
    p0.mm.vmas[0].anon_vma.num_active_vmas += 1
    with pytest.raises(InvariantViolation, match="AV-011: num_active_vmas is") as raised:
        kernel.check()
    assert raised.value.id == "AV-011"
    assert "num_active_vmas 2, 1 VMAs" in raised.value.where


# --- mutant series ---------------------------------------------------------------------------------------


RUNS = [pytest.param(mutant, id=mutant.__name__) for mutant in MUTANTS]
WATCHED = {ident for ident, invariant in INVARIANTS.items() if invariant.check is None}


def found_by(series, text):
    return {violation.id for violation in run(parse(text), series).violations}


@pytest.mark.parametrize("mutant", RUNS)
def test_a_mutant_is_reported_and_what_it_was_made_from_is_not(mutant):
    idents, text = MUTANTS[mutant]
    origin = next(base for base in mutant.__mro__ if base in SERIES.values())
    assert found_by(origin, text) == set()
    assert set(idents) <= found_by(mutant, text)


def test_every_invariant_has_a_mutation_and_every_watched_one_a_mutant():
    by_mutants = {ident for idents, _ in MUTANTS.values() for ident in idents}
    assert by_mutants >= WATCHED
    assert set(CORRUPTIONS) | by_mutants == set(INVARIANTS)


def test_every_check_of_a_state_but_those_of_older_series_has_a_corrupted_state():
    assert set(INVARIANTS) - WATCHED - set(CORRUPTIONS) == {"AV-024", "AV-050"}


@pytest.mark.parametrize("ident", INVARIANTS)
def test_an_invariant_has_a_statement_and_a_source(ident):
    invariant = INVARIANTS[ident]
    assert invariant.id == ident
    assert invariant.statement
    assert invariant.source
