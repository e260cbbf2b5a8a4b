# SPDX-License-Identifier: GPL-2.0-only
"""What must be known of an x86-64 kernel to read it in a guest's memory: types from its BTF, addresses of symbols.

The kernel must lie where it was linked to (``nokaslr``) and use four levels of
page tables: then its own image is mapped from physical address 0 on at
__START_KERNEL_map (page_64_types.h), and all of memory at ``page_offset_base``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rmaplab.realkernel.btf import Btf
from rmaplab.realkernel.guest.wire import GuestError
from rmaplab.realkernel.layout import ASKED, Layout
from rmaplab.realkernel.memory import FaultError, FileMemory, Segment
from rmaplab.realkernel.target import Machine, Target
from rmaplab.realkernel.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rmaplab.realkernel.guest.cache import Kernel
    from rmaplab.realkernel.memory import Memory

__all__ = ["FAILING_SYMBOLS", "SYMBOLS", "X86Facts", "boot_segments"]

FAILING_SYMBOLS = (
    *("kmem_cache_alloc_noprof", "kmem_cache_alloc"),  # the first since v6.10
    *("anon_vma_cachep", "anon_vma_chain_cachep", "vm_area_cachep"),
)
"""Where allocations are made to fail (slub.c, rmap.c, fork.c); 0 in a kernel that has not got it."""

_NEEDED = ("init_task", "page_offset_base", "vmemmap_base", "init_top_pgt", "__start_BTF", "__stop_BTF")
SYMBOLS = (*_NEEDED, *FAILING_SYMBOLS)
"""The symbols whose addresses are asked for."""

_IMAGE = 0xFFFF_FFFF_8000_0000  # __START_KERNEL_map
_LEVELS = 4
_FOUR_GIB = 1 << 32
_BELOW_HOLE = 0x8000_0000  # of more memory than fits QEMU's q35 has so much below 4 GiB (pc_q35.c)
_FITS_BELOW = 0xB000_0000
_PRESENT, _LARGE = 1 << 0, 1 << 7  # pgtable_types.h
_ADDRESS = 0xF_FFFF_FFFF_F000
_STRUCT_PAGE = 64


@dataclass(frozen=True, slots=True)
class X86Facts:
    """Layout, and addresses of symbols."""

    layout: Layout
    symbols: dict[str, int]

    @classmethod
    def learn(cls, memory: Memory, symbols: dict[str, int]) -> Self:
        """From a running guest; :class:`GuestError` without BTF."""
        if missing := [name for name in _NEEDED if not symbols.get(name)]:
            raise GuestError(f"the guest's /proc/kallsyms lacks {', '.join(missing)}: its kernel cannot be read")
        start, stop = symbols["__start_BTF"], symbols["__stop_BTF"]
        return cls(Layout.of_btf(Btf(memory.read(start, stop - start))), symbols)

    @classmethod
    def load(cls, kernel: Kernel) -> Self | None:
        """From the file that :meth:`save` wrote for this very kernel; None if there is none."""
        try:
            document = json.loads(kernel.facts.read_text(encoding="utf-8"))
            known = document["image"], document["asked"], set(document["symbols"])
            if known != (_mark(kernel), ASKED, set(SYMBOLS)):
                return None
            return cls(Layout.of_dict(document), document["symbols"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, kernel: Kernel) -> None:
        """Keep it beside the kernel."""
        about = {"symbols": self.symbols, "image": _mark(kernel), "asked": ASKED}
        document = {**self.layout.as_dict(), **about}
        write_whole(kernel.facts, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())

    def target(self, memory: Memory, release: str) -> Target:
        """A running guest with this kernel."""
        page_offset, vmemmap = (_number(memory, self.symbols[name]) for name in ("page_offset_base", "vmemmap_base"))
        machine = Machine("x86_64", _LEVELS, page_offset=page_offset, vmemmap=vmemmap)
        return Target(memory, self.layout, machine, self.symbols["init_task"], release)


def boot_segments(path: Path, size: int, symbols: dict[str, int]) -> list[Segment]:
    """Where a guest's kernel sees the file that is its memory, ``size`` bytes of it.

    The kernel's image, all of memory, and the array of struct page, which is
    mapped in pieces of its own (``vmemmap_populate``).
    """
    low = size if size < _FITS_BELOW else _BELOW_HOLE
    segments = [Segment(_IMAGE, min(low, 1 << 30), 0)]
    memory = FileMemory(path, segments)
    try:
        page_offset = _number(memory, symbols["page_offset_base"])
        segments.append(Segment(page_offset, low, 0))
        if size > low:
            segments.append(Segment(page_offset + _FOUR_GIB, size - low, low))
        top = symbols["init_top_pgt"] - _IMAGE
        start = _number(memory, symbols["vmemmap_base"])
    finally:
        memory.close()
    memory = FileMemory(path, segments)
    try:
        pages = (size if size == low else _FOUR_GIB + size - low) >> 12
        mapped = _mapped(memory, page_offset, top, start, start + pages * _STRUCT_PAGE)
        return [*segments, *(piece._replace(offset=_in_file(piece.offset, low)) for piece in mapped)]
    finally:
        memory.close()


def _in_file(physical: int, low: int) -> int:
    return physical if physical < _FOUR_GIB else physical - _FOUR_GIB + low


def _mapped(memory: Memory, page_offset: int, top: int, start: int, end: int) -> Iterator[Segment]:
    """The pieces of [start, end) that the page tables at physical address ``top`` map, ``offset`` being physical."""
    at = start
    while at < end:
        table, shift = top, 39
        while True:
            entry = _number(memory, page_offset + table + 8 * (at >> shift & 511))
            if not entry & _PRESENT or shift == 12 or (entry & _LARGE and shift < 39):
                break
            table, shift = entry & _ADDRESS, shift - 9
        piece = (at & -(1 << shift)) + (1 << shift)
        if entry & _PRESENT:
            yield Segment(at, min(piece, end) - at, (entry & _ADDRESS & -(1 << shift)) + (at & (1 << shift) - 1))
        at = piece


def _number(memory: Memory, address: int) -> int:
    try:
        return int.from_bytes(memory.read(address, 8), "little")
    except FaultError as error:
        raise GuestError(f"the guest's memory lacks {address:#x}: its kernel is not where it should be") from error


def _mark(kernel: Kernel) -> str:
    about = kernel.image.stat()
    return f"{about.st_size} {about.st_mtime_ns}"
