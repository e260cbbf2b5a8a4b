# SPDX-License-Identifier: GPL-2.0-only
"""Which VMAs may be merged, on rows: the first part of :mod:`rmaplab.kernel.vma`.

The vma_merge_struct is the row VMG.
"""

from __future__ import annotations

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import MACHINE, PARAMS, VMG, Rows
from rmaplab.engine.rows import report
from rmaplab.kernel.flags import VM_SHARED, VM_STICKY

__all__ = [
    "can_vma_merge_left",
    "can_vma_merge_right",
    "set_merge",
]


ATTRIBUTES = ~VM_STICKY  # bits that keep two VMAs apart


@compiled
def set_merge(m: Rows, mm: int, start: int, end: int, pgoff: int, flags: int, file: int, anon_vma: int) -> None:
    """Fill the row VMG for a range that might join its neighbours, of which there are none yet."""
    m[VMG].merge_mm = mm
    m[VMG].merge_start = start
    m[VMG].merge_end = end
    m[VMG].merge_pgoff = pgoff
    m[VMG].merge_flags = flags
    m[VMG].merge_file = file
    m[VMG].merge_anon_vma = anon_vma
    m[VMG].prev = m[VMG].middle = m[VMG].next = m[VMG].copied_from = 0
    m[VMG].keep_pgoff = m[VMG].oom = 0


# --- may they merge? -----------------------------------------------------------------------------


@compiled
def vma_is_fork_child(m: Rows, vma: int) -> bool:
    """Whether a VMA has links beyond its own anon_vma."""
    return vma != 0 and m[vma].anon_vma != 0 and m[vma].length > 1


@compiled
def is_mergeable_vma(m: Rows, vma: int) -> bool:
    """Attributes other than range and anon_vma."""
    return (m[vma].vm_flags ^ m[VMG].merge_flags) & ATTRIBUTES == 0 and m[vma].file == m[VMG].merge_file


@compiled
def is_mergeable_anon_vma(m: Rows, target: int) -> bool:
    """Whether ``target`` may absorb the range as far as anon_vmas go."""
    mergeable = _mergeable(m, target)
    if m[MACHINE].watched and not mergeable:
        own, src = m[target].anon_vma, m[VMG].merge_anon_vma
        fork_child = (
            vma_is_fork_child(m, target)
            or vma_is_fork_child(m, m[VMG].middle)
            or vma_is_fork_child(m, m[VMG].copied_from)
        )
        if own == src or ((own == 0) != (src == 0) and not fork_child):
            report(m, 52)
    return mergeable


@compiled
def _mergeable(m: Rows, target: int) -> bool:
    own, src, rule = m[target].anon_vma, m[VMG].merge_anon_vma, m[PARAMS].merge_rule
    if rule == 1:
        return own == src or ((own == 0 or src == 0) and m[target].length == 1)
    if rule == 2:
        return own == 0 or src == 0 or own == src
    if own == 0 and src != 0:
        if vma_is_fork_child(m, m[VMG].middle):
            return False
        return rule == 3 or not vma_is_fork_child(m, m[VMG].copied_from)
    if own != 0 and src == 0:
        return not vma_is_fork_child(m, target)
    return own == src


@compiled
def _merge_anon_pgoff(m: Rows) -> int:
    """The anonymous offset of the range that might be merged (v7.3)."""
    if not m[VMG].middle and not m[VMG].merge_anon_vma:
        return m[VMG].merge_start >> 12
    source = m[VMG].middle if m[VMG].middle else m[VMG].copied_from
    if not source:
        prev = m[VMG].prev
        return m[prev].anon_pgoff + ((m[VMG].merge_start - m[prev].key) >> 12)
    return m[source].anon_pgoff + m[VMG].merge_pgoff - m[source].vm_pgoff


@compiled
def _needs_adjacent_anon_pgoff(m: Rows) -> bool:
    return m[PARAMS].anon_pgoff_apart and m[VMG].merge_file != 0 and not m[VMG].merge_flags & VM_SHARED


@compiled
def can_vma_merge_left(m: Rows) -> bool:
    """Whether the VMA before the range can grow over it."""
    prev, start = m[VMG].prev, m[VMG].merge_start
    if not prev or m[prev].vm_end != start or not is_mergeable_vma(m, prev) or not is_mergeable_anon_vma(m, prev):
        return False
    pages = (start - m[prev].key) >> 12
    if m[VMG].merge_pgoff != m[prev].vm_pgoff + pages:
        return False
    return not _needs_adjacent_anon_pgoff(m) or _merge_anon_pgoff(m) == m[prev].anon_pgoff + pages


@compiled
def can_vma_merge_right(m: Rows, merge_left: bool) -> bool:
    """Whether the VMA behind the range can grow over it, together with a merge to the left if there is one."""
    following, end = m[VMG].next, m[VMG].merge_end
    if (
        not following
        or m[following].key != end
        or not is_mergeable_vma(m, following)
        or not is_mergeable_anon_vma(m, following)
    ):
        return False
    pages = (end - m[VMG].merge_start) >> 12
    if m[following].vm_pgoff != m[VMG].merge_pgoff + pages:
        return False
    if merge_left:
        before, behind = m[m[VMG].prev].anon_vma, m[following].anon_vma
        if before and behind and before != behind:
            return False
    return not _needs_adjacent_anon_pgoff(m) or m[following].anon_pgoff == _merge_anon_pgoff(m) + pages
