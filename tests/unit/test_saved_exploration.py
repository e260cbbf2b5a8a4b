# SPDX-License-Identifier: GPL-2.0-only
"""An exploration that was ended goes on from its file, to the same result."""

import pytest
from result_facts import facts

from rmaplab.check.explore import Limits, explore
from rmaplab.check.histories import Bounds
from rmaplab.errors import InputError
from rmaplab.scenario import parse

BOUNDS = Bounds(2, 2, 1, 5, 1)


@pytest.mark.parametrize("series", ["v7.0", "v6.18+9"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_going_on_ends_as_if_it_had_never_ended(tmp_path, series, jobs):
    path = str(tmp_path / "saved")
    options = {"stop_at_first": False, "jobs": jobs}
    whole = facts(explore(series, BOUNDS, **options))
    rounds, result = 0, None
    while result is None or result.reason:
        states = 40 if result is None else result.states + 40
        result = explore(series, BOUNDS, limits=Limits(states=states), save=path, resume=rounds > 0, **options)
        rounds += 1
        assert rounds < 50
    assert rounds > 2
    assert facts(result) == whole


def test_a_finished_one_goes_deeper(tmp_path):
    path = str(tmp_path / "saved")
    explore("v7.0", Bounds(2, 2, 1, 3, 1), save=path)
    assert facts(explore("v7.0", BOUNDS, save=path, resume=True)) == facts(explore("v7.0", BOUNDS))


def test_what_interrupts_loses_nothing(tmp_path):
    path = str(tmp_path / "saved")

    def interrupt(now):
        if now.depth == 5 and now.done < now.width:
            raise KeyboardInterrupt

    result = explore("v7.0", BOUNDS, save=path, progress=interrupt)
    assert result.interrupted
    assert result.verdict == "no-verdict"
    assert facts(explore("v7.0", BOUNDS, save=path, resume=True)) == facts(explore("v7.0", BOUNDS))


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x78\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "saved"
    path.write_bytes(damage)
    with pytest.raises(InputError, match="saved: not a saved exploration"):
        explore("v7.0", BOUNDS, save=str(path), resume=True)


def test_a_cut_file_is_named(tmp_path):
    path = tmp_path / "saved"
    explore("v7.0", Bounds(calls=2), save=str(path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a saved exploration"):
        explore("v7.0", BOUNDS, save=str(path), resume=True)


@pytest.mark.parametrize(
    ("series", "bounds", "start", "what"),
    [
        ("v6.18", Bounds(2, 2, 1, 5, 1), None, "series"),
        ("v7.0", Bounds(3, 2, 1, 5, 1), None, "bounds"),
        ("v7.0", Bounds(2, 2, 1, 5, 1), parse("P0 mmap A 1"), "start"),
    ],
)
def test_a_file_of_another_exploration_is_refused(tmp_path, series, bounds, start, what):
    path = str(tmp_path / "saved")
    explore("v7.0", Bounds(2, 2, 1, 2, 1), save=path)
    with pytest.raises(InputError, match=f"another {what}"):
        explore(series, bounds, start, save=path, resume=True)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        explore("v7.0", BOUNDS, save=str(tmp_path / "none"), resume=True)
    with pytest.raises(InputError, match="cannot be written"):
        explore("v7.0", Bounds(calls=1), save=str(tmp_path / "none" / "saved"))


def test_a_design_that_was_edited_since_is_explored_afresh(tmp_path):
    design, path = tmp_path / "mine.py", str(tmp_path / "saved")
    design.write_text("from rmaplab.kernel import Kernel\n\n\nclass Mine(Kernel):\n    pass\n")
    explore(str(design), Bounds(2, 2, 1, 2, 1), save=path)
    assert explore(str(design), Bounds(2, 2, 1, 2, 1), save=path, resume=True).verdict == "holds"
    design.write_text(design.read_text() + "    doc = 1\n")
    with pytest.raises(InputError, match="another design"):
        explore(str(design), BOUNDS, save=path, resume=True)
