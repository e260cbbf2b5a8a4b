# SPDX-License-Identifier: GPL-2.0-only
"""Measures speed and prints a table: median of several runs, with their spread.

Targets on one core: replay 20,000 events/s, explorer 15,000 transitions/s.
Machines are shared: the spread tells how far to trust the median.  The noise
row times the same fixed piece of pure Python over and over.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.big_graph import BigGraph
from benchmarks.engine_replay import churning, end_to_end, of_a_million_vmas, of_ten_million, walking
from benchmarks.engine_search import (
    ALL_CALLS,
    FAILING,
    FAMILY,
    SMALLER,
    default_check,
    playing,
    searching,
    times_as_fast,
    with_two_threads,
)
from benchmarks.explorer import CHROMIUM, first_paint, slowest_step
from rmaplab.check.explore import explore
from rmaplab.check.fuzz import fuzz
from rmaplab.check.histories import Bounds
from rmaplab.check.monitor import monitored
from rmaplab.check.state import fingerprint
from rmaplab.realkernel.conform.campaign import Campaign, conform
from rmaplab.realkernel.guest.cache import KERNELS
from rmaplab.realkernel.guest.cache import find as find_kernel
from rmaplab.realkernel.guests import HOST
from rmaplab.report.text import table
from rmaplab.series import find
from rmaplab.workload.replay import replay
from rmaplab.workload.sources import shipped_traces
from rmaplab.workload.trace import Header, TraceWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmaplab.realkernel.conform.run import Conformance

RUNS = 7
PAGE = 4096
LAYOUT = Path(str(resources.files("rmaplab") / "data" / "layouts" / "x86_64-7.0.json"))


def fork_heavy(path: Path, generations: int = 400, areas: int = 8, width: int = 4) -> None:
    """Write a trace in which nearly every event is a fork, a fault or an exit."""
    base = 0x7E00_0000_0000
    with TraceWriter(path, Header(("fork-heavy",), "x86_64", "none")) as trace:
        layout = [[base + 2 * n * PAGE, base + (2 * n + 1) * PAGE, "rw-p", 0, ""] for n in range(areas)]
        trace.write(["exec", 0, "fork-heavy", layout])
        trace.write(["anon", 0, [[start, 1] for start, *_ in layout]])
        leader, task = 0, 0
        for _ in range(generations):
            children = []
            for _ in range(width):
                task += 1
                children.append(task)
                trace.write(["fork", leader, task])
                trace.write(["anon", task, [[layout[task % areas][0], 1]]])
            for child in children[1:]:
                trace.write(["exit", child])
            trace.write(["exit", leader])
            leader = children[0]
        trace.write(["exit", leader])
        trace.close(status=0)


def rate(work: Callable[[], float]) -> tuple[float, float, float]:
    """Median, lowest and highest of several runs of something that returns units per second."""
    rates = sorted(work() for _ in range(RUNS))
    return statistics.median(rates), rates[0], rates[-1]


def replaying(paths: list[Path], series: str) -> float:
    result = replay(paths, find(series))
    return result.events / result.seconds


def exploring(jobs: int, calls: int = 7) -> float:
    result = explore("v7.0", Bounds(calls=calls), jobs=jobs)
    return result.transitions / result.seconds


def two_workers() -> float:
    """How many times as fast as one, the two measured one after the other."""
    return 100 * exploring(2, 8) / exploring(1, 8)


def bytes_of_a_state() -> float:
    return explore("v7.0", Bounds(calls=7)).state_bytes


def fuzzing() -> float:
    result = fuzz("v7.0", histories=300)
    return result.operations / result.seconds


def cold(start: str | None, *options: str) -> float:
    """Milliseconds of a whole `rmaplab check` that finds something, interpreter included."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "rmaplab", "check", *(["-"] if start else []), "--series", "zoo/Z23"]
    command += ["--fail-alloc", "0", "--areas", "1", *options]
    done = subprocess.run(command, input=start, text=True, capture_output=True)
    assert done.returncode == 1, done.stderr
    return 1000 * (time.perf_counter() - began)


DOUBLE_REUSE = (None, "--operations", "exit,fork,mmap,write", "--processes", "4")
BROKEN_MERGE = ("P0 mmap A 2\nP0 write A[0]\n", "--operations", "exit,fork,half", "--pages", "2", "--calls", "10")
BROKEN_MERGE += ("--only", "AV-008")


def forking(series: str, rounds: int = 300) -> float:
    """Fork and exit of a process with 20 faulted areas: VMAs attached and detached a second."""
    kernel = find(series)()
    process = kernel.spawn()
    for _ in range(20):
        process.write(process.mmap(1), 0)
    began = time.perf_counter()
    for _ in range(rounds):
        process.fork("child").exit()
    return rounds * 20 / (time.perf_counter() - began)


def copying(rounds: int = 2000) -> float:
    kernel = monitored(find("v7.0"))()
    process = kernel.spawn()
    area = process.mmap(2)
    process.write(area)
    process.fork().fork()
    began = time.perf_counter()
    for _ in range(rounds):
        fingerprint(kernel.copy())
    return rounds / (time.perf_counter() - began)


def conforming(name: str, workers: int) -> float:
    """Random programs a second on a kernel and on the model, a graph compared after every call."""
    programs = 40 * workers if name.startswith("deb") else 200 * workers
    campaign = Campaign.on(name)
    began: list[float] = []

    def first(_: Conformance) -> None:
        began.append(time.perf_counter())  # what comes after the boot and the first programs counts

    result = conform(campaign, range(programs), workers=workers, progress=first)
    assert not result.mismatches
    return (programs - 10) / (began[-1] - began[0])


def guests() -> list[tuple[str, str, str, Callable[[], float]]]:
    """Those that are there: the running kernel only if RMAPLAB_LIVE allows it."""
    names = [name for name in KERNELS if find_kernel(name) is not None]
    if os.environ.get("RMAPLAB_LIVE") == "1" and os.geteuid() == 0:
        names.append(HOST)
    targets = {"um": "30", "de": "10", "ho": "200"}
    return [
        (f"conform, {name}, two workers", "programs/s", targets[name[:2]], partial(conforming, name, 2))
        for name in names
    ]


def pages() -> list[tuple[str, str, str, Callable[[], float]]]:
    """The explorer page, where there is a browser."""
    if CHROMIUM is None:
        return []
    return [
        ("explorer page, 10,000 VMAs, until drawn", "ms", "2,000", first_paint),
        ("explorer page, the slowest step", "ms", "100", slowest_step),
    ]


def engine() -> list[tuple[str, str, str, Callable[[], float]]]:
    """The fast engine beside the specification; compiled beforehand, by one use."""
    searching(replace(FAILING, calls=2))
    churning("fast")
    smaller = replace(FAMILY, calls=8)
    return [
        ("engine: churn, 300,000 events in memory", "events/s", "400,000", partial(churning, "fast")),
        ("engine: churn, times the specification", "times", "20", lambda: churning("fast") / churning("reference")),
        ("engine: churn, made and checked as well", "events/s", "", partial(end_to_end, "fast")),
        ("engine: 10 million AVCs, bytes of memory each", "bytes", "32", partial(of_ten_million, "bytes")),
        ("engine: 10 million AVCs, built", "ms", "", lambda: 1000 * of_ten_million("build")),
        ("engine: 10 million AVCs, unlinked", "ms", "", lambda: 1000 * of_ten_million("unlink")),
        ("engine: a million VMAs mapped, forked, gone", "ms", "", lambda: 1000 * of_a_million_vmas("seconds")),
        *[
            (f"engine: a walk among {ranges:,} ranges", "ns", "", partial(walking, ranges))
            for ranges in (10, 1_000, 100_000)
        ],
        ("engine: one VMA, six processes, fork and exit", "transitions/s", "2,000,000", partial(searching, FAMILY)),
        ("engine: the same, four processes", "transitions/s", "2,000,000", partial(searching, SMALLER)),
        ("engine: fork, write and exit, failures", "transitions/s", "", partial(searching, FAILING)),
        ("engine: all calls", "transitions/s", "", partial(searching, ALL_CALLS, started=False)),
        ("engine: six processes, times the explorer", "times", "10", partial(times_as_fast, FAMILY, smaller)),
        ("engine: random histories, one thread", "calls/s", "", playing),
        ("engine: two threads, beside one", "%", "", lambda: 100 * with_two_threads()),
        ("engine: check without bounds", "s", "20", default_check),
    ]


def noise(rounds: int = 200_000) -> float:
    began = time.perf_counter()
    total = 0
    for number in range(rounds):
        total += number & 7
    return rounds / (time.perf_counter() - began)


def main() -> int:
    """All rows, or those whose names begin with what is given."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory(prefix="rmaplab-bench-") as folder:
        shipped = shipped_traces()["compileall"]
        forks = Path(folder) / "forks.trace"
        fork_heavy(forks)
        rows: list[list[object]] = [["benchmark", "unit", "median", "lowest", "highest", "target"]]
        for name, unit, target, work in (
            ("machine noise: a fixed loop", "turns/s", "", noise),
            (
                "replay, shipped trace, v7.0",
                "events/s",
                "20,000",
                lambda: replaying([shipped], "v7.0"),
            ),
            ("replay, fork-heavy trace, v7.0", "events/s", "", lambda: replaying([forks], "v7.0")),
            ("replay, fork-heavy trace, v6.18", "events/s", "", lambda: replaying([forks], "v6.18")),
            ("fork and exit, v7.0", "VMAs/s", "", lambda: forking("v7.0")),
            ("explorer, one core", "transitions/s", "15,000", lambda: exploring(1)),
            ("explorer, two workers", "% of one", "170", two_workers),
            ("explorer, a stored state", "bytes", "", bytes_of_a_state),
            *engine(),
            ("fuzzer, one core", "calls/s", "", fuzzing),
            ("double reuse, cold start", "ms", "300", partial(cold, *DOUBLE_REUSE)),
            ("broken merge, cold start", "ms", "1000", partial(cold, *BROKEN_MERGE)),
            ("copy and fingerprint of a state", "states/s", "", copying),
            ("reader, a million AVCs", "AVCs/s", "", BigGraph(LAYOUT).reading),
            *pages(),
            *guests(),
        ):
            if not name.startswith((wanted, "machine noise")):
                continue
            median, low, high = rate(work)
            rows.append([name, unit, round(median), round(low), round(high), target])
            print(f"{name}: {median:,.0f} {unit}", file=sys.stderr)
    print("\n".join(table(rows)))
    print(f"\n{RUNS} runs each; one core unless said otherwise")
    return 0


if __name__ == "__main__":
    sys.exit(main())
