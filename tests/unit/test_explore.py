# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab explore`: what may be shown, the document, the page, and the text."""

import json
import re

import pytest
from cli_calls import FORK, _call, _file, _in_a_folder_of_its_own  # noqa: F401 (fixtures)
from jsonschema import Draft202012Validator

from rmaplab import schema
from rmaplab.check.run import run as run_scenario
from rmaplab.cli.catalogue import data_files
from rmaplab.report.explorer import explorer_page
from rmaplab.scenario import parse
from rmaplab.scenario.remarks import remarks
from rmaplab.series import find

Z01 = "P0 mmap A 1 at=0x7f0000000000\nP0 write A\nP0 mmap B 1 at=0x7f0000001000 prot=rwx\nfail 1\nP0 mprotect A rwx\n"
SCHEMA = Draft202012Validator(schema.load("explore"))


@pytest.fixture(name="document")
def _document(call):
    def show(*args, code=0):
        done = call("explore", *args, "--json")
        assert done.code == code, done.err
        found = json.loads(done.out)
        SCHEMA.validate(found)
        return found

    return show


def texts(track):
    return [moment["text"] for moment in track["moments"] if moment["inner"] == 0]


def test_a_scenario_with_its_comments(document, file):
    path = file("# A fork\n#\n# Why it is here.\nP0 mmap A 1\nP0 write A  # a page\nP0 fork P1\n")
    found = document(path)
    (chapter,) = found["chapters"]
    assert (found["source"], found["title"], chapter["text"]) == ("scenario", "A fork", ["Why it is here."])
    (track,) = chapter["tracks"]
    assert track["calls"] == ["P0 mmap A 1", "P0 write A[0]", "P0 fork P1"]
    assert texts(track)[1:] == track["calls"]
    assert [moment["note"] for moment in track["moments"] if moment["note"]] == ["a page"]
    assert any(moment["inner"] for moment in track["moments"])


def test_calls_only_and_two_series(document, file):
    found = document(file(Z01), "--calls-only", "--series", "v6.18+9", "--series", "v7.0")
    tracks = found["chapters"][0]["tracks"]
    assert [track["series"] for track in tracks] == ["v6.18+9", "v7.0"]
    assert all(moment["inner"] == 0 for track in tracks for moment in track["moments"])
    assert [bool(track["moments"][-1]["violated"]) for track in tracks] == [True, False]
    assert tracks[0]["moments"][-1]["errno"] == "ENOMEM"


def test_before_and_after_each_step(document, file):
    before, after = document(file(FORK), "--before", "--calls-only")["chapters"][0]["tracks"]
    assert [track["series"] for track in (before, after)] == ["v7.0, before", "v7.0, after"]
    assert before["calls"] == after["calls"]
    assert "P1" in after["moments"][-1]["patch"]["processes"]
    assert not any("P1" in moment["patch"].get("processes", ()) for moment in before["moments"])


def test_standard_input(call, monkeypatch):
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FORK.encode())))
    done = call("explore", "-", "--json")
    assert json.loads(done.out)["chapters"][0]["tracks"][0]["calls"][-1] == "P0 fork P1"


def test_a_document_from_standard_input(call, file, monkeypatch):
    import io
    import sys

    written = call("check", file(Z01), "--series", "v6.18+9", "--calls", "1", "--json").out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(written.encode())))
    done = call("explore", "-", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["source"] == "counterexample"


def test_before_and_after_of_a_workload(document):
    tracks = document("thousand:vmas=2", "--moments", "3", "--before")["chapters"][0]["tracks"]
    assert [track["series"] for track in tracks] == ["v7.0, before", "v7.0, after"]


def test_counterexamples_and_checks_keep_their_series(document, call, file, tmp_path):
    assert call("check", file(Z01), "--series", "v6.18+9", "--calls", "1", "--json", "-o", "check.json").code == 1
    checked = document("check.json")
    assert checked["source"] == "counterexample"
    assert checked["chapters"][0]["tracks"][0]["series"] == "v6.18+9"
    assert re.match(r"AV-\d{3}: ", checked["title"])
    assert call("check", file(Z01), "--series", "v6.18+9", "--calls", "1", "--counterexamples", "found").code == 1
    (first, *_) = sorted((tmp_path / "found").iterdir())
    assert document(first)["chapters"][0]["tracks"][0]["moments"][-1]["violated"]


def test_the_demo_shows_the_failing_fork_and_what_it_found(document, file):
    found = {"id": "AV-001", "statement": "it holds", "detail": "it does not", "scenario": Z01}
    explorations = [{"series": "v6.18+9", "violations": [found, found]}, {"series": "v7.0", "violations": []}]
    shown = document(file(json.dumps({"kind": "demo", "explorations": explorations}), "demo.json"))
    first, second = shown["chapters"]
    assert [track["series"] for track in first["tracks"]] == ["v6.18+1", "v6.18+2"]
    assert [track["series"] for track in second["tracks"]] == ["v6.18+9", "v7.0"]
    assert "it does not" in second["text"][0]


def test_snapshots_of_runs_and_of_kernels(document, call, file, tmp_path):
    call("run", file(FORK), "--json", "-o", "run.json")
    shown = document("run.json")
    assert shown["source"] == "snapshot"
    (moment,) = shown["chapters"][0]["tracks"][0]["moments"]
    assert set(moment["patch"]["processes"]) == {"P0", "P1"}
    patch = moment["patch"]
    vmas = [vma["id"] for process in patch["processes"].values() for vma in process["vmas"]]
    assert set(moment["answers"]) == {*vmas, *patch["anon_vmas"], *patch["folios"]}
    state = json.loads((tmp_path / "run.json").read_text())["final"]
    kernel = {**state, "rmaplab": "0", "kind": "snapshot", "series": "v7.0", "kernel": "7.0.1", "partial": True}
    (tmp_path / "snapshot.json").write_text(json.dumps(kernel))
    shown = document("snapshot.json")
    assert shown["chapters"][0]["tracks"][0]["kernel"] == "7.0.1"
    assert "Linux 7.0.1" in shown["title"]
    assert any("?" in text for text in shown["chapters"][0]["text"])


def test_moments_of_a_workload(document):
    shown = document("thousand:vmas=4,children=2,levels=2", "--moments", "5")
    track = shown["chapters"][0]["tracks"][0]
    assert shown["source"] == "trace"
    assert len(track["moments"]) == 5
    assert "after" in track["moments"][0]["text"]


def test_the_tour_has_eight_chapters_whose_scenarios_do_what_they_say(document):
    shown = document("--tour")
    chapters = shown["chapters"]
    assert len(chapters) == 8
    for chapter in chapters:
        assert chapter["title"]
        assert chapter["text"]
        assert any(moment["note"] for track in chapter["tracks"] for moment in track["moments"])
    by_title = {chapter["title"]: chapter["tracks"] for chapter in chapters}
    for title, ident in (
        ("A fork that fails", "AV-039"),
        ("Reused twice (2022)", "AV-043"),
        ("The stale pointer (2026)", "AV-003"),
    ):
        before, after = by_title[title]
        broken = {one["id"] for moment in before["moments"] for one in moment["violated"]}
        assert ident in broken
        assert not any(moment["violated"] for moment in after["moments"])


@pytest.mark.parametrize("path", data_files("tour", ".rmap"), ids=lambda path: path.stem)
def test_chapters_of_the_tour_are_scenarios(path):
    text = path.read_text(encoding="utf-8")
    for series in remarks(text).series:
        result = run_scenario(parse(text), find(series))
        sound = series in ("v7.0", "v6.0", "v6.18+2")
        assert bool(result.violations) != sound


# --- the page and the text -------------------------------------------------------------------------------


def test_the_page_is_one_file_that_needs_nothing(call, file, tmp_path):
    done = call("explore", file(FORK, "some fork.rmap"))
    assert (done.code, done.out) == (0, "")
    page = (tmp_path / "some-fork.html").read_text()
    assert "some-fork.html" in done.err
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!#|data:)[^"'\s>]+""", page.split('id="data"')[0])
    assert "https://" not in re.sub(
        r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL
    ).replace("https://www.gnu.org", "")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    SCHEMA.validate(json.loads(data))
    assert len(page) - len(data) < 500_000


def test_nothing_in_the_data_ends_the_script():
    page = explorer_page(
        {"title": "</script><b>", "source": "scenario", "chapters": [], "invariants": [], "x": "</script>/*JS*/"}
    )
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data)["title"] == "</script><b>"
    assert json.loads(data)["x"] == "</script>/*JS*/"
    assert "&lt;/script&gt;&lt;b&gt;" in page


def test_output_goes_where_it_is_told(call, file, tmp_path):
    assert call("explore", file(FORK), "-o", "x.html", "-q") == (0, "", "")
    assert (tmp_path / "x.html").stat().st_size > 1000
    assert call("explore", file(FORK), "-o", "-").out.startswith("<!DOCTYPE html>")
    assert call("explore", "--tour", "-q").code == 0
    assert (tmp_path / "rmaplab-tour.html").exists()


def test_the_same_input_gives_the_same_bytes(call, file):
    path = file(FORK)
    assert call("explore", path, "-o", "-").out == call("explore", path, "-o", "-").out


def test_text_for_mail_fits_into_72_columns(call, file):
    done = call("explore", file(FORK), "--text")
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 72
    assert "3. P0 fork P1" in done.out
    assert "P1 begins" in done.out
    assert call("explore", "--tour", "--text").out.count("on v7.0") >= 5


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        ([], 2, "--tour"),
        (["--tour", "x.rmap"], 2, "one thing"),
        (["none.rmap"], 4, "cannot read"),
        (["nonesuch"], 2, "no such file and no such workload"),
        (["empty.rmap"], 4, "empty.rmap"),
        (["broken.json"], 4, "JSON"),
        (["other.json"], 4, "kind"),
        (["bad-snapshot.json"], 4, "not a whole document"),
        (["bad-demo.json"], 4, "not a whole document"),
        (["a.rmap", "--series", "v7.0", "--series", "v6.0", "--series", "v5.5"], 2, "at most two"),
        (["a.rmap", "--series", "v7.0", "--series", "v6.0", "--before"], 2, "at most two"),
        (["a.rmap", "--series", "v99"], 2, "unknown series"),
        (["a.rmap", "-o", "no/such/folder.html"], 4, "cannot be written"),
    ],
)
def test_errors(call, file, args, code, word):
    file(FORK)
    file("", "empty.rmap")
    file('{"kind":', "broken.json")
    file('{"kind": "doctor"}', "other.json")
    file('{"kind": "snapshot", "processes": 3}', "bad-snapshot.json")
    file('{"kind": "demo", "explorations": [{"series": 3}]}', "bad-demo.json")
    done = call("explore", *args)
    assert done.code == code
    assert word in done.err
