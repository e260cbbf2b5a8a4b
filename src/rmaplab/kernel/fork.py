# SPDX-License-Identifier: GPL-2.0-only
"""fork: copy an address space (kernel/fork.c and mm/mmap.c, v7.0)."""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.exec import Exec
from rmaplab.kernel.flags import VM_DONTCOPY, VM_LOCKED, VM_WIPEONFORK
from rmaplab.kernel.locking import MMAP_LOCK
from rmaplab.kernel.objects import Mm

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma

__all__ = ["Fork"]


class Fork(Exec):
    """dup_mm and dup_mmap."""

    def dup_mm(self, oldmm: Mm) -> Mm | int:
        """A copy of an address space, or -ENOMEM with nothing left of it."""
        mm = Mm(self.new_ident(Mm))
        mm.start_brk, mm.brk = oldmm.start_brk, oldmm.brk
        rc = self.dup_mmap(mm, oldmm)
        if rc != 0:
            self.exit_mmap(mm)
            return rc
        return mm

    def dup_mmap(self, mm: Mm, oldmm: Mm) -> int:
        """Copy the VMAs in address order; each joins the reverse map before its pages are shared."""
        self.locks.acquire(MMAP_LOCK, oldmm)
        self.locks.acquire(MMAP_LOCK, mm)
        rc = self.vma_iter_prealloc()  # the tree is copied as a whole first
        for mpnt in oldmm.vmas if rc == 0 else ():
            skip = mpnt.vm_flags & VM_DONTCOPY  # taken out of the copied tree
            rc = self.vma_iter_prealloc() if skip else self.dup_vma(mm, mpnt)
            if rc != 0:
                self.dup_mmap_failed(mm)
                break
        self.locks.release(MMAP_LOCK, mm)
        self.locks.release(MMAP_LOCK, oldmm)
        return rc

    def dup_vma(self, mm: Mm, mpnt: Vma) -> int:
        """One turn of dup_mmap's loop: the child's copy of one VMA."""
        vma = self.vm_area_dup(mpnt)
        if vma is None:
            return -ENOMEM
        vma.vm_mm = mm
        if mpnt.vm_flags & VM_WIPEONFORK:
            vma.anon_vma = None  # starts unfaulted; no page is shared
        else:
            rc = self.anon_vma_fork(vma, mpnt)
            if rc != 0:
                self.vm_area_free(vma)
                return rc
        vma.vm_flags &= ~VM_LOCKED
        mm.vmas.append(vma)  # ascending, like the parent's
        vma.attached = True
        return 0 if mpnt.vm_flags & VM_WIPEONFORK else self.copy_page_range(vma, mpnt)

    def dup_mmap_failed(self, mm: Mm) -> None:
        """Take the half-copied mm down at once, under its lock, so that nobody meets it (43873af772f8)."""
        self.unmap_vmas(mm, mm.vmas)
        self.remove_vmas(mm)
