# SPDX-License-Identifier: GPL-2.0-only
"""Makes the call of a step (:mod:`rmaplab.engine.search.steps`)."""

from __future__ import annotations

from errno import EINVAL

from rmaplab.engine import calls
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import MACHINE, SLAB, Avcs, Rows
from rmaplab.engine.mmap import PRIVATE_ANONYMOUS_FLAGS, PRIVATE_FLAGS, SET_FLAGS
from rmaplab.engine.search.steps import (
    BOUND_PAGES,
    CALL,
    CONTENT_NUMBER,
    EXIT,
    FORK,
    KSM,
    KSMD,
    MERGEABLE,
    MIGRATE,
    MMAP,
    MPROTECT,
    MREMAP,
    MUNMAP,
    PIN,
    READ,
    SWAPIN,
    SWAPOUT,
    UNKNOWN_ADVICE,
    UNPIN,
    WRITE,
    access_of,
    start_of,
)
from rmaplab.kernel.flags import PAGE_SIZE, VM_DONTCOPY, VM_MERGEABLE, VM_WIPEONFORK

__all__ = [
    "make_step",
]


@compiled
def make_step(m: Rows, c: Avcs, bounds: Rows, step: int) -> int:
    """Make a call with the failure plan that its step has; 0 or above, or a negative errno."""
    call, number, area = step & CALL, step >> 5 & 1023, step >> 15 & 15
    first, last, more = step >> 19 & 63, step >> 25 & 63, step >> 31 & 4095
    m[SLAB].count = m[SLAB].failed = m[SLAB].retrying = 0
    m[SLAB].fail_at = step >> 43 & 4095
    m[SLAB].nowait_only = step >> 55 & 1
    m[MACHINE].reports = 0
    m[MACHINE].crashed = m[MACHINE].number_held = 0
    process = m[MACHINE].first_process
    while process and m[process].id != number:
        process = m[process].later
    rc = _make(m, c, bounds, process, call, area, first, last, more)
    m[SLAB].fail_at = 0
    return rc


@compiled
def _make(
    m: Rows, c: Avcs, bounds: Rows, process: int, call: int, area: int, first: int, last: int, more: int
) -> int:
    start = start_of(bounds, area) + first * PAGE_SIZE
    size = (last - first + 1) * PAGE_SIZE
    end = start + size
    if call == WRITE or call == READ:
        return calls.make(m, c, calls.FAULT, process, start, call == WRITE, 0, 0, 0, 0)
    if call == MUNMAP:
        return calls.make(m, c, calls.MUNMAP, process, start, end, 0, 0, 0, 0)
    if call == MPROTECT:
        return calls.make(m, c, calls.MPROTECT, process, start, end, access_of(more), 0, 0, 0)
    if call == FORK:
        child = calls.make(m, c, calls.FORK, process, more, 0, 0, 0, 0, 0)
        if child > 0:
            for at in range(8):
                m[child].area_pages[at] = m[process].area_pages[at]
        return child
    if call == EXIT:
        return calls.make(m, c, calls.EXIT, process, 0, 0, 0, 0, 0, 0)
    if call == MMAP:
        pages = bounds[BOUND_PAGES]
        rc = calls.make(m, c, calls.MMAP, process, start, start + pages * PAGE_SIZE, access_of(more), 0, -1, 0)
        m[process].area_pages[area] = pages if rc == 0 else 0
        return rc
    if call == MREMAP:
        target = more & 15
        place, flags = start_of(bounds, target), 2 | more >> 4
        rc = calls.make(m, c, calls.MREMAP, process, start, size, size, place, flags, -1)
        m[process].area_pages[target] = size // PAGE_SIZE if rc > 0 else 0
        return rc
    if call >= SWAPOUT:
        return _make_on_page(m, c, process, call, start)
    if bounds[UNKNOWN_ADVICE] >> more & 1:
        return -EINVAL
    if more == MERGEABLE:
        return calls.make(m, c, calls.MADVISE, process, start, end, PRIVATE_FLAGS, VM_MERGEABLE, 0, 0)
    flag = VM_DONTCOPY if more < 2 else VM_WIPEONFORK
    kind = PRIVATE_ANONYMOUS_FLAGS if more == 2 else SET_FLAGS
    added, removed = (0, flag) if more & 1 else (flag, 0)
    return calls.make(m, c, calls.MADVISE, process, start, end, kind, added, removed, 0)


@compiled
def _make_on_page(m: Rows, c: Avcs, process: int, call: int, start: int) -> int:
    """What happens to a page, ksmd's scan, and exec."""
    if call == SWAPOUT:
        return calls.make(m, c, calls.RECLAIM, process, start, 0, 0, 0, 0, 0)
    if call == SWAPIN:
        return calls.make(m, c, calls.SWAPIN, process, start, 0, 0, 0, 0, 0)
    if call == MIGRATE:
        return calls.make(m, c, calls.MIGRATE, process, start, start + PAGE_SIZE, 0, 0, 0, 0)
    if call == PIN:
        return calls.make(m, c, calls.PIN, process, start, 1, 0, 0, 0, 0)
    if call == UNPIN:
        return calls.make(m, c, calls.UNPIN, process, start, 0, 0, 0, 0, 0)
    if call == KSM:
        return calls.make(m, c, calls.KSM, process, start, start + PAGE_SIZE, CONTENT_NUMBER, 0, 0, 0)
    if call == KSMD:
        return calls.make(m, c, calls.KSMD, process, 0, 0, 0, 0, 0, 0)
    rc = calls.make(m, c, calls.EXECVE, process, 0, 0, 0, 0, 0, 0)
    if rc == 0:
        for area in range(8):
            m[process].area_pages[area] = 0
    return rc
