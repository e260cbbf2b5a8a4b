# SPDX-License-Identifier: GPL-2.0-only
"""Explore all histories within bounds, with allocations failing; print the shortest violation.

Without bounds, a row of explorations, each of some operations, that takes
less than a minute on two cores.  With a scenario, explores from where it ends.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmaplab.check.explore import Limits, explore
from rmaplab.check.histories import CORE, OPERATIONS, Bounds
from rmaplab.check.stages import explore_stages, stages
from rmaplab.cli.common import (
    add_engine,
    add_logic,
    add_only,
    add_output,
    emit,
    given_only,
    jobs_default,
    note,
    positive,
    seconds,
    size,
)
from rmaplab.cli.counterexamples import add_counterexamples, write_counterexamples
from rmaplab.cli.progress import bar
from rmaplab.errors import UsageError
from rmaplab.report.checking import check_text
from rmaplab.report.documents import check_document
from rmaplab.scenario import load
from rmaplab.series import find

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from rmaplab.check.explore import Exploration, Progress

__all__ = ["add_bounds", "exit_code", "given_bounds", "prepare_parser", "run"]

_NUMBERS = (
    ("processes", "processes alive at a time"),
    ("areas", "areas, side by side"),
    ("pages", "pages of each area"),
    ("calls", "calls of a history, from the start or from the end of SCENARIO"),
    ("fail-alloc", "failed allocations in one history"),
)


def add_bounds(parser: argparse.ArgumentParser) -> None:
    """The bounds of an exploration, and what it may use up."""
    default = Bounds()
    bounds = parser.add_argument_group("bounds")
    for flag, text in _NUMBERS:
        value = getattr(default, flag.replace("-", "_"))
        bounds.add_argument(f"--{flag}", type=int, metavar="N", help=f"{text} (with other bounds: {value})")
    bounds.add_argument(
        "--operations",
        metavar="NAME,...",
        help=f"what histories are made of, of {', '.join(OPERATIONS)} (with other bounds: {', '.join(CORE)})",
    )
    bounds.add_argument("--max-states", type=positive, metavar="N", help="give up beyond so many states (exit 3)")
    bounds.add_argument("--time", type=seconds, metavar="SECONDS", help="give up after so long (exit 3)")
    bounds.add_argument("--memory", type=size, metavar="SIZE", help="give up beyond so much, such as 2G (exit 3)")
    parser.add_argument(
        "-j", "--jobs", type=positive, default=jobs_default(), metavar="N", help="worker processes, or threads"
    )


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("scenario", metavar="SCENARIO", nargs="?", help="start from where this *.rmap file ends")
    add_logic(parser)
    add_bounds(parser)
    add_engine(parser)
    parser.add_argument("--all", action="store_true", help="go on after the first violation, to find every kind")
    add_only(parser)
    parser.add_argument("--save", metavar="FILE", help="keep what is known there, every minute and at the end")
    parser.add_argument("--resume", action="store_true", help="go on from what is saved in the file of --save")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="let a Ray cluster do it (`local`: one on this machine; extra `cluster`)"
    )
    add_counterexamples(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Explore, report, and say by the exit code what came out."""
    find(args.series)
    if args.resume and args.save is None:
        raise UsageError("--resume takes --save FILE, the file to go on from")
    start = None if args.scenario is None else load(args.scenario)
    bounds = given_bounds(args)
    with _where(args) as options, _shown(args) as show:
        options |= {
            "jobs": args.jobs,
            "stop_at_first": not args.all,
            "only": given_only(args),
            "limits": Limits(args.max_states, args.time, args.memory),
            "resume": args.resume,
            "engine": args.engine,
        }
        if start is None and bounds is None:
            result = explore_stages(args.series, stages(args.fail_alloc), save=args.save, progress=show, **options)
        else:
            bounds = bounds or Bounds(fail_alloc=1 if args.fail_alloc is None else args.fail_alloc)
            result = explore(
                args.series, bounds, start, save=args.save, progress=lambda now: show("", now), **options
            )
    if args.save is not None and result.verdict == "no-verdict" and Path(args.save).exists():
        note(args, f"saved in {args.save}; go on with the same command and --resume")
    document = check_document(result)
    write_counterexamples(args, args.series, document["violations"])
    emit(args, "check", document, lambda: check_text(document))
    return exit_code(result)


def given_bounds(args: argparse.Namespace) -> Bounds | None:
    """The bounds that were asked for; None if there are none but the number of failures."""
    names = ("processes", "areas", "pages", "calls", "fail_alloc")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.operations is not None:
        given["operations"] = tuple(dict.fromkeys(name.strip() for name in args.operations.split(",")))
    bounds = Bounds(**given)
    return bounds if set(given) - {"fail_alloc"} else None


@contextmanager
def _where(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The workers to use, as an option of explore()."""
    if args.ray is None:
        yield {}
    else:
        from rmaplab.check.cluster import cluster

        with cluster(args.ray, args.jobs) as workers:
            yield {"workers": workers}


@contextmanager
def _shown(args: argparse.Namespace) -> Iterator[Callable[[str, Progress], None]]:
    """A progress bar that is told where an exploration stands."""
    with bar(args, f"check {args.series}", " transitions") as progress:
        before: float = 0
        last = ""

        def show(stage: str, now: Progress) -> None:
            nonlocal before, last
            if stage != last:
                before, last = progress.n, stage
            left = f", {now.left:.0f} s left at this depth" if now.left else ""
            name = f"{stage}, " if stage else ""
            progress.set_postfix_str(
                f"{name}depth {now.depth}, {now.done}/{now.width}{left}, {now.states} states", refresh=False
            )
            progress.update(before + now.transitions - progress.n)

        yield show


def exit_code(result: Exploration) -> int:
    """130 interrupted, 1 violated, 3 no verdict, 0 holds."""
    if result.interrupted:
        return 130
    return {"holds": 0, "violated": 1, "no-verdict": 3}[result.verdict]
