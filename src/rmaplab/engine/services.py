# SPDX-License-Identifier: GPL-2.0-only
"""The services on rows: slab with its failure plan, locks, and what is reached.

They count and complain as :mod:`rmaplab.kernel.slab` and
:mod:`rmaplab.kernel.locking` do.  Of the locks only the anon_vmas' are known
by their owners; the others nest in one way here, and are counted.
"""

from __future__ import annotations

from rmaplab.engine.jit import compiled, inlined
from rmaplab.engine.layout import ANON_VMA, IDS, LOCKS, MACHINE, REACHED, SLAB, Avcs, Rows
from rmaplab.engine.rows import new_avc, new_row, report, retire_avc, retire_row

__all__ = [
    "alloc_anon_vma",
    "alloc_avc",
    "crash",
    "free_anon_vma",
    "free_avc",
    "holds",
    "lock",
    "lock_anon_vma_root",
    "reach",
    "reserve",
    "unlock",
]

ANON_VMA_STRIDE, AVC_STRIDE = 104, 64  # bytes that an object takes in its slab


@compiled
def crash(m: Rows) -> None:
    """KernelBug: the modelled kernel cannot go on; what it does from here on does not count."""
    m[MACHINE].crashed = 1


@compiled
def reach(m: Rows, what: int) -> None:
    """Count a *sometimes* property."""
    m[REACHED].reached[what] += 1


# --- slab ------------------------------------------------------------------------------------


@inlined
def _granted(m: Rows, nowait: bool) -> bool:
    """Whether an allocation of an anon_vma or AVC succeeds."""
    if m[SLAB].retrying and not nowait:
        m[SLAB].retrying = 0
    else:
        m[SLAB].count += 1
    if m[MACHINE].number_held:
        m[LOCKS].allocations_under_lock += 1
        if not nowait:
            report(m, 25)
    if m[SLAB].count != m[SLAB].fail_at or (m[SLAB].nowait_only and not nowait):
        return True
    m[SLAB].retrying = nowait
    m[SLAB].failed += 1
    return False


@inlined
def _charge(m: Rows, size: int) -> None:
    m[SLAB].bytes += size
    m[SLAB].peak_bytes = max(m[SLAB].peak_bytes, m[SLAB].bytes)


@compiled
def alloc_anon_vma(m: Rows) -> int:
    """An anon_vma that is its own root and parent; 0 if the plan says so."""
    if not _granted(m, False):
        return 0
    anon_vma = new_row(m, ANON_VMA)
    m[IDS].anon_vmas += 1
    m[anon_vma].id = m[anon_vma].parent_id = m[IDS].anon_vmas
    m[anon_vma].root = m[anon_vma].parent = anon_vma
    m[SLAB].live_anon_vmas += 1
    m[SLAB].peak_anon_vmas = max(m[SLAB].peak_anon_vmas, m[SLAB].live_anon_vmas)
    _charge(m, ANON_VMA_STRIDE)
    return anon_vma


@compiled
def free_anon_vma(m: Rows, anon_vma: int) -> None:
    """Give it back; twice is reported and changes nothing."""
    if m[anon_vma].freed:
        report(m, 18)
        return
    m[SLAB].wasted += not m[anon_vma].linked
    m[SLAB].live_anon_vmas -= 1
    m[SLAB].bytes -= ANON_VMA_STRIDE
    retire_row(m, anon_vma)


@inlined
def alloc_avc(m: Rows, c: Avcs, nowait: bool) -> int:
    """An AVC; 0 if the plan says so."""
    if not _granted(m, nowait):
        return 0
    m[IDS].avcs += 1
    m[SLAB].live_avcs += 1
    m[SLAB].peak_avcs = max(m[SLAB].peak_avcs, m[SLAB].live_avcs)
    _charge(m, AVC_STRIDE)
    return new_avc(m, c)


@inlined
def free_avc(m: Rows, c: Avcs, avc: int) -> None:
    """Give it back; twice is reported and changes nothing."""
    if c[avc].anon_vma < 0:
        report(m, 18)
        return
    m[SLAB].wasted += c[avc].range == 0
    m[SLAB].live_avcs -= 1
    m[SLAB].bytes -= AVC_STRIDE
    retire_avc(m, c, avc)


@compiled
def reserve(m: Rows) -> None:
    """An allocation of another kind, of which only this matters: none under an anon_vma lock."""
    if m[MACHINE].number_held:
        report(m, 25)


# --- rwsems of anon_vmas -------------------------------------------------------------------------


@compiled
def lock(m: Rows, owner: int, write: bool) -> None:
    """Take an anon_vma's rwsem."""
    held = m[MACHINE].number_held
    if held:
        report(m, 27)
    if held < 4:
        m[MACHINE].held[held] = owner
        m[MACHINE].held_write[held] = write
    m[MACHINE].number_held = held + 1
    m[LOCKS].anon_vma_locks += 1
    m[LOCKS].before = m[LOCKS].tree_operations


@compiled
def unlock(m: Rows, owner: int) -> None:
    """Release it; one that is not held is reported."""
    held = m[MACHINE].number_held
    at = min(held, 4) - 1
    while at >= 0 and m[MACHINE].held[at] != owner:
        at -= 1
    if at < 0:
        report(m, 29)
        return
    for behind in range(at, 3):
        m[MACHINE].held[behind] = m[MACHINE].held[behind + 1]
        m[MACHINE].held_write[behind] = m[MACHINE].held_write[behind + 1]
    m[MACHINE].number_held = held - 1
    m[LOCKS].longest_hold = max(m[LOCKS].longest_hold, m[LOCKS].tree_operations - m[LOCKS].before)


@inlined
def holds(m: Rows, owner: int, write: bool) -> bool:
    """Whether an anon_vma's rwsem is held, at least in this mode."""
    for at in range(min(m[MACHINE].number_held, 4)):
        if m[MACHINE].held[at] == owner and (m[MACHINE].held_write[at] or not write):
            return True
    return False


@compiled
def lock_anon_vma_root(m: Rows, root: int, anon_vma: int) -> int:
    """Hold the root of this anon_vma, given the one held so far; returns the one held now."""
    wanted = m[anon_vma].root
    if wanted != root:
        if root:
            report(m, 39)
            unlock(m, root)
        lock(m, wanted, True)
    return wanted
