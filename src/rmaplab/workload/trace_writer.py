# SPDX-License-Identifier: GPL-2.0-only
"""Writing a trace: batches of JSON lines into a gzip stream.

The same events give the same bytes: the gzip header carries no time and no
name.
"""

import gzip
import io
import json
import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rmaplab.errors import InputError
from rmaplab.workload.trace_records import MAGIC, Header, reason

__all__ = ["TraceWriter"]

_BATCH = 256  # events between two flushes: what a SIGKILL of the recorder may cost
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class TraceWriter:
    """Writes a trace to ``path``, as a context manager or with ``close``.

    The bytes go to ``path`` + ``.partial`` beside it and are renamed by
    ``close``, so a file under the final name is always whole; what is no
    plain file (a pipe, /dev/null) is written directly. A batch of 256 events
    at a time is flushed, so a killed writer leaves a ``.partial`` that is
    readable up to the last batch. Raises InputError when the file cannot be
    written. ``counts`` holds the number of events by kind.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._final = Path(os.path.realpath(path))
        self._written = self._final
        if not _is_special(self._final):
            self._written = self._final.with_name(self._final.name + ".partial")
        self._lines: list[str] = []
        self._closed = False
        try:
            self._raw = io.FileIO(self._written, "w")
        except (OSError, ValueError) as error:
            raise _unwritable(path, error) from None
        self._file = io.BufferedWriter(self._raw)
        self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=self._file, mtime=0)
        self._lines.append(_ENCODE(_header_object(header)))

    @property
    def events(self) -> int:
        """The number of events written so far."""
        return self.counts.total()

    def write(self, event: Sequence[object]) -> None:
        """Append one event (kind, then fields). Raises InputError when the disk refuses."""
        self._lines.append(_ENCODE(event))
        self.counts[str(event[0])] += 1
        if len(self._lines) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Hand everything written so far to the system."""
        if not self._lines:
            return
        data = "\n".join(self._lines) + "\n"
        self._lines.clear()
        try:
            self._gzip.write(data.encode())
            self._gzip.flush()
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def close(self, *, interrupted: bool = False, status: int | None = None) -> None:
        """Write the end record and give the file its final name; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        end = {"events": self.events, "interrupted": interrupted, "status": status}
        self._lines.append(_ENCODE({"end": end}))
        try:
            self.flush()
            self._gzip.close()
            self._file.close()
            if self._written != self._final:
                os.replace(self._written, self._final)
        except OSError as error:
            raise _unwritable(self.path, error) from None
        finally:
            self._abandon()

    def discard(self) -> None:
        """Leave nothing behind: for a recording that never began."""
        if self._closed:
            return
        self._closed = True
        self._abandon()
        if self._written != self._final:
            self._written.unlink(missing_ok=True)

    def _abandon(self) -> None:
        for stream in (self._gzip, self._file, self._raw):
            try:
                stream.close()
            except OSError:
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self.close(interrupted=kind is not None)


def _header_object(header: Header) -> dict[str, object]:
    return {
        MAGIC: header.version,
        "command": list(header.command),
        "arch": header.arch,
        "kernel": header.kernel,
        "page_size": header.page_size,
    }


def _is_special(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _unwritable(path: Path, error: OSError | ValueError) -> InputError:
    return InputError(f"{path}: cannot write the trace: {reason(error)}: name a file in a writable place with room")
