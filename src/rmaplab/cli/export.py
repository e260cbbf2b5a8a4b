# SPDX-License-Identifier: GPL-2.0-only
"""Write a scenario, a counterexample or the result of a check in another format.

c: a program that makes the same calls on a real kernel; sarif and junit: for
code hosts and CI; ascii: call by call in 72 columns, for mail; json: the
counterexample with what each call changed; dot: the graph at its end.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rmaplab.check.retrace import retrace
from rmaplab.check.run import run as run_scenario
from rmaplab.cli.common import add_logic, write_file
from rmaplab.cli.counterexamples import counterexample, open_input
from rmaplab.errors import UsageError
from rmaplab.report.checking import counterexample_text
from rmaplab.report.documents import counterexample_document, stamp
from rmaplab.report.dot import dot
from rmaplab.report.junit import junit
from rmaplab.report.reproducer import reproducer
from rmaplab.report.sarif import sarif
from rmaplab.scenario import format_scenario
from rmaplab.series import DEFAULT, find

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rmaplab.cli.counterexamples import Opened

__all__ = ["prepare_parser", "run"]

Document = dict[str, Any]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "input", metavar="FILE", help="a *.rmap file, a counterexample, or what check or fuzz wrote as JSON"
    )
    parser.add_argument("--to", required=True, choices=sorted(_FORMATS), metavar="FORMAT", help=", ".join(_FORMATS))
    add_logic(parser, default=None)
    parser.add_argument("-o", "--output", metavar="FILE", help="write there instead of to stdout")
    parser.add_argument("-q", "--quiet", action="store_true", help="no messages on stderr")


def run(args: argparse.Namespace) -> int:
    """Convert."""
    opened = open_input(args.input)
    series = args.series or opened.series or DEFAULT
    text = _FORMATS[args.to](opened, series, args.input)
    if args.output is None or args.output == "-":
        sys.stdout.write(text)
    else:
        write_file(args.output, text)
    return 0


def _counterexample(opened: Opened, series: str, name: str) -> Document:
    """The counterexample as it was written, or made of what was read."""
    document = opened.document
    if document is not None and document["kind"] == "counterexample":
        return document
    violation = opened.violation or _first_violation(opened, series)
    if violation is None:
        raise UsageError(f"{name} violates nothing on {series}; --to c and --to dot take it as it is")
    return stamp("counterexample", counterexample(series, violation))


def _first_violation(opened: Opened, series: str) -> Document | None:
    """What a scenario violates first, as a check would tell it; None if it violates nothing."""
    moments = retrace(find(series), opened.scenario)
    for number, moment in enumerate(moments, 1):
        for ident in sorted(moment.violated):
            failed = int(moment.failed.split()[1]) if moment.failed else None
            text = format_scenario(opened.scenario)
            detail = moment.violated[ident]
            body = {"id": ident, "statement": "", "detail": detail, "scenario": text, "length": number}
            found = counterexample_document(series, {**body, "failed_allocation": failed}, moments)
            statement = next(one["statement"] for one in found["steps"][number - 1]["violated"] if one["id"] == ident)
            return {**body, "statement": statement, "failed_allocation": failed}
    return None


def _checked(opened: Opened, series: str, name: str) -> Document:
    """A document of the kind check, whatever was read."""
    if opened.document is not None and opened.document["kind"] == "check":
        return opened.document
    violation = opened.violation or _first_violation(opened, series)
    return {
        "kind": "check",
        "series": series,
        "verdict": "violated" if violation else "holds",
        "reason": None,
        "seconds": 0.0,
        "violations": [violation] if violation else [],
    }


def _c(opened: Opened, series: str, name: str) -> str:
    result = run_scenario(opened.scenario, find(series))
    violations = [(violation.id, violation.detail) for violation in result.violations]
    return reproducer(opened.scenario, series=series, violations=violations)


def _dot(opened: Opened, series: str, name: str) -> str:
    return dot(run_scenario(opened.scenario, find(series)).kernel.snapshot(canonical=False))


def _json(document: Document) -> str:
    return json.dumps(document, indent=2) + "\n"


_FORMATS: dict[str, Callable[[Opened, str, str], str]] = {
    "ascii": lambda opened, series, name: counterexample_text(_counterexample(opened, series, name)),
    "c": _c,
    "dot": _dot,
    "json": lambda opened, series, name: _json(_counterexample(opened, series, name)),
    "junit": lambda opened, series, name: junit(_checked(opened, series, name)),
    "sarif": lambda opened, series, name: _json(sarif(_checked(opened, series, name))),
}
