# SPDX-License-Identifier: GPL-2.0-only
"""exec: a new address space, and its stack that moves (fs/exec.c and mm/vma_exec.c, v7.0).

The arguments are written to a temporary stack at the very top before anybody
knows where the stack will be.  Then the same VMA is moved: stretched over
both places, its page tables moved, and cut to the new place.  Its page offset
stays, so that in between only the new place is found by a walk.
"""

from __future__ import annotations

from errno import E2BIG, EFAULT, ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import (
    PAGE_SHIFT,
    PAGE_SIZE,
    TASK_SIZE,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_READ,
    VM_STACK_INCOMPLETE_SETUP,
    VM_WRITE,
)
from rmaplab.kernel.locking import MMAP_LOCK
from rmaplab.kernel.objects import Mm
from rmaplab.kernel.userfaultfd import Userfaultfd
from rmaplab.kernel.vma import VmaMerge

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma

__all__ = ["STACK_EXPAND", "STACK_FLAGS", "STACK_TOP", "Exec"]

STACK_TOP_MAX = TASK_SIZE
STACK_TOP = STACK_TOP_MAX - 0x1234_5000  # stands for a random place, bytes
STACK_EXPAND = 32 * PAGE_SIZE  # that a new stack grows by at once: 128 KiB
STACK_FLAGS = VM_READ | VM_WRITE | VM_GROWSDOWN | VM_ACCOUNT


class Exec(Userfaultfd):
    """From bprm_mm_init to setup_arg_pages."""

    def bprm_mm_init(self) -> Mm | int:
        """A new mm with a temporary stack and one page of arguments on it; -ENOMEM or -E2BIG with nothing left."""
        mm = Mm(self.new_ident(Mm))
        self.locks.acquire(MMAP_LOCK, mm)
        rc = self.create_init_stack_vma(mm)
        self.locks.release(MMAP_LOCK, mm)
        if rc == 0 and self.handle_mm_fault(mm, STACK_TOP_MAX - PAGE_SIZE, True) != 0:
            rc = -E2BIG  # what execve returns when an argument cannot be copied, whatever the reason
        if rc != 0:
            self.exit_mmap(mm)
            return rc
        return mm

    def create_init_stack_vma(self, mm: Mm) -> int:
        """One page at the top, marked as temporary; 0 or -ENOMEM."""
        start = STACK_TOP_MAX - PAGE_SIZE
        flags = STACK_FLAGS | VM_STACK_INCOMPLETE_SETUP
        return self.mmap_new_vma(mm, start, STACK_TOP_MAX, start >> PAGE_SHIFT, flags)

    def setup_arg_pages(self, mm: Mm) -> int:
        """Move the stack to where it will stay, and let it grow by 128 KiB; -ENOMEM or -EFAULT kill the process."""
        self.locks.acquire(MMAP_LOCK, mm)
        vma = mm.vmas[-1]
        rc = self.relocate_vma_down(vma, STACK_TOP_MAX - STACK_TOP)
        if rc == 0:
            vma.vm_flags &= ~VM_STACK_INCOMPLETE_SETUP
            if self.expand_downwards(vma, vma.vm_start - STACK_EXPAND) != 0:
                rc = -EFAULT
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def relocate_vma_down(self, vma: Vma, shift: int) -> int:
        """Move a VMA and its page tables down by ``shift`` bytes; 0 or -ENOMEM.

        No link is made or dropped.  Until the end the VMA covers both
        places; migration leaves temporary stacks alone.
        """
        old_start, old_end = vma.vm_start, vma.vm_end
        new_start, new_end = old_start - shift, old_end - shift
        vmg = VmaMerge(vma.vm_mm, new_start, old_end, vma.vm_pgoff, vma.vm_flags, anon_vma=vma.anon_vma)
        vmg.keep_pgoff = True
        if self.vma_expand(vmg, vma, new_start, old_end) is None:
            return -ENOMEM
        length = old_end - old_start
        if self.move_page_tables(vma, old_start, new_start, length, need_rmap_locks=False) != length:
            return -ENOMEM
        return self.vma_shrink(vma, new_start, new_end, vma.vm_pgoff)
