# SPDX-License-Identifier: GPL-2.0-only
"""Keeps what an exploration knows in a file, so that it can go on another day."""

from __future__ import annotations

import base64
import json
import os
import zlib
from array import array
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmaplab.check.steps import step_from_json, step_to_json
from rmaplab.errors import InputError
from rmaplab.scenario import format_scenario

if TYPE_CHECKING:
    from rmaplab.check.expand import Question
    from rmaplab.check.explore import _Search

__all__ = ["load_search", "save_search"]

FORMAT = 1
_ROWS = ("parents", "steps", "failures", "created")


def save_search(path: str, question: Question, search: _Search) -> None:
    """Write the file anew; it is replaced when it is whole, so an interruption leaves the old one."""
    states, result = search.states, search.result
    document = {
        "rmaplab": "exploration",
        "format": FORMAT,
        "question": _question(question),
        "first": next(iter(states.visited)),
        "marks": _pack(array("q", states.visited)),
        "fewest": _pack(array("B", states.visited.values())),
        **{name: _pack(getattr(states, name)) for name in _ROWS},
        "table": [step_to_json(step) for step in states.table],
        "frontier": _pack(array("l", search.frontier)),
        "done": search.done,
        "next": _pack(array("l", search.next)),
        "depth": result.depth,
        "transitions": result.transitions,
        "seconds": result.seconds,
        "reached": dict(result.reached),
        "failed": dict(result.failures),
        "findings": [asdict(finding) for finding in result.findings.values()],
    }
    whole = Path(f"{path}.part")
    try:
        whole.write_bytes(zlib.compress(json.dumps(document).encode(), 6))
        os.replace(whole, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def load_search(path: str, question: Question, search: _Search) -> None:
    """Take over what the file says; :class:`InputError` if it is damaged or belongs to another exploration."""
    from rmaplab.check.explore import Finding

    try:
        document = json.loads(zlib.decompress(Path(path).read_bytes()))
        _same(path, document, question, search)
        states, result = search.states, search.result
        marks, fewest = _unpack("q", document["marks"]), _unpack("B", document["fewest"])
        states.visited = dict(zip(marks, fewest, strict=True))
        for name in _ROWS:
            setattr(states, name, _unpack(getattr(states, name).typecode, document[name]))
        states.table = [step_from_json(step) for step in document["table"]]
        states.numbers = {step: number for number, step in enumerate(states.table)}
        search.frontier = list(_unpack("l", document["frontier"]))
        search.next = list(_unpack("l", document["next"]))
        search.done = int(document["done"])
        result.depth, result.transitions = int(document["depth"]), int(document["transitions"])
        result.seconds = float(document["seconds"])
        result.reached, result.failures = Counter(document["reached"]), Counter(document["failed"])
        result.findings = {item["id"]: Finding(**item) for item in document["findings"]}
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (zlib.error, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a saved exploration, or damaged; remove it to begin afresh") from error


def _question(question: Question) -> dict[str, Any]:
    bounds = asdict(question.bounds)
    del bounds["calls"]  # which may be raised, to go deeper
    return {
        "series": question.series,
        "design": _digest(question.series),
        "bounds": {**bounds, "operations": list(question.bounds.operations)},
        "start": format_scenario(question.start),
        "only_fork_fails": question.only_fork_fails,
        "only": list(question.only),
    }


def _digest(series: str) -> str:
    """Of the file that a design is in, which may be edited between two runs; empty for a name."""
    return f"{zlib.crc32(Path(series).read_bytes()):08x}" if series.endswith(".py") else ""


def _same(path: str, document: dict[str, Any], question: Question, search: _Search) -> None:
    if document["rmaplab"] != "exploration" or document["format"] != FORMAT:
        raise KeyError("format")
    own = _question(question)
    for name, value in own.items():
        if document["question"][name] != value:
            raise InputError(
                f"{path}: saved by an exploration with another {name.replace('_', ' ')}: "
                f"{document['question'][name]}; here it is {value}"
            )
    if document["first"] != next(iter(search.states.visited)):
        raise InputError(f"{path}: saved by another version of rmaplab or of the design; remove it to begin afresh")


def _pack(row: array[int]) -> str:
    return base64.b85encode(row.tobytes()).decode()


def _unpack(typecode: str, text: str) -> array[int]:
    row = array(typecode)
    row.frombytes(base64.b85decode(text))
    return row
