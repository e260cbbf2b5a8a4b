# SPDX-License-Identifier: GPL-2.0-only
"""Reads again what was read last, all at once: most of it is needed again, and often nothing has changed."""

from __future__ import annotations

from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Protocol

from rmaplab.realkernel.memory import FaultError, Memory

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PlacesMemory", "Prefetch"]


class PlacesMemory(Memory, Protocol):
    """A memory that can read places of several sizes at once."""

    def read_places(self, places: Sequence[tuple[int, int]]) -> bytes | None:
        """The bytes of several places (address, size), one behind the other; None if they cannot be read at once."""


class Prefetch:
    """A memory for one reader that reads a machine time and again, which stands still meanwhile."""

    def __init__(self, memory: PlacesMemory) -> None:
        self.memory = memory
        self.cache: dict[tuple[int, int], bytes] = {}
        self.asked: dict[tuple[int, int], bytes | None] = {}
        self.places: list[tuple[int, int]] = []
        self.data: bytes | None = None  # of these places

    def again(self) -> bool:
        """Begin another reading: whether everything that the last one asked for is as it was.

        A reader depends on nothing but what it reads, so it need not read then.
        """
        self.cache = {}
        if self.asked:
            values = self.asked.values()
            self.places = list(self.asked)
            self.data = None if None in values else b"".join(values)  # type: ignore[arg-type]
            self.asked = {}
        before = self.data
        if before is not None:
            self.data = self.memory.read_places(self.places)
        return self.data is not None and self.data == before

    def _fill(self) -> None:
        """Make what was fetched ready to be looked up."""
        data = self.data
        if data:
            ends = list(accumulate([size for _, size in self.places]))
            pieces = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
            self.cache = dict(zip(self.places, pieces, strict=True))

    def read(self, address: int, size: int) -> bytes:
        """As of the memory; :class:`FaultError`."""
        (data,) = self.read_many((address,), size)
        if data is None:
            raise FaultError(address)
        return data

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        """From what was fetched, and the rest from the memory."""
        if not addresses:
            return []
        if not self.asked:
            self._fill()
        places = list(zip(addresses, repeat(size)))
        found: list[bytes | None] = list(map(self.cache.get, places))
        if None in found:
            missing = [number for number, data in enumerate(found) if data is None]
            fresh = self.memory.read_many([addresses[number] for number in missing], size)
            for number, data in zip(missing, fresh, strict=True):
                found[number] = data
        self.asked.update(zip(places, found, strict=True))
        return found
