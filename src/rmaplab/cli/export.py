# SPDX-License-Identifier: GPL-2.0-only
"""Write a scenario, a counterexample or the result of a check, a replay or an experiment in another format.

c: a program that makes the same calls on a real kernel; sarif and junit: for
code hosts and CI; ascii: call by call in 72 columns, for mail; json: the
counterexample with what each call changed; dot: the graph at its end; svg: a
picture of it, before and after the last call.

Results of replay, compare and experiment: html, a page with pictures and
tables; png and svg: the machine's size over time; parquet: all figures;
perfetto: counter tracks; ascii: the tables.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from rmaplab.check.retrace import retrace
from rmaplab.check.run import run as run_scenario
from rmaplab.cli.common import add_logic, write_file
from rmaplab.cli.counterexamples import counterexample, open_input
from rmaplab.cli.results import FORMATS, export_results, read_results
from rmaplab.errors import UsageError
from rmaplab.report.checking import counterexample_text
from rmaplab.report.documents import stamp, step_documents
from rmaplab.report.dot import dot
from rmaplab.report.junit import junit
from rmaplab.report.reproducer import reproducer
from rmaplab.report.sarif import sarif
from rmaplab.report.svg import svg
from rmaplab.scenario import format_scenario
from rmaplab.series import DEFAULT, find
from rmaplab.snapshot import Snapshot

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rmaplab.cli.counterexamples import Opened
    from rmaplab.scenario import Scenario

__all__ = ["prepare_parser", "run"]

Document = dict[str, Any]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "input",
        metavar="FILE",
        help="a *.rmap file, a counterexample, what another verb wrote as JSON, or an experiment's folder",
    )
    parser.add_argument("--to", required=True, choices=_ALL, metavar="FORMAT", help=", ".join(_ALL))
    add_logic(parser, default=None)
    parser.add_argument("-o", "--output", metavar="FILE", help="write there instead of to stdout")
    parser.add_argument("-q", "--quiet", action="store_true", help="no messages on stderr")


def run(args: argparse.Namespace) -> int:
    """Convert."""
    results = read_results(args.input)
    if results is not None:
        return export_results(args, results)
    if args.to not in _FORMATS:
        raise UsageError(f"--to {args.to} is for results of replays; this goes to {', '.join(_FORMATS)}")
    opened = open_input(args.input)
    text = _FORMATS[args.to](Subject(opened, args.series or opened.series or DEFAULT, args.input))
    if args.output is None or args.output == "-":
        sys.stdout.write(text)
    else:
        write_file(args.output, text)
    return 0


class Subject(NamedTuple):
    """What is exported: what was read, whose logic runs it, and the file's name."""

    opened: Opened
    series: str
    name: str

    def scenario(self) -> Scenario:
        """The calls; :class:`UsageError` for a document without a violation."""
        if self.opened.scenario is None:
            raise UsageError(f"{self.name}: has no violation; --to junit and --to sarif take it as it is")
        return self.opened.scenario

    def steps(self) -> list[Document]:
        """The calls and what each left: as they were written, or made once more."""
        document = self._document("counterexample")
        if document is not None:
            return list(document["steps"])
        return step_documents(retrace(find(self.series), self.scenario()))

    def violation(self) -> Document | None:
        """The violation that was read, or the first that the scenario shows; None if it shows none."""
        if self.opened.violation is not None:
            return self.opened.violation
        if self.opened.scenario is None:
            return None
        for number, step in enumerate(self.steps(), 1):
            for broken in step["violated"]:
                failed = int(step["fail"].split()[1]) if step["fail"] else None
                text = format_scenario(self.scenario())
                return {**broken, "scenario": text, "length": number, "failed_allocation": failed}
        return None

    def counterexample(self) -> Document:
        """As it was read, or made of what was read; :class:`UsageError` if nothing is violated."""
        document = self._document("counterexample")
        if document is not None:
            return document
        self.scenario()
        violation = self.violation()
        if violation is None:
            wrong = f"{self.name} violates nothing on {self.series}"
            raise UsageError(f"{wrong}; --to c, --to dot and --to svg take it as it is")
        return stamp("counterexample", counterexample(self.series, violation))

    def checked(self) -> Document:
        """A document of ``kind: check``, as it was read or made of what was read."""
        document = self._document("check")
        if document is not None:
            return document
        violation = self.violation()
        return {
            "kind": "check",
            "series": self.series,
            "verdict": "violated" if violation else "holds",
            "reason": None,
            "seconds": 0.0,
            "violations": [violation] if violation else [],
        }

    def _document(self, kind: str) -> Document | None:
        """What was read, if it is of that kind."""
        document = self.opened.document
        return document if document is not None and document["kind"] == kind else None


def _c(subject: Subject) -> str:
    result = run_scenario(subject.scenario(), find(subject.series))
    violations = [(violation.id, violation.detail) for violation in result.violations]
    return reproducer(subject.scenario(), series=subject.series, violations=violations)


def _dot(subject: Subject) -> str:
    return dot(Snapshot.from_dict(_steps(subject)[-1]["state"]))


def _svg(subject: Subject) -> str:
    steps = _steps(subject)
    violation = subject.violation()
    title = f"{subject.name} on {subject.series}"
    if violation is not None:
        title = f"{subject.series}: {violation['id']}: {violation['statement']}: {violation['detail']}"
    return svg(title, steps)


def _steps(subject: Subject) -> list[Document]:
    steps = subject.steps()
    if not steps:
        raise UsageError(f"{subject.name} has no call: there is nothing to draw")
    return steps


def _json(document: Document) -> str:
    return json.dumps(document, indent=2) + "\n"


_FORMATS: dict[str, Callable[[Subject], str]] = {
    "ascii": lambda subject: counterexample_text(subject.counterexample()),
    "c": _c,
    "dot": _dot,
    "json": lambda subject: _json(subject.counterexample()),
    "junit": lambda subject: junit(subject.checked()),
    "sarif": lambda subject: _json(sarif(subject.checked())),
    "svg": _svg,
}
_ALL = sorted({*_FORMATS, *FORMATS})
