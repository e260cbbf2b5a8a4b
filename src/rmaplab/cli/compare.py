# SPDX-License-Identifier: GPL-2.0-only
"""Compare two series or designs: on recorded traces, or on all small histories.

With traces, what each costs.  Without, the shortest history on which they
differ, for each thing that they differ in.  Exit code 1 if they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.compare import COMPARED, compare
from rmaplab.check.explore import Limits
from rmaplab.cli import replay
from rmaplab.cli.check import add_bounds, given_bounds
from rmaplab.cli.common import add_engine, add_output, emit
from rmaplab.cli.progress import bar
from rmaplab.errors import UsageError
from rmaplab.report.checking import compare_text
from rmaplab.report.documents import compare_document
from rmaplab.series import find

if TYPE_CHECKING:
    import argparse

    from rmaplab.check.explore import Progress

__all__ = ["prepare_parser", "run"]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    for name, what in (("one", "A"), ("other", "B")):
        parser.add_argument(name, metavar=what, help="a series, a zoo entry, or a file that subclasses one")
    parser.add_argument("traces", metavar="TRACE", nargs="*", help="workloads to compare the costs on")
    replay.add_reclaim(parser)
    add_engine(parser)
    add_bounds(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, report."""
    one, other = find(args.one), find(args.other)
    if one is other:
        raise UsageError(f"{args.one} and {args.other} are one and the same; name two series")
    if args.traces:
        args.series, args.save, args.resume = [args.one, args.other], None, None
        return replay.run(args, "compare")
    bounds = given_bounds(args)
    with bar(args, f"compare {args.one} {args.other}", " transitions") as progress:
        before: float = 0
        last = 0

        def show(now: Progress) -> None:
            nonlocal before, last
            if now.transitions < last:  # the next exploration
                before = progress.n
            last = now.transitions
            progress.set_postfix_str(f"depth {now.depth}, {now.done}/{now.width}, {now.states} states", refresh=False)
            progress.update(before + now.transitions - progress.n)

        result = compare(
            args.one,
            args.other,
            COMPARED if bounds is None else {"as asked": bounds},
            jobs=args.jobs,
            limits=Limits(args.max_states, args.time, args.memory),
            progress=show,
        )
    document = compare_document(result)
    emit(args, "compare", document, lambda: compare_text(document))
    if document["interrupted"]:
        return 130
    return {"differ": 1, "no-verdict": 3, "same": 0}[document["verdict"]]
