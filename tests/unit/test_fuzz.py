# SPDX-License-Identifier: GPL-2.0-only
"""The fuzzer: the same seed gives the same, what it finds can be run, its folder is taken up again."""

import json

import pytest
from result_facts import facts

from rmaplab.check.corpus import Corpus
from rmaplab.check.fuzz import fuzz
from rmaplab.check.invariants import HARM
from rmaplab.check.run import run
from rmaplab.errors import InputError
from rmaplab.scenario import parse
from rmaplab.series import find


def test_the_same_seed_gives_the_same_whoever_does_it():
    one = facts(fuzz("v7.0", seed=3, histories=160, jobs=1))
    assert one == facts(fuzz("v7.0", seed=3, histories=160, jobs=2))
    assert one != facts(fuzz("v7.0", seed=4, histories=160))
    assert one["histories"] == 160
    assert one["findings"] == []
    assert one["corpus"] > 10
    assert one["branches"] > 500


def test_what_a_worker_has_seen_does_not_steer():
    """Workers remember what they met, and get their tasks as it happens; what is kept must not depend on it."""
    one, three = (facts(fuzz("zoo/Z23", histories=320, jobs=jobs, only=HARM)) for jobs in (1, 3))
    assert one == three
    assert one["corpus"] > 100


@pytest.mark.parametrize("series", ["zoo/Z01", "zoo/Z23", "zoo/Z25", "zoo/Z12"])
def test_what_it_finds_is_a_scenario_that_shows_it(series):
    result = fuzz(series, histories=2000)
    finding = result.findings[0]
    assert result.histories < 2000
    shown = {violation.id for violation in run(parse(finding.scenario), find(series)).violations}
    assert set(finding.ids) <= shown


def test_all_kinds_are_found_when_all_are_wanted():
    result = fuzz("zoo/Z12", histories=400, stop_at_first=False)
    assert {ident for finding in result.findings for ident in finding.ids} >= {"AV-043", "AV-051"}
    assert len({finding.ids for finding in result.findings}) == len(result.findings)


def test_judged_by_one_invariant_alone():
    result = fuzz("zoo/Z12", histories=400, only=("AV-051",))
    assert [finding.ids for finding in result.findings] == [("AV-051",)]


def test_a_folder_is_taken_up_again(tmp_path):
    folder = str(tmp_path / "corpus")
    first = fuzz("v7.0", seed=1, histories=128, folder=folder)
    kept = sorted(path.name for path in (tmp_path / "corpus").glob("*.rmap"))
    assert len(kept) == first.corpus
    assert json.loads((tmp_path / "corpus" / "fuzz.json").read_text())["next"] == 128
    second = fuzz("v7.0", seed=1, histories=256, folder=folder)
    assert second.histories == 128
    assert second.corpus > first.corpus
    assert sorted(path.name for path in (tmp_path / "corpus").glob("*.rmap"))[: len(kept)] == kept
    assert fuzz("v7.0", seed=1, histories=256, folder=folder).histories == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("fuzz.json", "x", "damaged"),
        ("fuzz.json", "[]", "not the state"),
        ("fuzz.json", '{"rmaplab": "fuzz", "series": "v6.18", "seed": 0, "next": 5}', "series is 'v6.18' there"),
        ("000000.rmap", "P0 frobnicate\n", "000000.rmap:1"),
    ],
)
def test_a_folder_that_is_not_of_this_run(tmp_path, name, text, message):
    fuzz("v7.0", histories=16, folder=str(tmp_path))
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        fuzz("v7.0", histories=32, folder=str(tmp_path))


def test_a_file_in_place_of_the_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match="name a folder"):
        fuzz("v7.0", histories=16, folder=str(path))


def test_being_interrupted_keeps_what_was_learnt(tmp_path):
    def interrupt(now):
        if now.histories >= 32:
            raise KeyboardInterrupt

    result = fuzz("v7.0", histories=640, folder=str(tmp_path), progress=interrupt)
    assert result.interrupted
    assert json.loads((tmp_path / "fuzz.json").read_text())["next"] == 32


def test_a_history_in_the_middle_of_which_the_run_is_cut_is_played_again(tmp_path, monkeypatch):
    """What it showed is kept; it counts only when all was taken from it."""
    add, kept = Corpus.add, []

    def cut_at_the_fifth(self, steps, broken):
        add(self, steps, broken=broken)
        kept.append(steps)
        if len(kept) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Corpus, "add", cut_at_the_fifth)
    result = fuzz("v7.0", histories=640, folder=str(tmp_path))
    assert result.interrupted
    assert json.loads((tmp_path / "fuzz.json").read_text())["next"] == result.histories
    assert len(list(tmp_path.glob("*.rmap"))) == 5
