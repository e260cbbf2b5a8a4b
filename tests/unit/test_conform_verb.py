# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab conform` with guests that are models: what it says, its document, its exit codes."""

import json

import pytest
from conform_guests import FAMILY, HUGE, TwinGuest
from jsonschema import Draft202012Validator

from rmaplab import schema
from rmaplab.cli.main import main
from rmaplab.realkernel.conform import campaign
from rmaplab.realkernel.conform.compare import MASKED
from rmaplab.realkernel.conform.given import program_of
from rmaplab.scenario import parse


@pytest.fixture(name="call")
def _call(monkeypatch, capsys):
    """`rmaplab conform` whose guests are models of v6.18."""
    monkeypatch.setattr(campaign, "open_guest", lambda name: TwinGuest("v6.18"))
    monkeypatch.setattr(campaign, "series_of", lambda name: "v6.18")
    monkeypatch.setattr(campaign, "lacking", lambda name: HUGE)
    monkeypatch.setattr(campaign, "can_fail", lambda name: True)

    def call(*args):
        code = main(["conform", "-q", *map(str, args)])
        return code, *capsys.readouterr()

    return call


def test_the_verb_says_that_they_agree(call):
    code, out, _ = call("--programs", "30", "--jobs", "2")
    assert (code, out.splitlines()[0]) == (0, "Linux 7.3.0-twin and v6.18: no mismatch")
    assert all(what in out for what in MASKED)
    assert " fork ok" in out


def test_the_verb_shows_both_graphs_and_ends_with_1(call):
    code, out, _ = call("--programs", "20", "--series", "v7.0", "--jobs", "1")
    assert code == 1
    assert "mismatches" in out.splitlines()[0]
    assert "  | P0 mmap" in out
    assert any(line.split()[:2] == ["model", "kernel"] for line in out.splitlines())
    assert "more mismatches are in the JSON document" in out


@pytest.mark.parametrize("args", [("--programs", "20"), ("--programs", "20", "--series", "v7.0")])
def test_the_document_is_as_its_schema_says(call, args):
    code, out, _ = call(*args, "--json")
    document = json.loads(out)
    Draft202012Validator(schema.load("conform")).validate(document)
    assert (document["kind"], code) == ("conform", int(bool(document["mismatches"])))
    assert document["masked"]["slab"]["count"] == document["snapshots"]
    for found in document["mismatches"]:
        assert program_of(parse(found["scenario"]))


def test_scenarios_are_run_instead(call, tmp_path):
    path = tmp_path / "a.rmap"
    path.write_text(FAMILY)
    code, out, _ = call(path, "--json")
    assert (code, json.loads(out)["programs"]) == (0, 1)
    code, _, err = call(path, "--programs", "5")
    assert (code, err) == (2, "rmaplab: give scenarios, or how many random programs, not both\n")
    path.write_text("P0 mmap A 1\nP0 nonsense\n")
    assert call(path)[0] == 4


def test_time_is_a_limit(call):
    code, out, _ = call("--time", "0.2", "--json", "--jobs", "1")
    assert code == 0
    assert json.loads(out)["programs"] >= 10
