# SPDX-License-Identifier: GPL-2.0-only
"""Where kernel memory is read from: a process, a file, or whatever else can answer batches of addresses."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rmaplab.errors import InputError
from rmaplab.realkernel.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["FaultError", "FileMemory", "Memory", "ProcessMemory", "Segment", "read_each"]


class FaultError(Exception):
    """Nothing can be read at ``address``."""

    def __init__(self, address: int) -> None:
        super().__init__(f"{address:#x} cannot be read")
        self.address = address


class Memory(Protocol):
    """Kernel memory by virtual address."""

    def read(self, address: int, size: int) -> bytes:
        """The bytes [address, address + size); :class:`FaultError` if some of them cannot be read."""

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        """``size`` bytes at each address; None where they cannot be read."""


def read_each(memory: Memory, addresses: Iterable[int], size: int) -> list[bytes | None]:
    """``read_many`` for a memory that knows no better than one at a time."""
    found: list[bytes | None] = []
    for address in addresses:
        try:
            found.append(memory.read(address, size))
        except FaultError:
            found.append(None)
    return found


def _joined(memory: Memory, places: Iterable[tuple[int, int]]) -> bytes | None:
    try:
        return b"".join([memory.read(address, size) for address, size in places])
    except FaultError:
        return None


class ProcessMemory(Closing):
    """The memory of a process, which is that of a user-mode kernel: ``/proc/PID/mem``."""

    def __init__(self, pid: int) -> None:
        try:
            self.fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(
                f"process {pid}: its memory cannot be read: {error.strerror}; name one of your own that runs"
            ) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the process; :class:`FaultError`."""
        try:
            data = os.pread(self.fd, size, address)
        except (OSError, OverflowError):
            data = b""
        if len(data) != size:
            raise FaultError(address)
        return data

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        """``size`` bytes at each address; None where they cannot be read."""
        return read_each(self, addresses, size)

    def read_places(self, places: Sequence[tuple[int, int]]) -> bytes | None:
        """The bytes of several places (address, size), one behind the other; None if one cannot be read."""
        return _joined(self, places)


class Segment(NamedTuple):
    """``size`` bytes at virtual ``address`` are those of the file from ``offset`` on."""

    address: int
    size: int
    offset: int


class FileMemory:
    """A file that holds a guest's memory, with the virtual addresses at which the guest's kernel sees it."""

    def __init__(self, path: Path, segments: Iterable[Segment]) -> None:
        self.segments = sorted(segments)
        with path.open("rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def close(self) -> None:
        """Unmap the file."""
        self.map.close()

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the guest; :class:`FaultError`."""
        for start, length, offset in self.segments:
            if start <= address and address + size <= start + length:
                at = address - start + offset
                data = self.map[at : at + size]
                if len(data) == size:
                    return data
        raise FaultError(address)

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        """``size`` bytes at each address; None where they cannot be read."""
        return read_each(self, addresses, size)

    def read_places(self, places: Sequence[tuple[int, int]]) -> bytes | None:
        """The bytes of several places (address, size), one behind the other; None if one cannot be read."""
        return _joined(self, places)
