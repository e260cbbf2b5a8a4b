# SPDX-License-Identifier: GPL-2.0-only
"""fork, and the end of address spaces, on rows: :mod:`rmaplab.kernel.fork`, exit_mmap and processes."""

from __future__ import annotations

from errno import ENOMEM

from rmaplab.engine.clone import anon_vma_fork
from rmaplab.engine.gup import unpin_all
from rmaplab.engine.jit import compiled
from rmaplab.engine.ksm import forget_mm
from rmaplab.engine.layout import IDS, LOCKS, MACHINE, MM, PARAMS, PROCESS, Avcs, Rows
from rmaplab.engine.memory import copy_page_range, zap_page_range
from rmaplab.engine.reached import FORK_FAILED
from rmaplab.engine.rmap import unlink_anon_vmas
from rmaplab.engine.rows import free_row, new_row
from rmaplab.engine.services import reach
from rmaplab.engine.trees import tree_first, tree_next
from rmaplab.engine.vma_adjust import vm_area_dup, vm_area_free, vma_iter_store, vma_unlink
from rmaplab.engine.watch import check_forked, check_reusable, graph_if_failing, unchanged
from rmaplab.kernel.flags import VM_DONTCOPY, VM_LOCKED, VM_WIPEONFORK

__all__ = ["dup_mm", "exit_mmap", "mmput", "new_mm", "process_add", "process_remove", "remove_vma"]

START_BRK = 0x5555_5555_6000


@compiled
def new_mm(m: Rows) -> int:
    """An empty address space with one user."""
    mm = new_row(m, MM)
    m[IDS].mm_ids += 1
    m[mm].id = m[IDS].mm_ids
    m[mm].users = 1
    m[mm].start_brk = START_BRK
    return mm


@compiled
def dup_mm(m: Rows, c: Avcs, oldmm: int) -> int:
    """A copy of an address space, or -ENOMEM with nothing left of it."""
    before = graph_if_failing(m, c)
    mm = new_mm(m)
    m[mm].start_brk = m[oldmm].start_brk
    m[mm].brk = m[oldmm].brk
    rc = dup_mmap(m, c, mm, oldmm)
    if rc == 0:
        return mm
    exit_mmap(m, c, mm)
    free_row(m, mm)
    if m[MACHINE].watched:
        unchanged(m, c, before)
        reach(m, FORK_FAILED)
    return rc


@compiled
def dup_mmap(m: Rows, c: Avcs, mm: int, oldmm: int) -> int:
    """Copy the VMAs in address order; each joins the reverse map before its pages are shared."""
    m[LOCKS].mmap_locks += 2
    mpnt = tree_first(m, m[oldmm].vmas)
    while mpnt:
        if not m[mpnt].vm_flags & VM_DONTCOPY and dup_vma(m, c, mm, mpnt) != 0:
            if not m[PARAMS].failed_fork_waits:
                remove_vmas(m, c, mm)
            return -ENOMEM
        mpnt = tree_next(m, mpnt)
    return 0


@compiled
def dup_vma(m: Rows, c: Avcs, mm: int, mpnt: int) -> int:
    """The child's copy of one VMA."""
    vma = vm_area_dup(m, mpnt)
    m[vma].vm_mm = mm
    wiped = m[mpnt].vm_flags & VM_WIPEONFORK
    if wiped:
        m[vma].anon_vma = 0
    else:
        watched = m[MACHINE].watched
        reusable = check_reusable(m, c, mpnt) if watched else False
        before = graph_if_failing(m, c)
        rc = anon_vma_fork(m, c, vma, mpnt)
        if watched and rc != 0:
            unchanged(m, c, before)
        elif watched and m[mpnt].anon_vma and m[vma].anon_vma:
            check_forked(m, c, vma, mpnt, reusable)
        if rc != 0:
            vm_area_free(m, vma)
            return rc
    m[vma].vm_flags &= ~VM_LOCKED
    vma_iter_store(m, vma)
    return 0 if wiped else copy_page_range(m, c, vma, mpnt)


# --- the end -------------------------------------------------------------------------------------


@compiled
def remove_vma(m: Rows, c: Avcs, vma: int) -> None:
    """Zap a VMA's pages, take it out, unlink and free it."""
    zap_page_range(m, vma, m[vma].key, m[vma].vm_end, False)
    vma_unlink(m, vma)
    unlink_anon_vmas(m, c, vma)
    vm_area_free(m, vma)


@compiled
def remove_vmas(m: Rows, c: Avcs, mm: int) -> None:
    """Every VMA of an mm, in address order."""
    while m[mm].vmas:
        remove_vma(m, c, tree_first(m, m[mm].vmas))


@compiled
def exit_mmap(m: Rows, c: Avcs, mm: int) -> None:
    """Last user gone: zap under the read lock, unlink and free under the write lock."""
    m[LOCKS].mmap_locks += 1
    if m[mm].vmas:
        m[LOCKS].mmap_locks += 1
        remove_vmas(m, c, mm)


@compiled
def mmput(m: Rows, c: Avcs, mm: int) -> None:
    """One user less; the last takes the address space down."""
    m[mm].users -= 1
    if m[mm].users == 0:
        unpin_all(m, mm)
        exit_mmap(m, c, mm)
        forget_mm(m, mm)
        free_row(m, mm)


# --- processes -----------------------------------------------------------------------------------


@compiled
def process_add(m: Rows, number: int, mm: int) -> int:
    """A new task, behind all others."""
    process = new_row(m, PROCESS)
    m[process].id = number
    m[process].mm = mm
    last = m[MACHINE].last_process
    m[process].earlier = last
    if last:
        m[last].later = process
    else:
        m[MACHINE].first_process = process
    m[MACHINE].last_process = process
    m[MACHINE].processes += 1
    return process


@compiled
def process_remove(m: Rows, c: Avcs, process: int) -> None:
    """A task ends; the last one of its address space takes that down."""
    earlier, later, mm = m[process].earlier, m[process].later, m[process].mm
    if earlier:
        m[earlier].later = later
    else:
        m[MACHINE].first_process = later
    if later:
        m[later].earlier = earlier
    else:
        m[MACHINE].last_process = earlier
    m[MACHINE].processes -= 1
    free_row(m, process)
    mmput(m, c, mm)
