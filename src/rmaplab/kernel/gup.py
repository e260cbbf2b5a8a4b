# SPDX-License-Identifier: GPL-2.0-only
"""Long-term pins, pages that a device may access while the process goes on, and mlock's faults (mm/gup.c, v7.0).

FOLL_PIN with FOLL_LONGTERM, as RDMA and VFIO take them.  A pinned anonymous
page is exclusive from then on (6c287605fd56, v5.19): fork copies it at once,
and nobody unmaps it.
"""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINVAL, ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SIZE, VM_ACCESS_FLAGS, VM_READ, VM_SHARED, VM_WRITE
from rmaplab.kernel.locking import MMAP_LOCK, READ
from rmaplab.kernel.memory import Memory

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Mm, Vma
    from rmaplab.kernel.pagetable import Pte

__all__ = ["Gup"]


class Gup(Memory):
    """pin_user_pages and unpin_user_page."""

    def pin_user_page(self, mm: Mm, address: int, *, write: bool) -> int:
        """Pin the page at an address (bytes) until it is unpinned; 0, -EFAULT or -ENOMEM.

        For writing it is faulted in as a write does.  For reading a page that
        is not this process's alone is unshared first: the device and the
        process must go on seeing the same page after the next write.
        """
        self.locks.acquire(MMAP_LOCK, mm, READ)
        mm.has_pinned = True
        while True:
            vma = mm.lookup(address)
            rc = -EFAULT if vma is None else self.check_vma_flags(vma, write=write)
            if rc != 0:
                break
            assert vma is not None
            pte = mm.page_table.present(address)
            if pte is not None and self.can_follow_page(pte, vma, write=write):
                mm.pinned.append((address, pte.folio))
                pte.folio.pins += pte.folio.anon
                break
            rc = self.fault_in(mm, address, write, unshare=pte is not None and not write)
            if rc != 0:
                break
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def check_vma_flags(self, vma: Vma, *, write: bool) -> int:
        """0, or -EFAULT for a VMA that does not allow the access, whatever is mapped there already."""
        return 0 if vma.vm_flags & (VM_WRITE if write else VM_READ) else -EFAULT

    def can_follow_page(self, pte: Pte, vma: Vma, *, write: bool) -> bool:
        """Whether a present entry will do as it is (follow_page_pte): writable, or with nothing to unshare."""
        return pte.writable if write else not self.gup_must_unshare(pte, vma)

    def gup_must_unshare(self, pte: Pte, vma: Vma) -> bool:
        """Whether a read-only pin needs a copy first: of a shared page, or of a file's in a private mapping.

        Since a7f226604170 (v5.19) for anonymous pages, 84209e87c696 (v6.2) for others, the zero page too.
        """
        if not pte.folio.anon:
            return not vma.vm_flags & VM_SHARED
        return not pte.folio.exclusive >> pte.page & 1

    def unpin_user_page(self, mm: Mm, address: int) -> int:
        """Drop a pin of the page that is at an address (bytes), or was when it was pinned; 0 or -EINVAL."""
        pte = mm.page_table.present(address)
        here = None if pte is None else pte.folio
        pins = [pin for pin in mm.pinned if pin[1] is here or pin[0] == address]
        if not pins:
            return -EINVAL
        pin = min(pins, key=lambda pin: (pin[1] is not here, pin[0] != address))
        mm.pinned.remove(pin)
        pin[1].pins -= pin[1].anon
        return 0

    def unpin_all(self, mm: Mm) -> None:
        """The device lets go of everything when the process ends."""
        for _, folio in mm.pinned:
            folio.pins -= folio.anon
        mm.pinned.clear()

    def mm_populate(self, mm: Mm, start: int, end: int) -> int:
        """Touch every page of a locked range: with a write where that makes it private; errno as mlock returns it."""
        for address in range(start, end, PAGE_SIZE):
            vma = mm.lookup(address)
            if vma is None or not vma.vm_flags & VM_ACCESS_FLAGS:
                return -ENOMEM
            rc = self.handle_mm_fault(mm, address, vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE)
            if rc != 0:
                return -ENOMEM if rc == -EFAULT else -EAGAIN
        return 0

    def populate_vma_page_range(self, vma: Vma, start: int, end: int) -> None:
        """Write to every page of a locked private range, up to one that cannot be had; the mmap lock is held."""
        for address in range(start, end, PAGE_SIZE):
            if self.fault_in(vma.vm_mm, address, write=True) != 0:
                break
