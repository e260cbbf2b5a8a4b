# SPDX-License-Identifier: GPL-2.0-only
"""Which calls a state allows within bounds: the alphabet of the explorer.

Areas lie side by side, so that they can merge.  Calls that the kernel would
refuse, or that would change nothing, are left out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rmaplab.errors import UsageError
from rmaplab.kernel.flags import PAGE_SIZE, VM_READ, VM_WRITE
from rmaplab.kernel.process import MMAP_BASE
from rmaplab.scenario import Exit, Fork, Mmap, Mprotect, Munmap, Pages, Read, Write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel import Area, Kernel, Process
    from rmaplab.scenario import Call

__all__ = ["Bounds", "calls"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far to explore.

    ``processes`` live at a time, ``areas`` of ``pages`` pages each, ``calls``
    after the start, ``fail_alloc`` failed allocations in one history.
    """

    processes: int = 3
    areas: int = 2
    pages: int = 1
    calls: int = 7
    fail_alloc: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name in ("calls", "fail_alloc") else 1
            if value < least:
                raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")
        if self.areas > 26:
            raise UsageError(f"--areas is {self.areas}; there are names for 26")


def calls(kernel: Kernel, bounds: Bounds, created: int) -> Iterator[Call]:
    """Every call worth making, in a fixed order; a child is called after ``created``."""
    processes = list(kernel.processes.values())
    for process in processes:
        slots = [(_name(number), _start(number, bounds)) for number in range(bounds.areas)]
        for name, start in slots:
            if name not in process.areas or process.areas[name].start == start:
                yield from _area_calls(process, name, start, bounds.pages)
        for name, area in process.areas.items():
            if (name, area.start) not in slots:  # brought along by a scenario
                yield from _page_calls(process, name, area)
        if len(processes) < bounds.processes:
            yield Fork(process.name, f"P{created}")
        yield Exit(process.name)


def _name(number: int) -> str:
    return chr(ord("A") + number)


def _start(number: int, bounds: Bounds) -> int:
    return MMAP_BASE + number * bounds.pages * PAGE_SIZE


def _area_calls(process: Process, name: str, start: int, pages: int) -> Iterator[Call]:
    at = process.mm.find(start)
    if at == len(process.mm.vmas) or process.mm.vmas[at].vm_start >= start + pages * PAGE_SIZE:
        yield Mmap(process.name, name, pages, at=start)
    elif name in process.areas:
        yield from _page_calls(process, name, process.areas[name])


def _page_calls(process: Process, name: str, area: Area) -> Iterator[Call]:
    mapped: list[int | None] = []  # flags of the VMA at each page
    for index in range(area.pages):
        address = area.page(index)
        vma = process.mm.lookup(address)
        mapped.append(None if vma is None else vma.vm_flags)
        if vma is None:
            continue
        pte = process.mm.page_table.present(address)
        pages = Pages(name, index, index)
        if vma.vm_flags & VM_WRITE and (pte is None or not pte.writable):
            yield Write(process.name, pages)
        if vma.vm_flags & VM_READ and pte is None:
            yield Read(process.name, pages)
    for first in range(area.pages):
        for last in range(first, area.pages):
            flags = mapped[first : last + 1]
            pages = Pages(name, first, last)
            if flags[0] is not None and flags[-1] is not None:
                yield Munmap(process.name, pages)
            if any(f is None for f in flags):
                continue
            writable = [bool(f & VM_WRITE) for f in flags if f is not None]
            if any(writable):
                yield Mprotect(process.name, pages, "r")
            if not all(writable):
                yield Mprotect(process.name, pages, "rw")
