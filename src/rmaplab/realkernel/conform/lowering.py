# SPDX-License-Identifier: GPL-2.0-only
"""From a scenario's calls to what a guest is told: addresses in place of names.

The model makes a call first, since it chooses the places of areas that a
scenario does not place; the guest is told to use the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE
from rmaplab.scenario import (
    HEAP,
    Brk,
    Exit,
    Fork,
    Madvise,
    Mlock,
    Mmap,
    Mprotect,
    Mremap,
    Munlock,
    Munmap,
    Read,
    Write,
)
from rmaplab.scenario.base import OnPages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rmaplab.kernel.area import Area
    from rmaplab.scenario import Call, Pages

__all__ = ["ADVICE", "ARENA", "ARENA_END", "FILES", "HEAP_AT", "HINT", "PERFORMED", "is_told_where", "lower"]

ARENA, ARENA_END = 0x1000_0000, 0x3800_0000
"""Addresses in bytes that a guest's processes do not use for themselves: a fork copies what is there first."""
HINT = 0x2000_0000
"""Where areas go that the scenario does not place."""
HEAP_AT = 0x3000_0000
"""Where heaps begin."""

PROT = {"r": 1, "w": 2, "x": 4}
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 0x1, 0x2, 0x10, 0x20
FILES = 8
"""How many files a guest has."""
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 0x1, 0x2, 0x4
ADVICE = {
    **{"dontneed": 4, "dontfork": 10, "dofork": 11, "mergeable": 12, "unmergeable": 13, "hugepage": 14},
    **{"nohugepage": 15, "dontdump": 16, "dodump": 17, "wipeonfork": 18, "keeponfork": 19, "collapse": 25},
    **{"guard-install": 102, "guard-remove": 103},
}
"""MADV_ constants (mman-common.h)."""
POPULATE = {"read": 22, "write": 23}

PERFORMED = (Brk, Exit, Fork, Madvise, Mlock, Mmap, Mprotect, Mremap, Munlock, Munmap, Read, Write)
"""The calls that a process can make of itself; the others happen to it."""


def _prot(name: str) -> int:
    return 0 if name == "none" else sum(PROT[letter] for letter in set(name))


def _range(areas: Mapping[str, Area], pages: Pages) -> Area | None:
    area = areas.get(pages.area)
    return None if area is None or pages.last >= area.pages else area.part(pages.first, pages.last)


def lower(
    call: Call,
    slots: Mapping[str, int],
    before: Mapping[str, Area],
    after: Mapping[str, Area],
    *,
    place: int,
    file: int = 0,
    errno: str | None = None,
    failing: bool = False,
) -> list[str]:
    """What the guest is told for a call that the model has made, one command for each system call or access.

    ``before`` and ``after`` are the process's areas then, ``place`` is where the
    model puts what is not placed, ``file`` the number of the file that is
    mapped, if one is.  Empty if there is nothing to tell: the name of an area
    means nothing.  With ``failing``, pages
    are populated by one call (MADV_POPULATE_WRITE): a fault that finds no
    memory is tried again for ever, that call says ENOMEM.  :class:`InputError`
    for what no process can do by itself.
    """
    slot = slots[call.process]
    match call:
        case Fork():
            return [f"{slot} fork {slots[call.child]}"]
        case Exit():
            return [f"{slot} exit"]
        case Mmap():
            return _mmap(slot, call, place, file)
        case Brk():
            heap = before.get(HEAP)
            end = (HEAP_AT if heap is None else heap.end) + (call.pages << PAGE_SHIFT)
            return [f"{slot} brk {end:#x}"] if end >= HEAP_AT else []
    if not isinstance(call, PERFORMED) or not isinstance(call, OnPages):
        where = f"line {call.line}: " if call.line else ""
        raise InputError(f"{where}`{call.text or call.call}`: a real kernel does that when it likes, not when told")
    area = _range(before, call.range)
    if area is None:
        return []
    start, length = area.start, area.pages << PAGE_SHIFT
    match call:
        case Read() | Write() if failing:
            return [f"{slot} madvise {start:#x} {length:#x} {POPULATE[call.call]}"]
        case Read() | Write():
            return [f"{slot} {call.call} {at:#x}" for at in range(start, area.end, PAGE_SIZE)]
        case Mprotect():
            return [f"{slot} mprotect {start:#x} {length:#x} {_prot(call.prot)}"]
        case Madvise():
            return [f"{slot} madvise {start:#x} {length:#x} {ADVICE[call.advice]}"]
        case Mremap():
            return _mremap(slot, call, area, before, after, place, errno)
    return [f"{slot} {call.call} {start:#x} {length:#x}"]


def is_told_where(call: Call, command: str) -> bool:
    """Whether a command names a place that its call leaves to the kernel."""
    match call:
        case Mmap(at=None):
            return True
        case Mremap(at=None, fixed=None):
            return bool(int(command.split()[5]) & MREMAP_FIXED)
    return False


def _mmap(slot: int, call: Mmap, place: int, number: int) -> list[str]:
    start = place if call.at is None else call.at
    flags = MAP_FIXED | (MAP_SHARED if call.shared else MAP_PRIVATE) | (MAP_ANONYMOUS if call.file is None else 0)
    file = "" if call.file is None else f" file{number}"
    return [f"{slot} mmap {start:#x} {call.pages << PAGE_SHIFT:#x} {_prot(call.prot)} {flags}{file}"]


def _mremap(
    slot: int,
    call: Mremap,
    area: Area,
    before: Mapping[str, Area],
    after: Mapping[str, Area],
    place: int,
    errno: str | None,
) -> list[str]:
    """To a named place, to the place that the model chose, or, resized under its own name, where it is.

    A resize that has to move goes where the model's went.
    """
    new = (area.pages if call.pages is None else call.pages) << PAGE_SHIFT
    flags, at = MREMAP_MAYMOVE, call.at
    if call.fixed is not None:
        fixed = _range(before, call.fixed)
        if fixed is None:
            return []
        at = fixed.start
    moved = after.get(call.area) if errno is None else None
    if at is None and moved is not None and moved.start != area.start:
        at = moved.start
    if at is None and call.area != call.range.area:
        at = place
    if at is not None:
        flags |= MREMAP_FIXED
    if call.dontunmap:
        flags |= MREMAP_DONTUNMAP
    old = area.pages << PAGE_SHIFT
    return [f"{slot} mremap {area.start:#x} {old:#x} {new:#x} {flags} {0 if at is None else at:#x}"]
