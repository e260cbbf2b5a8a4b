# SPDX-License-Identifier: GPL-2.0-only
"""anon_vma_clone and anon_vma_fork on rows: :mod:`rmaplab.kernel.rmap` and its older series.

How a clone walks, locks and allocates differs most between series: there is a
function for each way, and a parameter chooses (:data:`rmaplab.engine.layout.PARAMETERS`).
Errors are negative errno values.
"""

from __future__ import annotations

from errno import ENOMEM

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import MACHINE, PARAMS, SLAB, Avcs, Rows
from rmaplab.engine.reached import RETRY_SERVED
from rmaplab.engine.rmap import (
    add_active_vmas,
    add_children,
    anon_vma_alloc,
    anon_vma_chain_assign,
    anon_vma_lock_write,
    anon_vma_unlock_write,
    chain_clear,
    insert_avc,
    put_anon_vma,
    remove_avc,
    unlink_anon_vmas,
)
from rmaplab.engine.rows import report
from rmaplab.engine.services import (
    alloc_avc,
    free_avc,
    lock_anon_vma_root,
    reach,
    unlock,
)
from rmaplab.engine.trees import tree_prev
from rmaplab.engine.watch import graph_if_failing, unchanged

__all__ = [
    "FORK",
    "MERGE_UNFAULTED",
    "REMAP",
    "SPLIT",
    "anon_vma_clone",
    "anon_vma_fork",
]


SPLIT, MERGE_UNFAULTED, REMAP, FORK = range(4)


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
    chain_clear(m, vma)
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
