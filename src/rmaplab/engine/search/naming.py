# SPDX-License-Identifier: GPL-2.0-only
"""Names for the objects of a state that do not depend on how it came about.

Processes are sorted by a local shape, equal ones stay in the order of their
making, and objects are numbered as they turn up: as
:mod:`rmaplab.check.state` does it, so that the same states are equal.

``s`` (int64, rows x 8) is scratch for machines of so many rows: of a row of
``m`` which naming numbered it last and its number, the rows in the order of
their numbers, and places to count in.
"""

from __future__ import annotations

import numpy as np

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import ANON_VMA, FIRST, MACHINE, Avcs, Rows
from rmaplab.engine.pagetable import GUARD, is_anon
from rmaplab.engine.trees import tree_first, tree_next

__all__ = [
    "ANON_VMAS",
    "BELOW",
    "CHILDREN",
    "COUNT",
    "FIRST_USER",
    "FOLIOS",
    "NUMBER",
    "ORDER",
    "PINS",
    "SLOTS",
    "USERS",
    "VMAS",
    "Scratch",
    "begin_numbers",
    "known",
    "number_all",
    "number_of",
    "number_of_mm",
    "scratch",
    "sorted_processes",
]

Scratch = Rows  # numpy.ndarray of int64

VMAS, ANON_VMAS, FOLIOS, SLOTS = range(4)
# Columns of s: the fifth is that of VMAS, which nobody reads, and is used for the counts of all kinds, by row.
STAMP, NUMBER, USERS, CHILDREN, BELOW, COUNT, ORDER = 0, 1, 2, 3, 4, 5, 5
PINS, FIRST_USER = 1, 8  # of who comes when numbers are no longer needed
EPOCH = 0  # the row of s with the number of the naming
COLUMNS = 9
ROOM_FOR_A_COUNTER = 4095


def scratch(room: int) -> Scratch:
    """Scratch for machines of so many rows."""
    return np.zeros((room, COLUMNS), np.int64)


# --- numbers ---------------------------------------------------------------------------------------


@compiled
def begin_numbers(s: Scratch) -> None:
    """Nothing has a number."""
    s[EPOCH, STAMP] += 1
    s[VMAS, COUNT] = s[ANON_VMAS, COUNT] = s[FOLIOS, COUNT] = s[SLOTS, COUNT] = 0


@compiled
def number_of(s: Scratch, row: int, kind: int) -> int:
    """The number of a row among those of its kind, in order of appearance."""
    if s[row, STAMP] == s[EPOCH, STAMP]:
        return s[row, NUMBER]
    number = s[kind, COUNT]
    s[row, STAMP] = s[EPOCH, STAMP]
    s[row, NUMBER] = number
    s[kind, COUNT] = number + 1
    if kind != VMAS:
        s[number, ORDER + kind] = row
    return number


@compiled
def known(s: Scratch, row: int, otherwise: int) -> int:
    """Its number, if it has one."""
    return s[row, NUMBER] if s[row, STAMP] == s[EPOCH, STAMP] else otherwise


@compiled
def number_all(m: Rows, s: Scratch) -> None:
    """Number the allocated anon_vmas that nothing led to, the oldest first."""
    while True:
        oldest = 0
        for row in range(FIRST, m[MACHINE].used):
            unknown = m[row].kind == ANON_VMA and not m[row].freed and s[row, STAMP] != s[EPOCH, STAMP]
            if unknown and (not oldest or m[row].id < m[oldest].id):
                oldest = row
        if not oldest:
            return
        number_of(s, oldest, ANON_VMAS)


@compiled
def number_of_mm(m: Rows, shapes: Scratch, processes: int, mm: int) -> int:
    """The number of an address space among those of the first processes in order; -1: it is none of theirs."""
    number = 0
    for at in range(processes):
        own = m[shapes[at]].mm
        if own == mm:
            return number
        number += m[own].users == 1 or _is_first(m, shapes, at)
    return -1


@compiled
def _is_first(m: Rows, shapes: Scratch, at: int) -> bool:
    """Whether no process before this one has its address space."""
    before = 0
    while before < at and m[shapes[before]].mm != m[shapes[at]].mm:
        before += 1
    return before == at


# --- the order of processes ------------------------------------------------------------------------


@compiled
def sorted_processes(m: Rows, c: Avcs, shapes: Scratch) -> int:
    """Put the processes into the first items of ``shapes``, sorted by what needs no names; their number."""
    number = m[MACHINE].processes
    process = m[MACHINE].first_process
    for at in range(number):
        shapes[at] = process
        process = m[process].later
    if number < 2:
        return number
    # Behind them for each: where its shape begins; then the shapes, with their length in front.
    end = 2 * number
    for at in range(number):
        process, begin = shapes[at], end
        end = _shape(m, c, shapes, end + 1, m[process].mm)
        shapes[begin] = end - begin - 1
        to = at
        while to and _is_less(shapes, begin, shapes[number + to - 1]):
            shapes[to] = shapes[to - 1]
            shapes[number + to] = shapes[number + to - 1]
            to -= 1
        shapes[to] = process
        shapes[number + to] = begin
    return number


@compiled
def _is_less(shapes: Scratch, one: int, other: int) -> bool:
    """Whether a shape comes before another, as tuples do."""
    length, other_length = shapes[one], shapes[other]
    for at in range(1, min(length, other_length) + 1):
        if shapes[one + at] != shapes[other + at]:
            return shapes[one + at] < shapes[other + at]
    return length < other_length


@compiled
def _counter(value: int) -> int:
    """A counter as a part of a shape's item: too large ones, and those that went below zero, are alike."""
    return value if 0 <= value < ROOM_FOR_A_COUNTER else ROOM_FOR_A_COUNTER


@compiled
def _shape(m: Rows, c: Avcs, shapes: Scratch, to: int, mm: int) -> int:
    """Write what can be said of a process without naming shared objects, from an item on; the one behind.

    Several numbers are one item where that does not change the order.  A VMA
    and a page that begin at one address are told apart by bit 27, as the
    VMA's end is above any mapcount.
    """
    vma = tree_first(m, m[mm].vmas)
    while vma:
        start = m[vma].key >> 12
        shapes[to] = start << 28 | 1 << 27 | ((m[vma].vm_end >> 12) - start)
        shapes[to + 1] = m[vma].vm_flags
        to += 2
        own = m[vma].anon_vma
        avc = m[vma].head
        while avc:
            anon_vma = abs(c[avc].anon_vma)
            item = _counter(m[anon_vma].refcount) << 12 | _counter(m[anon_vma].num_children)
            item = item << 12 | _counter(m[anon_vma].num_active_vmas)
            shapes[to] = item << 13 | m[anon_vma].entries << 1 | (anon_vma == own)
            to += 1
            avc = c[avc].after
        shapes[to] = -1
        to += 1
        vma = tree_next(m, vma)
    leaf = tree_first(m, m[mm].leaves)
    while leaf:
        at, left = 0, m[leaf].present
        while left:
            entry = m[leaf].pte[at]
            if entry:
                left -= 1
                page = ((m[leaf].key << 4) + at) << 28
                if entry < 0 or entry >> 1 == GUARD:  # there is no more than the address; then comes the next one's
                    page |= 1 << 26 if left or tree_next(m, leaf) else 0
                else:
                    page |= 1 << 25 | (entry & 1)
                    if is_anon(entry):
                        page |= m[entry >> 1].mapcount << 2 | m[entry >> 1].exclusive << 1
                shapes[to] = page
                to += 1
            at += 1
        leaf = tree_next(m, leaf)
    return to
