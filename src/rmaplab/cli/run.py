# SPDX-License-Identifier: GPL-2.0-only
"""Run a scenario; print the final graph and the verdicts of its expect lines.

Exit code 1 if an expectation is not met, or an invariant is violated and no
`expect violates` line announces a violation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.run import run as run_scenario
from rmaplab.cli.common import add_logic, add_output, emit
from rmaplab.report.documents import run_document
from rmaplab.report.text import run_text
from rmaplab.scenario import load
from rmaplab.series import find

if TYPE_CHECKING:
    import argparse

    from rmaplab.kernel.events import Event

__all__ = ["prepare_parser", "run"]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("scenario", metavar="SCENARIO", help="a *.rmap file, or - for standard input")
    add_logic(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run the scenario."""
    series = find(args.series)
    scenario = load(args.scenario)
    events: dict[int, list[Event]] = {}
    result = run_scenario(
        scenario,
        series,
        on_event=(lambda line, event: events.setdefault(line, []).append(event)) if args.verbose else None,
    )
    emit(args, "run", run_document(result), lambda: run_text(result, events))
    return 0 if result.ok else 1
