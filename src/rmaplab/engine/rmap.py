# SPDX-License-Identifier: GPL-2.0-only
"""anon_vma lifetime and the links of VMAs on rows: :mod:`rmaplab.kernel.rmap` and its older series.

Every function does what the specification's function of the same name does.
Where series differ, a parameter says how (:data:`rmaplab.engine.rows.PARAMETERS`).
Errors are negative errno values.
"""

from __future__ import annotations

from errno import ENOMEM

from rmaplab.engine.interval_tree import interval_tree_insert, interval_tree_remove, move_to_head
from rmaplab.engine.jit import compiled, inlined
from rmaplab.engine.reached import HALF_BUILT, NEIGHBOUR_SHARED, RETRY_SERVED
from rmaplab.engine.rows import LOCKS, MACHINE, PARAMS, SLAB, Avcs, Rows, report
from rmaplab.engine.services import (
    alloc_anon_vma,
    alloc_avc,
    crash,
    free_anon_vma,
    free_avc,
    holds,
    lock,
    reach,
    unlock,
)
from rmaplab.engine.trees import tree_floor, tree_prev
from rmaplab.engine.watch import graph_if_failing, unchanged

__all__ = [
    "FORK",
    "MERGE_UNFAULTED",
    "REMAP",
    "SPLIT",
    "anon_vma_clone",
    "anon_vma_fork",
    "anon_vma_lock_write",
    "anon_vma_prepare",
    "anon_vma_unlock_write",
    "insert_avc",
    "put_anon_vma",
    "remove_avc",
    "rwsem",
    "unlink_anon_vmas",
    "vma_lookup",
]

SPLIT, MERGE_UNFAULTED, REMAP, FORK = range(4)
IGNORED = 0x7 | 0x8000000 | 0x800  # rights, VM_SOFTDIRTY and VM_MAYBE_GUARD never keep two VMAs apart


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
def _chain_clear(m: Rows, vma: int) -> None:
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


# --- clone ---------------------------------------------------------------------------------------


@compiled
def anon_vma_clone(m: Rows, c: Avcs, dst: int, src: int, operation: int) -> int:
    """Link ``dst`` to every anon_vma of ``src``; 0 or -ENOMEM."""
    avc = m[src].head if m[MACHINE].watched else 0
    while avc:
        if c[avc].range <= 0:
            report(m, 20)
        avc = c[avc].after
    before, failed = graph_if_failing(m, c), m[SLAB].failed
    if m[PARAMS].clone_adopts_previous and not m[dst].anon_vma and m[src].anon_vma:
        prev = tree_prev(m, src)
        if prev and m[prev].anon_vma == m[src].anon_vma:
            m[dst].anon_vma = m[src].anon_vma
    how = m[PARAMS].clone
    if how < 2:
        rc = _clone_in_two_passes(m, c, dst, src, operation)
    elif how == 2:
        rc = _clone_in_one_pass(m, c, dst, src, operation)
    elif how == 3:
        rc = _clone_root_by_root(m, c, dst, src, operation)
    else:
        rc = _clone_link_by_link(m, c, dst, src)
    if rc != 0:
        unchanged(m, c, before)
    elif m[SLAB].failed > failed:
        reach(m, RETRY_SERVED)
    return rc


@compiled
def check_anon_vma_clone(m: Rows, dst: int, src: int, operation: int) -> None:
    """What the callers of anon_vma_clone promise; the mmap lock is held wherever this is called from."""
    how = m[PARAMS].clone_checks
    if how == 2:
        return
    wrong = m[dst].length > 0
    if not m[src].anon_vma:
        wrong |= m[src].length > 0 or m[dst].anon_vma != 0
    wrong |= m[dst].anon_vma != 0 and m[dst].anon_vma != m[src].anon_vma
    if how == 0 and operation != FORK:
        wrong |= m[src].vm_mm != m[dst].vm_mm
        wrong |= m[src].anon_vma != 0 and not m[dst].anon_vma
        if operation == MERGE_UNFAULTED:
            wrong |= m[src].length > 1
        else:
            wrong |= m[dst].attached != 0
    if wrong:
        report(m, 39)


@compiled
def _clone_in_two_passes(m: Rows, c: Avcs, dst: int, src: int, operation: int) -> int:
    check_anon_vma_clone(m, dst, src, operation)
    if not m[src].anon_vma:
        return 0
    told = m[PARAMS].clone == 0
    pavc = m[src].head
    while pavc:
        avc = alloc_avc(m, c, False)
        if not avc:
            cleanup_partial_anon_vmas(m, c, dst)
            return -ENOMEM
        anon_vma_chain_assign(m, c, dst, avc, c[pavc].anon_vma)
        pavc = c[pavc].after
    anon_vma_lock_write(m, m[src].anon_vma)
    avc, pavc = m[dst].tail, m[src].head
    while avc:
        anon_vma = c[avc].anon_vma
        insert_avc(m, c, avc, anon_vma, c[pavc].range)
        pavc = c[pavc].after
        if not told:
            try_reuse_anon_vma(m, dst, src, anon_vma)
        elif operation == FORK:
            maybe_reuse_anon_vma(m, dst, anon_vma)
        avc = c[avc].before
    if m[dst].anon_vma and not (told and operation == FORK):
        add_active_vmas(m, m[dst].anon_vma, 1)
    anon_vma_unlock_write(m, m[src].anon_vma)
    return 0


@compiled
def maybe_reuse_anon_vma(m: Rows, dst: int, anon_vma: int) -> None:
    """Let a forked VMA adopt an ancestor's anon_vma that no VMA owns and at most one anon_vma hangs on."""
    if m[dst].anon_vma or m[anon_vma].num_active_vmas != 0 or _above(m[anon_vma].num_children, 1):
        return
    m[dst].anon_vma = anon_vma
    add_active_vmas(m, anon_vma, 1)


@compiled
def _above(counter: int, number: int) -> bool:
    """Whether an unsigned counter is above a number: one that went below zero is above all."""
    return counter > number or counter < 0


@compiled
def try_reuse_anon_vma(m: Rows, dst: int, src: int, anon_vma: int) -> None:
    """The rule before clone knew what it was called for; the VMA is counted later."""
    how = m[PARAMS].reuse
    if m[dst].anon_vma or how == 4:
        return
    if how == 1:
        if m[src].anon_vma and not _above(m[anon_vma].num_children, 1) and m[anon_vma].num_active_vmas == 0:
            m[dst].anon_vma = anon_vma
    elif (how == 3 or m[src].anon_vma) and anon_vma != m[src].anon_vma and not _above(m[anon_vma].degree, 1):
        m[dst].anon_vma = anon_vma


@compiled
def _count_active_vma(m: Rows, dst: int) -> None:
    if m[dst].anon_vma:
        add_active_vmas(m, m[dst].anon_vma, 1)


@compiled
def _clone_in_one_pass(m: Rows, c: Avcs, dst: int, src: int, operation: int) -> int:
    """v6.18+4 to v6.18+7: tail to head, each AVC allocated and inserted at once."""
    check_anon_vma_clone(m, dst, src, operation)
    own = m[src].anon_vma
    if not own:
        return 0
    anon_vma_lock_write(m, own)
    pavc = m[src].tail
    while pavc:
        avc = alloc_avc(m, c, True)
        if not avc:
            anon_vma_unlock_write(m, own)
            avc = alloc_avc(m, c, False)
            if not avc:
                cleanup_partial_anon_vmas(m, c, dst)
                return -ENOMEM
            anon_vma_lock_write(m, own)
        _chain_link(m, c, dst, avc, pavc)
        try_reuse_anon_vma(m, dst, src, c[pavc].anon_vma)
        pavc = c[pavc].before
    _count_active_vma(m, dst)
    anon_vma_unlock_write(m, own)
    return 0


@compiled
def _chain_link(m: Rows, c: Avcs, vma: int, avc: int, pavc: int) -> None:
    """anon_vma_chain_link, to what ``pavc`` links: on the list and into the tree in one step."""
    anon_vma = c[pavc].anon_vma
    anon_vma_chain_assign(m, c, vma, avc, anon_vma)
    if m[PARAMS].clone == 4:
        anon_vma_lock_write(m, anon_vma)
        insert_avc(m, c, avc, anon_vma, c[pavc].range)
        anon_vma_unlock_write(m, anon_vma)
    else:
        insert_avc(m, c, avc, anon_vma, c[pavc].range)


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


@compiled
def _clone_root_by_root(m: Rows, c: Avcs, dst: int, src: int, operation: int) -> int:
    """v6.18+3 and before."""
    check_anon_vma_clone(m, dst, src, operation)
    if not m[src].anon_vma and not m[PARAMS].clone_walks_unfaulted:
        return 0
    root = 0
    pavc = m[src].tail
    while pavc:
        avc = alloc_avc(m, c, True)
        if not avc:
            if root:
                unlock(m, root)
            root = 0
            avc = alloc_avc(m, c, False)
            if not avc:
                cleanup_partial_anon_vmas(m, c, dst)
                return -ENOMEM
        root = lock_anon_vma_root(m, root, c[pavc].anon_vma)
        _chain_link(m, c, dst, avc, pavc)
        try_reuse_anon_vma(m, dst, src, c[pavc].anon_vma)
        pavc = c[pavc].before
    _count_active_vma(m, dst)
    if root:
        unlock(m, root)
    return 0


@compiled
def _clone_link_by_link(m: Rows, c: Avcs, dst: int, src: int) -> int:
    """v2.6.34."""
    mirrors = m[PARAMS].clone_mirrors
    pavc = m[src].head if mirrors else m[src].tail
    while pavc:
        avc = alloc_avc(m, c, False)
        if not avc:
            unlink_anon_vmas(m, c, dst)
            return -ENOMEM
        _chain_link(m, c, dst, avc, pavc)
        pavc = c[pavc].after if mirrors else c[pavc].before
    return 0


@compiled
def cleanup_partial_anon_vmas(m: Rows, c: Avcs, vma: int) -> None:
    """Undo a clone that ran out of memory."""
    how = m[PARAMS].cleanup
    if how >= 3:
        if how == 3:
            m[vma].anon_vma = 0
        unlink_anon_vmas(m, c, vma)
        return
    avc = m[vma].head
    if not avc and how == 2:
        return
    root = m[c[avc].anon_vma].root if how == 2 else 0
    if root:
        anon_vma_lock_write(m, root)
    while avc:
        after = c[avc].after
        if how == 2:
            remove_avc(m, c, avc, c[avc].anon_vma)
        free_avc(m, c, avc)
        avc = after
    _chain_clear(m, vma)
    if root:
        anon_vma_unlock_write(m, root)
    if how == 0:
        m[vma].anon_vma = 0


# --- fork ----------------------------------------------------------------------------------------


@compiled
def anon_vma_fork(m: Rows, c: Avcs, vma: int, pvma: int) -> int:
    """Attach the child's ``vma`` to the anon_vmas of ``pvma``, and to one of its own; 0 or -ENOMEM."""
    if not m[pvma].anon_vma:
        return 0
    m[vma].anon_vma = 0
    if m[PARAMS].fork == 0:
        return _fork_allocating_ahead(m, c, vma, pvma)
    return _fork_unwinding(m, c, vma, pvma)


@compiled
def _fork_allocating_ahead(m: Rows, c: Avcs, vma: int, pvma: int) -> int:
    anon_vma = anon_vma_alloc(m)
    if not anon_vma:
        return -ENOMEM
    avc = alloc_avc(m, c, False)
    if not avc:
        put_anon_vma(m, anon_vma)
        return -ENOMEM
    rc = anon_vma_clone(m, c, vma, pvma, FORK)
    if rc != 0 or m[vma].anon_vma:
        put_anon_vma(m, anon_vma)
        free_avc(m, c, avc)
        return rc
    add_active_vmas(m, anon_vma, 1)
    anon_vma_link_child(m, c, vma, m[pvma].anon_vma, anon_vma, avc)
    return 0


@compiled
def _fork_unwinding(m: Rows, c: Avcs, vma: int, pvma: int) -> int:
    """Before 91901a441fa1: clone first, allocate after."""
    rc = anon_vma_clone(m, c, vma, pvma, FORK)
    if rc != 0 or m[vma].anon_vma:
        return rc
    anon_vma = anon_vma_alloc(m)
    if not anon_vma:
        if m[PARAMS].fork == 1:
            unlink_anon_vmas(m, c, vma)
        return -ENOMEM
    add_active_vmas(m, anon_vma, 1)
    avc = alloc_avc(m, c, False)
    if not avc:
        put_anon_vma(m, anon_vma)
        unlink_anon_vmas(m, c, vma)
        return -ENOMEM
    anon_vma_link_child(m, c, vma, m[pvma].anon_vma, anon_vma, avc)
    return 0


@compiled
def anon_vma_link_child(m: Rows, c: Avcs, vma: int, parent: int, anon_vma: int, avc: int) -> None:
    """Hang a private anon_vma below its parent."""
    m[anon_vma].root = m[parent].root
    m[anon_vma].parent = parent
    m[anon_vma].parent_id = m[parent].id
    if not m[PARAMS].root_unpinned:
        m[m[anon_vma].root].refcount += 1
    m[vma].anon_vma = anon_vma
    anon_vma_chain_assign(m, c, vma, avc, anon_vma)
    anon_vma_lock_write(m, anon_vma)
    insert_avc(m, c, avc, anon_vma, 0)
    add_children(m, parent, 1)
    anon_vma_unlock_write(m, anon_vma)


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
    _chain_clear(m, vma)


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
    _chain_clear(m, vma)
    m[vma].anon_vma = 0
