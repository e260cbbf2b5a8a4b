# SPDX-License-Identifier: GPL-2.0-only
"""Huge page-table entries: one PMD entry maps a folio of 512 pages (mm/huge_memory.c, mm/memory.c, v7.0).

The machine's policy is ``madvise``: only VMAs with VM_HUGEPAGE get large
folios.  Two simplifications: the huge zero page does not exist, so a read
fault maps the small one; and a page table goes with its last entry, so a
range that was emptied may be mapped huge again, where a kernel would wait
for khugepaged.
"""

from __future__ import annotations

from errno import EAGAIN, ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import (
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_ORDER,
    PMD_SHIFT,
    PMD_SIZE,
    VM_HUGEPAGE,
    VM_NOHUGEPAGE,
    VM_SHARED,
    VM_STACK_INCOMPLETE_SETUP,
    VM_WRITE,
)
from rmaplab.kernel.locking import FOLIO_LOCK
from rmaplab.kernel.objects import Folio
from rmaplab.kernel.pagetable import Pte
from rmaplab.kernel.swap import Swap

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Mm, Vma

__all__ = ["HugePmd"]


class HugePmd(Swap):
    """Huge entries from the fault to the zap, and what splits them into small ones."""

    anon_orders: tuple[int, ...] = (PMD_ORDER,)
    """Orders of folios that a fault may use (transparent_hugepage/hugepages-*kB/enabled), smaller ones since v6.8."""

    # --- which ranges may be mapped large --------------------------------------------------

    def thp_vma_allowable(self, vma: Vma) -> bool:
        """Whether a VMA takes large folios at all: private anonymous, asked for, and not exec's temporary stack."""
        return (
            vma.vm_flags & (VM_HUGEPAGE | VM_NOHUGEPAGE | VM_SHARED) == VM_HUGEPAGE
            and vma.file is None
            and vma.vm_flags & VM_STACK_INCOMPLETE_SETUP != VM_STACK_INCOMPLETE_SETUP
        )

    def thp_suitable_start(self, vma: Vma, address: int, order: int) -> int | None:
        """First byte of the aligned range of an order around an address; None if it leaves the VMA."""
        size = PAGE_SIZE << order
        start = address & -size
        return start if vma.vm_start <= start and start + size <= vma.vm_end else None

    def pmd_none(self, mm: Mm, address: int) -> bool:
        """Whether neither a page table nor a huge entry is there."""
        table = mm.page_table
        return address >> PMD_SHIFT not in table.tables and address & -PMD_SIZE not in table.pmds

    def pte_alloc(self, mm: Mm, address: int) -> int:
        """Make sure that there is a page table for an address; 0 or -ENOMEM."""
        return 0 if address >> PMD_SHIFT in mm.page_table.tables or self.slab.reserve("table") else -ENOMEM

    # --- faults ------------------------------------------------------------------------------

    def do_huge_pmd_anonymous_page(self, vma: Vma, address: int) -> int | None:
        """Write to an empty range of 2 MiB: 0 or -ENOMEM; None if small pages have to do.

        Without a huge page the fault falls back; without the table that a
        later split will need it fails.
        """
        start = self.thp_suitable_start(vma, address, PMD_ORDER)
        if start is None or PMD_ORDER not in self.anon_orders or not self.thp_vma_allowable(vma):
            return None
        if not self.pmd_none(vma.vm_mm, start):
            return None
        if self.anon_vma_prepare(vma) != 0:
            return -ENOMEM
        if not self.slab.reserve("page"):
            return None
        if not self.slab.reserve("table"):
            return -ENOMEM
        folio = Folio(self.new_ident(Folio), PMD_ORDER)
        self.folio_add_new_anon_rmap(folio, vma, start)
        vma.vm_mm.page_table.pmds[start] = Pte(folio, bool(vma.vm_flags & VM_WRITE))
        return 0

    def alloc_anon_folio(self, vma: Vma, address: int) -> tuple[Folio, int] | None:
        """A folio for an anonymous write fault, and the address (bytes) of its first page; None if out of memory.

        The largest enabled order below a PMD whose aligned range is inside
        the VMA and empty (19eaf44954df, v6.8); a smaller one when there is no page of that order.
        """
        for order in sorted(self.anon_orders, reverse=True) if self.thp_vma_allowable(vma) else ():
            start = self.thp_suitable_start(vma, address, order)
            if order >= PMD_ORDER or start is None:
                continue
            if vma.vm_mm.page_table.range(start, start + (PAGE_SIZE << order)):
                continue
            if self.slab.reserve("page"):
                return Folio(self.new_ident(Folio), order), start
        if not self.slab.reserve("page"):
            return None
        return Folio(self.new_ident(Folio)), address

    def set_ptes(self, mm: Mm, address: int, folio: Folio, writable: bool) -> None:
        """Map all pages of a folio by small entries, from an address (bytes) on."""
        for page in range(1 << folio.order):
            self.set_pte(mm, address + (page << PAGE_SHIFT), folio, writable, page)

    def do_huge_pmd_wp_page(self, vma: Vma, address: int, huge: Pte, *, unshare: bool = False) -> int | None:
        """Write to a write-protected huge entry: 0 if it is reused; None if it was split, for small pages to decide.

        ``unshare`` (FAULT_FLAG_UNSHARE) makes it exclusive but not writable.
        """
        if not huge.folio.exclusive & 1 and not self.reuse_huge_folio(huge.folio, vma):
            self.split_huge_pmd(vma, address)
            return None
        if not unshare:
            huge.writable = bool(vma.vm_flags & VM_WRITE)
        return 0

    def reuse_huge_folio(self, folio: Folio, vma: Vma) -> bool:
        """Whether this entry is the folio's only reference; as with a small page the folio then moves to the VMA."""
        self.locks.acquire(FOLIO_LOCK, folio)
        alone = folio.mapcount == 1 and folio.pins == 0
        if alone:
            self.folio_move_anon_rmap(folio, vma)
        self.locks.release(FOLIO_LOCK, folio)
        return alone

    # --- splitting a huge entry ----------------------------------------------------------------

    def split_huge_pmd(self, vma: Vma, address: int) -> None:
        """Put 512 small entries in the place of the huge one around an address, if there is one.

        The folio stays whole, with its mapping, its index and each page's
        exclusive bit; it has 511 mappings more.  The table was set aside
        when the huge entry was made, so this cannot fail.
        """
        start = address & -PMD_SIZE
        huge = vma.vm_mm.page_table.pmds.pop(start, None)
        if huge is not None:
            self.set_ptes(vma.vm_mm, start, huge.folio, huge.writable)
            huge.folio.mapcount += (1 << PMD_ORDER) - 1

    def split_huge_pmd_address(self, vma: Vma, address: int) -> None:
        """Split the huge entry that a new boundary at an address (bytes) would cut."""
        if address & (PMD_SIZE - 1):
            self.split_huge_pmd(vma, address)

    def vma_adjust_trans_huge(self, vma: Vma, start: int, end: int) -> None:
        """Split the huge entries that a VMA's new range [start, end) cuts, before the range changes."""
        if vma.vm_mm.page_table.pmds:
            self.split_huge_pmd_address(vma, start)
            self.split_huge_pmd_address(vma, end)

    # --- fork, zap, mprotect, mremap ---------------------------------------------------------------

    def copy_huge_pmd(self, dst: Vma, src: Vma, address: int, huge: Pte) -> int:
        """Share a huge entry with a child, write-protected in both; 0, -ENOMEM, or -EAGAIN: copy small entries.

        Pages that may be pinned cannot be shared: then the parent's entry is
        split, and each page is copied by itself.
        """
        if not self.slab.reserve("table"):
            return -ENOMEM
        if not self.folio_try_dup_anon_rmap_pmd(huge.folio, src):
            self.split_huge_pmd(src, address)
            return -EAGAIN
        huge.writable = False
        dst.vm_mm.page_table.pmds[address] = Pte(huge.folio, False)
        return 0

    def folio_try_dup_anon_rmap_pmd(self, folio: Folio, src: Vma) -> bool:
        """One huge mapping more, by fork: no page is exclusive any longer; False if one may be pinned and is."""
        if folio.exclusive & 1 and self.folio_needs_cow_for_dma(src, folio):
            return False
        folio.exclusive = 0
        folio.mapcount += 1
        return True

    def zap_huge_pmd(self, mm: Mm, address: int) -> None:
        """Remove the huge entry that starts at an address, and the table set aside for it."""
        mm.page_table.pmds.pop(address).folio.mapcount -= 1

    def change_huge_pmd(self, vma: Vma, address: int, huge: Pte) -> None:
        """Follow the VMA's new rights in a huge entry that is affected as a whole."""
        if not vma.vm_flags & VM_WRITE:
            huge.writable = False
        elif self.can_change_pte_writable(huge):
            huge.writable = True

    def move_huge_pmd(self, mm: Mm, old: int, new: int) -> bool:
        """Move a huge entry from one aligned address (bytes) to another; False if the place is taken."""
        if not self.pmd_none(mm, new):
            return False
        mm.page_table.pmds[new] = mm.page_table.pmds.pop(old)
        return True
