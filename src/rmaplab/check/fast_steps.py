# SPDX-License-Identifier: GPL-2.0-only
"""Steps of the engine as the calls of a scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.execute import NO_PLAN, Plan
from rmaplab.check.steps import Step
from rmaplab.engine.search import steps as alphabet
from rmaplab.scenario import (
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
    from collections.abc import Callable

    from rmaplab.check.histories import Bounds
    from rmaplab.scenario.generator import Drawn

__all__ = [
    "area_name",
    "area_start",
    "step_of",
]


_ON_PAGES: dict[int, Callable[[str, Pages], Drawn]] = {
    alphabet.MIGRATE: Migrate,
    alphabet.MUNMAP: Munmap,
    alphabet.PIN: Pin,
    alphabet.READ: Read,
    alphabet.SWAPIN: Swapin,
    alphabet.SWAPOUT: Swapout,
    alphabet.UNPIN: Unpin,
    alphabet.WRITE: Write,
}


def step_of(number: int, bounds: Bounds) -> Step:
    """A step of the engine as a call of a scenario with its failure plan."""
    call, who, area, first, last, more, n, nowait = alphabet.decode(number)
    process, name = f"P{who}", area_name(area)
    pages = Pages(name, first, last)
    made: Drawn
    if call == alphabet.MMAP:
        made = Mmap(process, name, bounds.pages, at=bounds.start(area), prot=alphabet.RIGHTS[more])
    elif call == alphabet.MPROTECT:
        made = Mprotect(process, pages, alphabet.RIGHTS[more])
    elif call == alphabet.MREMAP:
        target = more & 15
        made = Mremap(process, pages, area_name(target), at=area_start(target, bounds), dontunmap=bool(more >> 4))
    elif call == alphabet.MADVISE:
        made = Madvise(process, pages, alphabet.ADVICE[more])
    elif call == alphabet.FORK:
        made = Fork(process, f"P{more}")
    elif call == alphabet.EXIT:
        made = Exit(process)
    elif call == alphabet.EXEC:
        made = Exec(process)
    elif call == alphabet.KSM:
        made = Ksm(process, pages, alphabet.CONTENT)
    elif call == alphabet.KSMD:
        made = Ksmd()
    else:
        made = _ON_PAGES[call](process, pages)
    return Step(made, Plan(n, nowait) if n else NO_PLAN)


def area_name(number: int) -> str:
    """What scenarios call an area that the engine knows by a number."""
    return "Away" if number == alphabet.AWAY else chr(ord("A") + number)


def area_start(number: int, bounds: Bounds) -> int:
    """Where an area is, in bytes."""
    return bounds.start(0) + (alphabet.AWAY_PAGES << 12) if number == alphabet.AWAY else bounds.start(number)
