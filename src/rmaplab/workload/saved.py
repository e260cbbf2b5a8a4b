# SPDX-License-Identifier: GPL-2.0-only
"""Keeps a replay that was interrupted in a file, so that it can go on another day."""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmaplab.errors import InputError
from rmaplab.kernel.freeze import FrozenError, freeze, thaw
from rmaplab.workload.result import Objects, Sample, Timeline, WorstWalk

if TYPE_CHECKING:
    from rmaplab.workload.replay import Replay
    from rmaplab.workload.result import ReplayResult

__all__ = ["load_replay", "save_replay"]

FORMAT = 2
_ROWS = {"peak": Objects, "final": Objects, "worst_walk": WorstWalk}


def save_replay(path: Path, replay: Replay) -> None:
    """Write the file anew; it is replaced when it is whole, so an interruption leaves the old one."""
    more = {
        "result": _plain(replay.result),
        "tasks": replay.machine.tasks,
        "place": (replay.workload, replay.event, replay.until_sample),
        "reclaim": (replay.reclaim.hand, replay.reclaim.until_round),
    }
    head = json.dumps(_question(replay)).encode()
    whole = path.with_name(path.name + ".part")
    try:
        whole.write_bytes(head + b"\n" + zlib.compress(freeze(replay.kernel, more), 1))
        os.replace(whole, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def load_replay(path: Path, replay: Replay) -> None:
    """Let a fresh replay go on where the saved one was; :class:`InputError` if it is damaged or another's."""
    try:
        head, _, data = path.read_bytes().partition(b"\n")
        found, own = json.loads(head), _question(replay)
        if not isinstance(found, dict) or set(found) != set(own):
            raise ValueError("no head of a saved replay")
        for name, value in own.items():
            if found[name] != value:
                raise InputError(f"{path}: saved by a replay with another {name}: {found[name]}; here it is {value}")
        more = thaw(zlib.decompress(data), replay.kernel)
        _restore(replay.result, more["result"])
        replay.machine.tasks = more["tasks"]
        replay.workload, replay.event, replay.until_sample = more["place"]
        replay.reclaim.hand, replay.reclaim.until_round = more["reclaim"]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, zlib.error, FrozenError) as error:
        raise InputError(f"{path}: not a saved replay, or damaged; remove it to begin afresh") from error


def _question(replay: Replay) -> dict[str, Any]:
    """What has to be the same for a replay to go on."""
    design = Path(replay.result.series)
    return {
        "rmaplab": "replay",
        "format": FORMAT,
        "series": replay.result.series,
        "design": zlib.crc32(design.read_bytes()) if design.suffix == ".py" else 0,
        "reclaim": replay.result.reclaim,
        "workloads": [_identity(workload) for workload in replay.workloads],
    }


def _identity(workload: object) -> str:
    """A trace by its size and content, whatever its name; a generator by its sizes."""
    if not isinstance(workload, Path):
        return str(workload)
    checksum = 0
    with workload.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return f"{workload.stat().st_size} bytes, {checksum:08x}"


def _plain(result: ReplayResult) -> dict[str, Any]:
    """The figures without classes of ours."""
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    for name, kind in _ROWS.items():
        row = values[name]
        if row is not None:
            values[name] = tuple(row) if isinstance(row, tuple) else (row.anon_vma, row.anon_vma_chain, row.bytes)
        assert row is None or isinstance(row, kind)
    values["marks"] = [(mark.anon_vma, mark.anon_vma_chain, mark.bytes) for mark in result.marks]
    values["timeline"] = (result.timeline.step, [tuple(sample) for sample in result.timeline.samples])
    return values


def _restore(result: ReplayResult, values: dict[str, Any]) -> None:
    for field in fields(result):
        value = values[field.name]
        if field.name in _ROWS and value is not None:
            value = _ROWS[field.name](*value)
        elif field.name == "marks":
            value = [Objects(*mark) for mark in value]
        elif field.name == "timeline":
            value = Timeline(value[0], [Sample(*sample) for sample in value[1]])
        elif isinstance(getattr(result, field.name), Counter):
            getattr(result, field.name).update(value)
            continue
        setattr(result, field.name, value)
