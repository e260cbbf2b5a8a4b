# SPDX-License-Identifier: GPL-2.0-only
"""Where a kernel of x86-64 sees physical memory and its struct pages, if no symbol tells (KASLR moves both).

Both regions begin at a multiple of 1 GiB (arch/x86/mm/kaslr.c), and both can
be told when they are found: by the direct map the page tables translate
their own address to itself, and in the array of struct page the one of a page
that is known names the anon_vma that it must name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.realkernel.folios import BITS
from rmaplab.realkernel.memory import FaultError
from rmaplab.realkernel.target import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.realkernel.layout import Layout
    from rmaplab.realkernel.memory import Memory

__all__ = ["find_machine", "translate"]

_STEP = 1 << 30
_FARTHEST = 1 << 44  # bytes of physical memory below the page table that is asked: 16 TiB
_FRAME = 0x000F_FFFF_FFFF_F000
_HALF = 1 << 63
_ABOVE_FIXED = 0xFFFF_FE00_0000_0000  # from here on there are no such regions
_PRESENT, _LARGE = BITS["x86_64"].present, BITS["x86_64"].large


def _word(memory: Memory, address: int) -> int:
    return int.from_bytes(memory.read(address, 8), "little")


def translate(memory: Memory, pgd: int, page_offset: int, levels: int, address: int) -> int | None:
    """The physical address of a virtual one, by the page tables at ``pgd``; None if nothing is mapped there."""
    table = pgd
    for level in range(levels - 1, -1, -1):
        shift = 12 + 9 * level
        try:
            entry = _word(memory, table + 8 * (address >> shift & 511))
        except FaultError:
            return None
        if not entry & _PRESENT:
            return None
        if level == 0 or (entry & _LARGE and level < 3):
            mask = (1 << shift) - 1
            return (entry & _FRAME & ~mask) | (address & mask)
        table = page_offset + (entry & _FRAME)
    return None


def _direct_map(memory: Memory, pgd: int) -> tuple[int, int] | None:
    """Its beginning, and the number of levels."""
    first = pgd & -_STEP
    for base in range(first, max(first - _FARTHEST, _HALF), -_STEP):
        for levels in (4, 5):
            if translate(memory, pgd, base, levels, pgd) == pgd - base:
                return base, levels
    return None


def _regions(memory: Memory, pgd: int, page_offset: int, levels: int) -> Iterator[int]:
    """The multiples of 1 GiB in the kernel's half at which something is mapped, above the direct map."""
    tables = [(pgd, 0, 12 + 9 * (levels - 1))]
    while tables:
        table, base, shift = tables.pop()
        try:
            words = memoryview(memory.read(table, 4096)).cast("Q")
        except FaultError:
            continue
        for number in range(511, -1, -1):
            address = base + (number << shift)
            if shift == 12 + 9 * (levels - 1) and number >= 256:
                address |= -1 << (shift + 9) & (1 << 64) - 1
            if not words[number] & _PRESENT or address + (1 << shift) <= page_offset or address >= _ABOVE_FIXED:
                continue
            if shift == 30:
                yield address
            elif not words[number] & _LARGE:
                tables.append((page_offset + (words[number] & _FRAME), address, shift - 9))


def find_machine(memory: Memory, layout: Layout, pgd: int, page: int, anon_vma: int) -> Machine:
    """By an anonymous page of a process: its page table, the page's address in bytes, the anon_vma that it names.

    What is not found stays 0, which says so.
    """
    found = _direct_map(memory, pgd)
    if found is None:
        return Machine()
    page_offset, levels = found
    physical = translate(memory, pgd, page_offset, levels, page)
    if physical is None:
        return Machine(levels=levels, page_offset=page_offset)
    place = (physical >> 12) * layout.size("page") + layout.offset("folio.mapping")
    regions = sorted(_regions(memory, pgd, page_offset, levels))
    for base, data in zip(regions, memory.read_many([base + place for base in regions], 8), strict=True):
        if data is None or int.from_bytes(data, "little") != anon_vma | 1:
            continue
        at = base + place
        if translate(memory, pgd, page_offset, levels, at) != at - page_offset:  # the direct map has all of it, too
            return Machine(levels=levels, page_offset=page_offset, vmemmap=base)
    return Machine(levels=levels, page_offset=page_offset)
