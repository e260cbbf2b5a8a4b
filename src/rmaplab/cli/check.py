# SPDX-License-Identifier: GPL-2.0-only
"""Explore all histories within bounds, with allocations failing; print the shortest violation.

With a scenario, explores from where it ends.  The default bounds finish
within a minute on two cores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.explore import explore
from rmaplab.check.histories import Bounds
from rmaplab.cli.common import add_logic, add_output, bar, emit, jobs_default, positive, seconds
from rmaplab.report.documents import check_document
from rmaplab.report.text import check_text
from rmaplab.scenario import load
from rmaplab.series import find

if TYPE_CHECKING:
    import argparse

    from rmaplab.check.explore import Exploration, Progress

__all__ = ["exit_code", "prepare_parser", "run"]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    default = Bounds()
    parser.add_argument("scenario", metavar="SCENARIO", nargs="?", help="start from where this *.rmap file ends")
    add_logic(parser)
    bounds = parser.add_argument_group("bounds")
    for flag, value, text in (
        ("processes", default.processes, "processes alive at a time"),
        ("areas", default.areas, "areas, side by side"),
        ("pages", default.pages, "pages of each area"),
        ("calls", default.calls, "calls of a history, from the start or from the end of SCENARIO"),
        ("fail-alloc", default.fail_alloc, "failed allocations in one history"),
    ):
        bounds.add_argument(f"--{flag}", type=int, default=value, metavar="N", help=f"{text} (default {value})")
    bounds.add_argument("--max-states", type=positive, metavar="N", help="give up beyond so many states (exit 3)")
    bounds.add_argument("--time", type=seconds, metavar="SECONDS", help="give up after so long (exit 3)")
    parser.add_argument("--all", action="store_true", help="go on after the first violation, to find every kind")
    parser.add_argument("-j", "--jobs", type=positive, default=jobs_default(), metavar="N", help="worker processes")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Explore, report, and say by the exit code what came out."""
    find(args.series)
    start = None if args.scenario is None else load(args.scenario)
    bounds = Bounds(args.processes, args.areas, args.pages, args.calls, args.fail_alloc)
    with bar(args, f"check {args.series}", " transitions") as progress:

        def show(now: Progress) -> None:
            progress.set_postfix_str(
                f"depth {now.depth}/{bounds.calls} {now.done}/{now.width}, {now.states} states", refresh=False
            )
            progress.update(now.transitions - progress.n)

        result = explore(
            args.series,
            bounds,
            start,
            jobs=args.jobs,
            stop_at_first=not args.all,
            max_states=args.max_states,
            max_seconds=args.time,
            progress=show,
        )
    emit(args, "check", check_document(result), lambda: check_text(result))
    return exit_code(result)


def exit_code(result: Exploration) -> int:
    """130 interrupted, 1 violated, 3 no verdict, 0 holds."""
    if result.interrupted:
        return 130
    return {"holds": 0, "violated": 1, "no-verdict": 3}[result.verdict]
