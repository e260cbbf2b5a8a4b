# SPDX-License-Identifier: GPL-2.0-only
"""How many rows and AVCs the next call of a replay may take: never fewer than it does.

A call that runs out of room half-way cannot be taken back, so there is
enough before it begins.  Of a VMA that a call changes both ends may be split
off, it may merge with both neighbours, and be copied; whatever moves in the
index may need a range of its own.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from rmaplab.engine.calls import EXEC, EXIT, FORK, MADVISE, MPROTECT, MREMAP
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import MACHINE, Avcs, Rows
from rmaplab.engine.mmap import GUARD_INSTALL
from rmaplab.engine.trees import tree_first, tree_next
from rmaplab.engine.vma_adjust import find

if TYPE_CHECKING:
    from rmaplab.engine.tally import Array

__all__ = ["grown", "has_room", "is_roomy"]

LARGE = 1 << 20  # bytes of an array


@compiled
def _fits(m: Rows, c: Avcs, tally: Array, overflow: Array, rows: int, avcs: int, values: int) -> bool:
    return (
        m[MACHINE].free_rows + len(m) - m[MACHINE].used >= rows
        and m[MACHINE].free_avcs + len(c) - m[MACHINE].used_avcs >= avcs
        and len(overflow) - tally[0].overflown >= values
    )


@compiled
def is_roomy(m: Rows, c: Avcs, tally: Array, overflow: Array, rows: int, avcs: int, values: int) -> bool:
    """Whether there is room for so many rows, AVCs and values of histograms; if not, the tally says what it takes."""
    if _fits(m, c, tally, overflow, rows, avcs, values):
        return True
    tally[0].more_rows = rows
    tally[0].more_avcs = avcs
    tally[0].more_values = values
    return False


@compiled
def has_room(
    m: Rows, c: Avcs, tally: Array, overflow: Array, kind: int, process: int, events: Array, at: int
) -> bool:
    """Whether there is room for a call of a process (0: none yet), be it all but a run of page faults."""
    if not process:
        return is_roomy(m, c, tally, overflow, 16, 4, 16)
    mm, longest = m[process].mm, tally[0].longest
    vmas = m[mm].number_of_vmas
    if kind == FORK:
        rows, avcs = vmas * (longest + 3) + m[mm].number_of_leaves + 16, vmas * (longest + 2)
        if not _fits(m, c, tally, overflow, rows, avcs, vmas + 16):
            links = _links(m, mm)
            rows, avcs = links + 3 * vmas + m[mm].number_of_leaves + 16, links + 2 * vmas
        return is_roomy(m, c, tally, overflow, rows, avcs, vmas + 16)
    if kind == EXIT or kind == EXEC:
        return is_roomy(m, c, tally, overflow, 16, 4, vmas + 16)
    parts = leaves = 0
    if kind == MPROTECT or kind == MADVISE or kind == MREMAP:
        parts = vmas
        start, end = events[at, 2], events[at, 3]
        if kind == MREMAP:
            leaves = 2 * min(m[mm].number_of_leaves, (end >> 16) + 2)
            end += start
        if kind == MADVISE and events[at, 4] == GUARD_INSTALL:
            leaves = _leaves(m, mm, start, end)
        if not _fits(m, c, tally, overflow, _rows(parts, longest) + leaves, _avcs(parts, longest), 16):
            parts = _parts(m, mm, start, end)
    return is_roomy(m, c, tally, overflow, _rows(parts, longest) + leaves, _avcs(parts, longest), 16)


@compiled
def _rows(parts: int, longest: int) -> int:
    return (parts + 1) * (12 * longest + 16)


@compiled
def _avcs(parts: int, longest: int) -> int:
    return (parts + 1) * (6 * longest + 4)


@compiled
def _links(m: Rows, mm: int) -> int:
    """The AVCs of an address space."""
    links, vma = 0, tree_first(m, m[mm].vmas)
    while vma:
        links += m[vma].length
        vma = tree_next(m, vma)
    return links


@compiled
def _parts(m: Rows, mm: int, start: int, end: int) -> int:
    """The VMAs that a range (bytes) meets."""
    parts, vma = 0, find(m, mm, start)
    while vma and m[vma].key < end:
        parts += 1
        vma = tree_next(m, vma)
    return parts


@compiled
def _leaves(m: Rows, mm: int, start: int, end: int) -> int:
    """The leaves of a page table that is full where a range (bytes) meets a VMA."""
    leaves, vma = 0, find(m, mm, start)
    while vma and m[vma].key < end:
        leaves += ((min(m[vma].vm_end, end) - max(m[vma].key, start)) >> 16) + 2
        vma = tree_next(m, vma)
    return leaves


def grown(array: Any, used: int, more: int) -> Any:  # noqa: ANN401 (numpy's own)
    """A copy of an array with room for ``more`` behind the part that is in use; the rest costs no memory yet."""
    size = max(2 * len(array), used + more)
    larger = _fresh(size, array.dtype)
    larger[:used] = array[:used]
    return larger


def _fresh(size: int, kind: Any) -> Any:  # noqa: ANN401 (numpy's own)
    """Zeroes that go back to the system when they are freed: the C library keeps some of what it gave."""
    if sys.platform != "linux" or size * kind.itemsize < LARGE:
        return np.zeros(size, kind)
    memory = mmap.mmap(-1, size * kind.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, kind)
