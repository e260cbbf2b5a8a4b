# SPDX-License-Identifier: GPL-2.0-only
"""Steps as numbers: the call, who makes it, on which pages, and which of its allocations is to fail.

Processes are called by number, in the order of their making over the whole
history; areas too, the one apart from all others last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from rmaplab.engine.choice import OPERATIONS
from rmaplab.engine.jit import compiled
from rmaplab.kernel.flags import PAGE_SIZE, VM_EXEC, VM_READ, VM_WRITE

if TYPE_CHECKING:
    from rmaplab.engine.layout import Rows

__all__ = [
    "ADVICE",
    "ALLOWED",
    "AREAS",
    "AWAY",
    "AWAY_PAGES",
    "BOUND_AREAS",
    "BOUND_FAILURES",
    "BOUND_OPERATIONS",
    "BOUND_PAGES",
    "BOUND_PROCESSES",
    "CALL",
    "CONTENT",
    "CONTENT_NUMBER",
    "EXEC",
    "EXIT",
    "FORK",
    "HAS",
    "HAS_EXEC",
    "HAS_EXIT",
    "HAS_FORK",
    "HAS_FORK_ADVICE",
    "HAS_HALF",
    "HAS_KSM",
    "HAS_MIGRATE",
    "HAS_MMAP",
    "HAS_MPROTECT",
    "HAS_MREMAP",
    "HAS_MUNMAP",
    "HAS_PIN",
    "HAS_READ",
    "HAS_RWX",
    "HAS_SWAP",
    "HAS_WRITE",
    "KSM",
    "KSMD",
    "MADVISE",
    "MAX_AREA_PAGES",
    "MAX_N",
    "MAX_PROCESS",
    "MERGEABLE",
    "MIGRATE",
    "MMAP",
    "MMAP_BASE",
    "MPROTECT",
    "MREMAP",
    "MUNMAP",
    "ONLY_FORK_FAILS",
    "ON_AREAS",
    "ON_PAGES",
    "PIN",
    "PROMISES",
    "READ",
    "RIGHTS",
    "STOPS",
    "SWAPIN",
    "SWAPOUT",
    "UNKNOWN_ADVICE",
    "UNPIN",
    "WRITE",
    "access_of",
    "decode",
    "start_of",
    "step_number",
    "with_plan",
]


AREAS, AWAY = 7, 7  # areas that there are names for; the one apart
MMAP_BASE, AWAY_PAGES = 0x7F00_0000_0000, 256
MMAP, WRITE, READ, MUNMAP, MPROTECT, MREMAP, MADVISE, FORK, EXIT = range(1, 10)
SWAPOUT, SWAPIN, MIGRATE, PIN, UNPIN, KSM, KSMD, EXEC = range(10, 18)
CALL = 31  # the part of a step that is the call
RIGHTS = ("r", "rw", "rwx")
ADVICE = ("dontfork", "dofork", "wipeonfork", "keeponfork", "mergeable")
MERGEABLE = 4
CONTENT = "zeros"  # of all pages that KSM merges
CONTENT_NUMBER = crc32(CONTENT.encode())

# What a history is made of, as bits.
HAS = {name: 1 << at for at, name in enumerate(OPERATIONS)}
HAS_EXIT, HAS_FORK, HAS_MMAP, HAS_MPROTECT, HAS_MUNMAP, HAS_READ, HAS_WRITE = (1 << at for at in range(7))
HAS_RWX, HAS_HALF, HAS_MREMAP, HAS_FORK_ADVICE = (1 << at for at in range(7, 11))
HAS_SWAP, HAS_MIGRATE, HAS_PIN, HAS_KSM, HAS_EXEC = (1 << at for at in range(11, 16))
ON_AREAS = ~(HAS_FORK | HAS_EXEC | HAS_EXIT)
ON_PAGES = HAS_SWAP | HAS_MIGRATE | HAS_PIN | HAS_KSM

# Places in the array of bounds.
(
    BOUND_PROCESSES,
    BOUND_AREAS,
    BOUND_PAGES,
    BOUND_FAILURES,
    BOUND_OPERATIONS,
    ONLY_FORK_FAILS,
    UNKNOWN_ADVICE,  # bit n: of ADVICE
    ALLOWED,  # bit n: a violation of AV-n counts
    PROMISES,  # see judge()
    STOPS,  # the first violation ends it
) = range(10)


# --- steps as numbers ------------------------------------------------------------------------------


# What a step has room for; 4095 is the last allocation that may fail.
MAX_AREA_PAGES, MAX_PROCESS, MAX_N = 64, 1023, 4095


@compiled
def step_number(call: int, process: int, area: int, first: int, last: int, more: int) -> int:
    """A step in which nothing fails."""
    return call | process << 5 | area << 15 | first << 19 | last << 25 | more << 31


@compiled
def with_plan(step: int, n: int, nowait: int) -> int:
    """The same call with its n-th allocation failing, or only the first attempt at it."""
    return step | n << 43 | nowait << 55


def decode(step: int) -> tuple[int, int, int, int, int, int, int, bool]:
    """Call, process, area, first and last page, more (rights, advice or target; the child), and the plan."""
    parts = ((0, 5), (5, 10), (15, 4), (19, 6), (25, 6), (31, 12), (43, 12), (55, 1))
    call, process, area, first, last, more, n, nowait = (step >> at & (1 << bits) - 1 for at, bits in parts)
    return call, process, area, first, last, more, n, bool(nowait)


@compiled
def start_of(bounds: Rows, area: int) -> int:
    """Where an area is, in bytes."""
    pages = AWAY_PAGES if area == AWAY else area * bounds[BOUND_PAGES]
    return MMAP_BASE + pages * PAGE_SIZE


@compiled
def access_of(rights: int) -> int:
    """VM_ bits of one of :data:`RIGHTS`."""
    return VM_READ | (VM_WRITE if rights else 0) | (VM_EXEC if rights == 2 else 0)
