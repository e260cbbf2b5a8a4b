# SPDX-License-Identifier: GPL-2.0-only
"""Put the claims of the mail this project started from to the test.

Patch 2/9 of the January 2026 anon_vma clean-up rewrites anon_vma_fork() so
that a failed fork never tears down a half-built VMA.  Tables and verdicts on
stdout, the same as an HTML page.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rmaplab.check.explore import explore
from rmaplab.check.histories import Bounds
from rmaplab.cli.catalogue import data_files
from rmaplab.cli.claims import fork_drawings, surprises, verdicts
from rmaplab.cli.common import add_output, emit, jobs_default, note, positive, write_file
from rmaplab.cli.progress import advance, bar
from rmaplab.errors import InputError, RmaplabError
from rmaplab.report.demo import Demo, Trace, demo_document, demo_text
from rmaplab.report.html import demo_page
from rmaplab.series import find
from rmaplab.workload.recorder import record
from rmaplab.workload.replay import replay as replay_traces
from rmaplab.workload.sources import shipped_traces
from rmaplab.workload.trace import TraceReader

if TYPE_CHECKING:
    import argparse

    from rmaplab.check.explore import Exploration, Progress

__all__ = ["prepare_parser", "run"]

SERIES = ("v6.18", "v6.18+1", "v6.18+2", "v6.18+v2", "v7.0")
PATCH = ("v6.18+1", "v6.18+2")  # before and after the patch
WORKLOADS = ("compileall",)  # of those that are shipped
BOUNDS = Bounds(processes=4, areas=1, pages=1, calls=8, fail_alloc=1)


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "--html", metavar="FILE", default="rmaplab-demo.html", help="the page to write (default %(default)s)"
    )
    parser.add_argument("--no-record", action="store_true", help="do without the trace recorded live")
    parser.add_argument("-j", "--jobs", type=positive, default=jobs_default(), metavar="N", help="worker processes")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Make the experiment; Ctrl-C keeps what is done."""
    if not Path(args.html).parent.is_dir():
        raise InputError(f"{args.html}: there is no such folder; name another file with --html")
    demo = Demo()
    try:
        for series in SERIES:
            demo.failing.append(_explore(args, series, BOUNDS, f"failing forks on {series}"))
        for series in PATCH:
            demo.succeeding.append(_explore(args, series, replace(BOUNDS, fail_alloc=0), f"forks on {series}"))
        for name in WORKLOADS:
            demo.traces.append(_replay(args, shipped_traces()[name], "shipped with rmaplab"))
        if not args.no_record:
            _record_live(args, demo)
        demo.drawings = fork_drawings(PATCH[1])
        demo.verdicts = verdicts(demo)
        demo.notes += surprises(demo)
    except KeyboardInterrupt:
        demo.interrupted = True
    emit(args, "demo", demo_document(demo), lambda: demo_text(demo))
    sys.stdout.flush()
    write_file(args.html, demo_page(demo), "; name another with --html")
    note(args, f"the same as a page: {args.html}")
    if demo.interrupted:
        return 130
    return 1 if any(verdict.result == "fails" for verdict in demo.verdicts) else 0


def _explore(args: argparse.Namespace, series: str, bounds: Bounds, what: str) -> Exploration:
    with bar(args, what, " transitions") as progress:

        def show(now: Progress) -> None:
            progress.set_postfix_str(f"depth {now.depth}/{bounds.calls} {now.done}/{now.width}", refresh=False)
            progress.update(now.transitions - progress.n)

        result = explore(series, bounds, jobs=args.jobs, stop_at_first=False, only_fork_fails=True, progress=show)
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def _replay(args: argparse.Namespace, path: Path, origin: str) -> Trace:
    with TraceReader(path) as reader:
        command = " ".join(reader.header.command)
    results = []
    for name in PATCH:
        with bar(args, f"{path.name} on {name}", " events") as progress:
            results.append(replay_traces([path], find(name), progress=advance(progress)))
        if results[-1].interrupted:
            raise KeyboardInterrupt
    return Trace(command, origin, results)


def _record_live(args: argparse.Namespace, demo: Demo) -> None:
    shell = shutil.which("sh")
    (program,) = data_files("programs", "generations.sh")
    if shell is None:
        demo.notes.append("nothing was recorded live: there is no sh on this machine")
        return
    with tempfile.TemporaryDirectory(prefix="rmaplab-") as folder:
        path = Path(folder) / "live.trace"
        try:
            summary = record([shell, str(program)], path)
        except RmaplabError as error:
            demo.notes.append(f"nothing was recorded live: {error}")
            return
        if summary.interrupted:
            raise KeyboardInterrupt
        trace = _replay(args, path, "recorded just now on this machine")
    demo.traces.append(Trace(f"sh {program.name}", trace.origin, trace.results))
