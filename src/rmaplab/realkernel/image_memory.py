# SPDX-License-Identifier: GPL-2.0-only
"""Memory of a kernel that never ran: pages that are written object by object, and read like any other."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from rmaplab.realkernel.memory import FaultError, read_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmaplab.realkernel.layout import Layout

__all__ = ["PAGE_OFFSET", "VMEMMAP", "ImageMemory", "Slabs"]

PAGE_OFFSET = 0xFFFF_8880_0000_0000  # x86-64, four levels, not randomized (Documentation/arch/x86/x86_64/mm.rst)
VMEMMAP = 0xFFFF_EA00_0000_0000
_PAGE = 4096
_POISON = b"\x5a"  # what is not a member that somebody wrote (POISON_INUSE, poison.h)


class ImageMemory:
    """Pages of 4 KiB by virtual address; whatever is on none of them faults."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}

    def write(self, address: int, data: bytes) -> None:
        """Put bytes at an address; pages come into being, poisoned."""
        at = 0
        while at < len(data):
            number, offset = divmod(address + at, _PAGE)
            page = self.pages.get(number)
            if page is None:
                page = self.pages[number] = bytearray(_POISON * _PAGE)
            length = min(len(data) - at, _PAGE - offset)
            page[offset : offset + length] = data[at : at + length]
            at += length

    def read(self, address: int, size: int) -> bytes:
        """The bytes at an address; :class:`rmaplab.realkernel.memory.FaultError`."""
        number, offset = divmod(address, _PAGE)
        found = b""
        while len(found) < size:
            page = self.pages.get(number)
            if page is None:
                raise FaultError(address)
            found += page[offset : offset + size - len(found)]
            number, offset = number + 1, 0
        return bytes(found)

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        """``size`` bytes at each address; None where they fault."""
        return read_each(self, addresses, size)


class Slabs:
    """Hands out memory in the direct map, and writes members by their names."""

    def __init__(self, memory: ImageMemory, layout: Layout) -> None:
        self.memory = memory
        self.layout = layout
        self.next = PAGE_OFFSET + (1 << 20)

    def allocate(self, size: int, align: int = 8) -> int:
        """The address of so many bytes, that nothing is written to yet."""
        address = -(-self.next // align) * align
        self.next = address + size
        return address

    def new(self, structure: str) -> int:
        """The address of a structure, poisoned."""
        size = self.layout.size(structure)
        address = self.allocate(size, 64)
        self.memory.write(address, _POISON * size)
        return address

    def page(self) -> int:
        """The address of a page of zeros, such as a page table."""
        address = self.allocate(_PAGE, _PAGE)
        self.memory.write(address, bytes(_PAGE))
        return address

    def unmapped(self) -> int:
        """An address on a page that faults."""
        return self.allocate(_PAGE, _PAGE)

    def put(self, address: int, member: str, value: int | bytes, letter: str = "Q", extra: int = 0) -> None:
        """Write a member such as ``anon_vma.root``, or ``extra`` bytes behind it, if this kernel has it.

        ``letter`` is the number's format in :mod:`struct`.
        """
        if self.layout.has(member):
            data = value if isinstance(value, bytes) else struct.pack("<" + letter, value)
            self.memory.write(address + self.layout.offset(member) + extra, data)
