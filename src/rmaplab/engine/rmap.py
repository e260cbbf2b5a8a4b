# SPDX-License-Identifier: GPL-2.0-only
"""anon_vma lifetime and the links of VMAs on rows: :mod:`rmaplab.kernel.rmap` and its older series.

Every function does what the specification's function of the same name does.
Where series differ, a parameter says how (:data:`rmaplab.engine.layout.PARAMETERS`).
Errors are negative errno values.
"""

from __future__ import annotations

from errno import ENOMEM

from rmaplab.engine.interval_tree import interval_tree_insert, interval_tree_remove, move_to_head
from rmaplab.engine.jit import compiled, inlined
from rmaplab.engine.layout import LOCKS, PARAMS, Avcs, Rows
from rmaplab.engine.reached import HALF_BUILT, NEIGHBOUR_SHARED
from rmaplab.engine.rows import report
from rmaplab.engine.services import (
    alloc_anon_vma,
    alloc_avc,
    crash,
    free_anon_vma,
    free_avc,
    holds,
    lock,
    lock_anon_vma_root,
    reach,
    unlock,
)
from rmaplab.engine.trees import tree_floor
from rmaplab.kernel.flags import VM_ACCESS_FLAGS, VM_IGNORE_MERGE

__all__ = [
    "add_active_vmas",
    "add_children",
    "anon_vma_alloc",
    "anon_vma_chain_assign",
    "anon_vma_lock_write",
    "anon_vma_prepare",
    "anon_vma_unlock_write",
    "chain_clear",
    "insert_avc",
    "put_anon_vma",
    "remove_avc",
    "rwsem",
    "unlink_anon_vmas",
    "vma_lookup",
]


IGNORED = VM_ACCESS_FLAGS | VM_IGNORE_MERGE  # flags that two VMAs with one anon_vma may differ in


# --- lifetime ----------------------------------------------------------------------------------


@compiled
def anon_vma_alloc(m: Rows) -> int:
    """An unlinked anon_vma with one reference; 0 if out of memory."""
    anon_vma = alloc_anon_vma(m)
    if anon_vma:
        m[anon_vma].refcount = 1
    return anon_vma


@compiled
def anon_vma_free(m: Rows, anon_vma: int) -> None:
    """Give an unreferenced anon_vma back."""
    if m[m[anon_vma].root].freed:
        report(m, 19)
    if holds(m, rwsem(m, anon_vma), False):
        report(m, 28)
    free_anon_vma(m, anon_vma)


@compiled
def put_anon_vma(m: Rows, anon_vma: int) -> None:
    """Drop a reference; the last frees it and drops its hold on the root."""
    if m[anon_vma].freed:
        report(m, 18)
    m[anon_vma].refcount -= 1
    if m[anon_vma].refcount != 0:
        return
    root, how = m[anon_vma].root, m[PARAMS].put
    if how == 0:
        anon_vma_free(m, anon_vma)
    if how != 2 and root != anon_vma:
        m[root].refcount -= 1
        if m[root].refcount == 0:
            anon_vma_free(m, root)
    if how != 0:
        anon_vma_free(m, anon_vma)


# --- links -------------------------------------------------------------------------------------


@inlined
def anon_vma_chain_assign(m: Rows, c: Avcs, vma: int, avc: int, anon_vma: int) -> None:
    """Put an AVC at the head of the VMA's list."""
    head = m[vma].head
    c[avc].vma = vma
    c[avc].anon_vma = anon_vma
    c[avc].before = 0
    c[avc].after = head
    if head:
        c[head].before = avc
    else:
        m[vma].tail = avc
    m[vma].head = avc
    m[vma].length += 1


@inlined
def _chain_remove(m: Rows, c: Avcs, vma: int, avc: int) -> None:
    before, after = c[avc].before, c[avc].after
    if before:
        c[before].after = after
    else:
        m[vma].head = after
    if after:
        c[after].before = before
    else:
        m[vma].tail = before
    m[vma].length -= 1


@compiled
def chain_clear(m: Rows, vma: int) -> None:
    """Empty the VMA's list."""
    m[vma].head = m[vma].tail = m[vma].length = 0


@compiled
def rwsem(m: Rows, anon_vma: int) -> int:
    """Whose rwsem guards an anon_vma."""
    return anon_vma if m[PARAMS].own_locks else m[anon_vma].root


@compiled
def anon_vma_lock_write(m: Rows, anon_vma: int) -> None:
    """Write-lock the whole tree that this anon_vma belongs to."""
    lock(m, rwsem(m, anon_vma), True)


@compiled
def anon_vma_unlock_write(m: Rows, anon_vma: int) -> None:
    """Release it."""
    unlock(m, rwsem(m, anon_vma))


@inlined
def _assert_tree_locked(m: Rows, anon_vma: int) -> None:
    m[LOCKS].tree_operations += 1
    if not holds(m, rwsem(m, anon_vma), True):
        report(m, 26)


@inlined
def insert_avc(m: Rows, c: Avcs, avc: int, anon_vma: int, near: int) -> None:
    """anon_vma_interval_tree_insert; ``near`` is a range of the index that may be the right one, or none."""
    _assert_tree_locked(m, anon_vma)
    interval_tree_insert(m, c, avc, anon_vma, near)
    m[anon_vma].linked = 1


@inlined
def remove_avc(m: Rows, c: Avcs, avc: int, anon_vma: int) -> None:
    """anon_vma_interval_tree_remove."""
    _assert_tree_locked(m, anon_vma)
    if c[avc].range <= 0:
        crash(m)
        return
    interval_tree_remove(m, c, avc, anon_vma)


@compiled
def add_children(m: Rows, anon_vma: int, number: int) -> None:
    """Count anon_vmas whose parent this one is."""
    counts = m[PARAMS].counts
    if counts == 0:
        m[anon_vma].num_children += number
    elif counts == 1:
        m[anon_vma].degree += number


@compiled
def add_active_vmas(m: Rows, anon_vma: int, number: int) -> None:
    """Count VMAs that this anon_vma belongs to."""
    counts = m[PARAMS].counts
    if counts == 0:
        m[anon_vma].num_active_vmas += number
    elif counts == 1:
        m[anon_vma].degree += number


# --- first fault ---------------------------------------------------------------------------------


@compiled
def anon_vma_prepare(m: Rows, c: Avcs, vma: int) -> int:
    """Give a VMA an anon_vma before its first anonymous page: a neighbour's, or a new root."""
    if m[vma].anon_vma:
        return 0
    avc = alloc_avc(m, c, False)
    if not avc:
        return -ENOMEM
    anon_vma = find_mergeable_anon_vma(m, c, vma)
    if anon_vma:
        reach(m, NEIGHBOUR_SHARED)
    else:
        anon_vma = anon_vma_alloc(m)
        if not anon_vma:
            free_avc(m, c, avc)
            return -ENOMEM
        add_children(m, anon_vma, 1)
    anon_vma_lock_write(m, anon_vma)
    m[LOCKS].page_table_locks += 1
    m[vma].anon_vma = anon_vma
    anon_vma_chain_assign(m, c, vma, avc, anon_vma)
    insert_avc(m, c, avc, anon_vma, 0)
    add_active_vmas(m, anon_vma, 1)
    anon_vma_unlock_write(m, anon_vma)
    if m[PARAMS].lists:
        move_to_head(m, c, m[vma].head)
    return 0


@compiled
def vma_lookup(m: Rows, mm: int, address: int) -> int:
    """The VMA that contains an address (bytes), or 0."""
    vma = tree_floor(m, m[mm].vmas, address)
    return vma if vma and m[vma].vm_end > address else 0


@compiled
def find_mergeable_anon_vma(m: Rows, c: Avcs, vma: int) -> int:
    """The anon_vma of an adjacent VMA, next first, or 0."""
    mm = m[vma].vm_mm
    following = vma_lookup(m, mm, m[vma].vm_end)
    if following and m[following].key == m[vma].vm_end:
        anon_vma = reusable_anon_vma(m, following, vma, following)
        if anon_vma:
            return anon_vma
    prev = vma_lookup(m, mm, m[vma].key - 1)
    if prev and m[prev].vm_end == m[vma].key:
        return reusable_anon_vma(m, prev, prev, vma)
    return 0


@compiled
def reusable_anon_vma(m: Rows, old: int, lower: int, upper: int) -> int:
    """The anon_vma of ``old`` if the two VMAs match and it has no other."""
    usable = m[old].length == 1 or m[PARAMS].reusable_any
    return m[old].anon_vma if usable and anon_vma_compatible(m, lower, upper) else 0


@compiled
def anon_vma_compatible(m: Rows, lower: int, upper: int) -> bool:
    """Whether two touching VMAs could share an anon_vma."""
    pages = (m[upper].key - m[lower].key) >> 12
    return (
        m[lower].vm_end == m[upper].key
        and m[lower].file == m[upper].file
        and (m[lower].vm_flags ^ m[upper].vm_flags) & ~IGNORED == 0
        and m[upper].vm_pgoff == m[lower].vm_pgoff + pages
        and (not m[PARAMS].anon_pgoff_apart or m[upper].anon_pgoff == m[lower].anon_pgoff + pages)
    )


# --- unlink --------------------------------------------------------------------------------------


@compiled
def unlink_anon_vmas(m: Rows, c: Avcs, vma: int) -> None:
    """Detach a VMA from all its anon_vmas, and free those it was the last to use."""
    half_built = m[vma].length > 0 and not m[vma].anon_vma
    if half_built:
        reach(m, HALF_BUILT)
    how = m[PARAMS].unlink
    if how == 2:
        _unlink_link_by_link(m, c, vma)
        return
    if half_built and not m[PARAMS].unlink_checks:
        report(m, 39)
    active = m[vma].anon_vma
    if not active and not (how == 1 and m[PARAMS].clone_walks_unfaulted):
        return
    root = 0
    if how == 0:
        anon_vma_lock_write(m, active)
    avc = m[vma].head
    while avc:
        after, anon_vma = c[avc].after, c[avc].anon_vma
        if how == 1:
            root = lock_anon_vma_root(m, root, anon_vma)
        remove_avc(m, c, avc, anon_vma)
        if m[anon_vma].entries:
            _chain_remove(m, c, vma, avc)
            free_avc(m, c, avc)
        else:
            add_children(m, m[anon_vma].parent, -1)
        avc = after
    if active:
        add_active_vmas(m, active, -1)
        m[vma].anon_vma = 0
    if how == 0:
        anon_vma_unlock_write(m, active)
    elif root:
        unlock(m, root)
    put_emptied_anon_vmas(m, c, vma)


@compiled
def put_emptied_anon_vmas(m: Rows, c: Avcs, vma: int) -> None:
    """Second pass, unlocked."""
    avc = m[vma].head
    while avc:
        after, anon_vma = c[avc].after, c[avc].anon_vma
        together = m[PARAMS].counts == 1
        left = m[anon_vma].degree if together else m[anon_vma].num_children | m[anon_vma].num_active_vmas
        if left:
            report(m, 39)
        put_anon_vma(m, anon_vma)
        free_avc(m, c, avc)
        avc = after
    chain_clear(m, vma)


@compiled
def _unlink_link_by_link(m: Rows, c: Avcs, vma: int) -> None:
    """v2.6.34."""
    avc = m[vma].head
    while avc:
        after, anon_vma = c[avc].after, c[avc].anon_vma
        anon_vma_lock_write(m, anon_vma)
        remove_avc(m, c, avc, anon_vma)
        anon_vma_unlock_write(m, anon_vma)
        if not m[anon_vma].entries:
            put_anon_vma(m, anon_vma)
            if m[anon_vma].refcount:
                m[anon_vma].root = m[anon_vma].parent = anon_vma
                m[anon_vma].parent_id = m[anon_vma].id
        free_avc(m, c, avc)
        avc = after
    chain_clear(m, vma)
    m[vma].anon_vma = 0
