# SPDX-License-Identifier: GPL-2.0-only
"""Which calls a state allows within bounds: the alphabet of the explorer.

Areas lie side by side, so that they can merge.  Calls that the kernel would
refuse, or that would change nothing, are left out.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rmaplab.errors import UsageError
from rmaplab.kernel.flags import PAGE_SIZE, VM_DONTCOPY, VM_EXEC, VM_MERGEABLE, VM_READ, VM_WIPEONFORK, VM_WRITE
from rmaplab.kernel.pagetable import Pte, SwapPte
from rmaplab.kernel.process import MMAP_BASE
from rmaplab.scenario import (
    STACK,
    Exec,
    Exit,
    Fork,
    Ksm,
    Ksmd,
    Madvise,
    Migrate,
    Mmap,
    Mprotect,
    Mremap,
    Munmap,
    Pages,
    Pin,
    Read,
    Swapin,
    Swapout,
    Unpin,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel import Area, Kernel, Process
    from rmaplab.scenario import Call
    from rmaplab.scenario.generator import Drawn

__all__ = ["CORE", "OPERATIONS", "Bounds", "calls"]

CORE = ("exit", "fork", "mmap", "mprotect", "munmap", "read", "write")
OPERATIONS = {
    "exit": "a process ends",
    "fork": "a process forks",
    "mmap": "an area is mapped",
    "mprotect": "pages become read-only, and writable again",
    "munmap": "pages are unmapped",
    "read": "pages are read",
    "write": "pages are written",
    "exec": "a process runs a new program",
    "fork-advice": "pages are not to be inherited, or to be wiped, and to be inherited again",
    "half": "the first page becomes read-only, and writable again: the least that splits and merges",
    "ksm": "pages become mergeable and are merged, and ksmd scans",
    "migrate": "pages move to another place in memory",
    "mremap": "pages move to another area's place, or away",
    "pin": "pages are pinned, and unpinned",
    "rwx": "areas are mapped, and pages made, executable, too",
    "swap": "pages are swapped out, and in",
}
"""What a history can be made of; those of :data:`CORE` unless others are named."""

AWAY = ("Away", 256)  # an area apart from all others: its name, and how many pages behind the first


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far to explore.

    ``processes`` live at a time, ``areas`` of ``pages`` pages each, ``calls``
    after the start, ``fail_alloc`` failed allocations in one history, and the
    ``operations`` that it is made of, of :data:`OPERATIONS`.
    """

    processes: int = 3
    areas: int = 2
    pages: int = 1
    calls: int = 7
    fail_alloc: int = 1
    operations: tuple[str, ...] = CORE

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name == "operations":
                continue
            least = 0 if name in ("calls", "fail_alloc") else 1
            if value < least:
                raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")
        if self.areas > 26:
            raise UsageError(f"--areas is {self.areas}; there are names for 26")
        for operation in self.operations:
            if operation not in OPERATIONS:
                close = difflib.get_close_matches(operation, OPERATIONS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(OPERATIONS)}"
                raise UsageError(f"--operations: there is no {operation!r}; {hint}")

    def start(self, number: int) -> int:
        """Where the area of a number begins, in bytes."""
        return MMAP_BASE + number * self.pages * PAGE_SIZE


def calls(kernel: Kernel, bounds: Bounds, created: int) -> Iterator[Drawn]:
    """Every call worth making, in a fixed order; a child is called after ``created``."""
    operations = frozenset(bounds.operations)
    processes = list(kernel.processes.values())
    for process in processes:
        alphabet = _Alphabet(process, bounds, operations)
        slots = [(_name(number), bounds.start(number)) for number in range(bounds.areas)]
        for name, start in slots:
            if name not in process.areas or process.areas[name].start == start:
                yield from alphabet.on_slot(name, start)
        for name, area in process.areas.items():
            if (name, area.start) not in slots and name != STACK:  # brought along by a scenario, or moved away
                yield from alphabet.on_area(name, area)
        if "fork" in operations and len(processes) < bounds.processes:
            yield Fork(process.name, f"P{created}")
        if "exec" in operations and process.mm.vmas:
            yield Exec(process.name)
        if "exit" in operations:
            yield Exit(process.name)
    if "ksm" in operations and kernel.stable_tree:
        yield Ksmd()


def _name(number: int) -> str:
    return chr(ord("A") + number)


class _Alphabet:
    """The calls of one process on its areas."""

    def __init__(self, process: Process, bounds: Bounds, operations: frozenset[str]) -> None:
        self.process = process
        self.name = process.name
        self.bounds = bounds
        self.operations = operations
        self.further = not operations <= _ON_RANGES

    def on_slot(self, name: str, start: int) -> Iterator[Call]:
        """The place of an area: mapped if it is free, else what can be done to the area there."""
        vmas, pages = self.process.mm.vmas, self.bounds.pages
        at = self.process.mm.find(start)
        if at == len(vmas) or vmas[at].vm_start >= start + pages * PAGE_SIZE:
            if "mmap" in self.operations:
                yield Mmap(self.name, name, pages, at=start)
                if "rwx" in self.operations:
                    yield Mmap(self.name, name, pages, at=start, prot="rwx")
        elif name in self.process.areas:
            yield from self.on_area(name, self.process.areas[name])

    def on_area(self, name: str, area: Area) -> Iterator[Call]:
        """Pages one by one, then ranges of them."""
        mm, operations = self.process.mm, self.operations
        flags: list[int | None] = []  # of the VMA at each page
        for index in range(area.pages):
            address = area.page(index)
            vma = mm.lookup(address)
            flags.append(None if vma is None else vma.vm_flags)
            if vma is None:
                continue
            pte = mm.page_table.present(address)
            pages = Pages(name, index, index)
            if vma.vm_flags & VM_WRITE and (pte is None or not pte.writable) and "write" in operations:
                yield Write(self.name, pages)
            if vma.vm_flags & VM_READ and pte is None and "read" in operations:
                yield Read(self.name, pages)
            if self.further:
                yield from self.on_page(pages, address, vma.vm_flags)
        for first in range(area.pages):
            for last in range(first, area.pages):
                if flags[first] is not None and flags[last] is not None:
                    yield from self.on_range(Pages(name, first, last), flags[first : last + 1])

    def on_page(self, pages: Pages, address: int, flags: int) -> Iterator[Call]:
        """What happens to a page behind the process's back."""
        operations, name = self.operations, self.name
        entry = self.process.mm.page_table.get(address)
        if isinstance(entry, SwapPte) and "swap" in operations:
            yield Swapin(name, pages)
        if not isinstance(entry, Pte) or not entry.folio.anon:
            return
        if "swap" in operations:
            yield Swapout(name, pages)
        if "migrate" in operations:
            yield Migrate(name, pages)
        if "pin" in operations:
            yield Unpin(name, pages) if entry.folio.pins else Pin(name, pages)
        if "ksm" in operations and flags & VM_MERGEABLE and entry.folio.stable_node is None:
            yield Ksm(name, pages, "zeros")

    def on_range(self, pages: Pages, flags: list[int | None]) -> Iterator[Call]:
        """What changes VMAs."""
        operations, name = self.operations, self.name
        if "munmap" in operations:
            yield Munmap(name, pages)
        present = [flag for flag in flags if flag is not None]
        if len(present) < len(flags):
            return
        if "mprotect" in operations:
            for prot, access in _RIGHTS if "rwx" in operations else _RIGHTS[:2]:
                if any(flag & _ACCESS != access for flag in present):
                    yield Mprotect(name, pages, prot)
        if not self.further:
            return
        if "half" in operations and pages.last == 0:
            yield Mprotect(name, pages, "r" if present[0] & VM_WRITE else "rw")
        if "mremap" in operations:
            for area, at in self.targets(pages):
                yield Mremap(name, pages, area, at=at)
                yield Mremap(name, pages, area, at=at, dontunmap=True)
        if "fork-advice" in operations:
            for advice, flag, value in _FORK_ADVICE:
                if any(bool(own & flag) is not value for own in present):
                    yield Madvise(name, pages, advice)
        if "ksm" in operations and not all(flag & VM_MERGEABLE for flag in present):
            yield Madvise(name, pages, "mergeable")

    def targets(self, pages: Pages) -> Iterator[tuple[str, int]]:
        """Where pages can move to: name and address (bytes) of each other area's place, and of one apart."""
        bounds = self.bounds
        source = self.process.areas[pages.area].part(pages.first, pages.last)
        places = [(_name(number), bounds.start(number)) for number in range(bounds.areas)]
        for area, at in (*places, (AWAY[0], MMAP_BASE + AWAY[1] * PAGE_SIZE)):
            if area != pages.area and (at >= source.end or at + source.pages * PAGE_SIZE <= source.start):
                yield area, at


_ON_RANGES = frozenset(CORE) | {"exec", "rwx"}
_ACCESS = VM_READ | VM_WRITE | VM_EXEC
_RIGHTS = (("r", VM_READ), ("rw", VM_READ | VM_WRITE), ("rwx", _ACCESS))
_FORK_ADVICE = (
    ("dontfork", VM_DONTCOPY, True),
    ("dofork", VM_DONTCOPY, False),
    ("wipeonfork", VM_WIPEONFORK, True),
    ("keeponfork", VM_WIPEONFORK, False),
)
