# SPDX-License-Identifier: GPL-2.0-only
"""Merges of VMAs, and the copy for mremap, on rows: :mod:`rmaplab.kernel.vma`.

The vma_merge_struct is the row VMG; there is one merge at a time.
"""

from __future__ import annotations

from errno import ENOMEM

from rmaplab.engine.clone import MERGE_UNFAULTED, REMAP, anon_vma_clone
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import MACHINE, PARAMS, VMG, Avcs, Rows
from rmaplab.engine.mergeable import can_vma_merge_left, can_vma_merge_right, set_merge
from rmaplab.engine.reached import IMPORTED, MERGED
from rmaplab.engine.rmap import unlink_anon_vmas
from rmaplab.engine.rows import report
from rmaplab.engine.services import crash, reach
from rmaplab.engine.vma_adjust import (
    following_at,
    origin,
    previous_to,
    split_vma,
    vm_area_dup,
    vm_area_free,
    vma_complete,
    vma_iter_store,
    vma_prepare,
    vma_set_range,
    vma_unlink,
)
from rmaplab.engine.watch import graph_if_failing, unchanged
from rmaplab.kernel.flags import VM_STICKY

__all__ = [
    "copy_vma",
    "vma_expand",
    "vma_merge_extend",
    "vma_merge_mapped_range",
    "vma_merge_new_range",
    "vma_modify_flags",
]

ATTRIBUTES = ~VM_STICKY  # bits that keep two VMAs apart


# --- merge ---------------------------------------------------------------------------------------


@compiled
def vma_merge_existing_range(m: Rows, c: Avcs) -> int:
    """Merge a range of the middle VMA with its neighbours; the survivor, or 0."""
    middle, prev, following = m[VMG].middle, m[VMG].prev, m[VMG].next
    start, end = m[VMG].merge_start, m[VMG].merge_end
    at_start, at_end = start == m[middle].key, end == m[middle].vm_end
    if m[PARAMS].merge_in_two_rounds and at_start and at_end:
        if can_vma_merge_left(m) and can_vma_merge_right(m, True):
            return _merge_in_two_rounds(m, c)
    left = at_start and can_vma_merge_left(m)
    right = at_end and can_vma_merge_right(m, left)
    removed = middle if at_start and at_end else 0
    if left:
        if right:
            exporter = middle if not m[following].anon_vma else following
            return commit_merge(m, c, prev, exporter, m[prev].key, m[following].vm_end, middle, following)
        return commit_merge(m, c, prev, middle, m[prev].key, end, removed, 0)
    if right:
        return commit_merge(m, c, following, middle, start, m[following].vm_end, removed, 0)
    return 0


@compiled
def _merge_in_two_rounds(m: Rows, c: Avcs) -> int:
    """zoo/Z13: absorb the middle VMA, then come back for the next."""
    middle, prev, following = m[VMG].middle, m[VMG].prev, m[VMG].next
    flags, file, mm = m[VMG].merge_flags, m[VMG].merge_file, m[VMG].merge_mm
    if not commit_merge(m, c, prev, middle, m[prev].key, m[VMG].merge_end, middle, 0):
        return 0
    start, end = m[following].key, m[following].vm_end
    set_merge(m, mm, start, end, m[following].vm_pgoff, flags, file, m[following].anon_vma)
    m[VMG].prev = prev
    m[VMG].middle = following
    merged = commit_merge(m, c, prev, following, m[prev].key, end, following, 0)
    m[VMG].oom = 0  # that of another struct
    return merged


@compiled
def vma_merge_new_range(m: Rows, c: Avcs) -> int:
    """Let a neighbour grow over a range that no VMA holds; the survivor, or 0."""
    prev, following = m[VMG].prev, m[VMG].next
    left = can_vma_merge_left(m)
    right = can_vma_merge_right(m, left)
    if left:
        end = m[following].vm_end if right else m[VMG].merge_end
        return vma_expand(m, c, prev, m[prev].key, end)
    if right:
        return vma_expand(m, c, following, m[VMG].merge_start, m[following].vm_end)
    return 0


@compiled
def vma_merge_mapped_range(m: Rows, c: Avcs) -> int:
    """What mmap asks for a range; v6.1 looks at the VMA behind first."""
    following = m[VMG].next
    if not m[PARAMS].mmap_asks_behind or not following or not can_vma_merge_right(m, False):
        return vma_merge_new_range(m, c)
    own = m[VMG].merge_anon_vma
    m[VMG].merge_anon_vma = m[following].anon_vma
    left = can_vma_merge_left(m)
    m[VMG].merge_anon_vma = own
    if left:
        return vma_expand(m, c, m[VMG].prev, m[m[VMG].prev].key, m[following].vm_end)
    return vma_expand(m, c, following, m[VMG].merge_start, m[following].vm_end)


@compiled
def vma_merge_extend(m: Rows, c: Avcs, vma: int, delta: int) -> int:
    """Grow a VMA by ``delta`` bytes behind its end; 0: out of memory."""
    end, mm = m[vma].vm_end, m[vma].vm_mm
    pgoff = m[vma].vm_pgoff + ((end - m[vma].key) >> 12)
    set_merge(m, mm, end, end + delta, pgoff, m[vma].vm_flags, m[vma].file, m[vma].anon_vma)
    m[VMG].prev = vma
    m[VMG].next = following_at(m, mm, end + delta)
    return vma_merge_new_range(m, c)


@compiled
def vma_expand(m: Rows, c: Avcs, target: int, start: int, end: int) -> int:
    """Make ``target`` span [start, end), and replace the next VMA if that ends there; 0: out of memory."""
    if m[PARAMS].expand_forgets_source:
        m[VMG].copied_from = 0
    following = m[VMG].next
    if m[PARAMS].copy_keeps_pgoff and m[VMG].copied_from and target == following:
        m[VMG].keep_pgoff = 1
    if not following or following == target or m[following].vm_end != end:
        return commit_merge(m, c, target, m[VMG].copied_from, start, end, 0, 0)
    exporter = m[VMG].copied_from if not m[following].anon_vma else following
    return commit_merge(m, c, target, exporter, start, end, following, 0)


@compiled
def commit_merge(
    m: Rows, c: Avcs, target: int, exporter: int, start: int, end: int, removed: int, removed_too: int
) -> int:
    """Make ``target`` span [start, end) with the links of ``exporter``; 0: out of memory, nothing changed."""
    if m[MACHINE].watched:
        _check_merge(m, target, removed, removed_too)
    if m[PARAMS].shift_loses_links and not removed:
        exporter = 0
    if exporter and dup_anon_vma(m, c, target, exporter) != 0:
        m[VMG].oom = 1
        return 0
    middle = m[VMG].middle
    other = middle if middle != target and middle != removed and middle != removed_too else 0
    was = origin(m, target)
    other_was = origin(m, other) if other else 0
    locked = vma_prepare(m, c, target, other)
    sticky = m[VMG].merge_flags
    if removed:
        vma_unlink(m, removed)
        sticky |= m[removed].vm_flags
    if removed_too:
        vma_unlink(m, removed_too)
        sticky |= m[removed_too].vm_flags
    if other:
        _vma_shift_boundary(m, other)
    m[target].vm_flags |= sticky & VM_STICKY
    moved = 0 if m[VMG].keep_pgoff else (m[target].key - start) >> 12
    vma_set_range(m, target, start, end, m[target].vm_pgoff - moved)
    vma_complete(m, c, locked, target, other, was, other_was)
    if removed:
        _drop_removed(m, c, target, removed)
    if removed_too:
        _drop_removed(m, c, target, removed_too)
    if m[MACHINE].watched:
        reach(m, MERGED)
    return target


@compiled
def _drop_removed(m: Rows, c: Avcs, survivor: int, removed: int) -> None:
    """unlink_removed_vma, and free it."""
    if m[removed].anon_vma:
        if m[PARAMS].merge_checks and m[survivor].anon_vma != m[removed].anon_vma:
            report(m, 39)
        unlink_anon_vmas(m, c, removed)
    vm_area_free(m, removed)


@compiled
def _vma_shift_boundary(m: Rows, middle: int) -> None:
    """Take the merged range off the VMA that keeps the rest of it."""
    start, end = m[VMG].merge_start, m[VMG].merge_end
    if start == m[middle].key:
        vma_set_range(m, middle, end, m[middle].vm_end, m[middle].vm_pgoff + ((end - m[middle].key) >> 12))
    else:
        vma_set_range(m, middle, m[middle].key, start, m[middle].vm_pgoff)


@compiled
def _check_merge(m: Rows, target: int, removed: int, removed_too: int) -> None:
    """AV-032: one anon_vma at most, and no fork child beside something unfaulted."""
    middle, copied_from, src = m[VMG].middle, m[VMG].copied_from, m[VMG].merge_anon_vma
    known = _part_of_merge(m, target, 0)
    known = _part_of_merge(m, removed, known)
    known = _part_of_merge(m, removed_too, known)
    known = _part_of_merge(m, middle, known)
    known = _part_of_merge(m, copied_from, known)
    all_faulted, fork_child = not known & 1, known & 2 != 0
    grows = not middle and not copied_from and src != 0
    unfaulted = not grows and (src == 0 or not all_faulted)
    if m[PARAMS].merge_rule != 2 and unfaulted and fork_child:
        report(m, 32)


@compiled
def _part_of_merge(m: Rows, vma: int, known: int) -> int:
    """Add what one VMA tells: bit 0 something is unfaulted, bit 1 a fork child; the anon_vma above them."""
    if not vma:
        return known
    own, other = m[vma].anon_vma, known >> 2
    if not own:
        return known | 1
    if other and own != other:
        report(m, 32)
    return (own << 2) | (known & 3) | (2 if m[vma].length > 1 else 0)


@compiled
def dup_anon_vma(m: Rows, c: Avcs, dst: int, src: int) -> int:
    """Give an unfaulted VMA that absorbs a faulted one the latter's links; 0 or -ENOMEM."""
    if not m[src].anon_vma or m[dst].anon_vma:
        return 0
    before = graph_if_failing(m, c)
    if not m[PARAMS].import_late:
        m[dst].anon_vma = m[src].anon_vma
    rc = anon_vma_clone(m, c, dst, src, MERGE_UNFAULTED)
    if rc == 0 and m[PARAMS].import_late:
        m[dst].anon_vma = m[src].anon_vma
    if m[MACHINE].watched:
        if rc != 0:
            unchanged(m, c, before)
        elif m[dst].anon_vma:
            reach(m, IMPORTED)
    return rc


# --- what callers ask for --------------------------------------------------------------------------


@compiled
def vma_modify_flags(m: Rows, c: Avcs, vma: int, start: int, end: int, flags: int) -> int:
    """A VMA for exactly [start, end) that can take new flags: merged, split off, or itself; or -ENOMEM."""
    mm = m[vma].vm_mm
    pgoff = m[vma].vm_pgoff + ((start - m[vma].key) >> 12)
    set_merge(m, mm, start, end, pgoff, flags, m[vma].file, m[vma].anon_vma)
    m[VMG].middle = vma
    if start == m[vma].key:
        m[VMG].prev = previous_to(m, mm, start)
    if end == m[vma].vm_end:
        m[VMG].next = following_at(m, mm, end)
    merged = vma_merge_existing_range(m, c)
    if not merged:
        if m[VMG].oom:
            return -ENOMEM
        if m[vma].key < start and split_vma(m, c, vma, start, True) != 0:
            return -ENOMEM
        if end < m[vma].vm_end and split_vma(m, c, vma, end, False) != 0:
            return -ENOMEM
        merged = vma
    if m[merged].freed:
        crash(m)
    return merged


@compiled
def copy_vma(
    m: Rows, c: Avcs, vma: int, start: int, end: int, pgoff: int, keep_source: bool
) -> tuple[int, int, bool]:
    """A VMA like ``vma`` for the free range [start, end), where mremap moves its pages.

    The VMA at the new place (0: out of memory), the one at the old, and
    whether a move must hold the rmap locks.
    """
    unfaulted = m[vma].anon_vma == 0
    if m[vma].file == 0 and unfaulted:
        pgoff = start >> 12
    mm = m[vma].vm_mm
    prev, following = previous_to(m, mm, start), following_at(m, mm, end)
    if m[PARAMS].dontunmap_apart and keep_source:
        prev = 0 if prev == vma else prev
        following = 0 if following == vma else following
    set_merge(m, mm, start, end, pgoff, m[vma].vm_flags, m[vma].file, m[vma].anon_vma)
    m[VMG].prev = prev
    m[VMG].next = following
    m[VMG].copied_from = vma
    new, source, locks = vma_merge_new_range(m, c), vma, False
    if new:
        source = new if m[vma].freed else vma
        locks = m[new].vm_pgoff <= m[source].vm_pgoff
    else:
        new = vm_area_dup(m, vma)
        vma_set_range(m, new, start, end, pgoff)
        if anon_vma_clone(m, c, new, vma, REMAP) != 0:
            vm_area_free(m, new)
            return 0, vma, False
        vma_iter_store(m, new)
    if m[PARAMS].anon_pgoff_apart and unfaulted and m[new].key == start and m[new].vm_end == end:
        m[new].anon_pgoff = start >> 12
    return new, source, locks
