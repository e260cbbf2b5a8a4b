# SPDX-License-Identifier: GPL-2.0-only
"""Calls of the scenario language as lines of C."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rmaplab.kernel.exec import STACK_TOP
from rmaplab.kernel.objects import START_BRK
from rmaplab.kernel.process import MMAP_BASE
from rmaplab.scenario import (
    HEAP,
    Brk,
    Ksm,
    Ksmd,
    Madvise,
    Migrate,
    Mlock,
    Mmap,
    Mprotect,
    Mremap,
    Munlock,
    Munmap,
    Pages,
    Read,
    StackGrow,
    Swapin,
    Swapout,
    Walk,
    Write,
)

if TYPE_CHECKING:
    from rmaplab.kernel import Area
    from rmaplab.scenario import Call

__all__ = ["Places", "Said", "grown", "mapped", "said"]

_PROT = {"r": "PROT_READ", "w": "PROT_WRITE", "x": "PROT_EXEC"}
_AREAS, _STACK = 0x10_0000_0000, 0x30_0000_0000  # free in every program, and below 512 GiB: user mode has no more
_ADVICE = {
    "guard-install": "MADV_GUARD_INSTALL",
    "guard-remove": "MADV_GUARD_REMOVE",
    "collapse": "MADV_COLLAPSE",
}
_NUMBERS = {  # of constants that an old libc lacks (include/uapi/asm-generic/mman-common.h)
    "MADV_PAGEOUT": 21,
    "MADV_COLLAPSE": 25,
    "MADV_GUARD_INSTALL": 102,
    "MADV_GUARD_REMOVE": 103,
    "MREMAP_DONTUNMAP": 4,
}


class Said(NamedTuple):
    """A call in C: an expression that is 0 or -1 with errno, the helpers it takes, and remarks."""

    code: str
    helpers: tuple[str, ...] = ()
    remark: str = ""


class Places:
    """Where areas are in the program: as far apart as in the model, and out of the way of libraries.

    ``defined`` are the names of addresses, ``missing`` constants that the program defines if the libc does not.
    """

    def __init__(self) -> None:
        self.defined: dict[str, int] = {}
        self.missing: dict[str, int] = {}
        self.files: dict[str, str] = {}

    def constant(self, name: str) -> str:
        """A constant that an old libc may lack."""
        if name in _NUMBERS:
            self.missing[name] = _NUMBERS[name]
        return name

    def pages(self, pages: Pages, areas: dict[str, Area]) -> str:
        """The address of the first of some pages."""
        return self.at(pages.area, areas[pages.area].start, pages.first)

    def at(self, name: str, start: int, page: int = 0) -> str:
        """A page of an area that begins at an address of the model."""
        base = "heap" if name == HEAP and start == START_BRK else self.name(name, start)
        return f"{base} + {page} * PAGE" if page else base

    def name(self, name: str, start: int) -> str:
        """What the program calls the place; a name that had another place before gets a number."""
        place = start  # as somebody has asked for
        if 0 <= STACK_TOP - start < 1 << 32:
            place = _STACK - (STACK_TOP - start)
        elif start >= MMAP_BASE:
            place = _AREAS + (start - MMAP_BASE)
        for number in range(1, 1000):
            called = f"area_{name}" if number == 1 else f"area_{name}_{number}"
            if self.defined.setdefault(called, place) == place:
                return called
        raise ValueError(f"{name} is in a thousand places")


def said(call: Call | Walk | Ksmd, areas: dict[str, Area], places: Places) -> Said | None:
    """The call in C; None for what a program cannot ask for. ``areas`` are those of the model before the call."""
    pages = getattr(call, "range", None)
    where = places.pages(pages, areas) if isinstance(pages, Pages) and pages.area in areas else ""
    count = pages.count if isinstance(pages, Pages) else 0
    size = f"{count} * PAGE" if count > 1 else "PAGE"
    if isinstance(pages, Pages) and not where:
        return Said("0", (), "the call that should have mapped it was refused")
    match call:
        case Munmap():
            return Said(f"munmap({where}, {size})")
        case Mprotect(prot=prot):
            return Said(f"mprotect({where}, {size}, {_rights(prot)})")
        case Read():
            return Said(f"touch({where}, {count}, 0)", ("touch",))
        case Write():
            return Said(f"touch({where}, {count}, 1)", ("touch",))
        case Mremap():
            return _mremap(call, where, areas, places)
        case Madvise(advice=advice):
            name = _ADVICE.get(advice, f"MADV_{advice.upper()}")
            return Said(f"madvise({where}, {size}, {places.constant(name)})")
        case Mlock():
            return Said(f"mlock({where}, {size})")
        case Munlock():
            return Said(f"munlock({where}, {size})")
        case Swapout():
            return Said(f"madvise({where}, {size}, {places.constant('MADV_PAGEOUT')})", (), "takes swap space")
        case Swapin():
            return Said(f"touch({where}, {count}, 0)", ("touch",))
        case Brk(pages=change):
            return Said(f"sbrk({change} * (long)PAGE) == (void *)-1 ? -1 : 0")
        case Ksm(content=content):
            return Said(f"(memset({where}, {len(content)}, {size}), scan())", ("scan",), "ksmd has to run")
        case Walk():
            return Said(f"madvise({where}, PAGE, {places.constant('MADV_PAGEOUT')})", (), "reclaim walks the page")
        case Migrate():
            return Said("0", (), f"migrate {where}, {size}: by `migratepages` or compaction from outside")
    return None


def mapped(call: Mmap, start: int, places: Places) -> Said:
    """mmap, where the model puts it."""
    flags = ["MAP_SHARED" if call.shared else "MAP_PRIVATE"]
    file = "-1"
    helpers = ["map"]
    if call.file is None:
        flags.append("MAP_ANONYMOUS")
    else:
        file = places.files.setdefault(call.file, f"file_{len(places.files) + 1}")
        helpers.append("file")
    where = places.at(call.area, start)
    return Said(f"map({where}, {call.pages}, {_rights(call.prot)}, {' | '.join(flags)}, {file})", tuple(helpers))


def grown(call: StackGrow, areas: dict[str, Area], places: Places) -> Said:
    """A stack beside the process's own, which grows as that does when somebody writes below it."""
    known = areas.get("stack")
    start = STACK_TOP - 4096 if known is None else known.start
    place = places.at("stack", start)
    lower = places.at("stack", start - call.pages * 4096)
    first = f"map({place}, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1) ||\n\t      "
    return Said(f"{first if known is None else ''}touch({lower}, 1, 1)", ("touch", "map"))


def _mremap(call: Mremap, where: str, areas: dict[str, Area], places: Places) -> Said:
    count = call.range.count
    pages = count if call.pages is None else call.pages
    if call.area == call.range.area and call.at is None and call.fixed is None:
        return Said(f"move({where}, {count}, {pages}, 0, NULL)", ("move",), "where it is, if there is room")
    if call.at is not None:
        target = places.at(call.area, call.at)
    elif call.fixed is not None:
        target = places.pages(call.fixed, areas)
    else:
        target = ""
    flags = "MREMAP_MAYMOVE | MREMAP_FIXED"
    if call.dontunmap:
        flags += f" | {places.constant('MREMAP_DONTUNMAP')}"
    return Said(f"move({where}, {count}, {pages}, {flags}, {target or '@'})", ("move",))


def _rights(prot: str) -> str:
    return " | ".join(_PROT[letter] for letter in prot) if prot != "none" else "PROT_NONE"
