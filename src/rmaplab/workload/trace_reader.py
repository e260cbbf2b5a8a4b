# SPDX-License-Identifier: GPL-2.0-only
"""Reading a trace: one checked event at a time, never the whole file."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rmaplab.errors import InputError
from rmaplab.workload.trace_events import Event, EventChecker, EventError
from rmaplab.workload.trace_records import FORMAT_VERSION, MAGIC, End, Header, reason

__all__ = ["TraceReader"]

_LINE_LIMIT = 1 << 24  # bytes; a recorder's longest line (the areas of an exec) is far below


class TraceReader:
    """Reads a trace: a context manager, and an iterator over its events.

    ``header`` is there at once, ``end`` once the events are exhausted. Every
    event is checked; anything a recorder would not write raises InputError
    with file, line, reason and remedy. With ``allow_truncated`` a trace that
    stops short (its recorder was killed) ends quietly instead, and ``end``
    says interrupted.
    """

    def __init__(self, path: Path, *, allow_truncated: bool = False) -> None:
        self.path = path
        self.end: End | None = None
        self.events = 0
        self._allow_truncated = allow_truncated
        self._line = 0
        self._cut = False
        try:
            self._gzip = gzip.open(path, "rb")  # noqa: SIM115 - close() closes it
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None
        try:
            self.header = self._read_header()
        except BaseException:
            self.close()
            raise
        self._checker = EventChecker(self.header.page_size)

    def close(self) -> None:
        """Close the file; the reader yields nothing more."""
        self._gzip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        while self.end is None:
            value = self._next_value()
            if value is None:
                self.end = End(self.events, interrupted=True, status=None)
            elif isinstance(value, dict):
                self.end = self._read_end(value)
            else:
                yield self._check(value)

    def _check(self, value: object) -> Event:
        try:
            event = self._checker.check(value)
        except EventError as error:
            raise self._damaged(str(error)) from None
        self.events += 1
        return event

    def _next_value(self) -> object:
        line = self._next_line()
        if not line.endswith(b"\n"):
            if len(line) >= _LINE_LIMIT:
                raise self._damaged(f"longer than {_LINE_LIMIT} bytes")
            if self._allow_truncated:
                return None
            raise self._truncated()
        try:
            return json.loads(line)
        except RecursionError:
            raise self._damaged("nested too deep") from None
        except UnicodeDecodeError:
            raise self._damaged("not UTF-8") from None
        except ValueError as error:
            raise self._damaged(f"not JSON: {error}") from None

    def _next_line(self) -> bytes:
        self._line += 1
        try:
            return self._gzip.readline(_LINE_LIMIT)
        except EOFError:
            self._cut = True
            return b""
        except gzip.BadGzipFile as error:
            if self._line == 1:
                raise InputError(f"{self.path}: not a trace: {error}; give a file that record wrote") from None
            raise self._damaged(str(error)) from None
        except zlib.error as error:
            raise self._damaged(str(error)) from None
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def _read_header(self) -> Header:
        if (value := self._first_value()) is None:
            raise InputError(f"{self.path}: line 1: the trace stops within its header: record it again")
        if not isinstance(value, dict) or type(version := value.get(MAGIC)) is not int:
            raise InputError(f"{self.path}: line 1: not a trace: no {MAGIC} header; give a file that record wrote")
        if version > FORMAT_VERSION:
            raise InputError(
                f"{self.path}: line 1: made by a newer rmaplab (trace format {version}),"
                f" this one reads version {FORMAT_VERSION}: update rmaplab or record it again"
            )
        if version != FORMAT_VERSION:
            raise self._damaged(f"no trace format {version} exists")
        return self._header_of(value)

    def _first_value(self) -> object:
        allowed, self._allow_truncated = self._allow_truncated, True
        try:
            return self._next_value()
        finally:
            self._allow_truncated = allowed

    def _header_of(self, value: dict[str, Any]) -> Header:
        command, page_size = value.get("command"), value.get("page_size")
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            raise self._damaged("command is not a list of strings")
        for key in ("arch", "kernel"):
            if not isinstance(value.get(key), str):
                raise self._damaged(f"{key} is not a string")
        if type(page_size) is not int or not 1 << 12 <= page_size <= 1 << 16 or page_size & (page_size - 1):
            raise self._damaged("page_size is not a power of two from 4096 to 65536")
        return Header(tuple(command), value["arch"], value["kernel"], page_size)

    def _read_end(self, value: dict[str, Any]) -> End:
        end = value.get("end")
        if not isinstance(end, dict):
            raise self._damaged("an object that is no end record")
        events, interrupted, status = end.get("events"), end.get("interrupted"), end.get("status")
        if type(interrupted) is not bool or (status is not None and (type(status) is not int or status < 0)):
            raise self._damaged("a damaged end record")
        if type(events) is not int or events != self.events:
            raise self._damaged(f"the end record counts {ascii(events)[:20]} events, the trace holds {self.events}")
        # One more read makes gzip compare its checksum.
        if self._next_line():
            raise self._damaged("something follows the end record")
        if self._cut and not self._allow_truncated:
            raise self._truncated()
        return End(events, interrupted, status)

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self.path}: line {self._line}: {reason}: the trace is damaged, record it again")

    def _truncated(self) -> InputError:
        return InputError(
            f"{self.path}: line {self._line}: truncated after {self.events} events (its recorder was killed,"
            " or the copy is incomplete): copy it again or record it again"
        )


def _unreadable(path: Path, error: OSError | ValueError) -> InputError:
    return InputError(f"{path}: cannot read the trace: {reason(error)}: give a file that record wrote")
