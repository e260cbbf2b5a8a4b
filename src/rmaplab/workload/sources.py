# SPDX-License-Identifier: GPL-2.0-only
"""Where events come from: a recorded trace, one that is shipped, or a generator; chosen by name.

Raises :class:`UsageError` for a name that is none of them.
"""

from __future__ import annotations

import difflib
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rmaplab.errors import UsageError
from rmaplab.workload.synthetic import GENERATORS, Synthetic
from rmaplab.workload.trace import Header, TraceReader
from rmaplab.workload.trace_events import EventChecker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.workload.trace import Event

__all__ = ["Workload", "find_workload", "open_workload", "provenance", "shipped_traces"]

Workload = Path | Synthetic


def shipped_traces() -> dict[str, Path]:
    """The recorded traces in the package, by name."""
    with resources.as_file(resources.files("rmaplab") / "data" / "traces") as folder:
        return {path.stem: path for path in sorted(folder.glob("*.trace"))}


def provenance() -> dict[str, dict[str, Any]]:
    """Where each shipped trace comes from: script, summary, kernel, system, programs with their versions."""
    text = (resources.files("rmaplab") / "data" / "traces" / "provenance.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def find_workload(name: str) -> Workload:
    """A file if there is one of that name, or else what is shipped or generated: ``NAME`` or ``NAME:key=n,key=n``."""
    if Path(name).exists() or "/" in name or name.endswith(".trace"):
        return Path(name)
    traces = shipped_traces()
    if name in traces:
        return traces[name]
    kind, _, options = name.partition(":")
    if kind in GENERATORS:
        return Synthetic(kind, _numbers(name, options))
    close = difflib.get_close_matches(kind, [*traces, *GENERATORS], n=1)
    hint = f"did you mean {close[0]}?" if close else "`rmaplab list workloads` shows those that have a name"
    raise UsageError(f"{name}: there is no such file and no such workload; {hint}")


def _numbers(name: str, options: str) -> dict[str, int]:
    numbers = {}
    for option in options.split(",") if options else ():
        key, _, value = option.partition("=")
        if not value.isdecimal():
            raise UsageError(f"{name}: {option!r} is not of the form key=number")
        numbers[key] = int(value)
    return numbers


class SyntheticReader:
    """The reader of a generated workload; its events are checked like those of a trace."""

    def __init__(self, workload: Synthetic) -> None:
        self.header = Header((str(workload),), "synthetic", "none")
        self._events = workload.events()
        self._checker = EventChecker(self.header.page_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Event]:
        return map(self._checker.check, self._events)


def open_workload(workload: Workload) -> TraceReader | SyntheticReader:
    """A reader of its events, as a context manager; :class:`InputError` for a trace that cannot be read."""
    return SyntheticReader(workload) if isinstance(workload, Synthetic) else TraceReader(workload)
