# SPDX-License-Identifier: GPL-2.0-only
"""Page faults, and copying and zapping page tables (mm/memory.c, v7.0).

Of what makes a write-protected entry writable before a write asks for it, if
the page is known to be exclusive, there is mprotect alone: a fault decides alike.
"""

from __future__ import annotations

from errno import EFAULT, ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import (
    PAGE_SIZE,
    PMD_SIZE,
    VM_ACCESS_FLAGS,
    VM_HUGEPAGE,
    VM_MAYBE_GUARD,
    VM_SHARED,
    VM_WRITE,
)
from rmaplab.kernel.huge_memory import HugeMemory
from rmaplab.kernel.locking import FOLIO_LOCK, MMAP_LOCK, READ
from rmaplab.kernel.objects import FILE_PAGE, ZERO_PAGE, Folio
from rmaplab.kernel.pagetable import GuardMarker, MigrationPte, Pte, SwapPte

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Mm, Vma
    from rmaplab.kernel.pagetable import Entry

__all__ = ["Memory"]


class Memory(HugeMemory):
    """Faults, copy on write, fork's copying of page tables, zapping."""

    # --- faults ------------------------------------------------------------------------------

    def handle_mm_fault(
        self, mm: Mm, address: int, write: bool, *, force: bool = False, unshare: bool = False
    ) -> int:
        """Touch one page: 0, -EFAULT where the VMA forbids it or is missing, or -ENOMEM.

        ``force`` overrides the VMA's access rights, as ptrace may;
        ``unshare`` (v6.0) makes the page exclusive as a write does, but
        leaves it write-protected.
        """
        self.locks.acquire(MMAP_LOCK, mm, READ)
        rc = self.fault_in(mm, address & -PAGE_SIZE, write, force=force, unshare=unshare)
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def fault_in(self, mm: Mm, address: int, write: bool, *, force: bool = False, unshare: bool = False) -> int:
        """:meth:`handle_mm_fault` for a caller that holds the mmap lock already."""
        vma = mm.lookup(address)
        needed = VM_WRITE if write else VM_ACCESS_FLAGS  # x86: what can be accessed at all can be read
        if vma is None or not (force or vma.vm_flags & needed):
            return -EFAULT
        if mm.page_table.pmds or vma.vm_flags & VM_HUGEPAGE:
            rc = self.handle_huge_fault(vma, address, write, unshare=unshare)
            if rc is not None:
                return rc
        return self.handle_pte_fault(vma, address, write, unshare=unshare)

    def handle_huge_fault(self, vma: Vma, address: int, write: bool, *, unshare: bool = False) -> int | None:
        """The part of a fault that a PMD can settle; None if it takes small entries."""
        table = vma.vm_mm.page_table
        huge = table.pmds.get(address & -PMD_SIZE)
        if huge is None:
            return self.do_huge_pmd_anonymous_page(vma, address) if write else None
        if not (write or unshare) or huge.writable:
            return 0
        return self.do_huge_pmd_wp_page(vma, address, huge, unshare=unshare)

    def handle_pte_fault(self, vma: Vma, address: int, write: bool, *, unshare: bool = False) -> int:
        """Bring a page in, or make it writable."""
        table = vma.vm_mm.page_table
        pte = table.get(address)
        if pte is None:
            return self.do_pte_missing(vma, address, write)
        if not isinstance(pte, Pte):
            rc = self.do_pte_nonpresent(vma, address, pte, write)
            if rc != 0:
                return rc
            pte = table.get(address)
            assert isinstance(pte, Pte)
        if (write or unshare) and not pte.writable:
            return self.do_wp_page(vma, address, pte, unshare=unshare)
        return 0

    def do_pte_nonpresent(self, vma: Vma, address: int, pte: Entry, write: bool) -> int:
        """Bring a page back that has left for a while; -EFAULT for a guard, -ENOMEM."""
        if isinstance(pte, SwapPte):
            return self.do_swap_page(vma, address, pte, write)
        if isinstance(pte, MigrationPte):
            raise KernelBug(f"{address:#x} of {vma.vm_mm} waits for a migration of {pte.folio} that has ended")
        return -EFAULT

    def do_pte_missing(self, vma: Vma, address: int, write: bool) -> int:
        """Nothing is mapped yet.  A read takes no anon_vma: it maps the zero page, or the page cache."""
        if self.pte_alloc(vma.vm_mm, address) != 0:
            return -ENOMEM
        if vma.vm_flags & VM_SHARED:
            self.set_pte(vma.vm_mm, address, FILE_PAGE, write)
            return 0
        if write:
            return self.do_anonymous_page(vma, address) if vma.file is None else self.wp_page_copy(vma, address)
        self.set_pte(vma.vm_mm, address, ZERO_PAGE if vma.file is None else FILE_PAGE, False)
        return 0

    def do_anonymous_page(self, vma: Vma, address: int) -> int:
        """The first write to anonymous memory: a fresh folio, of one page or more; 0 or -ENOMEM.

        The anon_vma comes first, and stays if there is no page to be had.
        """
        if self.anon_vma_prepare(vma) != 0:
            return -ENOMEM
        found = self.alloc_anon_folio(vma, address)
        if found is None:
            return -ENOMEM
        folio, start = found
        self.folio_add_new_anon_rmap(folio, vma, start)
        self.set_ptes(vma.vm_mm, start, folio, bool(vma.vm_flags & VM_WRITE))
        return 0

    def wp_page_copy(self, vma: Vma, address: int, *, unshare: bool = False) -> int:
        """A private copy of one page, of a file or of another process (do_cow_fault, wp_page_copy); 0 or -ENOMEM."""
        if self.anon_vma_prepare(vma) != 0 or not self.slab.reserve("page"):
            return -ENOMEM
        folio = Folio(self.new_ident(Folio))
        self.folio_add_new_anon_rmap(folio, vma, address)
        self.set_pte(vma.vm_mm, address, folio, bool(vma.vm_flags & VM_WRITE) and not unshare)
        return 0

    def do_wp_page(self, vma: Vma, address: int, pte: Pte, *, unshare: bool = False) -> int:
        """Write to a write-protected page: reuse it if it is this process's alone, else copy."""
        folio = pte.folio
        if vma.vm_flags & VM_SHARED:
            pte.writable = not unshare
            return 0
        if folio.exclusive >> pte.page & 1 or (folio.anon and self.wp_can_reuse_anon_folio(folio, vma, pte.page)):
            pte.writable = bool(vma.vm_flags & VM_WRITE) and not unshare
            return 0
        rc = self.wp_page_copy(vma, address, unshare=unshare)
        if rc == 0 and folio.anon:
            self.folio_remove_rmap_pte(folio, pte.page)
        return rc

    def wp_can_reuse_anon_folio(self, folio: Folio, vma: Vma, page: int) -> bool:
        """Whether the writer is the last user of a page; a small folio then moves to its anon_vma.

        The swap cache and pins are users, too; of a large folio only the page becomes exclusive.
        """
        if folio.order:
            reuse = self.wp_can_reuse_large_anon_folio(folio, vma)
            folio.exclusive |= reuse << page
            return reuse
        if folio.stable_node is not None or folio.mapcount > 1 or folio.pins:
            return False
        self.locks.acquire(FOLIO_LOCK, folio)
        reuse = folio.slot is None or self.folio_free_swap(folio)
        if reuse:
            self.folio_move_anon_rmap(folio, vma)
        self.locks.release(FOLIO_LOCK, folio)
        return reuse

    # --- fork ----------------------------------------------------------------------------------

    def copy_page_range(self, dst: Vma, src: Vma) -> int:
        """Share the parent's pages with the child, write-protected in both; 0 or -ENOMEM.

        A VMA without anon_vma has nothing that the child could not fault in by itself, but guards.
        """
        if src.anon_vma is None and not src.vm_flags & VM_MAYBE_GUARD:
            return 0
        table = src.vm_mm.page_table
        for address, huge in table.huge_range(src.vm_start, src.vm_end):
            rc = self.copy_huge_pmd(dst, src, address, huge)
            if rc == -ENOMEM:
                return rc
        for address, pte in table.range(src.vm_start, src.vm_end):
            if self.pte_alloc(dst.vm_mm, address) != 0:
                return -ENOMEM
            if isinstance(pte, Pte):
                rc = self.copy_present_pte(dst, src, address, pte)
                if rc != 0:
                    return rc
            else:
                dst.vm_mm.page_table.set(address, self.copy_nonpresent_pte(pte))
        return 0

    def copy_present_pte(self, dst: Vma, src: Vma, address: int, pte: Pte) -> int:
        """Share one page, or copy it at once if the parent has it pinned for a device."""
        folio = pte.folio
        if folio.anon and not self.folio_try_dup_anon_rmap_pte(folio, pte.page, dst, src):
            return self.copy_present_page(dst, address)
        pte.writable = False
        self.set_pte(dst.vm_mm, address, folio, False, pte.page)
        return 0

    def copy_present_page(self, dst: Vma, address: int) -> int:
        """The child's own copy of a pinned page, on its own anon_vma; the parent keeps the original."""
        if not self.slab.reserve("page"):
            return -ENOMEM
        folio = Folio(self.new_ident(Folio))
        self.folio_add_new_anon_rmap(folio, dst, address)
        self.set_pte(dst.vm_mm, address, folio, bool(dst.vm_flags & VM_WRITE))
        return 0

    def copy_nonpresent_pte(self, pte: Entry) -> Entry:
        """The child's copy of a swap or migration entry, exclusive to nobody from now on, or of a guard."""
        if isinstance(pte, SwapPte):
            self.swap_duplicate(pte.slot)
            pte.exclusive = False
            return SwapPte(pte.slot, False)
        if isinstance(pte, MigrationPte):
            pte.writable = pte.exclusive = False
            return MigrationPte(pte.folio, False, False, pte.page)
        return GuardMarker()

    # --- ranges ----------------------------------------------------------------------------------

    def zap_page_range(self, vma: Vma, start: int, end: int, *, keep_guards: bool = False) -> None:
        """Remove the entries of [start, end) (bytes) and their claim on pages and swap slots."""
        mm = vma.vm_mm
        for address, _ in mm.page_table.huge_range(start, end):
            if start <= address and address + PMD_SIZE <= end:
                self.zap_huge_pmd(mm, address)
            else:
                self.split_huge_pmd(vma, address)
        for address, pte in mm.page_table.range(start, end):
            if isinstance(pte, GuardMarker) and keep_guards:
                continue
            mm.page_table.clear(address)
            if isinstance(pte, Pte) and pte.folio.anon:
                self.folio_remove_rmap_pte(pte.folio, pte.page)
            elif isinstance(pte, SwapPte):
                self.swap_free(pte.slot)

    def change_protection(self, vma: Vma, start: int, end: int) -> None:
        """Follow a VMA's new rights in its page table: no entry is writable, or each that needs no fault first."""
        table = vma.vm_mm.page_table
        for address, huge in table.huge_range(start, end):
            if start > address or address + PMD_SIZE > end:
                self.split_huge_pmd(vma, address)
            else:
                self.change_huge_pmd(vma, address, huge)
        may_write = vma.vm_flags & VM_WRITE
        for _, pte in table.range(start, end):
            if not may_write and isinstance(pte, Pte | MigrationPte):
                pte.writable = False
            elif may_write and isinstance(pte, Pte) and self.can_change_pte_writable(pte):
                pte.writable = True
