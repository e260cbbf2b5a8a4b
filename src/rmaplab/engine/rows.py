# SPDX-License-Identifier: GPL-2.0-only
"""Where rows come from and go to."""

from __future__ import annotations

from rmaplab.engine.jit import compiled, inlined
from rmaplab.engine.layout import ANON_VMA, FIRST, FOLIO, ITEM, MACHINE, NONE, RANGE, VMA, Avcs, Rows

__all__ = [
    "free_row",
    "new_avc",
    "new_row",
    "report",
    "retire_avc",
    "retire_row",
    "settle",
]


@compiled
def report(m: Rows, number: int) -> None:
    """File a complaint against an invariant: AV-``number``."""
    m[MACHINE].reports |= 1 << number


@compiled
def new_row(m: Rows, kind: int) -> int:
    """A row full of zeroes; MemoryError if there is none, which callers see to beforehand."""
    row = m[MACHINE].free_row
    if row:
        m[MACHINE].free_row = m[row].up
        m[MACHINE].free_rows -= 1
    else:
        row = m[MACHINE].used
        if row >= len(m):
            raise MemoryError("the engine's array of objects is full")
        m[MACHINE].used = row + 1
    m[row].key = 0
    m[row].left = m[row].right = m[row].up = m[row].id = 0
    m[row].kind = kind
    m[row].freed = m[row].linked = m[row].attached = 0
    m[row].vm_mm = 0
    for at in range(16):
        m[row].pte[at] = 0
    return row


@compiled
def retire_row(m: Rows, row: int) -> None:
    """Give a row back: at once, or, where freed objects may still be looked at, at the next settle()."""
    m[row].freed = 1
    if m[MACHINE].keeps:
        m[row].key = m[MACHINE].retired
        m[MACHINE].retired = row
    else:
        free_row(m, row)


@compiled
def free_row(m: Rows, row: int) -> None:
    """Give a row back at once: one that nobody else can know of."""
    m[row].kind = NONE
    m[row].up = m[MACHINE].free_row
    m[MACHINE].free_row = row
    m[MACHINE].free_rows += 1


@inlined
def new_avc(m: Rows, c: Avcs) -> int:
    """An AVC that links nothing yet; MemoryError if there is none, which callers see to beforehand."""
    avc = m[MACHINE].free_avc
    if avc:
        m[MACHINE].free_avc = c[avc].before
        m[MACHINE].free_avcs -= 1
    else:
        avc = m[MACHINE].used_avcs
        if avc >= len(c):
            raise MemoryError("the engine's array of AVCs is full")
        m[MACHINE].used_avcs = avc + 1
    c[avc].vma = c[avc].anon_vma = c[avc].range = 0
    c[avc].before = c[avc].after = c[avc].earlier = c[avc].later = 0
    return avc


@inlined
def retire_avc(m: Rows, c: Avcs, avc: int) -> None:
    """Give an AVC back, as :func:`retire_row` does a row; one that still stands in an index is lost."""
    if not m[MACHINE].keeps:
        _recycle_avc(m, c, avc)
        return
    c[avc].anon_vma = -c[avc].anon_vma
    if c[avc].range <= 0:
        c[avc].earlier = m[MACHINE].retired_avc
        m[MACHINE].retired_avc = avc


@compiled
def _recycle_avc(m: Rows, c: Avcs, avc: int) -> None:
    c[avc].vma = c[avc].anon_vma = 0
    c[avc].before = m[MACHINE].free_avc
    m[MACHINE].free_avc = avc
    m[MACHINE].free_avcs += 1


@compiled
def settle(m: Rows, c: Avcs) -> None:
    """Recycle what was retired and what nothing points to any more."""
    if not m[MACHINE].retired and not m[MACHINE].retired_avc:
        return
    _mark_named(m, c)
    avc, m[MACHINE].retired_avc = m[MACHINE].retired_avc, 0
    while avc:
        following = c[avc].earlier
        if c[avc].later:
            c[avc].later = 0
            c[avc].earlier = m[MACHINE].retired_avc
            m[MACHINE].retired_avc = avc
        else:
            _recycle_avc(m, c, avc)
        avc = following
    row, m[MACHINE].retired = m[MACHINE].retired, 0
    while row:
        following = m[row].key
        if m[row].up:
            m[row].up = 0
            m[row].key = m[MACHINE].retired
            m[MACHINE].retired = row
        else:
            free_row(m, row)
        row = following


@compiled
def _mark_named(m: Rows, c: Avcs) -> None:
    """Set ``up`` of retired objects, and ``later`` of retired AVCs, that something points to."""
    for row in range(FIRST, m[MACHINE].used):
        kind = m[row].kind
        if kind == VMA or kind == RANGE:
            _mark_avc(c, m[row].head)
            _mark_avc(c, m[row].tail)
        if m[row].freed:
            continue
        if kind == VMA:
            _mark_row(m, m[row].anon_vma)
        elif kind == ANON_VMA:
            _mark_row(m, m[row].root)
            _mark_row(m, m[row].parent)
        elif kind == FOLIO:
            _mark_row(m, m[row].mapping)
        elif kind == ITEM:
            _mark_row(m, m[row].item_anon_vma)
    for avc in range(1, m[MACHINE].used_avcs):
        if c[avc].anon_vma > 0:
            _mark_row(m, c[avc].vma)
            _mark_row(m, c[avc].anon_vma)
            _mark_avc(c, c[avc].before)
            _mark_avc(c, c[avc].after)


@compiled
def _mark_row(m: Rows, row: int) -> None:
    if row and m[row].freed:
        m[row].up = 1


@compiled
def _mark_avc(c: Avcs, avc: int) -> None:
    if avc and c[avc].anon_vma < 0 and c[avc].range <= 0:
        c[avc].later = 1
