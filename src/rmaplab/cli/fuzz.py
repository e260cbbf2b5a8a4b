# SPDX-License-Identifier: GPL-2.0-only
"""Random histories over all operations, past what `check` can exhaust; each violation made small.

Every allocation of every call fails once, and every invariant is checked.
Exit code 1 if something was violated, 0 if nothing was found in the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.fuzz import fuzz
from rmaplab.check.shrink import shrink
from rmaplab.cli.common import add_logic, add_only, add_output, emit, given_only, jobs_default, positive, seconds
from rmaplab.cli.counterexamples import add_counterexamples, write_counterexamples
from rmaplab.cli.progress import bar
from rmaplab.report.checking import fuzz_text
from rmaplab.report.documents import fuzz_document
from rmaplab.scenario import parse
from rmaplab.series import find

if TYPE_CHECKING:
    import argparse

    from rmaplab.check.fuzz import Fuzz
    from rmaplab.check.shrink import Shrunk

__all__ = ["prepare_parser", "run"]

DEFAULT_SECONDS = 60.0


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    add_logic(parser)
    parser.add_argument(
        "--time", type=seconds, metavar="SECONDS", help=f"stop after so long (default {DEFAULT_SECONDS:g})"
    )
    parser.add_argument("--histories", type=positive, metavar="N", help="stop after so many, however long it takes")
    parser.add_argument("--corpus", metavar="FOLDER", help="keep what was learnt there, and go on from it")
    parser.add_argument("--all", action="store_true", help="go on after the first violation, to find every kind")
    add_only(parser)
    parser.add_argument("--no-shrink", action="store_true", help="show violations as they were found")
    parser.add_argument(
        "--engine",
        choices=("reference", "fast"),
        default="reference",
        help="reference (default): the specification, led by what it has seen; fast: the compiled engine "
        "(extra `fast`), led by nothing and hundreds of times as fast",
    )
    parser.add_argument(
        "-j", "--jobs", type=positive, default=jobs_default(), metavar="N", help="worker processes or threads"
    )
    add_counterexamples(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Fuzz, shrink what was found, report."""
    series = find(args.series)
    limit = DEFAULT_SECONDS if args.time is None and args.histories is None else args.time
    with bar(args, f"fuzz {args.series}", " calls") as progress:

        def show(now: Fuzz) -> None:
            seen = f", {now.shapes} shapes, {now.branches} branches" if now.engine == "reference" else ""
            left = "" if limit is None else f", {max(0.0, limit - now.seconds):.0f} s left"
            progress.set_postfix_str(f"{now.histories} histories{seen}{left}", refresh=False)
            progress.update(now.operations - progress.n)

        result = fuzz(
            args.series,
            seed=args.seed,
            seconds=limit,
            histories=args.histories,
            jobs=args.jobs,
            folder=args.corpus,
            stop_at_first=not args.all,
            only=given_only(args),
            engine=args.engine,
            progress=show,
        )
    shrunk: list[Shrunk] = []
    if not args.no_shrink and not result.interrupted:
        for finding in result.findings:
            smaller = shrink(series, parse(finding.scenario), finding.ids[0])
            if smaller is not None:
                shrunk.append(smaller)
    document = fuzz_document(result, shrunk)
    write_counterexamples(args, args.series, document["violations"])
    emit(args, "fuzz", document, lambda: fuzz_text(document))
    return 130 if result.interrupted else 1 if result.findings else 0
