# SPDX-License-Identifier: GPL-2.0-only
"""Large folios as a whole: split into small ones, reused page by page (mm/huge_memory.c, mm/memory.c, v7.0).

A large folio is never in the swap cache here: it is split before it is swapped out.
"""

from __future__ import annotations

from errno import EAGAIN, EBUSY
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.khugepaged import Khugepaged
from rmaplab.kernel.locking import FOLIO_LOCK, MMAP_LOCK, READ
from rmaplab.kernel.objects import Folio
from rmaplab.kernel.pagetable import MigrationPte
from rmaplab.kernel.walk import RmapWalkControl

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Mm, Vma

__all__ = ["HugeMemory"]


class HugeMemory(Khugepaged):
    """Splitting a large folio, and who maps how much of it."""

    # --- write faults ------------------------------------------------------------------------

    def wp_can_reuse_large_anon_folio(self, folio: Folio, vma: Vma) -> bool:
        """Whether a page of a large folio may be written in place: every reference to it is a mapping by this mm.

        Since 1da190f4d0a6 (v6.15); before, such a page was always copied.  A
        folio with a single page left mapped is not worth keeping.  The
        mapping does NOT move; the caller sets the one page's exclusive bit.
        """
        if folio.mapcount <= 1 or folio.pins or folio.slot is not None:
            return False
        return self.folio_mapcount_in(folio, vma.vm_mm) == folio.mapcount

    def folio_mapcount_in(self, folio: Folio, mm: Mm) -> int:
        """How many page-table entries of one mm map pages of a folio; a huge entry counts once.

        The kernel keeps a count for two mms at a time and has to take the
        folio for shared when there were more; here it is exact.
        """
        pages = 1 << folio.order
        found = {
            at
            for vma in self.folio_vmas(folio)
            if vma.vm_mm is mm
            for at, _ in self.page_vma_mapped_walk(folio, vma, self.vma_address(vma, folio.index, pages))
        }
        return len(found)

    # --- folio split -------------------------------------------------------------------------

    def split_huge_pages(self, mm: Mm, start: int, end: int) -> int:
        """Split every large anonymous folio mapped in [start, end) (bytes), as debugfs' split_huge_pages does.

        0, or the error of the first that cannot be split.
        """
        self.locks.acquire(MMAP_LOCK, mm, READ)
        rc = 0
        for address in range(start, end, PAGE_SIZE):
            pte = mm.page_table.present(address)
            if rc == 0 and pte is not None and pte.folio.anon and pte.folio.order:
                self.locks.acquire(FOLIO_LOCK, pte.folio)
                rc = self.split_folio(pte.folio)
                self.locks.release(FOLIO_LOCK, pte.folio)
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def split_folio(self, folio: Folio) -> int:
        """Split a locked large folio into single pages; 0, -EBUSY (not mapped, or swap-cached) or -EAGAIN (pinned).

        Its anon_vma is pinned, since the folio is unmapped for a while, and
        the root write-locked: nobody else may split or collapse meanwhile.
        Contents are not modelled: since v6.12 a page that holds only zeroes
        is replaced by the zero page.
        """
        if folio.slot is not None:
            return -EBUSY
        anon_vma = self.folio_get_anon_vma(folio)
        if anon_vma is None:
            return -EBUSY
        self.anon_vma_lock_write(anon_vma)
        rc = -EAGAIN
        if folio.pins == 0:
            self.unmap_folio(folio)
            whole = folio.mapcount != 0  # some place could not be unmapped, or was not found
            self.remap_page(folio, whole=whole)
            rc = -EAGAIN if whole else 0
        self.anon_vma_unlock_write(anon_vma)
        self.put_anon_vma(anon_vma)
        return rc

    def unmap_folio(self, folio: Folio) -> None:
        """Replace every entry of a folio, whose anon_vma the caller has locked, by a migration entry."""
        rwc = RmapWalkControl(self.try_to_migrate_one, done=self.folio_not_mapped)
        rwc.invalid_vma = self.invalid_migration_vma
        self.rmap_walk_locked(folio, rwc)

    def remap_page(self, folio: Folio, *, whole: bool) -> None:
        """Undo :meth:`unmap_folio` with the folio itself (``whole``) or with the single pages it is split into.

        A page for which no entry waits is freed.
        """
        pages: dict[int, Folio] = {}

        def remap_one(folio: Folio, vma: Vma, address: int) -> bool:
            for at, entry in self.page_vma_mapped_walk(folio, vma, address, folio):
                assert isinstance(entry, MigrationPte)
                page, number = (folio, entry.page) if whole else (self.split_off(folio, entry.page, pages), 0)
                self.folio_add_anon_rmap_pte(page, vma, at, number, entry.exclusive)
                self.set_pte(vma.vm_mm, at, page, entry.writable, number)
            return True

        self.rmap_walk_locked(folio, RmapWalkControl(remap_one, waiting=folio))

    def split_off(self, folio: Folio, number: int, pages: dict[int, Folio]) -> Folio:
        """One page of a folio that was unmapped everywhere: it inherits the mapping verbatim, its index follows."""
        page = pages.get(number)
        if page is None:
            page = pages[number] = Folio(self.new_ident(Folio))
            page.mapping = folio.mapping
            page.index = folio.index + number
        return page
