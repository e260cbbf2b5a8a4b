# SPDX-License-Identifier: GPL-2.0-only
"""docs/series.md is what the register of series and the zoo says."""

from pathlib import Path

from rmaplab.check.invariants import INVARIANTS
from rmaplab.report.series_page import series_page
from rmaplab.series import SERIES, ZOO

PAGE = Path(__file__).parents[2] / "docs" / "series.md"


def rows():
    return [line.strip("|").split(" | ") for line in series_page().splitlines() if line.startswith("| `")]


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == series_page(), "run `make pages`"


def test_every_series_and_every_zoo_entry_has_a_row_with_its_parent():
    named = {row[0].strip(" `"): row[1].strip(" `") for row in rows() if len(row) == 6}
    assert named == {name: series.parent or "" for name, series in {**SERIES, **ZOO}.items()}


def test_every_conditional_invariant_has_its_series_named():
    conditional = {ident for ident, invariant in INVARIANTS.items() if invariant.needs or invariant.unless}
    named = {ident.strip() for row in rows() if len(row) == 4 for ident in row[2].split(",")}
    assert named == conditional
    assert all(row[3].strip() for row in rows() if len(row) == 4)
