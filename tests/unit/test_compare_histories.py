# SPDX-License-Identifier: GPL-2.0-only
"""Two series on all small histories: in what they differ, and the shortest history that shows it."""

import pytest

from rmaplab.check.compare import ASPECTS, COMPARED, compare
from rmaplab.check.histories import Bounds
from rmaplab.check.run import run
from rmaplab.scenario import Exit, Fork, Mmap, Write, parse
from rmaplab.series import find

FAMILY = {"family": COMPARED["family"]}
SMALL = {"all calls": Bounds(2, 2, 1, 4, 1)}


@pytest.fixture(scope="module", name="cleanup")
def _cleanup():
    """The clean-up of 2026: what it changed at all."""
    return compare("v6.18", "v7.0", jobs=2)


def test_the_clean_up_reuses_another_anon_vma(cleanup):
    """F0 F1 F2 F3 X1 X2 F4: a chain of forks whose middle is gone."""
    finding = cleanup.differences["reuse"]
    calls = parse(finding.scenario).statements
    forked = {call.child: call.process for call in calls if isinstance(call, Fork)}
    gone = [call.process for call in calls if isinstance(call, Exit)]
    assert [type(call) for call in calls[:2]] == [Mmap, Write]
    assert len(calls) == finding.length == 9
    assert (len(forked), len(gone)) == (5, 2)
    assert sorted(gone) == ["P1", "P2"]
    assert forked == {"P1": "P0", "P2": "P1", "P3": "P2", "P4": "P3", "P5": "P4"}
    own = []
    for series in ("v6.18", "v7.0"):
        state = run(parse(finding.scenario), find(series)).kernel.snapshot(canonical=False)
        own.append([(process.name, vma.anon_vma) for process in state.processes for vma in process.vmas])
    assert own[0] != own[1]


def test_the_clean_up_fails_and_holds_alike(cleanup):
    assert {"errno", "invariants", "VMAs", "links"}.isdisjoint(cleanup.differences)
    assert set(cleanup.searches) == set(COMPARED)
    assert cleanup.unfinished == ""


def test_the_patch_of_the_mail_changes_order_waste_and_error_paths_alone():
    result = compare("v6.18", "v6.18+2", jobs=2)
    assert list(result.differences) == ["allocation order", "allocations", "error path"]
    assert "in vain" in result.differences["allocations"].detail
    assert "fail" in result.differences["error path"].scenario


@pytest.mark.parametrize("bounds", [FAMILY, SMALL])
def test_a_series_is_what_it_is(bounds):
    result = compare("v7.0", "v7.0", bounds)
    assert result.differences == {}
    assert next(iter(result.searches.values())).verdict == "holds"


def test_jobs_change_nothing():
    one, two = (compare("v6.18", "v7.0", SMALL, jobs=jobs) for jobs in (1, 2))
    assert one.differences == two.differences
    assert one.searches["all calls"].states == two.searches["all calls"].states


@pytest.mark.parametrize(
    ("one", "other", "aspect", "words"),
    [
        ("v6.18", "v6.18+v2", "error path", "fail anon_vma_chain"),
        ("v3.19", "v2.6.34", "reuse", "av@"),
    ],
)
def test_known_differences(one, other, aspect, words):
    bounds = FAMILY if aspect == "reuse" else SMALL
    finding = compare(one, other, bounds).differences[aspect]
    assert words in finding.detail


def test_the_order_of_the_two_does_not_matter():
    there, back = (compare(*pair, SMALL) for pair in (("v6.18", "v7.0"), ("v7.0", "v6.18")))
    assert list(there.differences) == list(back.differences)
    for aspect, finding in there.differences.items():
        assert back.differences[aspect].scenario == finding.scenario


def test_a_design_that_counts_wrongly_differs_in_counts(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from rmaplab.kernel import Kernel\n\n\nclass Mine(Kernel):\n"
        "    def anon_vma_link_child(self, vma, parent, anon_vma, avc):\n"
        "        super().anon_vma_link_child(vma, parent, anon_vma, avc)\n        parent.num_children -= 1\n"
    )
    result = compare("v7.0", str(path), SMALL)
    assert result.differences["counts"].length == 3
    assert set(result.differences) <= set(ASPECTS)
    assert result.differences["invariants"].detail == "none and AV-012, AV-016"
