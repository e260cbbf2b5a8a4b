# SPDX-License-Identifier: GPL-2.0-only
"""Page faults and page-table copies (mm/memory.c, v7.0), small pages only.

A write-protected entry is never made writable early: the kernel may do so
when it can prove the page exclusive, which a later fault decides alike.
"""

from __future__ import annotations

from errno import EFAULT, ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SIZE, VM_ACCESS_FLAGS, VM_SHARED, VM_WRITE
from rmaplab.kernel.huge_memory import HugeMemory
from rmaplab.kernel.locking import FOLIO_LOCK, MMAP_LOCK, READ
from rmaplab.kernel.objects import FILE_PAGE, ZERO_PAGE, Folio
from rmaplab.kernel.pagetable import MigrationPte, Pte

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Mm, Vma

__all__ = ["Memory"]


class Memory(HugeMemory):
    """Faults, copy on write, fork's copying of page tables, zapping."""

    def handle_mm_fault(self, mm: Mm, address: int, write: bool, *, force: bool = False) -> int:
        """Touch one page: 0, -EFAULT where the VMA forbids it or is missing, or -ENOMEM.

        ``force`` overrides the VMA's access rights, as ptrace may.
        """
        self.locks.acquire(MMAP_LOCK, mm, READ)
        vma = mm.lookup(address)
        needed = VM_WRITE if write else VM_ACCESS_FLAGS  # x86: what can be accessed at all can be read
        rc = -EFAULT
        if vma is not None and (force or vma.vm_flags & needed):
            rc = self.handle_pte_fault(vma, address & -PAGE_SIZE, write)
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def handle_pte_fault(self, vma: Vma, address: int, write: bool) -> int:
        """Bring a page in, or make it writable."""
        pte = vma.vm_mm.page_table.get(address)
        if isinstance(pte, Pte):
            return self.do_wp_page(vma, address, pte) if write and not pte.writable else 0
        if vma.vm_flags & VM_SHARED:
            self.set_pte(vma.vm_mm, address, FILE_PAGE, write)
            return 0
        if write:
            return self.do_new_page(vma, address)
        # A read fault takes no anon_vma: it maps the zero page, or the page cache.
        self.set_pte(vma.vm_mm, address, ZERO_PAGE if vma.file is None else FILE_PAGE, False)
        return 0

    def do_new_page(self, vma: Vma, address: int) -> int:
        """A fresh anonymous page (do_anonymous_page, do_cow_fault, wp_page_copy); 0 or -ENOMEM."""
        if self.anon_vma_prepare(vma) != 0:
            return -ENOMEM
        folio = Folio(self.new_ident(Folio))
        self.folio_add_new_anon_rmap(folio, vma, address)
        self.set_pte(vma.vm_mm, address, folio, True)
        return 0

    def do_wp_page(self, vma: Vma, address: int, pte: Pte) -> int:
        """Write to a write-protected page: reuse it if it is this process's alone, else copy."""
        folio = pte.folio
        if vma.vm_flags & VM_SHARED or folio.exclusive:
            pte.writable = True
            return 0
        if folio.anon and self.wp_can_reuse_anon_folio(folio, vma):
            pte.writable = True
            return 0
        rc = self.do_new_page(vma, address)
        if rc == 0 and folio.anon:
            self.folio_remove_rmap_pte(folio)
        return rc

    def wp_can_reuse_anon_folio(self, folio: Folio, vma: Vma) -> bool:
        """Whether the writer is the last mapper; then the folio moves to its anon_vma."""
        if folio.mapcount > 1:
            return False
        self.locks.acquire(FOLIO_LOCK, folio)
        self.folio_move_anon_rmap(folio, vma)
        self.locks.release(FOLIO_LOCK, folio)
        return True

    def copy_page_range(self, dst: Vma, src: Vma) -> None:
        """Share the parent's pages with the child, write-protected in both.

        A VMA without anon_vma has nothing that the child could not fault in by itself.
        """
        if src.anon_vma is None:
            return
        for address, pte in src.vm_mm.page_table.range(src.vm_start, src.vm_end):
            if not isinstance(pte, Pte):
                continue
            if pte.folio.anon:
                self.folio_try_dup_anon_rmap_pte(pte.folio)
            pte.writable = False
            self.set_pte(dst.vm_mm, address, pte.folio, False)

    def zap_page_range(self, mm: Mm, start: int, end: int) -> None:
        """Remove the entries of [start, end) (bytes) and their claim on the pages."""
        for address, pte in mm.page_table.range(start, end):
            if isinstance(pte, Pte) and pte.folio.anon:
                self.folio_remove_rmap_pte(pte.folio)
            mm.page_table.clear(address)

    def change_protection(self, vma: Vma, start: int, end: int) -> None:
        """Follow a VMA's loss of write permission in its page table."""
        if not vma.vm_flags & VM_WRITE:
            for _, pte in vma.vm_mm.page_table.range(start, end):
                if isinstance(pte, Pte | MigrationPte):
                    pte.writable = False
