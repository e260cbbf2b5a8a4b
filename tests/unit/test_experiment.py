# SPDX-License-Identifier: GPL-2.0-only
"""Experiments: the file, what is run and what is kept, and what becomes of the results."""

import builtins
import json
from pathlib import Path

import pytest
from cli_calls import _call, _file, _in_a_folder_of_its_own, _trace  # noqa: F401 (fixtures)
from jsonschema import Draft202012Validator
from pyarrow import parquet

from rmaplab import schema
from rmaplab.cli import experiment as verb
from rmaplab.workload.experiment import Cell, Experiment

SMALL = """
series = ["v6.18", "v7.0"]
workloads = ["daemon:generations=4", "hand.trace"]
reclaim = ["exit", "clock"]
"""
BROKEN = """
from rmaplab.kernel import Kernel
class Mine(Kernel):
    def anon_vma_fork(self, vma, pvma):
        1 / 0
"""


@pytest.fixture(name="done")
def _done(call, file, trace):
    """An experiment that was run, and its document."""
    file(SMALL, "small.toml")
    ran = call("experiment", "small.toml", "--json", "-j", "1")
    assert ran.code == 0
    return json.loads(ran.out)


def test_every_combination_is_a_cell(done):
    cells = [(cell["workload"], cell["reclaim"], cell["series"]) for cell in done["cells"]]
    assert len(cells) == len(set(cells)) == 8
    assert not any(cell["error"] for cell in done["cells"])
    assert {cell["result"]["reclaim"] for cell in done["cells"]} == {"exit", "clock"}
    Draft202012Validator(schema.load("experiment")).validate(done)


def test_results_are_those_of_replay(call, done):
    alone = json.loads(call("replay", "daemon:generations=4", "--series", "v6.18", "--json").out)
    cell = next(cell for cell in done["cells"] if (cell["series"], cell["reclaim"]) == ("v6.18", "exit"))
    for result in (alone["results"]["v6.18"], cell["result"]):
        del result["seconds"]
    assert cell["result"] == alone["results"]["v6.18"]


def test_what_is_done_is_not_run_again(call, file, done):
    assert call("experiment", "small.toml", "--dry-run").out == ""
    kept = next(Path("small").glob("v7.0-daemon*.json"))
    kept.unlink()
    lost = call("experiment", "small.toml", "--dry-run")
    assert lost.out.count("\n") == 1
    assert "daemon:generations=4 on v7.0" in lost.out
    assert not kept.exists()
    before = {path: path.read_text(encoding="utf-8") for path in Path("small").glob("v*.json")}
    assert call("experiment", "small.toml").code == 0
    assert kept.exists()
    assert all(path.read_text(encoding="utf-8") == text for path, text in before.items())
    assert call("experiment", "small.toml", "--dry-run", "--again").out.count("\n") == 8


def test_a_changed_trace_is_run_again(call, file, done, trace):
    path = Path("hand.trace")
    path.write_bytes(path.read_bytes() + b"")
    assert call("experiment", "small.toml", "--dry-run").out == ""
    assert call("record", "-q", "-o", "hand.trace", "--", "true").code == 0
    told = call("experiment", "small.toml", "--dry-run").out
    assert told.count("its trace or design has changed") == 4


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_failed_cells_are_told_of_and_run_again(call, file, jobs):
    file(BROKEN, "mine.py")
    file('series = ["v7.0", "mine.py"]\nworkloads = ["daemon:generations=2"]\n', "one.toml")
    ran = call("experiment", "one.toml", "-j", jobs)
    assert ran.code == 4
    assert "crashed here: division by zero" in ran.out
    assert "1 of 2 cells are there" in ran.out
    assert "ZeroDivisionError" not in ran.err
    assert "crashed here" in call("experiment", "one.toml", "--dry-run").out
    file(BROKEN.replace("1 / 0", "return super().anon_vma_fork(vma, pvma)"), "mine.py")
    again = call("experiment", "one.toml", "--json")
    assert again.code == 0
    assert [bool(cell["result"]) for cell in json.loads(again.out)["cells"]] == [True, True]


def test_damaged_results_are_run_again(call, done):
    path = next(Path("small").glob("v7.0-daemon*.json"))
    for text in ("", "[]", '{"series": 1}', "\0"):
        path.write_text(text, encoding="utf-8")
        assert call("experiment", "small.toml", "--dry-run").out.count("\n") == 1
    assert call("experiment", "small.toml").code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "series: missing"),
        ("series = 1", "expected a list of names"),
        ('series = ["v7.0"]', "workloads: missing"),
        ('series = ["v7.0"]\nworkloads = []', "expected a list"),
        ('series = ["v7.00"]\nworkloads = ["daemon"]', "did you mean v7.0?"),
        ('series = ["v7.0", "v7.0"]\nworkloads = ["daemon"]', "stands there twice"),
        ('series = ["v7.0"]\nworkloads = ["deamon"]', "did you mean daemon?"),
        ('series = ["v7.0"]\nworkloads = ["daemon:vmas=x"]', "key=number"),
        ('series = ["v7.0"]\nworkloads = ["daemon:vma=3"]', "there are generations, vmas"),
        ('series = ["v7.0"]\nworkloads = ["daemon:vmas=0"]', "has to be 1 at least"),
        ('series = ["v7.0"]\nworkloads = ["daemon"]\nreclaim = ["lru"]', "none of exit, clock, none"),
        ('series = ["v7.0"]\nworkload = ["daemon"]', "workload: no such key"),
        ("series = [", "not TOML"),
    ],
)
def test_wrong_files_are_refused_with_the_remedy(call, file, text, words):
    file(text, "wrong.toml")
    done = call("experiment", "wrong.toml")
    assert (done.code, done.out) == (4, "")
    assert words in done.err
    assert "wrong.toml" in done.err
    assert not Path("wrong").exists()


def test_files_that_are_not_there(call, file):
    assert call("experiment", "none.toml").code == 4
    file(SMALL.replace(', "hand.trace"', ""), "plain")
    assert "--results" in call("experiment", "plain").err
    Path("taken").write_text("", encoding="utf-8")
    assert call("experiment", "plain", "--results", "taken").code == 4


def test_cells_have_names_of_their_own():
    slugs = {Cell("v7.0", name, "exit").slug for name in ("a/b", "a-b", "a b", "x" * 300)}
    assert len(slugs) == 4
    assert all("/" not in slug and len(slug) < 100 for slug in slugs)


def test_paths_are_relative_to_the_file(tmp_path, trace):
    (tmp_path / "e.toml").write_text('series = ["v7.0"]\nworkloads = ["t.trace"]', encoding="utf-8")
    (tmp_path / "t.trace").write_bytes(Path(trace).read_bytes())
    found = Experiment.read(tmp_path / "e.toml")
    before = found.fingerprint(found.cells()[0])
    (tmp_path / "t.trace").write_bytes(b"")
    assert found.fingerprint(found.cells()[0]) != before


# --- results in other formats ------------------------------------------------------------------


def test_a_page_of_results_stands_alone(call, done):
    assert call("export", "small", "--to", "html", "-o", "page.html").code == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "http" not in page
    assert page.count("<table>") == 4
    assert page.count("<svg") >= 4 * 4
    assert "daemon:generations=4, pages walked: clock" in page


@pytest.mark.parametrize("form", ["png", "svg"])
def test_pictures(call, done, form):
    for name in ("one", "two"):
        assert call("export", "small", "--to", form, "-o", name).code == 0
    one, two = Path("one").read_bytes(), Path("two").read_bytes()
    assert one.startswith({"png": b"\x89PNG", "svg": b"<?xml"}[form])
    assert one == two


def test_parquet_has_every_figure(call, done):
    assert call("export", "small", "--to", "parquet", "-o", "t.parquet").code == 0
    table = parquet.read_table("t.parquet").to_pylist()
    assert {row["series"] for row in table} == {"v6.18", "v7.0"}
    wanted = [row["value"] for row in table if row["what"] == "allocations" and row["series"] == "v7.0"]
    assert sorted(wanted) == sorted(
        cell["result"]["allocations"] for cell in done["cells"] if cell["series"] == "v7.0"
    )
    assert any(row["what"] == "over time: bytes" and row["at"] > 0 for row in table)


def test_perfetto_counters(call, done):
    told = json.loads(call("export", "small/results.json", "--to", "perfetto").out)["traceEvents"]
    assert {event["ph"] for event in told} == {"M", "C", "i"}
    assert len({event["pid"] for event in told}) == 8
    for event in told:
        assert event["ph"] != "C" or list(event["args"]) == [event["name"]]


def test_replays_and_comparisons_are_exported_too(call, done):
    for words in (("replay", "daemon:generations=3"), ("compare", "v6.18", "v7.0", "daemon:generations=3")):
        assert call(*words, "--json", "-o", "r.json").code == 0
        assert "anon_vmas at the peak" in call("export", "r.json", "--to", "ascii").out
        assert call("export", "r.json", "--to", "html", "-o", "r.html").code == 0


def test_formats_that_do_not_fit(call, file, done):
    assert call("export", "small", "--to", "c").code == 2
    file("P0 mmap A 1\n", "a.rmap")
    assert call("export", "a.rmap", "--to", "parquet").code == 2
    assert call("export", "small", "--to", "html", "-o", "no/such/folder").code == 4
    for text in ('{"kind": "experiment", "cells": [{"result": 1}]}', '{"kind": "replay", "traces": 3}'):
        file(text, "bad.json")
        assert call("export", "bad.json", "--to", "html").code == 4
    Path("empty").mkdir()
    assert call("export", "empty", "--to", "html").code == 4


@pytest.mark.parametrize(("form", "extra"), [("png", "plot"), ("parquet", "data")])
def test_a_missing_extra_is_named(call, done, form, extra, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **options):
        if name.split(".")[0] in ("matplotlib", "pyarrow"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    told = call("export", "small", "--to", form, "-o", "x")
    assert told.code == 4
    assert f"rmaplab[{extra}]" in told.err


def test_an_interrupted_experiment_goes_on(call, file, trace, monkeypatch):
    file(SMALL, "small.toml")
    real, ran = verb.replay, []

    def stop(*args, **options):
        ran.append(args)
        if len(ran) == 4:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(verb, "replay", stop)
    first = call("experiment", "small.toml", "-j", "1")
    assert first.code == 130
    assert "goes on" in first.err
    assert "3 of 8 cells are there" in first.out
    assert call("experiment", "small.toml", "-j", "1").code == 0
    assert len(ran) == 4 + 5
