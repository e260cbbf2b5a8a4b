# SPDX-License-Identifier: GPL-2.0-only
"""exec on rows: :mod:`rmaplab.kernel.exec`."""

from __future__ import annotations

from errno import E2BIG, EFAULT

from rmaplab.engine.fork import exit_mmap, mmput, new_mm, process_remove
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import LOCKS, VMG, Avcs, Rows
from rmaplab.engine.memory import handle_mm_fault
from rmaplab.engine.mergeable import set_merge
from rmaplab.engine.mmap import expand_downwards
from rmaplab.engine.mremap import move_page_tables
from rmaplab.engine.rows import free_row
from rmaplab.engine.trees import tree_last
from rmaplab.engine.vma import vma_expand
from rmaplab.engine.vma_adjust import vm_area_alloc, vma_iter_store, vma_shrink
from rmaplab.kernel.flags import (
    PAGE_SIZE,
    TASK_SIZE,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_READ,
    VM_STACK_INCOMPLETE_SETUP,
    VM_WRITE,
)

__all__ = ["do_execve"]

STACK_SHIFT = 0x1234_5000  # by which the stack is moved down, bytes
STACK_EXPAND = 32 * PAGE_SIZE
STACK_FLAGS = VM_READ | VM_WRITE | VM_GROWSDOWN | VM_ACCOUNT


@compiled
def do_execve(m: Rows, c: Avcs, process: int) -> int:
    """Run a new program: a new address space with nothing but a stack; 0 or a negative errno.

    A failure before the old one is gone leaves the process as it was, a later one ends it.
    """
    mm = new_mm(m)
    m[LOCKS].mmap_locks += 1
    start = TASK_SIZE - PAGE_SIZE
    flags = STACK_FLAGS | VM_STACK_INCOMPLETE_SETUP
    vma_iter_store(m, vm_area_alloc(m, mm, start, TASK_SIZE, start >> 12, flags, 0))
    if handle_mm_fault(m, c, mm, start, True, False) != 0:
        exit_mmap(m, c, mm)
        free_row(m, mm)
        return -E2BIG
    old, m[process].mm = m[process].mm, mm
    mmput(m, c, old)
    rc = _setup_arg_pages(m, c, mm)
    if rc != 0:
        process_remove(m, c, process)
    return rc


@compiled
def _setup_arg_pages(m: Rows, c: Avcs, mm: int) -> int:
    """Move the stack to where it will stay, and let it grow by 128 KiB; 0, -ENOMEM or -EFAULT."""
    m[LOCKS].mmap_locks += 1
    vma = tree_last(m, m[mm].vmas)
    rc = _relocate_vma_down(m, c, vma)
    if rc != 0:
        return rc
    m[vma].vm_flags &= ~VM_STACK_INCOMPLETE_SETUP
    return -EFAULT if expand_downwards(m, c, vma, m[vma].key - STACK_EXPAND) != 0 else 0


@compiled
def _relocate_vma_down(m: Rows, c: Avcs, vma: int) -> int:
    """Stretch a VMA over both places, move its page tables, and cut it to the new place; no link changes."""
    start, end, pgoff = m[vma].key, m[vma].vm_end, m[vma].vm_pgoff
    new_start, new_end = start - STACK_SHIFT, end - STACK_SHIFT
    set_merge(m, m[vma].vm_mm, new_start, end, pgoff, m[vma].vm_flags, 0, m[vma].anon_vma)
    m[VMG].keep_pgoff = 1
    vma_expand(m, c, vma, new_start, end)
    move_page_tables(m, vma, start, new_start, end - start, False)
    return vma_shrink(m, c, vma, new_start, new_end, pgoff)
