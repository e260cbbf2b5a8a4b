# SPDX-License-Identifier: GPL-2.0-only
"""Shipped designs: the same coverage for all, and the faults of those that are shipped for them."""

from pathlib import Path

import pytest

from rmaplab.check.run import run
from rmaplab.check.soak import soak
from rmaplab.check.stages import explore_stages, stages
from rmaplab.kernel.slab import KINDS
from rmaplab.scenario import parse
from rmaplab.series import designs, find

SOUND = ("cow_context", "lazy")
FAULTY = {
    "cow_context_posted": ("moved", "three-places"),
    "lazy_repoint": ("huge-split",),
}
EXAMPLES = Path(__file__).parents[2] / "examples" / "designs"


def ids(name, design):
    """The violations of an example on a design."""
    text = (EXAMPLES / f"{name}.rmap").read_text(encoding="utf-8")
    return {found.id for found in run(parse(text), find(design)).violations}


def test_every_shipped_design_is_judged_here():
    shipped = {point.name for point in designs() if point.value.startswith("rmaplab.")}
    assert shipped == {*SOUND, *FAULTY}


@pytest.mark.parametrize("name", SOUND)
def test_all_small_histories_hold(name):
    result = explore_stages(name, stages(), jobs=1)
    assert result.findings == {}
    assert len(result.parts) == len(stages())


@pytest.mark.parametrize("name", [*SOUND, "lazy_repoint"])
def test_random_histories_hold(name):
    result = soak(find(name), range(100))
    assert [(found.seed, found.violations) for found in result.findings] == []
    assert set(result.failures) == set(KINDS)


@pytest.mark.parametrize(("design", "name"), [(design, name) for design, names in FAULTY.items() for name in names])
def test_examples_show_what_faulty_designs_do_and_sound_ones_do_not(design, name):
    assert "AV-030" in ids(name, design)
    for sound in (*SOUND, "v7.0"):
        assert not ids(name, sound)


@pytest.mark.parametrize(("only", "longest"), [("AV-030", 3), ("AV-001", 5)])
def test_check_finds_both_faults_of_the_posted_context(only, longest):
    result = explore_stages("cow_context_posted", stages(), only=(only,))
    assert list(result.findings) == [only]
    assert result.findings[only].length <= longest
