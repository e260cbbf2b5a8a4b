# SPDX-License-Identifier: GPL-2.0-only
"""The order of processes that does not depend on how a state came about.

They are sorted by a local shape, equal ones stay in the order of their
making, as in :mod:`rmaplab.check.state`.
"""

from __future__ import annotations

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import MACHINE, Avcs, Rows
from rmaplab.engine.pagetable import GUARD, is_anon
from rmaplab.engine.trees import tree_first, tree_next

__all__ = ["number_of_mm", "sorted_processes"]

ROOM_FOR_A_COUNTER = 4095


@compiled
def sorted_processes(m: Rows, c: Avcs, shapes: Rows) -> int:
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
def number_of_mm(m: Rows, processes: Rows, count: int, mm: int) -> int:
    """The number of an address space among those of the first processes in order; -1: it is none of theirs."""
    number = 0
    for at in range(count):
        own = m[processes[at]].mm
        if own == mm:
            return number
        number += m[own].users == 1 or _is_first(m, processes, at)
    return -1


@compiled
def _is_first(m: Rows, processes: Rows, at: int) -> bool:
    """Whether no process before this one has its address space."""
    before = 0
    while before < at and m[processes[before]].mm != m[processes[at]].mm:
        before += 1
    return before == at


@compiled
def _is_less(shapes: Rows, one: int, other: int) -> bool:
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
def _shape(m: Rows, c: Avcs, shapes: Rows, to: int, mm: int) -> int:
    """Write what can be said of a process without naming shared objects, from an item on; the one behind.

    Several numbers are one item where that does not change the order.  A VMA
    and a page that begin at one address are told apart by bit 27, as the
    VMA's end is above any mapcount.
    """
    vma = tree_first(m, m[mm].vmas)
    while vma:
        shapes[to] = m[vma].key >> 12 << 28 | 1 << 27
        shapes[to + 1] = m[vma].vm_end
        shapes[to + 2] = m[vma].vm_flags
        to += 3
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
