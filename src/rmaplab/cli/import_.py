# SPDX-License-Identifier: GPL-2.0-only
"""Make a trace of what strace, perf or tracefs have written.

strace: `strace -f -o FILE CMD`.  It tells no page faults, so the first page of
each new private writable mapping counts as written.  perf: `perf script` of
the events that `rmaplab import --events` names; they tell which pages were.
"""

from __future__ import annotations

import gzip
import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rmaplab.cli.common import emit, note, standard_input
from rmaplab.errors import InputError, UsageError
from rmaplab.report.documents import import_document
from rmaplab.workload.ftrace_text import EVENTS, ftrace_steps, is_ftrace
from rmaplab.workload.importing import Importer
from rmaplab.workload.strace_text import is_strace, strace_steps
from rmaplab.workload.trace import Header, TraceWriter

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["prepare_parser", "run"]

LOOKED_AT = 100  # lines that decide what a file is
FORMS = {"strace": (is_strace, strace_steps), "ftrace": (is_ftrace, ftrace_steps)}


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments; ``-o`` names the trace here."""
    parser.add_argument("file", metavar="FILE", nargs="?", help="what the other tool wrote (may be gzipped), or -")
    parser.add_argument("-o", "--trace", metavar="TRACE", help="the trace file to write")
    parser.add_argument("--from", dest="form", choices=FORMS, help="which tool's (default: by the look of it)")
    parser.add_argument("--events", action="store_true", help="print the events for `perf record -e`, and end")
    parser.add_argument("--json", action="store_true", help="print a summary as one JSON document")
    parser.add_argument("-q", "--quiet", action="store_true", help="no messages on stderr")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more")
    parser.add_argument("--seed", type=int, default=0, help="accepted by all verbs; nothing is random here")
    parser.set_defaults(output=None)


def run(args: argparse.Namespace) -> int:
    """Read, write the trace, and say what was assumed."""
    if args.events:
        print(",".join(EVENTS))
        return 0
    if args.file is None or args.trace is None:
        raise UsageError("name a file and, with -o, the trace; `rmaplab import FILE -o TRACE`")
    lines = _lines(args.file)
    head = list(itertools.islice(lines, LOOKED_AT))
    form = args.form or next((form for form, (looks, _) in FORMS.items() if any(map(looks, head))), None)
    if form is None:
        raise InputError(f"{args.file}: neither strace's output nor perf's or tracefs's: use `strace -f -o FILE`")
    with TraceWriter(Path(args.trace), Header((f"import {args.file}",), "unknown", "unknown")) as writer:
        importer = Importer(writer.write, touch=form == "strace")
        try:
            importer.run(FORMS[form][1](itertools.chain(head, lines)))
        except InputError as error:
            writer.discard()
            raise InputError(f"{args.file}: {error}") from error
        writer.close(status=None)
    note(args, f"{args.trace}: {writer.events} events of {importer.created} tasks, from {form}")
    for what, count in sorted(importer.assumed.items()):
        note(args, f"assumed: {count} x {what}")
    if args.json:
        document = import_document(args.trace, form, dict(writer.counts), importer.created, dict(importer.assumed))
        emit(args, "import", document, str)
    return 0


def _lines(name: str) -> Iterator[str]:
    """The lines of a file; bytes that are no text are kept as they are."""
    try:
        with ExitStack() as stack:
            file = standard_input() if name == "-" else stack.enter_context(Path(name).open("rb"))
            if name != "-" and file.read(2) == b"\x1f\x8b":
                file = stack.enter_context(gzip.open(name, "rb"))  # type: ignore[assignment]
            elif name != "-":
                file.seek(0)
            for line in file:
                yield line.decode("utf-8", "surrogateescape")
    except (OSError, EOFError) as error:
        raise InputError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
