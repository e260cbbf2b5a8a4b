# SPDX-License-Identifier: GPL-2.0-only
"""Replay workloads on one or more series or designs: objects, bytes, allocations, locks, walks.

A workload is a recorded trace, or one of `rmaplab list workloads` by its name.
Calls that are not modelled are counted and named.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rmaplab.cli.common import add_engine, add_logic, add_output, emit, note, standard_input
from rmaplab.cli.progress import Bar, advance, bar
from rmaplab.errors import InputError, UsageError
from rmaplab.report.documents import replay_document
from rmaplab.report.replays import replay_text
from rmaplab.series import DEFAULT, find
from rmaplab.workload.engines import replay_on
from rmaplab.workload.reclaim import PATTERNS
from rmaplab.workload.replay import Replay
from rmaplab.workload.saved import load_replay, save_replay
from rmaplab.workload.sources import find_workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from rmaplab.kernel import Kernel
    from rmaplab.workload.result import ReplayResult
    from rmaplab.workload.sources import Workload

__all__ = ["add_reclaim", "prepare_parser", "run"]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "traces",
        metavar="TRACE",
        nargs="+",
        help="a file that `rmaplab record` wrote, - for standard input, or a name of `rmaplab list workloads`",
    )
    add_reclaim(parser)
    parser.add_argument("--save", metavar="FILE", help="write what is done there now and then and on Ctrl-C")
    parser.add_argument("--resume", metavar="FILE", help="go on from there, and save there")
    add_engine(parser)
    add_logic(parser, several=True)
    add_output(parser)


def add_reclaim(parser: argparse.ArgumentParser) -> None:
    """``--reclaim``, which chooses the pages that are walked."""
    parser.add_argument(
        "--reclaim",
        choices=PATTERNS,
        default="exit",
        help="pages that are walked: one of each VMA at its process's exit (default), 8 after every 100 events "
        "going round all memory, or none",
    )


def run(args: argparse.Namespace, kind: str = "replay") -> int:
    """Replay on each series in turn; ``kind`` is that of the document."""
    chosen = [find(name) for name in dict.fromkeys(args.series or [DEFAULT])]
    saved = args.resume or args.save
    if saved and (len(chosen) > 1 or "-" in args.traces):
        raise UsageError("--save and --resume: for one series and traces in files; `rmaplab experiment` keeps more")
    if saved and args.engine == "fast":
        raise UsageError("--engine fast: a replay that is saved runs on the specification")
    with tempfile.NamedTemporaryFile(prefix="rmaplab-", suffix=".trace") as spool:
        if "-" in args.traces:  # each series reads it anew
            shutil.copyfileobj(standard_input(), spool)
            spool.flush()
        traces = [Path(spool.name) if trace == "-" else find_workload(trace) for trace in args.traces]
        try:
            results = _replay_all(args, chosen, traces)
        except InputError as error:
            raise InputError(str(error).replace(spool.name, "-")) from error
    document = replay_document(args.traces, results)
    emit(args, kind, document, lambda: replay_text(document))
    if not results[-1].interrupted:
        return 0
    if saved:
        note(args, f"interrupted: the same command with --resume {saved} goes on")
    return 130


def _replay_all(args: argparse.Namespace, chosen: list[type[Kernel]], traces: list[Workload]) -> list[ReplayResult]:
    results: list[ReplayResult] = []
    for series in chosen:
        with bar(args, f"replay on {series.name}", " events") as progress:
            saved = args.resume or args.save
            if not saved:
                tell = advance(progress)
                results.append(replay_on(args.engine, traces, series, reclaim=args.reclaim, progress=tell))
            else:
                results.append(
                    _replay_saved(args, Path(saved), Replay(traces, series, reclaim=args.reclaim), progress)
                )
        if results[-1].interrupted:
            break
    return results


def _replay_saved(args: argparse.Namespace, saved: Path, replay: Replay, progress: Bar) -> ReplayResult:
    """Go on from a file, if asked to, and keep what is done there."""
    if args.resume:
        load_replay(saved, replay)
    replay.keep = partial(save_replay, saved, replay)
    with _stopped_between_events(replay):
        return replay.run(advance(progress))


@contextmanager
def _stopped_between_events(replay: Replay) -> Iterator[None]:
    """Ctrl-C waits for the end of an event, so that the machine can be saved."""
    before = signal.signal(signal.SIGINT, lambda _number, _frame: replay.stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
