# SPDX-License-Identifier: GPL-2.0-only
"""Experiment files: which workloads on which series and designs, with which settings.

TOML, all combinations of three lists::

    series = ["v6.18", "v7.0", "lazy", "mine.py"]
    workloads = ["redis", "zygote:apps=8", "my.trace"]
    reclaim = ["exit", "clock"]        # default: ["exit"]

Paths are relative to the file's folder.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rmaplab.errors import InputError, UsageError
from rmaplab.series import find
from rmaplab.workload.reclaim import PATTERNS
from rmaplab.workload.sources import Workload, find_workload

__all__ = ["Cell", "Experiment"]


class Cell(NamedTuple):
    """One replay of an experiment."""

    series: str
    workload: str
    reclaim: str

    @property
    def slug(self) -> str:
        """A name for its file: readable, and different for different cells."""
        told = "-".join(self)
        safe = "".join(char if char.isalnum() or char in ".+=," else "-" for char in told)
        return f"{safe[:80]}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Experiment:
    """Series, workloads and settings by name, and the folder that paths are relative to."""

    series: tuple[str, ...]
    workloads: tuple[str, ...]
    reclaim: tuple[str, ...] = ("exit",)
    folder: Path = Path()

    @classmethod
    def read(cls, path: Path) -> Experiment:
        """Read a file; :class:`InputError` names what is wrong with it, before anything is run."""
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not TOML: {error}") from error
        known = ("series", "workloads", "reclaim")
        if unknown := [key for key in table if key not in known]:
            raise InputError(f"{path}: {unknown[0]}: no such key; there are {', '.join(known)}")
        lists = {key: _names(path, key, table[key]) for key in known if key in table}
        for key in known[:2]:
            if key not in lists:
                raise InputError(f'{path}: {key}: missing; write {key} = ["...", "..."]')
        experiment = cls(**lists, folder=path.parent)
        for pattern in experiment.reclaim:
            if pattern not in PATTERNS:
                raise InputError(f"{path}: reclaim: {pattern!r} is none of {', '.join(PATTERNS)}")
        try:
            for name in experiment.series:
                find(experiment.logic(name))
            for name in experiment.workloads:
                experiment.workload(name)
        except UsageError as error:
            raise InputError(f"{path}: {error}") from error
        return experiment

    def cells(self) -> list[Cell]:
        """All combinations, workload by workload."""
        return [
            Cell(series, workload, reclaim)
            for workload in self.workloads
            for reclaim in self.reclaim
            for series in self.series
        ]

    def logic(self, name: str) -> str:
        """What :func:`rmaplab.series.find` knows a series by."""
        return str(self.folder / name) if name.endswith(".py") else name

    def workload(self, name: str) -> Workload:
        """A workload by its name, or a trace by its path; :class:`UsageError` if there is neither."""
        path = self.folder / name
        return path if path.is_file() else find_workload(name)

    def fingerprint(self, cell: Cell) -> str:
        """Of what decides a cell's result but for rmaplab itself: the trace and the design's text."""
        digest = hashlib.sha256("\0".join(cell).encode())
        workload, logic = self.workload(cell.workload), Path(self.logic(cell.series))
        for path in (workload, logic):
            if isinstance(path, Path) and path.is_file():
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def _names(path: Path, key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        raise InputError(f'{path}: {key}: expected a list of names, as in {key} = ["...", "..."]')
    if doubled := [name for at, name in enumerate(value) if name in value[:at]]:
        raise InputError(f"{path}: {key}: {doubled[0]} stands there twice")
    return tuple(value)
