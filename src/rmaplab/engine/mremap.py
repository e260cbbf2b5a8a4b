# SPDX-License-Identifier: GPL-2.0-only
"""mremap on rows: :mod:`rmaplab.kernel.mremap` and ``move_page_tables``.

Without large folios and without failing page tables, a move always ends.
``new_addr`` below zero: the caller names no place.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOMEM

from rmaplab.engine.jit import compiled
from rmaplab.engine.ksm import unmerge_ksm_pages
from rmaplab.engine.layout import LOCKS, PARAMS, Avcs, Rows
from rmaplab.engine.memory import move_entries
from rmaplab.engine.mmap import do_vmi_munmap
from rmaplab.engine.pagetable import has_table
from rmaplab.engine.rmap import anon_vma_lock_write, anon_vma_unlock_write, unlink_anon_vmas, vma_lookup
from rmaplab.engine.vma import copy_vma, vma_merge_extend
from rmaplab.engine.vma_adjust import find, following_at, previous_to, split_vma
from rmaplab.kernel.flags import PAGE_SIZE, PMD_SIZE, TASK_SIZE, VM_ACCOUNT, VM_LOCKED, VM_SHARED

__all__ = ["do_mremap", "move_page_tables"]


@compiled
def do_mremap(
    m: Rows,
    c: Avcs,
    mm: int,
    addr: int,
    old_len: int,
    new_len: int,
    new_addr: int,
    dontunmap: bool,
    maymove: bool,
    unmapped_area: int,
) -> int:
    """The new address of a mapping that was resized or moved, or a negative errno."""
    rc = check_mremap_params(m, mm, addr, old_len, new_len, new_addr, dontunmap, maymove)
    if rc != 0:
        return rc
    m[LOCKS].mmap_locks += 1
    if new_addr >= 0 and old_len == new_len and not m[PARAMS].one_vma_moved:
        return remap_move(m, c, mm, addr, old_len, new_addr, dontunmap)
    vma = vma_lookup(m, mm, addr)
    moves = new_addr >= 0 or dontunmap
    if m[PARAMS].one_vma_moved and moves:
        if not vma:
            return -EFAULT
    else:
        rc = check_prep_vma(m, vma, addr, old_len, new_len, new_addr, dontunmap)
        if rc != 0:
            return rc
    if moves:
        return mremap_to(m, c, mm, addr, old_len, new_len, new_addr, dontunmap, unmapped_area)
    return mremap_at(m, c, mm, addr, old_len, new_len, maymove, unmapped_area)


# --- checks --------------------------------------------------------------------------------------


@compiled
def check_mremap_params(
    m: Rows, mm: int, addr: int, old_len: int, new_len: int, new_addr: int, dontunmap: bool, maymove: bool
) -> int:
    """What can be said of the arguments alone; v6.16 and before looks for a VMA before it looks at the new place."""
    if dontunmap and m[PARAMS].no_dontunmap:
        return -EINVAL
    if (addr | old_len | new_len) % PAGE_SIZE or not 0 < new_len <= TASK_SIZE or old_len < 0:
        return -EINVAL
    if dontunmap and (old_len != new_len or not maymove):
        return -EINVAL
    if new_addr < 0:
        return 0
    rc = 0
    if not maymove or new_addr % PAGE_SIZE or not 0 < new_addr <= TASK_SIZE - new_len:
        rc = -EINVAL
    elif addr < new_addr + new_len and new_addr < addr + old_len:
        rc = -EINVAL
    if rc != 0 and m[PARAMS].one_vma_moved and maymove and not vma_lookup(m, mm, addr):
        return -EFAULT
    return rc


@compiled
def check_prep_vma(m: Rows, vma: int, addr: int, old_len: int, new_len: int, new_addr: int, dontunmap: bool) -> int:
    """Whether this VMA may be resized or moved like that; 0, -EFAULT or -EINVAL."""
    if not vma:
        return -EFAULT
    if new_addr < 0 and not dontunmap and new_len <= old_len:
        return 0
    if old_len == 0 and not m[vma].vm_flags & VM_SHARED:
        return -EINVAL
    if min(old_len, new_len) > m[vma].vm_end - addr:
        return -EFAULT
    return 0


# --- the ways to go ------------------------------------------------------------------------------


@compiled
def remap_move(m: Rows, c: Avcs, mm: int, addr: int, length: int, new_addr: int, dontunmap: bool) -> int:
    """Move every VMA of a range, each to its distance from the first."""
    end, delta, address = addr + length, new_addr - addr, addr
    while address < end:
        vma = find(m, mm, address)
        if not vma or m[vma].key >= end:
            break
        if address == addr and address < m[vma].key:
            return -EFAULT
        start, upto = max(m[vma].key, address), min(m[vma].vm_end, end)
        part = upto - start
        rc = check_prep_vma(m, vma, start, part, part, start + delta, dontunmap)
        if rc == 0:
            rc = mremap_to(m, c, mm, start, part, part, start + delta, dontunmap, -1)
        if rc < 0:
            return rc
        address = upto
    return new_addr if address > addr else -EFAULT


@compiled
def mremap_to(
    m: Rows,
    c: Avcs,
    mm: int,
    addr: int,
    old_len: int,
    new_len: int,
    new_addr: int,
    dontunmap: bool,
    unmapped_area: int,
) -> int:
    """Clear the new place, shrink if asked to, and move."""
    if new_addr >= 0 and do_vmi_munmap(m, c, mm, new_addr, new_addr + new_len) != 0:
        return -ENOMEM
    if new_len < old_len:
        if do_vmi_munmap(m, c, mm, addr + new_len, addr + old_len) != 0:
            return -ENOMEM
        old_len = new_len
    return move_vma(m, c, mm, addr, old_len, new_len, unmapped_area if new_addr < 0 else new_addr, dontunmap)


@compiled
def mremap_at(
    m: Rows, c: Avcs, mm: int, addr: int, old_len: int, new_len: int, maymove: bool, unmapped_area: int
) -> int:
    """Resize in place, or move where there is room."""
    if new_len < old_len:
        return -ENOMEM if do_vmi_munmap(m, c, mm, addr + new_len, addr + old_len) != 0 else addr
    if new_len == old_len:
        return addr
    vma, delta = vma_lookup(m, mm, addr), new_len - old_len
    end = m[vma].vm_end
    if end == addr + old_len:
        behind = find(m, mm, end)
        if end + delta <= TASK_SIZE and (not behind or m[behind].key >= end + delta):
            return addr if vma_merge_extend(m, c, vma, delta) else -ENOMEM
    return move_vma(m, c, mm, addr, old_len, new_len, unmapped_area, False) if maymove else -ENOMEM


# --- move ----------------------------------------------------------------------------------------


@compiled
def move_vma(m: Rows, c: Avcs, mm: int, addr: int, old_len: int, new_len: int, new_addr: int, dontunmap: bool) -> int:
    """Move (a part of) one VMA to a place that is free now."""
    vma = vma_lookup(m, mm, addr)
    if not vma:
        return -EFAULT
    if new_addr < 0:
        return -ENOMEM
    end = addr + old_len
    if m[PARAMS].one_vma_moved:
        rc = check_prep_vma(m, vma, addr, old_len, new_len, new_addr, dontunmap)
        if rc != 0:
            return rc
    rc = unmerge_ksm_pages(m, c, vma, addr, end)
    if rc != 0:
        return rc
    if m[PARAMS].dontunmap_apart and dontunmap and m[vma].vm_flags & VM_LOCKED:
        split_after = end < m[vma].vm_end
        if m[vma].key < addr and split_vma(m, c, vma, addr, True) != 0:
            return -ENOMEM
        if split_after and split_vma(m, c, vma, end, False) != 0:
            return -ENOMEM
    pgoff = m[vma].vm_pgoff + ((addr - m[vma].key) >> 12)
    new, source, locks = copy_vma(m, c, vma, new_addr, new_addr + new_len, pgoff, dontunmap)
    if not new:
        return -ENOMEM
    move_page_tables(m, source, addr, new_addr, old_len, locks)
    if dontunmap:
        dontunmap_complete(m, c, source, new, addr, end)
    else:
        unmap_source_vma(m, c, mm, source, addr, end)
    return new_addr


@compiled
def move_page_tables(m: Rows, vma: int, old: int, new: int, length: int, need_rmap_locks: bool) -> None:
    """Move the entries of a VMA, by whole tables where both sides allow it."""
    mm, done = m[vma].vm_mm, 0
    while done < length:
        source, target = old + done, new + done
        extent = min(length - done, PMD_SIZE - source % PMD_SIZE, PMD_SIZE - target % PMD_SIZE)
        done += extent
        if not has_table(m, mm, source):
            continue
        if extent == PMD_SIZE and not m[PARAMS].tables_by_entry:
            locks = need_rmap_locks or m[PARAMS].rmap_locks == 0
            _rmap_locks(m, vma, locks)
            if not has_table(m, mm, target):
                move_entries(m, mm, source, target, extent)
                continue
        _rmap_locks(m, vma, need_rmap_locks)
        move_entries(m, mm, source, target, extent)


@compiled
def _rmap_locks(m: Rows, vma: int, needed: bool) -> None:
    """take_rmap_locks and drop_rmap_locks: nothing that entries do depends on them."""
    if needed and m[PARAMS].rmap_locks != 2 and m[vma].anon_vma:
        anon_vma_lock_write(m, m[vma].anon_vma)
        anon_vma_unlock_write(m, m[vma].anon_vma)


@compiled
def unmap_source_vma(m: Rows, c: Avcs, mm: int, vma: int, addr: int, end: int) -> None:
    """Unmap the old place; what stays of the VMA on either side stays accounted."""
    if addr == end:
        return
    hidden = m[vma].vm_flags & VM_ACCOUNT
    before, behind = m[vma].key < addr, m[vma].vm_end > end
    if hidden:
        m[vma].vm_flags &= ~VM_ACCOUNT
    if do_vmi_munmap(m, c, mm, addr, end) != 0 or not hidden:
        return
    prev, following = previous_to(m, mm, addr), following_at(m, mm, end)
    if before and prev:
        m[prev].vm_flags |= VM_ACCOUNT
    if behind and following:
        m[following].vm_flags |= VM_ACCOUNT


@compiled
def dontunmap_complete(m: Rows, c: Avcs, vma: int, new: int, addr: int, end: int) -> None:
    """The old VMA stays, empty and unlocked; if all of it was moved it is unfaulted again."""
    m[vma].vm_flags &= ~VM_LOCKED
    whole = m[vma].key == addr and m[vma].vm_end == end
    if new != vma and whole:
        unlink_anon_vmas(m, c, vma)
    if not whole:
        return
    if m[PARAMS].dontunmap_apart and m[vma].file == 0:
        m[vma].vm_pgoff = m[vma].anon_pgoff = m[vma].key >> 12
    if m[PARAMS].anon_pgoff_apart:
        m[vma].anon_pgoff = m[vma].key >> 12
