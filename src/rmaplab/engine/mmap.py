# SPDX-License-Identifier: GPL-2.0-only
"""mmap, munmap, mprotect, brk, madvise and the stack on rows: :mod:`rmaplab.kernel.mmap` and ``madvise``.

Addresses and lengths are in bytes; results 0 or a negative errno.
"""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINVAL, ENOMEM, EPERM

from rmaplab.engine.fork import remove_vma
from rmaplab.engine.jit import compiled
from rmaplab.engine.ksm import unmerge_ksm_pages
from rmaplab.engine.layout import IDS, LOCKS, PARAMS, VMG, Avcs, Rows
from rmaplab.engine.memory import change_protection, handle_mm_fault, zap_page_range
from rmaplab.engine.mergeable import set_merge
from rmaplab.engine.pagetable import GUARD, first_leaf, folio_of, pte_get, pte_put, pte_set
from rmaplab.engine.rmap import anon_vma_prepare, vma_lookup
from rmaplab.engine.trees import tree_next, tree_prev
from rmaplab.engine.vma import vma_merge_mapped_range, vma_merge_new_range, vma_modify_flags
from rmaplab.engine.vma_adjust import (
    find,
    following_at,
    origin,
    previous_to,
    split_vma,
    vm_area_alloc,
    vma_complete,
    vma_iter_store,
    vma_prepare,
    vma_set_range,
)
from rmaplab.kernel.flags import (
    PAGE_SIZE,
    TASK_SIZE,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYBE_GUARD,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_STICKY,
    VM_WRITE,
)

__all__ = [
    "do_brk",
    "do_madvise",
    "do_mmap",
    "do_mprotect",
    "do_munmap",
    "do_user_addr_fault",
    "do_vmi_munmap",
    "expand_downwards",
]

MMAP_MIN_ADDR, STACK_GUARD_GAP = 0x10000, 256 * PAGE_SIZE
DONTNEED, GUARD_INSTALL, GUARD_REMOVE, SET_FLAGS, PRIVATE_ANONYMOUS_FLAGS, PRIVATE_FLAGS, UNMERGEABLE = range(7)


# --- mmap ----------------------------------------------------------------------------------------


@compiled
def do_mmap(m: Rows, c: Avcs, mm: int, start: int, end: int, flags: int, file: int, pgoff: int) -> int:
    """Map [start, end), replacing what is there; ``pgoff`` in pages, below zero: that of the address."""
    if not 0 < start < end <= TASK_SIZE:
        return -ENOMEM
    m[LOCKS].mmap_locks += 1
    rc = do_vmi_munmap(m, c, mm, start, end)
    return rc if rc != 0 else mmap_region(m, c, mm, start, end, flags, file, pgoff)


@compiled
def mmap_region(m: Rows, c: Avcs, mm: int, start: int, end: int, flags: int, file: int, pgoff: int) -> int:
    """A neighbour grows over the free range, or a new VMA fills it."""
    if flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE:
        flags |= VM_ACCOUNT
    if flags & VM_SHARED and file == 0:
        m[IDS].shmem_ids += 1
        file, pgoff = -m[IDS].shmem_ids, 0
    if pgoff < 0:
        pgoff = start >> 12
    set_merge(m, mm, start, end, pgoff, flags, file, 0)
    m[VMG].prev = previous_to(m, mm, start)
    m[VMG].next = following_at(m, mm, end)
    if vma_merge_mapped_range(m, c):
        return 0
    vma_iter_store(m, vm_area_alloc(m, mm, start, end, pgoff, flags, file))
    return 0


@compiled
def do_brk(m: Rows, c: Avcs, mm: int, old_end: int, new_end: int) -> int:
    """Move the end of the heap."""
    m[LOCKS].mmap_locks += 1
    above = find(m, mm, min(old_end, new_end))
    rc = 0
    if new_end < old_end:
        if above and m[above].key < old_end:
            rc = do_vmi_munmap(m, c, mm, new_end, old_end)
        else:
            rc = -ENOMEM
    elif new_end > old_end:
        if above and new_end + PAGE_SIZE > _vm_start_gap(m, above):
            rc = -ENOMEM
        else:
            rc = _do_brk_flags(m, c, mm, old_end, new_end)
    if rc == 0:
        m[mm].brk = new_end
    return rc


@compiled
def _vm_start_gap(m: Rows, vma: int) -> int:
    return max(0, m[vma].key - STACK_GUARD_GAP) if m[vma].vm_flags & VM_GROWSDOWN else m[vma].key


@compiled
def _do_brk_flags(m: Rows, c: Avcs, mm: int, start: int, end: int) -> int:
    """Map more heap; only the VMA below is asked to grow, if it is a part of the heap."""
    flags = VM_READ | VM_WRITE | VM_ACCOUNT
    set_merge(m, mm, start, end, start >> 12, flags, 0, 0)
    if start > m[mm].start_brk:
        m[VMG].prev = previous_to(m, mm, start)
    if vma_merge_new_range(m, c):
        return 0
    if m[VMG].oom:
        return -ENOMEM
    vma_iter_store(m, vm_area_alloc(m, mm, start, end, start >> 12, flags, 0))
    return 0


# --- the stack -----------------------------------------------------------------------------------


@compiled
def do_user_addr_fault(m: Rows, c: Avcs, mm: int, address: int, write: bool, force: bool) -> int:
    """A process touches a page; a stack above it grows."""
    vma = find(m, mm, address)
    if not vma:
        return -EFAULT
    if m[vma].key > address:
        if not m[vma].vm_flags & VM_GROWSDOWN:
            return -EFAULT
        m[LOCKS].mmap_locks += 1
        if expand_downwards(m, c, vma, address) != 0:
            return -EFAULT
    return handle_mm_fault(m, c, mm, address, write, force)


@compiled
def expand_downwards(m: Rows, c: Avcs, vma: int, address: int) -> int:
    """Move a stack's start down to a free address; 0, -EPERM or -ENOMEM."""
    address = address >> 12 << 12
    if address < MMAP_MIN_ADDR:
        return -EPERM
    prev = tree_prev(m, vma)
    if prev and not m[prev].vm_flags & VM_GROWSDOWN and m[prev].vm_flags & 0x7:
        if address - m[prev].vm_end < STACK_GUARD_GAP:
            return -ENOMEM
    if anon_vma_prepare(m, c, vma) != 0:
        return -ENOMEM
    grow = (m[vma].key - address) >> 12
    if grow > m[vma].vm_pgoff:
        return -ENOMEM
    was = origin(m, vma)
    locked = vma_prepare(m, c, vma, 0)
    m[LOCKS].page_table_locks += m[PARAMS].stack_lock
    vma_set_range(m, vma, address, m[vma].vm_end, m[vma].vm_pgoff - grow)
    vma_complete(m, c, locked, vma, 0, was, 0)
    return 0


# --- munmap --------------------------------------------------------------------------------------


@compiled
def do_munmap(m: Rows, c: Avcs, mm: int, start: int, end: int) -> int:
    """Unmap [start, end)."""
    if not 0 <= start < end <= TASK_SIZE:
        return -EINVAL
    m[LOCKS].mmap_locks += 1
    return do_vmi_munmap(m, c, mm, start, end)


@compiled
def do_vmi_munmap(m: Rows, c: Avcs, mm: int, start: int, end: int) -> int:
    """Split the edges off, then take out what lies between; 0 or -ENOMEM."""
    vma = find(m, mm, start)
    if not vma or m[vma].key >= end:
        return 0
    if m[vma].key < start and split_vma(m, c, vma, start, True) != 0:
        return -ENOMEM
    last = vma_lookup(m, mm, end - 1)
    if last and m[last].vm_end > end and split_vma(m, c, last, end, False) != 0:
        return -ENOMEM
    vma = find(m, mm, start)
    while vma and m[vma].key < end:
        behind = m[vma].vm_end
        remove_vma(m, c, vma)
        vma = find(m, mm, behind)
    return 0


# --- mprotect and madvise ------------------------------------------------------------------------


@compiled
def do_mprotect(m: Rows, c: Avcs, mm: int, start: int, end: int, access: int) -> int:
    """Give [start, end) other access rights, VMA by VMA; a hole is -ENOMEM."""
    if not 0 <= start <= end <= TASK_SIZE:
        return -ENOMEM
    m[LOCKS].mmap_locks += 1
    address = start
    while address < end:
        vma = vma_lookup(m, mm, address)
        if not vma:
            return -ENOMEM
        upto = min(end, m[vma].vm_end)
        rc = mprotect_fixup(m, c, vma, address, upto, m[vma].vm_flags & ~0x7 | access)
        if rc != 0:
            return rc
        address = upto
    return 0


@compiled
def mprotect_fixup(m: Rows, c: Avcs, vma: int, start: int, end: int, flags: int) -> int:
    """Change the rights of a part of one VMA."""
    old = m[vma].vm_flags
    if flags == old:
        return 0
    if flags & VM_WRITE:
        if not old & (VM_ACCOUNT | VM_WRITE | VM_SHARED | VM_NORESERVE):
            flags |= VM_ACCOUNT
    elif old & VM_ACCOUNT and not m[PARAMS].keeps_account and m[vma].file == 0 and not m[vma].anon_vma:
        flags &= ~VM_ACCOUNT
    modified = vma_modify_flags(m, c, vma, start, end, flags)
    if modified < 0:
        return modified
    m[modified].vm_flags = flags | (m[modified].vm_flags & VM_STICKY)
    change_protection(m, modified, start, end)
    return 0


@compiled
def do_madvise(m: Rows, c: Avcs, mm: int, start: int, end: int, advice: int, added: int, removed: int) -> int:
    """Give advice on [start, end), VMA by VMA: one of the seven kinds, with the flags to set and to clear."""
    m[LOCKS].mmap_locks += 1
    hole, address = 0, start
    while address < end:
        vma = find(m, mm, address)
        if not vma or m[vma].key >= end:
            return -ENOMEM
        if m[vma].key > address:
            hole, address = -ENOMEM, m[vma].key
        upto = min(end, m[vma].vm_end)
        rc = _madvise_vma_behavior(m, c, vma, address, upto, advice, added, removed)
        if rc != 0:
            return rc
        address = upto
    return hole


@compiled
def _madvise_vma_behavior(
    m: Rows, c: Avcs, vma: int, start: int, end: int, advice: int, added: int, removed: int
) -> int:
    """One VMA's part of the advice."""
    if advice == GUARD_REMOVE:
        _guard_remove(m, m[vma].vm_mm, start, end)
        return 0
    if advice == DONTNEED or advice == GUARD_INSTALL:
        if m[vma].vm_flags & VM_LOCKED:
            return -EINVAL
        if advice == GUARD_INSTALL:
            return madvise_guard_install(m, c, vma, start, end)
        zap_page_range(m, vma, start, end, True)
        return 0
    if advice == PRIVATE_ANONYMOUS_FLAGS and (m[vma].file != 0 or m[vma].vm_flags & VM_SHARED):
        return -EINVAL
    if advice >= PRIVATE_FLAGS and m[vma].vm_flags & VM_SHARED:
        return 0
    if advice == UNMERGEABLE and unmerge_ksm_pages(m, c, vma, start, end) != 0:
        return -EAGAIN
    flags = m[vma].vm_flags & ~removed | added
    if flags == m[vma].vm_flags:
        return 0
    modified = vma_modify_flags(m, c, vma, start, end, flags)
    if modified < 0:
        return -EAGAIN if modified == -ENOMEM else modified
    m[modified].vm_flags = flags | (m[modified].vm_flags & VM_STICKY)
    return 0


@compiled
def madvise_guard_install(m: Rows, c: Avcs, vma: int, start: int, end: int) -> int:
    """Make every page of the range a guard; 0 or -ENOMEM."""
    if not m[PARAMS].guards_need_anon_vma:
        m[vma].vm_flags |= VM_MAYBE_GUARD
    if (m[vma].file == 0 or m[PARAMS].guards_need_anon_vma) and anon_vma_prepare(m, c, vma) != 0:
        return -ENOMEM
    if not _guard_install_walk(m, m[vma].vm_mm, start, end):
        zap_page_range(m, vma, start, end, True)
        _guard_install_walk(m, m[vma].vm_mm, start, end)
    return 0


@compiled
def _guard_install_walk(m: Rows, mm: int, start: int, end: int) -> bool:
    """Put guards in, up to the first page that something is mapped at; whether there was none."""
    for address in range(start, end, PAGE_SIZE):
        entry = pte_get(m, mm, address)
        if folio_of(entry) == GUARD:
            continue
        if entry != 0:
            return False
        pte_set(m, mm, address, 2 * GUARD)
    return True


@compiled
def _guard_remove(m: Rows, mm: int, start: int, end: int) -> None:
    leaf = first_leaf(m, mm, start)
    while leaf and m[leaf].key << 16 < end:
        base = m[leaf].key << 16
        behind = tree_next(m, leaf)
        low = max(start - base, 0) >> 12
        high = min(end - base, 1 << 16) >> 12
        for at in range(low, high):
            if folio_of(m[leaf].pte[at]) == GUARD:
                last = m[leaf].present == 1
                pte_put(m, mm, leaf, at, 0)
                if last:
                    break
        leaf = behind
