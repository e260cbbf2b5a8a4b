# SPDX-License-Identifier: GPL-2.0-only
"""Record the memory-management calls of a command and all its children.

No root needed.  The trace is written to -o; replay it with `rmaplab replay`.
Exit code 0 once the command has ended, whatever its own exit status.
"""

from __future__ import annotations

import argparse
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rmaplab.cli.common import emit, note
from rmaplab.cli.progress import advance, bar
from rmaplab.errors import UsageError
from rmaplab.report.documents import record_document
from rmaplab.workload.recorder import record

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["prepare_parser", "run"]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments; ``-o`` names the trace here."""
    parser.add_argument("-o", "--trace", metavar="TRACE", required=True, help="the trace file to write")
    parser.add_argument("--json", action="store_true", help="print a summary as one JSON document")
    parser.add_argument("-q", "--quiet", action="store_true", help="no messages and no progress on stderr")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more")
    parser.add_argument("--seed", type=int, default=0, help="accepted by all verbs; nothing is random here")
    parser.add_argument(
        "command", metavar="-- COMMAND", nargs=argparse.REMAINDER, help="the command and its arguments"
    )
    parser.set_defaults(output=None)


def run(args: argparse.Namespace) -> int:
    """Record, and summarise on stderr (the command has stdout)."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("no command to record; `rmaplab record -o TRACE -- COMMAND ARGS...`")
    if args.trace == "-":
        raise UsageError("a trace cannot go to standard output, which the command has; name a file with -o")
    with _stdout_to_stderr(args.json), bar(args, "record", " events") as progress:
        summary = record(command, Path(args.trace), progress=advance(progress))
    events = sum(summary.events.values())
    note(args, f"{args.trace}: {events} events of {summary.tasks} tasks")
    if summary.status:
        note(args, f"the command ended with status {summary.status}")
    if args.json:
        emit(args, "record", record_document(args.trace, command, summary), str)
    return 130 if summary.interrupted else 0


@contextmanager
def _stdout_to_stderr(wanted: bool) -> Iterator[None]:
    """With ``--json`` stdout is for the document: the command writes to stderr instead."""
    if not wanted:
        yield
        return
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
