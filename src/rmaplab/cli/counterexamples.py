# SPDX-License-Identifier: GPL-2.0-only
"""Counterexamples as files: written by those who find them, read by those who show them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmaplab.check.retrace import retrace
from rmaplab.cli.common import note, write_file
from rmaplab.errors import InputError
from rmaplab.report.documents import counterexample_document, stamp
from rmaplab.scenario import parse
from rmaplab.scenario.parser import read
from rmaplab.series import find
from rmaplab.snapshot import Snapshot

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rmaplab.scenario import Scenario

__all__ = ["Opened", "add_counterexamples", "open_input", "opened", "write_counterexamples"]

Document = dict[str, Any]


class Opened(NamedTuple):
    """What was read: a scenario, the series it is about (None for a *.rmap file), and the document it stood in.

    A document without a violation has no scenario.
    """

    scenario: Scenario | None
    series: str | None
    violation: Document | None
    document: Document | None


def add_counterexamples(parser: argparse.ArgumentParser) -> None:
    """``--counterexamples FOLDER``."""
    parser.add_argument(
        "--counterexamples",
        metavar="FOLDER",
        help="write each violation there as a file that `rmaplab export` reads",
    )


def write_counterexamples(args: argparse.Namespace, series: str, violations: Sequence[Document]) -> None:
    """Write a file for each scenario, called after the first invariant that it violates."""
    if args.counterexamples is None:
        return
    folder = Path(args.counterexamples)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}; name a folder") from error
    written = set()
    for violation in violations:
        if violation["scenario"] not in written:
            written.add(violation["scenario"])
            path = folder / f"{violation['id']}.json"
            document = stamp("counterexample", counterexample(series, violation))
            write_file(str(path), json.dumps(document, indent=2) + "\n")
            note(args, f"{path}: `rmaplab export {path} --to c` makes a C program of it")


def counterexample(series: str, violation: Document) -> Document:
    """The body of a counterexample's document: its calls are made once more, to see what each changed."""
    return counterexample_document(series, violation, retrace(find(series), parse(violation["scenario"])))


def open_input(path: str) -> Opened:
    """A scenario, or the first violation of a document of ``check``, ``fuzz``, ``shrink`` or ``counterexample``."""
    return opened(path, read(path))


def opened(path: str, data: bytes) -> Opened:
    """The same of bytes that were read already; ``path`` is their name."""
    if path.endswith(".rmap") or not data.lstrip().startswith(b"{"):
        return Opened(parse(data, path), None, None, None)
    try:
        document = json.loads(data)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    kind = document.get("kind")
    if kind not in ("check", "fuzz", "shrink", "counterexample"):
        raise InputError(f"{path}: a document of the kind {kind!r}; expected check, fuzz, shrink or counterexample")
    try:
        series = str(document["series"])
        violations = [document] if kind == "counterexample" else document["violations"]
        if not violations:
            return Opened(None, series, None, document)
        violation = violations[0]
        scenario = parse(violation["scenario"], path)
        if not all(isinstance(violation[key], str) for key in ("id", "detail", "statement")):
            raise TypeError("id, detail and statement are texts")
        if kind == "counterexample":
            for step in violation["steps"]:
                Snapshot.from_dict(step["state"])
        return Opened(scenario, series, violation, document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: not a whole document of the kind {kind}: {error!r}") from error
