# SPDX-License-Identifier: GPL-2.0-only
"""Replay recorded traces on one or more series: objects, bytes, allocations, locks, walks.

Calls that are not modelled yet are counted and named.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rmaplab.cli.common import add_logic, add_output, emit, standard_input
from rmaplab.cli.progress import advance, bar
from rmaplab.errors import InputError
from rmaplab.report.documents import replay_document
from rmaplab.report.text import replay_text
from rmaplab.series import DEFAULT, find
from rmaplab.workload.replay import replay as replay_traces

if TYPE_CHECKING:
    import argparse

    from rmaplab.kernel import Kernel
    from rmaplab.workload.replay import ReplayResult

__all__ = ["prepare_parser", "run"]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "traces", metavar="TRACE", nargs="+", help="a file that `rmaplab record` wrote, or - for standard input"
    )
    add_logic(parser, several=True)
    add_output(parser)


def run(args: argparse.Namespace, kind: str = "replay") -> int:
    """Replay on each series in turn; ``kind`` is that of the document."""
    chosen = [find(name) for name in dict.fromkeys(args.series or [DEFAULT])]
    with tempfile.NamedTemporaryFile(prefix="rmaplab-", suffix=".trace") as spool:
        if "-" in args.traces:  # each series reads it anew
            shutil.copyfileobj(standard_input(), spool)
            spool.flush()
        traces = [Path(spool.name if trace == "-" else trace) for trace in args.traces]
        try:
            results = _replay_all(args, chosen, traces)
        except InputError as error:
            raise InputError(str(error).replace(spool.name, "-")) from error
    emit(args, kind, replay_document(args.traces, results), lambda: replay_text(results))
    return 130 if results[-1].interrupted else 0


def _replay_all(args: argparse.Namespace, chosen: list[type[Kernel]], traces: list[Path]) -> list[ReplayResult]:
    results: list[ReplayResult] = []
    for series in chosen:
        with bar(args, f"replay on {series.name}", " events") as progress:
            results.append(replay_traces(traces, series, progress=advance(progress)))
        if results[-1].interrupted:
            break
    return results
