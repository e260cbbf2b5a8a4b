# SPDX-License-Identifier: GPL-2.0-only
"""The address-space calls: mmap, munmap, mprotect, brk, exit, and the stack (mm/mmap.c, mm/mprotect.c, v7.0).

Addresses and lengths are in bytes and page-aligned.  Results are 0 or a
negative errno.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import (
    PAGE_SHIFT,
    PAGE_SIZE,
    TASK_SIZE,
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_STICKY,
    VM_WRITE,
)
from rmaplab.kernel.locking import MMAP_LOCK, READ
from rmaplab.kernel.migrate import Migrate
from rmaplab.kernel.vma import VmaMerge

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmaplab.kernel.objects import Mm, Vma

__all__ = ["Mmap"]

MMAP_MIN_ADDR = 0x10000
STACK_GUARD_GAP = 256 * PAGE_SIZE


class Mmap(Migrate):
    """System calls that change VMAs."""

    data_default_flags: int = VM_READ | VM_WRITE
    """VM_DATA_DEFAULT_FLAGS, an architecture's choice: what a heap may do; x86-64's user-mode kernels add VM_EXEC."""

    def do_mmap(
        self, mm: Mm, start: int, end: int, flags: int, file: str | None = None, pgoff: int | None = None
    ) -> int:
        """Map [start, end), replacing what is there (MAP_FIXED); ``pgoff`` in pages, for files."""
        if not 0 < start < end <= TASK_SIZE:
            return -ENOMEM
        self.locks.acquire(MMAP_LOCK, mm)
        rc = self.do_vmi_munmap(mm, start, end)
        if rc == 0:
            rc = self.mmap_region(mm, start, end, flags, file, pgoff)
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def mmap_region(self, mm: Mm, start: int, end: int, flags: int, file: str | None, pgoff: int | None) -> int:
        """A neighbour grows over the free range, or a new VMA fills it."""
        if flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE:
            flags |= VM_ACCOUNT  # private and writable: counts against overcommit
        if flags & VM_SHARED and file is None:
            file, pgoff = f"/dev/zero#{self.new_ident('shmem')}", 0  # a shmem file of its own
        if pgoff is None:
            pgoff = start >> PAGE_SHIFT
        prev, following = mm.neighbours(start, end)
        vmg = VmaMerge(mm, start, end, pgoff, flags, file, prev=prev, next=following)
        if self.vma_merge_mapped_range(vmg) is not None:
            return 0
        return self.mmap_new_vma(mm, start, end, pgoff, flags, file)

    def vma_merge_mapped_range(self, vmg: VmaMerge) -> Vma | None:
        """What mmap asks for a range: any neighbour may grow over it."""
        return self.vma_merge_new_range(vmg)

    def mmap_new_vma(self, mm: Mm, start: int, end: int, pgoff: int, flags: int, file: str | None = None) -> int:
        """A VMA of its own for a free range, also where a merge ran out of memory; 0 or -ENOMEM."""
        vma = self.vm_area_alloc(mm, start, end, pgoff, flags, file)
        if vma is None:
            return -ENOMEM
        if self.vma_link(vma) != 0:
            self.vm_area_free(vma)
            return -ENOMEM
        return 0

    def do_brk(self, mm: Mm, old_end: int, new_end: int) -> int:
        """Move the end of the heap; growth extends the heap's VMA or, beside a fork child's, makes another.

        0, or -ENOMEM: no memory, something in the way, or no heap left to shrink.
        """
        self.locks.acquire(MMAP_LOCK, mm)
        at = mm.find(min(old_end, new_end))
        above = mm.vmas[at] if at < len(mm.vmas) else None
        if new_end < old_end:
            mapped = above is not None and above.vm_start < old_end
            rc = self.do_vmi_munmap(mm, new_end, old_end) if mapped else -ENOMEM
        else:  # a page stays free behind the heap, or the gap of a stack
            blocked = above is not None and new_end + PAGE_SIZE > self.vm_start_gap(above) and new_end > old_end
            rc = -ENOMEM if blocked else self.do_brk_flags(mm, old_end, new_end)
        if rc == 0:
            mm.brk = new_end
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def vm_start_gap(self, vma: Vma) -> int:
        """Where a VMA begins for others: a stack's gap below it is to stay free."""
        return max(0, vma.vm_start - STACK_GUARD_GAP) if vma.vm_flags & VM_GROWSDOWN else vma.vm_start

    def do_brk_flags(self, mm: Mm, start: int, end: int) -> int:
        """Map more heap; only the VMA below is asked to grow, if it is a part of the heap."""
        if start == end:
            return 0
        below = mm.neighbours(start, end)[0] if start > mm.start_brk else None
        flags = self.data_default_flags | VM_ACCOUNT
        vmg = VmaMerge(mm, start, end, start >> PAGE_SHIFT, flags, prev=below)
        if self.vma_merge_new_range(vmg) is not None:
            return 0
        return -ENOMEM if vmg.oom else self.mmap_new_vma(mm, start, end, vmg.pgoff, flags)

    # --- the stack ---------------------------------------------------------------------------

    def do_user_addr_fault(self, mm: Mm, address: int, write: bool, *, force: bool = False) -> int:
        """A process touches a page: 0, -ENOMEM, or -EFAULT, which stands for SIGSEGV (arch/x86/mm/fault.c)."""
        if self.expand_stack(mm, address) != 0:
            return -EFAULT
        return self.handle_mm_fault(mm, address, write, force=force)

    def expand_stack(self, mm: Mm, address: int) -> int:
        """Find a VMA at an address (bytes), or let the stack above grow to it; 0, -EFAULT, -EPERM or -ENOMEM."""
        at = mm.find(address)
        vma = mm.vmas[at] if at < len(mm.vmas) else None
        if vma is None or vma.vm_start <= address:
            return 0 if vma is not None else -EFAULT
        if not vma.vm_flags & VM_GROWSDOWN:
            return -EFAULT
        self.locks.acquire(MMAP_LOCK, mm)
        rc = self.expand_downwards(vma, address)
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def expand_downwards(self, vma: Vma, address: int) -> int:
        """Move a stack's start down to a free address; 0, -EPERM at the bottom, or -ENOMEM, also if it has no room.

        An anon_vma comes first, even for a stack that was never written to,
        and stays if nothing comes of it.
        """
        mm = vma.vm_mm
        address &= -PAGE_SIZE
        if address < MMAP_MIN_ADDR:
            return -EPERM
        at = mm.vmas.index(vma)
        prev = mm.vmas[at - 1] if at else None
        guarded = prev is not None and not prev.vm_flags & VM_GROWSDOWN and prev.vm_flags & VM_ACCESS_FLAGS
        if guarded and prev is not None and address - prev.vm_end < STACK_GUARD_GAP:
            return -ENOMEM
        if self.vma_iter_prealloc() != 0 or self.anon_vma_prepare(vma) != 0:
            return -ENOMEM
        grow = (vma.vm_start - address) >> PAGE_SHIFT
        if grow > vma.vm_pgoff:
            return -ENOMEM
        locked = self.vma_prepare(vma)
        self.grow_vma_down(vma, address, vma.vm_pgoff - grow)
        self.vma_complete(locked, vma)
        return 0

    def grow_vma_down(self, vma: Vma, start: int, pgoff: int) -> None:
        """The fields of a stack that grows; the root's lock is held."""
        self.vma_set_range(vma, start, vma.vm_end, pgoff)

    # --- munmap and exit -------------------------------------------------------------------

    def do_munmap(self, mm: Mm, start: int, end: int) -> int:
        """Unmap [start, end); -ENOMEM if an edge cannot be split off."""
        if not 0 <= start < end <= TASK_SIZE:
            return -EINVAL
        self.locks.acquire(MMAP_LOCK, mm)
        rc = self.do_vmi_munmap(mm, start, end)
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def do_vmi_munmap(self, mm: Mm, start: int, end: int) -> int:
        """Split the edges off, then take out what lies between."""
        at = mm.find(start)
        if at < len(mm.vmas) and mm.vmas[at].vm_start < start and self.split_vma(mm.vmas[at], start, new_below=True):
            return -ENOMEM
        doomed = []
        for vma in mm.vmas[mm.find(start) :]:
            if vma.vm_start >= end:
                break
            if vma.vm_end > end and self.split_vma(vma, end, new_below=False):
                return -ENOMEM
            doomed.append(vma)
        if doomed and self.vma_iter_prealloc() != 0:
            return -ENOMEM
        for vma in doomed:
            self.vma_unlink(vma)
        self.unmap_vmas(mm, doomed)
        self.free_pgtables(doomed)
        return 0

    def unmap_vmas(self, mm: Mm, vmas: list[Vma]) -> None:
        """Zap the pages: nothing maps an anonymous page through these VMAs any more."""
        for vma in vmas:
            self.zap_page_range(vma, vma.vm_start, vma.vm_end)

    def free_pgtables(self, vmas: list[Vma]) -> None:
        """Leave the reverse map, in address order, before the page tables and the VMAs go."""
        for vma in vmas:
            self.unlink_anon_vmas(vma)
        for vma in vmas:
            self.vm_area_free(vma)

    def exit_mmap(self, mm: Mm) -> None:
        """Last user gone: zap under the read lock, unlink and free under the write lock."""
        self.locks.acquire(MMAP_LOCK, mm, READ)
        self.unmap_vmas(mm, mm.vmas)
        self.locks.release(MMAP_LOCK, mm)
        if mm.vmas:
            self.locks.acquire(MMAP_LOCK, mm)
            self.remove_vmas(mm)
            self.locks.release(MMAP_LOCK, mm)

    def remove_vmas(self, mm: Mm) -> None:
        """Unlink and free every VMA of an mm whose pages are zapped."""
        vmas, mm.vmas = mm.vmas, []
        for vma in vmas:
            vma.attached = False
        self.free_pgtables(vmas)

    # --- mprotect --------------------------------------------------------------------------

    def do_mprotect(self, mm: Mm, start: int, end: int, access: int) -> int:
        """Give [start, end) other access rights (VM_READ/WRITE/EXEC), VMA by VMA; a hole is -ENOMEM."""
        if not 0 <= start <= end <= TASK_SIZE:
            return -ENOMEM

        def change(vma: Vma, first: int, upto: int) -> int:
            return self.mprotect_fixup(vma, first, upto, vma.vm_flags & ~VM_ACCESS_FLAGS | access)

        return self.change_vmas(mm, start, end, change)

    def change_vmas(self, mm: Mm, start: int, end: int, change: Callable[[Vma, int, int], int]) -> int:
        """Change each VMA's part of [start, end), up to the first that fails, or to a hole: -ENOMEM."""
        self.locks.acquire(MMAP_LOCK, mm)
        rc, address = 0, start
        while address < end and rc == 0:
            vma = mm.lookup(address)
            if vma is None:
                rc = -ENOMEM
                break
            upto = min(end, vma.vm_end)
            rc = change(vma, address, upto)
            address = upto
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def may_unaccount(self, vma: Vma) -> bool:
        """Whether a VMA that becomes read-only gives its claim on memory back: none of it was used."""
        return vma.file is None and vma.anon_vma is None

    def mprotect_fixup(self, vma: Vma, start: int, end: int, flags: int) -> int:
        """Change the rights of a part of one VMA.

        VM_ACCOUNT follows the write right, but once faulted a VMA keeps it:
        its private pages stay.  So a read-only VMA that was written to and
        one that was not differ in flags, and do not merge.  A locked VMA that
        becomes writable gets its own copies of all pages now.
        """
        old = vma.vm_flags
        if flags == old:
            return 0
        if flags & VM_WRITE:
            if not old & (VM_ACCOUNT | VM_WRITE | VM_SHARED | VM_NORESERVE):
                flags |= VM_ACCOUNT
        elif old & VM_ACCOUNT and self.may_unaccount(vma):
            flags &= ~VM_ACCOUNT
        modified = self.vma_modify_flags(vma, start, end, flags)
        if isinstance(modified, int):
            return modified
        modified.vm_flags = flags | modified.vm_flags & VM_STICKY
        self.change_protection(modified, start, end)
        if old & (VM_LOCKED | VM_SHARED | VM_WRITE) == VM_LOCKED and flags & VM_WRITE:
            self.populate_vma_page_range(modified, start, end)
        return 0
