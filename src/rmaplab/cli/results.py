# SPDX-License-Identifier: GPL-2.0-only
"""Results of replays, comparisons and experiments as files: read, and written in other formats."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmaplab.errors import InputError, UsageError
from rmaplab.report.replay_page import replay_page
from rmaplab.report.replay_plots import replay_plot
from rmaplab.report.replay_tables import replay_parquet, replay_perfetto
from rmaplab.report.replays import cells_of, experiment_text, replay_text

if TYPE_CHECKING:
    import argparse

__all__ = ["FORMATS", "export_results", "read_results"]

Document = dict[str, Any]

FORMATS = ("ascii", "html", "parquet", "perfetto", "png", "svg")
BINARY = ("parquet", "png")


def read_results(path: str) -> Document | None:
    """The document of a replay, a comparison on traces or an experiment (or its folder); None if it is another's."""
    place = Path(path)
    if place.is_dir():
        place /= "results.json"
    elif place.suffix != ".json":
        return None
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: cannot be read as JSON: {error}") from error
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind not in ("replay", "experiment") and not (kind == "compare" and "traces" in document):
        return None
    return dict(document)


def export_results(args: argparse.Namespace, document: Document) -> int:
    """Write results in the format that was asked for."""
    if args.to not in FORMATS:
        raise UsageError(f"--to {args.to}: results of replays go to {', '.join(FORMATS)}")
    if args.to in BINARY and args.output in (None, "-") and sys.stdout.isatty():
        raise UsageError(f"--to {args.to} is not for a terminal; name a file with -o")
    try:
        data = _rendered(args.to, args.input, document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{args.input}: not a whole document of the kind {document['kind']}: {error!r}") from error
    if args.output in (None, "-"):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return 0
    try:
        Path(args.output).write_bytes(data)
    except OSError as error:
        raise InputError(f"{args.output}: cannot be written: {error.strerror}") from error
    return 0


def _rendered(form: str, name: str, document: Document) -> bytes:
    cells = cells_of(document)
    if not cells:
        raise InputError(f"{name}: no cell has a result yet; run the experiment first")
    if form == "parquet":
        return replay_parquet(cells)
    if form in ("png", "svg"):
        return replay_plot(name, cells, form)
    if form == "ascii":
        return (experiment_text if document["kind"] == "experiment" else replay_text)(document).encode()
    return (replay_page(name, cells) if form == "html" else replay_perfetto(cells)).encode()
