# SPDX-License-Identifier: GPL-2.0-only
"""Collapse: a huge page in the place of small ones (mm/khugepaged.c, v7.0), as MADV_COLLAPSE asks for it.

khugepaged does the same by itself, within limits on how many pages may be
missing, shared or swapped out; the policy is not modelled.
"""

from __future__ import annotations

from errno import EAGAIN, EINVAL, ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PMD_ORDER, PMD_SHIFT, PMD_SIZE, VM_NOHUGEPAGE, VM_SHARED, VM_WRITE
from rmaplab.kernel.huge_pmd import HugePmd
from rmaplab.kernel.locking import MMAP_LOCK, READ
from rmaplab.kernel.objects import Folio
from rmaplab.kernel.pagetable import Pte, SwapPte

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Mm, Vma

__all__ = ["Khugepaged"]


class Khugepaged(HugePmd):
    """MADV_COLLAPSE (7d8faaf15545, v6.1)."""

    def madvise_collapse(self, mm: Mm, start: int, end: int) -> int:
        """Collapse each whole range of 2 MiB in [start, end) (bytes): 0, -ENOMEM, -EAGAIN (pinned) or -EINVAL."""
        rc = 0
        for address in range(-(-start // PMD_SIZE) * PMD_SIZE, end - PMD_SIZE + 1, PMD_SIZE):
            self.locks.acquire(MMAP_LOCK, mm, READ)
            result = self.collapse_scan_pmd(mm, address)
            self.locks.release(MMAP_LOCK, mm)
            if result == 0 and address not in mm.page_table.pmds:
                self.locks.acquire(MMAP_LOCK, mm)
                result = self.collapse_huge_page(mm, address)
                self.locks.release(MMAP_LOCK, mm)
            rc = result or rc
        return rc

    def collapse_scan_pmd(self, mm: Mm, address: int) -> int:
        """Look whether a range can be collapsed, get the huge page and swap in what is not there."""
        vma = mm.lookup(address)
        if vma is None or not self.collapse_allowable(vma, address):
            return -EINVAL
        if address in mm.page_table.pmds:
            return 0
        if self.pmd_none(mm, address):
            return -EINVAL
        if not self.slab.reserve("page"):
            return -ENOMEM
        for at, entry in mm.page_table.range(address, address + PMD_SIZE):
            if isinstance(entry, SwapPte):
                rc = self.do_swap_page(vma, at, entry, write=False)
                if rc != 0:
                    return -EINVAL
        return 0

    def collapse_allowable(self, vma: Vma, address: int) -> bool:
        """Whether MADV_COLLAPSE takes a range: private, anonymous and not forbidden; it need not be asked for."""
        forbidden = vma.vm_flags & (VM_NOHUGEPAGE | VM_SHARED) or vma.file is not None
        return not forbidden and self.thp_suitable_start(vma, address, PMD_ORDER) == address

    def collapse_huge_page(self, mm: Mm, address: int) -> int:
        """Copy what is mapped in the range to a NEW folio of the VMA's own anon_vma; 0, -EINVAL or -EAGAIN.

        The page table is taken out under the anon_vma's lock, so that no walk
        is inside it; each page is then locked, which holds off those to come.
        What other processes share with this one stays theirs.
        """
        vma = mm.lookup(address)
        if vma is None or vma.anon_vma is None or not self.collapse_allowable(vma, address):
            return -EINVAL
        self.anon_vma_lock_write(vma.anon_vma)
        table = mm.page_table.tables.pop(address >> PMD_SHIFT)
        mapped = [entry for entry in table.values() if isinstance(entry, Pte)]
        rc = -EINVAL if len(mapped) < len(table) else -EAGAIN if any(pte.folio.pins for pte in mapped) else 0
        if rc != 0:
            mm.page_table.tables[address >> PMD_SHIFT] = table
        self.anon_vma_unlock_write(vma.anon_vma)
        if rc != 0:
            return rc

        for pte in mapped:
            if pte.folio.anon:
                self.folio_remove_rmap_pte(pte.folio, pte.page)
            if pte.folio.mapcount == 0 and pte.folio.slot is not None:
                self.folio_free_swap(pte.folio)
        folio = Folio(self.new_ident(Folio), PMD_ORDER)
        self.folio_add_new_anon_rmap(folio, vma, address)
        mm.page_table.pmds[address] = Pte(folio, bool(vma.vm_flags & VM_WRITE))
        return 0
