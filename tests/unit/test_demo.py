# SPDX-License-Identifier: GPL-2.0-only
"""The demo: its figures against an independent count, its verdicts, its page and its drawings."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from rmaplab.check.execute import Plan, execute
from rmaplab.check.explore import explore
from rmaplab.check.monitor import monitored
from rmaplab.check.state import fingerprint
from rmaplab.cli import demo as verb
from rmaplab.cli.claims import fork_drawings
from rmaplab.cli.main import main
from rmaplab.errors import InputError
from rmaplab.kernel import Kernel
from rmaplab.report.demo import Demo, Drawing, Trace, Verdict
from rmaplab.report.documents import replay_results
from rmaplab.report.drawing import WIDTH, draw
from rmaplab.report.html import demo_page
from rmaplab.report.replays import replay_rows
from rmaplab.scenario import Fork, Mmap, Pages, Write
from rmaplab.series import SERIES, find
from rmaplab.workload.result import ReplayResult

SMALL = verb.Bounds(processes=2, areas=1, pages=1, calls=4, fail_alloc=1)
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """Reads a page, and asserts that its tags are balanced and that it needs nothing from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        assert tag not in {"script", "link", "iframe", "img", "object", "embed", "base"}
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in {"src", "href", "srcset", "action"} or value.startswith(("data:", "#"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open[-1:] == ["style"]:
            assert "url(" not in data
            assert "@import" not in data


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(verb, "BOUNDS", SMALL)


@pytest.fixture
def demo(tmp_path, capfd, monkeypatch):
    """Run the demo in a folder of its own; returns exit code, stdout, stderr and the page."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        code = main(["demo", "--jobs", "1", *args])
        out, err = capfd.readouterr()
        page = tmp_path / "rmaplab-demo.html"
        return code, out, err, page.read_text(encoding="utf-8") if page.exists() else None

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The demo, less deep than shipped, to be quick: exit code, document, page."""
    folder = tmp_path_factory.mktemp("demo")
    args = [
        "demo",
        "--no-record",
        "--json",
        "-q",
        "-o",
        str(folder / "demo.json"),
        "--html",
        str(folder / "page.html"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verb, "BOUNDS", replace(verb.BOUNDS, calls=6))
        code = main(args)
    return code, json.loads((folder / "demo.json").read_text()), (folder / "page.html").read_text(encoding="utf-8")


# --- figures --------------------------------------------------------------------------------


def test_verdicts_of_the_shipped_experiment(whole):
    code, found, _ = whole
    assert code == 0
    assert len(found["verdicts"]) == 6
    assert {verdict["result"] for verdict in found["verdicts"]} <= {"holds", "in part"}
    assert [verdict["result"] for verdict in found["verdicts"][:4]] == ["holds"] * 4
    assert all(verdict["claim"] and verdict["why"] for verdict in found["verdicts"])
    assert not found["interrupted"]


def test_figures_of_the_shipped_experiment(whole):
    rows = {row["series"]: row for row in whole[1]["failing_forks"]}
    assert list(rows) == list(verb.SERIES)
    for name in ("v6.18+2", "v7.0"):
        assert all(rows[name][what] == 0 for what in ("half-built", "assertions", "leaked", "dangling", "changed"))
        assert rows[name]["failures"] > 0
    assert rows["v6.18"]["half-built"] >= rows["v6.18+1"]["half-built"] > 0
    assert rows["v6.18"]["assertions"] == rows["v6.18"]["leaked"] == 0  # the old logic had none, and survived
    assert rows["v6.18+1"]["assertions"] == rows["v6.18+1"]["half-built"]
    assert rows["v6.18+v2"]["leaked"] >= rows["v6.18+v2"]["dangling"] > 0
    success = whole[1]["success"]
    assert success[0]["digest"] == success[1]["digest"]
    assert success[0]["states"] == success[1]["states"] == rows["v6.18"]["histories"]


def calls_at(kernel, created):
    """Every call worth making on one area of one page, written down apart from the explorer's."""
    for process in kernel.processes.values():
        vmas = process.mm.vmas
        if not vmas:
            yield Mmap(process.name, "A", 1, at=0x7F0000000000)
            continue
        pte = process.mm.page_table.get(0x7F0000000000)
        if pte is None or not pte.writable:
            yield Write(process.name, Pages("A", 0, 0))
    if len(kernel.processes) < 2:
        for process in list(kernel.processes.values()):
            yield Fork(process.name, f"P{created}")


def count_failures(series, calls):
    """Forks with one allocation failing after every history of mmap, write and fork: an independent count."""
    start = monitored(find(series))()
    start.spawn("P0")
    states, points = {fingerprint(start): (start, 1)}, 0
    level = list(states.values())
    for _ in range(calls):
        following = []
        for kernel, created in level:
            for call in calls_at(kernel, created):
                after = kernel.copy()
                execute(after, call)
                if isinstance(call, Fork):
                    for n in range(1, after.slab.count + 1):
                        failed = kernel.copy()
                        assert execute(failed, call, Plan(n)).errno == "ENOMEM"
                        points += 1
                mark = fingerprint(after)
                if mark not in states:
                    states[mark] = after, created + isinstance(call, Fork)
                    following.append(states[mark])
        level = following
    return points


@pytest.mark.parametrize(("series", "points"), [("v6.18+1", 3), ("v6.18+2", 3), ("v7.0", 3)])
def test_failures_of_the_smallest_case(series, points):
    # mmap, write, fork: two AVCs and an anon_vma can fail; nothing else within three calls can.
    bounds = verb.Bounds(processes=2, areas=1, pages=1, calls=3, fail_alloc=1)
    result = explore(series, bounds, stop_at_first=False, only_fork_fails=True)
    assert result.failures["points"] == count_failures(series, 3) == points


def test_the_document_and_the_text_say_the_same(demo, small, monkeypatch):
    monkeypatch.setattr(verb, "WORKLOADS", ())
    _, out, _, _ = demo("--no-record", "--json", "-q")
    found = json.loads(out)
    _, text, _, page = demo("--no-record", "-q")
    for row in found["failing_forks"]:
        line = next(line for line in text.splitlines() if line.split()[:1] == [row["series"]])
        assert line.replace(",", "").split() == [str(value) for value in row.values()]
    words = "".join(Page(page).words)
    for verdict in found["verdicts"]:
        assert verdict["why"] in words
        assert verdict["claim"] in text


def test_shipped_trace_prices(whole):
    for trace in whole[1]["traces"]:
        before, after = trace["results"]["v6.18+1"], trace["results"]["v6.18+2"]
        assert before["final"] == after["final"]
        assert before["events"] == after["events"]
        assert after["allocations"] == before["allocations"] + 2 * after["reuses"]


def test_live_recording_is_replayed(demo, small, monkeypatch):
    monkeypatch.setattr(verb, "WORKLOADS", ())
    code, out, _, page = demo("--json", "-q")
    found = json.loads(out)
    assert code in (0, 1)
    for trace in found["traces"]:
        assert trace["name"] == "sh generations.sh"
        result = trace["results"]["v6.18+2"]
        assert result["wasted_allocations"] == 2 * result["reuses"]
    assert found["traces"] or any("recorded live" in note for note in found["notes"])
    Page(page)


def test_a_machine_that_cannot_record_says_so(demo, small, monkeypatch):
    def refuse(*_args, **_options):
        raise InputError("ptrace is not allowed here")

    monkeypatch.setattr(verb, "record", refuse)
    code, out, _, page = demo("--json", "-q")
    assert code in (0, 1)
    assert "nothing was recorded live: ptrace is not allowed here" in json.loads(out)["notes"]
    assert "ptrace is not allowed here" in "".join(Page(page).words)


def test_a_failing_claim_is_exit_1(demo, small, monkeypatch):
    monkeypatch.setattr(verb, "verdicts", lambda _demo: [Verdict("pigs fly", "fails", "they do not")])
    code, out, _, page = demo("--no-record", "-q")
    assert code == 1
    assert "FAILS    pigs fly" in out
    assert "verdict fails" in page


# --- the page -------------------------------------------------------------------------------


def test_page_of_the_shipped_experiment(whole):
    page = Page(whole[2])
    assert page.seen[:2] == ["html", "head"]
    assert page.seen.count("html") == page.seen.count("body") == page.seen.count("title") == 1
    text = "".join(page.words)
    assert all(row["series"] in text for row in whole[1]["failing_forks"])
    assert whole[2].startswith("<!doctype html>")


def test_page_escapes():
    evil = "<script>alert('&')</script>"
    result = ReplayResult(evil)
    page = demo_page(
        Demo(
            traces=[Trace(evil, evil, [result])],
            drawings=[Drawing(evil, [evil])],
            verdicts=[Verdict(evil, "holds", evil)],
            notes=[evil],
        )
    )
    assert "<script" not in page
    assert "".join(Page(page).words).lower().count(evil) >= 6


def test_page_name_and_message(demo, small, tmp_path):
    code, _, err, page = demo("--no-record", "--html", str(tmp_path / "other.html"))
    assert code in (0, 1)
    assert page is None
    assert "other.html" in err
    Page((tmp_path / "other.html").read_text(encoding="utf-8"))


def test_page_that_cannot_be_written(demo, small, tmp_path):
    code, out, err, _ = demo("--no-record", "--html", str(tmp_path / "no" / "page.html"))
    assert (code, out) == (4, "")  # said before the work begins
    assert "page.html: there is no such folder" in err


# --- interruption ---------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(7))
def test_interruption_keeps_what_is_done(demo, small, monkeypatch, after):
    steps = []

    def until(real):
        def step(*args, **options):
            if len(steps) == after:
                raise KeyboardInterrupt
            steps.append(1)
            return real(*args, **options)

        return step

    for name in ("_explore", "_replay", "fork_drawings"):
        monkeypatch.setattr(verb, name, until(getattr(verb, name)))
    code, out, err, page = demo("--no-record", "--json")
    found = json.loads(out)
    assert code == 130
    assert found["interrupted"]
    assert len(found["failing_forks"]) == min(after, len(verb.SERIES))
    assert len(found["success"]) == min(max(after - 5, 0), 2)
    assert "Traceback" not in err
    assert "Interrupted" in "".join(Page(page).words)


# --- drawings -------------------------------------------------------------------------------


def test_drawings_of_a_fork():
    drawings = fork_drawings("v6.18+2")
    assert len(drawings) == 4
    assert all(len(line) <= WIDTH == 72 for drawing in drawings for line in drawing.lines)
    assert "(*)" in drawings[0].lines[2]
    assert any("`-av2" in line and "(*)" in line for line in drawings[1].lines)


@pytest.mark.parametrize("series", SERIES)
def test_drawings_of_crowds_fit(series):
    kernel = find(series)()
    process = kernel.spawn("a_process_with_a_very_long_name_indeed")
    for number in range(6):
        process.write(process.mmap(1, prot="rw" if number % 2 else "rwx"))
    for number in range(12):
        process = process.fork(f"generation_{number}")
        process.write(process.mmap(1))
    lines = draw(kernel.snapshot())
    assert max(map(len, lines)) <= WIDTH
    assert any("more VMAs" in line for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_drawing_of_nothing():
    assert "(no anon_vma)" in draw(Kernel().snapshot())


def test_tables_have_a_column_a_series():
    rows = replay_rows(replay_results([ReplayResult("v6.18"), ReplayResult("v7.0")]))
    assert {len(row) for row in rows} == {3}
    assert rows[0] == ["", "v6.18", "v7.0"]
