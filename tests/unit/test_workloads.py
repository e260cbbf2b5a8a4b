# SPDX-License-Identifier: GPL-2.0-only
"""Workloads by name, generated ones, patterns of walks, the timeline, and the page of measured figures."""

import hashlib
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from cli_calls import _call, _file, _in_a_folder_of_its_own, _trace  # noqa: F401 (fixtures)

from rmaplab.errors import UsageError
from rmaplab.series import find
from rmaplab.workload.replay import replay
from rmaplab.workload.result import TIMELINE, Sample, Timeline
from rmaplab.workload.sources import find_workload, open_workload, provenance, shipped_traces
from rmaplab.workload.synthetic import GENERATORS, Synthetic

ROOT = Path(__file__).parents[2]
SMALL = {
    "churn": {"events": 400, "processes": 5},
    "aim7": {"processes": 5, "pages": 4},
    "daemon": {"generations": 6, "vmas": 3},
    "mixed": {"events": 400, "processes": 5},
    "splits": {"vmas": 20},
    "thousand": {"vmas": 9, "children": 2, "levels": 2},
    "zygote": {"apps": 3, "vmas": 10, "own": 4, "written": 5},
}


def small(kind):
    return Synthetic(kind, SMALL[kind])


# --- where workloads come from -------------------------------------------------------------


@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_write_what_a_recorder_might(kind):
    with open_workload(small(kind)) as reader:
        events = list(reader)  # checked one by one
    assert events == list(small(kind).events())
    result = replay([small(kind)], find("v7.0"))
    assert not result.refused
    assert not result.unmodelled
    assert result.peak.anon_vma > 0


def test_generators_have_the_shapes_they_are_named_for():
    split = replay([small("splits")], find("v7.0")).peak
    assert (split.anon_vma, split.anon_vma_chain) == (1, 20)
    thousand = replay([small("thousand")], find("v7.0"))
    assert thousand.forks == 2 + 4
    assert thousand.peak.anon_vma == 9 * 7
    assert replay([small("zygote")], find("lazy")).peak.anon_vma == 10
    assert max(replay([small("daemon")], find("v2.6.34")).chain_length) == 7
    assert replay([small("aim7")], find("v2.6.32")).peak.anon_vma == 1


def test_every_shipped_trace_has_its_provenance():
    known = provenance()
    assert set(known) == set(shipped_traces())
    for name, path in shipped_traces().items():
        assert known[name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert known[name]["summary"].endswith(".")
        assert known[name]["programs"]
        script = known[name]["script"]
        assert " " in script or (ROOT / "src" / "rmaplab" / "data" / script).is_file()


def test_names(tmp_path):
    assert find_workload("redis") == shipped_traces()["redis"]
    assert find_workload("zygote:apps=3,vmas=5") == Synthetic("zygote", {"apps": 3, "vmas": 5})
    assert find_workload("no/such.trace") == Path("no/such.trace")
    for name, words in (
        ("redsi", "did you mean redis"),
        ("qqq", "list workloads"),
        ("zygote:apps", "key=number"),
        ("zygote:pages=3", "there are apps"),
        ("zygote:apps=0", "1 at least"),
    ):
        with pytest.raises(UsageError, match=words):
            find_workload(name)


def test_a_typo_is_told_of(call):
    done = call("replay", "redsi")
    assert (done.code, done.out) == (2, "")
    assert "did you mean redis" in done.err


# --- walks and timeline -----------------------------------------------------------------------


def test_the_clock_goes_round_all_pages():
    work = Synthetic("zygote", {"apps": 3, "vmas": 30, "own": 10, "written": 10})
    result = replay([work], find("v7.0"), reclaim="clock")
    events = sum(1 for _ in work.events())
    assert result.walk_visits.total() == events // 100 * 8
    visits = sum(number * count for number, count in result.walk_visits.items())
    assert 0 < result.walk_maps <= visits
    assert result.worst_walk.visits == max(result.walk_visits) > 1


@pytest.mark.parametrize("series", ["v7.0", "v2.6.32", "lazy", "cow_context"])
def test_patterns_do_not_change_the_graph(series):
    results = {name: replay([small("zygote")], find(series), reclaim=name) for name in ("exit", "clock", "none")}
    assert len({(r.peak.anon_vma, r.peak.anon_vma_chain, r.allocations) for r in results.values()}) == 1
    assert not results["none"].walk_visits


def test_unknown_patterns_are_refused(call):
    assert call("replay", "daemon", "--reclaim", "lru").code == 2


def test_the_timeline_keeps_to_its_size_and_to_equal_distances():
    timeline = Timeline()
    left = 1
    for event in range(1, 5000):
        left -= 1
        if left == 0:
            timeline.add(Sample(event, *[0] * 9))
            left = timeline.step
        assert len(timeline.samples) < TIMELINE
    distances = Counter(b.events - a.events for a, b in zip(timeline.samples, timeline.samples[1:], strict=False))
    assert set(distances) == {timeline.step}
    assert len(timeline.samples) > TIMELINE // 2 - 2


def test_samples_are_of_the_machine():
    result = replay([small("daemon")], find("v2.6.34"))
    assert result.timeline.step == 1
    tops = {name: result.timeline.highest(name) for name in ("anon_vma", "bytes", "longest_chain", "depth", "tree")}
    assert tops["anon_vma"] == result.peak.anon_vma
    assert tops["bytes"] == result.peak.bytes
    assert tops["longest_chain"] == tops["depth"] == 7
    assert tops["tree"] == 2


def test_forks_are_measured_one_by_one():
    result = replay([Synthetic("thousand", {"vmas": 10})], find("v7.0"))
    assert result.fork_allocations == {30: 1}
    assert result.fork_locks == {20: 1}
    assert result.fork_tree_operations == {20: 1}
    assert replay([Synthetic("thousand", {"vmas": 10})], find("cow_context")).fork_allocations == {1: 1}


# --- marks ---------------------------------------------------------------------------------------


PROGRAM = """
import mmap, os, time
memory = [mmap.mmap(-1, 4096, flags=2, prot=3 | (n % 2 and 4)) for n in range(40)]
def wait(name):
    open(f"at {name}", "w").close()
    while not os.path.exists(name):
        time.sleep(0.02)
if os.fork() == 0:
    wait("one")
    for block in memory:
        block[0] = 1
    wait("two")
    os._exit(0)
os.wait()
"""


def marked(recorder, folder, name):
    """Wait for the program to come to a place, leave a mark there, let it go on."""
    deadline = time.monotonic() + 60
    while not (folder / f"at {name}").exists() and time.monotonic() < deadline and recorder.poll() is None:
        time.sleep(0.05)
    if recorder.poll() is not None:
        pytest.skip("nothing can be recorded here")
    recorder.send_signal(signal.SIGUSR1)
    time.sleep(0.5)
    (folder / name).touch()


def test_a_mark_says_what_is_there(tmp_path):
    """SIGUSR1 to the recorder: pages that were written since the last call count."""
    (tmp_path / "p.py").write_text(PROGRAM, encoding="utf-8")
    trace = tmp_path / "t.trace"
    words = [sys.executable, "-m", "rmaplab", "record", "-q", "-o", str(trace), "--", sys.executable, "p.py"]
    with subprocess.Popen(words, cwd=tmp_path) as recorder:
        marked(recorder, tmp_path, "one")
        marked(recorder, tmp_path, "two")
        assert recorder.wait(60) == 0
    result = replay([trace], find("v7.0"))
    before, after = result.marks
    assert after.anon_vma_chain - before.anon_vma_chain > 30
    assert after.anon_vma > before.anon_vma
    assert not result.unmodelled.get("mark")


# --- the page -----------------------------------------------------------------------------------


def figures_of_the_page(title):
    """A table of docs/measured.md: {workload: {design: text}}."""
    page = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    table = page.split(f"### {title}\n\n", 1)[1].split("\n\n", 1)[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


@pytest.mark.parametrize("workload", ["generations", "prefork", "compileall", "thousand", "daemon"])
def test_the_page_has_the_figures_that_are_measured(workload):
    titles = {"Anon_vmas": "anon_vma", "AVCs": "anon_vma_chain", "Bytes": "bytes"}
    for design in ("v2.6.34", "v7.0", "lazy", "cow_context"):
        result = replay([find_workload(workload)], find(design), reclaim="clock")
        for title, name in titles.items():
            told = figures_of_the_page(title)[workload][design].split(" ")[0]
            assert told == f"{getattr(result.peak, name):,}", (design, title)
        told = figures_of_the_page("VMAs that a walk meets, most")[workload][design]
        assert told == f"{max(result.walk_visits, default=0):,}"


def test_every_published_figure_has_a_verdict():
    page = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    table = page.split("## Published figures side by side\n\n", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    verdicts = [line.strip("|").split("|")[3].strip() for line in table]
    assert len(verdicts) >= 9
    assert not [verdict for verdict in verdicts if verdict.startswith("not ")]


def test_the_page_covers_the_workloads_that_are_shipped():
    assert set(shipped_traces()) <= set(figures_of_the_page("Bytes"))
    listed = re.findall(r'"([a-z][\w:=,.-]*)"', (ROOT / "benchmarks" / "designs.toml").read_text(encoding="utf-8"))
    assert set(figures_of_the_page("Bytes")) <= set(listed)
