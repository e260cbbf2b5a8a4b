# SPDX-License-Identifier: GPL-2.0-only
"""Replay workloads on series and designs as a file says: all combinations, in parallel.

The file (TOML) has three lists: series, workloads, reclaim.  Each combination
is a cell, whose result is a file in the folder of results.  Cells that are
there are not run again; failed ones are.  `rmaplab export FOLDER --to html`
(or png, parquet, perfetto) shows the results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmaplab.check.pool import tasks_in_processes
from rmaplab.cli.common import add_output, emit, jobs_default, note, positive, write_file
from rmaplab.cli.progress import bar
from rmaplab.errors import InputError, RmaplabError
from rmaplab.report.documents import experiment_document, replay_result, stamp, version
from rmaplab.report.replays import experiment_text
from rmaplab.series import find
from rmaplab.workload.experiment import Cell, Experiment
from rmaplab.workload.replay import replay

if TYPE_CHECKING:
    import argparse

__all__ = ["prepare_parser", "run"]

Document = dict[str, Any]


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("file", metavar="FILE", help="the experiment (TOML): series, workloads, reclaim")
    parser.add_argument(
        "--results", metavar="FOLDER", help="where the cells' results are (default: the file's name without .toml)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be run, and why, and run nothing")
    parser.add_argument("--again", action="store_true", help="run the cells that are done, too")
    parser.add_argument("-j", "--jobs", type=positive, default=jobs_default(), metavar="N", help="worker processes")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run what is not done yet, report all."""
    path = Path(args.file)
    experiment = Experiment.read(path)
    folder = Path(args.results) if args.results else path.with_suffix("")
    if folder == path:
        raise InputError(f"{path}: has no suffix, so a folder for the results must be named: --results FOLDER")
    results = _Results(folder, experiment)
    waiting = [cell for cell in experiment.cells() if args.again or results.why(cell)]
    if args.dry_run:
        for cell in waiting:
            print(f"{cell.workload} on {cell.series}, reclaim {cell.reclaim}: {results.why(cell) or 'again'}")
        note(args, f"{len(waiting)} of {len(experiment.cells())} cells would be run")
        return 0
    results.make_folder()
    interrupted = _run(args, experiment, results, waiting)
    document = experiment_document(args.file, [results.document(cell) for cell in experiment.cells()], interrupted)
    emit(args, "experiment", document, lambda: experiment_text(document))
    write_file(str(folder / "results.json"), json.dumps(stamp("experiment", document), indent=2) + "\n")
    note(args, f"{folder}: `rmaplab export {folder} --to html -o page.html` makes a page of it")
    if interrupted:
        note(args, "interrupted: the same command goes on with the cells that are missing")
        return 130
    return 4 if any(cell["error"] for cell in document["cells"]) else 0


class _Results:
    """The files of an experiment's cells."""

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        self.folder = folder
        self.experiment = experiment

    def make_folder(self) -> None:
        """Make it; :class:`InputError` if that cannot be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be made: {error.strerror}; name a folder with --results"
            ) from error

    def path(self, cell: Cell) -> Path:
        """A cell's file."""
        return self.folder / f"{cell.slug}.json"

    def document(self, cell: Cell) -> Document:
        """A cell's result; with an error if there is none."""
        empty = {**cell._asdict(), "fingerprint": "", "version": "", "error": "not run", "result": None}
        try:
            found = json.loads(self.path(cell).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return empty
        except (OSError, ValueError) as error:
            return empty | {"error": f"{self.path(cell)}: cannot be read: {error}"}
        return found if isinstance(found, dict) and set(found) == set(empty) else empty | {"error": "damaged"}

    def why(self, cell: Cell) -> str:
        """Why a cell has to be run; empty if it has not."""
        found = self.document(cell)
        if found["error"]:
            return str(found["error"])
        if found["version"] != version():
            return f"done by rmaplab {found['version']}"
        return "" if found["fingerprint"] == self.experiment.fingerprint(cell) else "its trace or design has changed"


def _run(args: argparse.Namespace, experiment: Experiment, results: _Results, waiting: list[Cell]) -> bool:
    """Run cells, and write each when it is done; whether Ctrl-C ended it."""

    def one(cell: Cell) -> Document:
        told: Document = {**cell._asdict(), "fingerprint": experiment.fingerprint(cell), "version": version()}
        try:
            result = replay(
                [experiment.workload(cell.workload)], find(experiment.logic(cell.series)), reclaim=cell.reclaim
            )
        except RmaplabError as error:
            return told | {"error": str(error), "result": None}
        if result.interrupted:
            raise KeyboardInterrupt
        return told | {"error": "", "result": replay_result(result)}

    try:
        with (
            bar(args, "experiment", " cells", total=len(waiting)) as progress,
            tasks_in_processes(one, min(args.jobs, max(1, len(waiting)))) as do,
        ):
            for cell, document in zip(waiting, do(waiting), strict=True):
                write_file(str(results.path(cell)), json.dumps(document, indent=2) + "\n")
                progress.set_postfix_str(f"{cell.workload} on {cell.series}", refresh=False)
                progress.update()
    except KeyboardInterrupt:
        return True
    return False
