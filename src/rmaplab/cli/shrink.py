# SPDX-License-Identifier: GPL-2.0-only
"""Make a scenario that violates an invariant as small as possible, with the same violation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.invariants import INVARIANTS
from rmaplab.check.shrink import shrink
from rmaplab.cli.common import add_logic, add_output, emit
from rmaplab.cli.counterexamples import add_counterexamples, open_input, write_counterexamples
from rmaplab.cli.progress import bar
from rmaplab.errors import UsageError
from rmaplab.report.checking import shrink_text
from rmaplab.report.documents import shrink_document
from rmaplab.series import DEFAULT, find

if TYPE_CHECKING:
    import argparse

__all__ = ["prepare_parser", "run"]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "scenario", metavar="SCENARIO", help="a *.rmap file, a counterexample, or what check or fuzz wrote as JSON"
    )
    add_logic(parser, default=None)
    parser.add_argument("--only", metavar="AV-NNN", help="the violation to keep (default: the first that it shows)")
    add_counterexamples(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Shrink, report; 1 because there is a violation, 0 if the scenario shows none."""
    opened = open_input(args.scenario)
    name = args.series or opened.series or DEFAULT
    if opened.scenario is None:
        raise UsageError(f"{args.scenario}: has no violation: nothing to shrink")
    series = find(name)
    if args.only is not None and args.only not in INVARIANTS:
        raise UsageError(f"--only: there is no invariant {args.only!r}; `rmaplab list invariants` shows them")
    ident = args.only or (opened.violation["id"] if opened.violation is not None else None)
    with bar(args, f"shrink {args.scenario}", " tries") as progress:

        def show(length: int, tries: int) -> None:
            progress.set_postfix_str(f"{length} calls", refresh=False)
            progress.update(tries - progress.n)

        result = shrink(series, opened.scenario, ident, progress=show)
    if result is None:
        wanted = ident or "no invariant"
        raise UsageError(
            f"{args.scenario} violates {wanted}{' not' * (ident is not None)} on {name}: nothing to shrink"
        )
    document = shrink_document(result, name)
    write_counterexamples(args, name, document["violations"])
    emit(args, "shrink", document, lambda: shrink_text(document))
    return 130 if result.interrupted else 1
