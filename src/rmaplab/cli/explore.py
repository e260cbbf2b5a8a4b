# SPDX-License-Identifier: GPL-2.0-only
"""One self-contained HTML page: the reverse map call by call, and step by step inside of a call.

It shows a scenario, a counterexample (also those of `demo --json`), a snapshot
(of `inspect --json`, or the end of `run --json`), moments of a replayed
workload, or the tour of eight short scenarios.  With two series they run side
by side, with --before the states before and after each step.  The page opens
from disk and needs nothing from elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmaplab.check.film import Frame, delayed, film, size, still
from rmaplab.check.rebuild import rebuild
from rmaplab.check.steps import steps_of
from rmaplab.cli.catalogue import data_files
from rmaplab.cli.common import add_logic, add_output, emit, note, positive
from rmaplab.cli.counterexamples import opened
from rmaplab.cli.progress import advance, bar
from rmaplab.errors import InputError, UsageError
from rmaplab.report.explorer import chapter, explore_document, explorer_page, moments_text, track
from rmaplab.scenario import parse
from rmaplab.scenario.parser import read
from rmaplab.scenario.remarks import Remarks, remarks
from rmaplab.series import DEFAULT, find
from rmaplab.snapshot import Snapshot
from rmaplab.workload.sources import find_workload
from rmaplab.workload.stills import stills

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from rmaplab.cli.counterexamples import Opened
    from rmaplab.scenario import Scenario

__all__ = ["prepare_parser", "run"]

Document = dict[str, Any]

MOST_ANSWERS = 4000  # VMAs and folios: above that the questions of a state take too long


class Subject(NamedTuple):
    """What the page is about: its title, the kind of thing, and its chapters."""

    title: str
    source: str
    chapters: list[Document]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "input",
        metavar="SCENARIO|SNAPSHOT|COUNTEREXAMPLE|TRACE",
        nargs="?",
        help="a *.rmap file or - for standard input, a JSON document of inspect, run, check, fuzz or shrink, "
        "a counterexample, or a workload (see `rmaplab list workloads`)",
    )
    parser.add_argument("--tour", action="store_true", help="eight short scenarios, with explanations")
    parser.add_argument("--calls-only", action="store_true", help="leave out the steps inside of calls")
    parser.add_argument(
        "--before", action="store_true", help="show the state before each step beside the one after it"
    )
    parser.add_argument(
        "--moments", metavar="N", type=positive, default=20, help="of a workload: so many, evenly (default 20)"
    )
    parser.add_argument("--text", action="store_true", help="the same moments as text in 72 columns, for mail")
    add_logic(parser, several=True)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page, the document or the text."""
    if args.tour == (args.input is not None):
        raise UsageError("name one thing to show: a file, a workload, or --tour")
    if len(args.series or ()) > (1 if args.before else 2):
        raise UsageError("at most two can stand side by side: two --series, or one with --before")
    subject = _tour(args) if args.tour else _subject(args)
    document = explore_document(*subject)
    if args.json or args.text:
        emit(args, "explore", document, lambda: moments_text(document))
        return 0
    args.output = args.output or f"{_stem(args)}.html"
    emit(args, "explore", document, lambda: explorer_page(document))
    if args.output != "-":
        note(args, f"{args.output}: open it in a browser")
    return 0


def _stem(args: argparse.Namespace) -> str:
    """What the page is called unless told otherwise."""
    if args.tour:
        return "rmaplab-tour"
    name = Path(args.input).stem if args.input != "-" else ""
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in name) or "rmaplab-explore"


def _subject(args: argparse.Namespace) -> Subject:
    """By what the input is."""
    name = args.input
    if name.endswith(".trace") or (name != "-" and not Path(name).exists() and "." not in name):
        return _workload(args)
    data = read(name)
    if not name.endswith(".rmap") and data.lstrip().startswith(b"{"):
        return _document(args, data)
    text = data.decode("utf-8-sig", "replace")
    said = remarks(text)
    shown = args.series or said.series or [DEFAULT]
    return Subject(said.title or name, "scenario", [_chapter(args, parse(data, name), said, shown, name)])


def _document(args: argparse.Namespace, data: bytes) -> Subject:
    """Of what another verb wrote."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{args.input}: cannot be read as JSON: {error}") from error
    match document.get("kind"):
        case "snapshot" | "run":
            return _snapshot(args, document)
        case "demo":
            return _demo(args, document)
    return _counterexample(args, opened(args.input, data))


def _chapter(
    args: argparse.Namespace, scenario: Scenario, said: Remarks, series: Sequence[str], name: str
) -> Document:
    """A scenario on one series or on two."""
    notes = {
        at: said.notes[step.call.line] for at, step in enumerate(steps_of(scenario)) if step.call.line in said.notes
    }
    tracks: list[Document] = []
    for one in series[: 1 if args.before else 2]:
        tracks += _tracks(args, one, film(find(one), scenario, inner=not args.calls_only), notes)
    return chapter(said.title or name, tracks, said.text)


def _tracks(
    args: argparse.Namespace, series: str, frames: Sequence[Frame], notes: Mapping[int, str] | None = None
) -> list[Document]:
    """A film, with ``--before`` behind the one of the states before."""
    if not args.before:
        return [track(series, frames, notes=notes)]
    return [track(f"{series}, before", delayed(frames)), track(f"{series}, after", frames, notes=notes)]


def _lesson(args: argparse.Namespace, path: Path) -> Document:
    """A chapter of the tour."""
    text = path.read_text(encoding="utf-8")
    said = remarks(text)
    return _chapter(args, parse(text, path.name), said, args.series or said.series, path.stem)


def _tour(args: argparse.Namespace) -> Subject:
    chapters = [_lesson(args, path) for path in data_files("tour", ".rmap")]
    return Subject("A tour of the anonymous reverse map", "tour", chapters)


def _counterexample(args: argparse.Namespace, found: Opened) -> Subject:
    if found.scenario is None or found.violation is None:
        raise UsageError(f"{args.input}: has no violation: there is nothing to show")
    title = f"{found.violation['id']}: {found.violation['statement']}"
    said = Remarks(title, (), (f"On {found.series}: {found.violation['detail']}.",), {})
    series = args.series or [found.series or DEFAULT]
    return Subject(title, "counterexample", [_chapter(args, found.scenario, said, series, args.input)])


def _demo(args: argparse.Namespace, document: Document) -> Subject:
    """The fork that fails, before and after the patch, and then what was found on each series that is not sound."""
    chapters = [_lesson(args, path) for path in data_files("tour", ".rmap") if "failed-fork" in path.name]
    try:
        for found in document["explorations"]:
            for violation in found["violations"][:1]:
                title = f"{found['series']}: {violation['statement']}"
                told = Remarks(title, (), (f"{violation['id']}: {violation['detail']}. Beside it: {DEFAULT}.",), {})
                scenario = parse(violation["scenario"], args.input)
                chapters.append(_chapter(args, scenario, told, (found["series"], DEFAULT), title))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{args.input}: not a whole document of the kind demo: {error!r}") from error
    return Subject("What a failed fork leaves behind, before and after one patch", "counterexample", chapters)


def _snapshot(args: argparse.Namespace, document: Document) -> Subject:
    """The state of a kernel, or the end of a run, as one moment."""
    try:
        snapshot = Snapshot.from_dict(document["final"] if document["kind"] == "run" else document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{args.input}: not a whole document of the kind {document['kind']}: {error!r}") from error
    series = str((args.series or [document.get("series") or DEFAULT])[0])
    release = document.get("kernel")
    title = f"The anonymous reverse map of Linux {release}" if release else f"{args.input} on {series}"
    said = []
    if size(snapshot) <= MOST_ANSWERS:
        frame = still(rebuild(snapshot, find(series)), -1, title)
    else:
        frame = Frame(-1, title, {**snapshot.as_dict(), "locks": []})
        said.append(
            f"With more than {MOST_ANSWERS:,} VMAs and pages, questions are not answered here; "
            "read fewer processes (--pid)."
        )
    if document.get("partial"):
        said.append("Only some processes were read: a VMA that is shown as ? belongs to another.")
    said += [str(remark) for remark in document.get("incomplete") or ()]
    return Subject(title, "snapshot", [chapter(title, [track(series, [frame], kernel=release)], said)])


def _workload(args: argparse.Namespace) -> Subject:
    """Moments of a replay at equal distances."""
    workload = find_workload(args.input)
    tracks: list[Document] = []
    for one in args.series or [DEFAULT]:
        frames: list[Frame] = []
        with bar(args, f"replay on {one}", " events") as progress:
            for text, kernel in stills(workload, find(one), args.moments, advance(progress)):
                frames.append(still(kernel, len(frames), text, most=MOST_ANSWERS))
        tracks += _tracks(args, one, frames)
    said = ["Pages are left out where there are too many, and with them the questions."]
    return Subject(f"{args.input}, replayed", "trace", [chapter(args.input, tracks, said)])
