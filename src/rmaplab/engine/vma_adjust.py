# SPDX-License-Identifier: GPL-2.0-only
"""VMAs on rows, and the change of their ranges: :mod:`rmaplab.kernel.vma_adjust`."""

from __future__ import annotations

from errno import ENOMEM

from rmaplab.engine.clone import SPLIT, anon_vma_clone
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import IDS, MACHINE, PARAMS, VMA, Avcs, Rows
from rmaplab.engine.reached import SPLIT_DONE
from rmaplab.engine.rmap import anon_vma_lock_write, anon_vma_unlock_write, insert_avc, remove_avc, vma_lookup
from rmaplab.engine.rows import new_row, report, retire_row
from rmaplab.engine.services import reach
from rmaplab.engine.trees import tree_first, tree_floor, tree_insert, tree_next, tree_remove
from rmaplab.engine.watch import graph_if_failing, unchanged
from rmaplab.kernel.flags import VM_SHARED, VM_STACK_INCOMPLETE_SETUP

__all__ = [
    "find",
    "following_at",
    "origin",
    "previous_to",
    "split_vma",
    "vm_area_alloc",
    "vm_area_dup",
    "vm_area_free",
    "vma_complete",
    "vma_iter_store",
    "vma_prepare",
    "vma_set_range",
    "vma_shrink",
    "vma_unlink",
]


# --- finding -------------------------------------------------------------------------------------


@compiled
def find(m: Rows, mm: int, address: int) -> int:
    """The first VMA that ends above an address (bytes), or 0 (``find_vma``)."""
    tree = m[mm].vmas
    vma = tree_floor(m, tree, address)
    if not vma:
        return tree_first(m, tree)
    return vma if m[vma].vm_end > address else tree_next(m, vma)


@compiled
def previous_to(m: Rows, mm: int, start: int) -> int:
    """The VMA that ends at an address, or 0."""
    vma = vma_lookup(m, mm, start - 1)
    return vma if vma and m[vma].vm_end == start else 0


@compiled
def following_at(m: Rows, mm: int, end: int) -> int:
    """The VMA that begins at an address, or 0."""
    vma = vma_lookup(m, mm, end)
    return vma if vma and m[vma].key == end else 0


# --- objects -------------------------------------------------------------------------------------


@compiled
def vm_area_alloc(m: Rows, mm: int, start: int, end: int, pgoff: int, flags: int, file: int) -> int:
    """A detached VMA with no reverse map."""
    vma = new_row(m, VMA)
    m[IDS].vma_ids += 1
    m[vma].id = m[IDS].vma_ids
    m[vma].vm_mm = mm
    m[vma].key = start
    m[vma].vm_end = end
    m[vma].vm_pgoff = pgoff
    m[vma].anon_pgoff = start >> 12 if m[PARAMS].anon_pgoff_apart else pgoff
    m[vma].vm_flags = flags
    m[vma].file = file
    return vma


@compiled
def vm_area_dup(m: Rows, orig: int) -> int:
    """A detached copy: the anon_vma pointer is copied, the list starts empty."""
    vma = vm_area_alloc(
        m, m[orig].vm_mm, m[orig].key, m[orig].vm_end, m[orig].vm_pgoff, m[orig].vm_flags, m[orig].file
    )
    m[vma].anon_vma = m[orig].anon_vma
    m[vma].anon_pgoff = m[orig].anon_pgoff
    return vma


@compiled
def vm_area_free(m: Rows, vma: int) -> None:
    """Free a VMA."""
    retire_row(m, vma)


@compiled
def vma_iter_store(m: Rows, vma: int) -> None:
    """Store a VMA in its mm."""
    mm = m[vma].vm_mm
    m[mm].vmas = tree_insert(m, m[mm].vmas, vma)
    m[mm].number_of_vmas += 1
    m[vma].attached = 1


@compiled
def vma_unlink(m: Rows, vma: int) -> None:
    """Take a VMA out of its mm."""
    mm = m[vma].vm_mm
    m[mm].vmas = tree_remove(m, m[mm].vmas, vma)
    m[mm].number_of_vmas -= 1
    m[vma].attached = 0


# --- adjusting -----------------------------------------------------------------------------------


@compiled
def vma_set_range(m: Rows, vma: int, start: int, end: int, pgoff: int) -> None:
    """Give a VMA another range (bytes) and page offset."""
    m[vma].anon_pgoff += pgoff - m[vma].vm_pgoff
    m[vma].key = start
    m[vma].vm_end = end
    m[vma].vm_pgoff = pgoff
    anonymous = m[vma].file == 0 and not m[vma].vm_flags & VM_SHARED
    if m[PARAMS].anon_pgoff_apart and anonymous and not m[vma].anon_vma and pgoff != start >> 12:
        report(m, 39)


@compiled
def origin(m: Rows, vma: int) -> int:
    """Where a VMA maps page offset 0, in bytes."""
    return m[vma].key - (m[vma].anon_pgoff << 12)


@compiled
def vma_prepare(m: Rows, c: Avcs, vma: int, other: int) -> int:
    """Lock and take the AVCs of one or two VMAs out of their trees; the lock for :func:`vma_complete`."""
    anon_vma = m[vma].anon_vma
    if not anon_vma and other:
        anon_vma = m[other].anon_vma
    if anon_vma:
        anon_vma_lock_write(m, anon_vma)
        if not m[PARAMS].lists:
            _take_out(m, c, vma)
            if other:
                _take_out(m, c, other)
    return anon_vma


@compiled
def _take_out(m: Rows, c: Avcs, vma: int) -> None:
    avc = m[vma].head
    while avc:
        remove_avc(m, c, avc, c[avc].anon_vma)
        avc = c[avc].after


@compiled
def _put_back(m: Rows, c: Avcs, vma: int) -> None:
    avc = m[vma].head
    while avc:
        insert_avc(m, c, avc, c[avc].anon_vma, 0)
        avc = c[avc].after


@compiled
def vma_complete(m: Rows, c: Avcs, anon_vma: int, vma: int, other: int, was: int, other_was: int) -> None:
    """Put the AVCs back and unlock; ``was`` are the VMAs' origins before."""
    if anon_vma:
        if not m[PARAMS].lists:
            _put_back(m, c, vma)
            if other:
                _put_back(m, c, other)
        anon_vma_unlock_write(m, anon_vma)
    _check_origin(m, vma, was)
    if other:
        _check_origin(m, other, other_was)


@compiled
def _check_origin(m: Rows, vma: int, was: int) -> None:
    """AV-046: index and address still belong together, but in exec's stack on its way."""
    moving = m[vma].vm_flags & VM_STACK_INCOMPLETE_SETUP == VM_STACK_INCOMPLETE_SETUP
    if origin(m, vma) != was and not moving:
        report(m, 46)


# --- split, shrink -------------------------------------------------------------------------------


@compiled
def split_vma(m: Rows, c: Avcs, vma: int, address: int, new_below: bool) -> int:
    """Cut a VMA at ``address`` (bytes); the new VMA is the part below or above it; 0 or -ENOMEM."""
    before = graph_if_failing(m, c)
    rc = _split(m, c, vma, address, new_below)
    if m[PARAMS].split_forgets_failure:
        rc = 0
    if not m[MACHINE].watched:
        return rc
    if rc != 0:
        unchanged(m, c, before)
        return rc
    reach(m, SPLIT_DONE)
    above = vma_lookup(m, m[vma].vm_mm, address)
    if not above or m[above].key != address:
        report(m, 51)
    return rc


@compiled
def _split(m: Rows, c: Avcs, vma: int, address: int, new_below: bool) -> int:
    new = vm_area_dup(m, vma)
    if new_below:
        m[new].vm_end = address
    else:
        vma_set_range(m, new, address, m[vma].vm_end, m[vma].vm_pgoff + ((address - m[vma].key) >> 12))
    if anon_vma_clone(m, c, new, vma, SPLIT) != 0:
        vm_area_free(m, new)
        return -ENOMEM
    was = origin(m, vma)
    locked = vma_prepare(m, c, vma, 0)
    if new_below:
        pgoff = m[vma].vm_pgoff + ((address - m[vma].key) >> 12)
        vma_set_range(m, vma, address, m[vma].vm_end, pgoff)
    else:
        vma_set_range(m, vma, m[vma].key, address, m[vma].vm_pgoff)
    vma_iter_store(m, new)
    vma_complete(m, c, locked, vma, 0, was, 0)
    return 0


@compiled
def vma_shrink(m: Rows, c: Avcs, vma: int, start: int, end: int, pgoff: int) -> int:
    """Reduce a VMA to [start, end) without unmapping anything (exec's stack)."""
    was = origin(m, vma)
    locked = vma_prepare(m, c, vma, 0)
    vma_set_range(m, vma, start, end, pgoff)
    vma_complete(m, c, locked, vma, 0, was, 0)
    return 0
