# SPDX-License-Identifier: GPL-2.0-only
"""Large folios as a whole: split into small ones, reused page by page (mm/huge_memory.c, mm/memory.c, v7.0).

A large folio is never in the swap cache here: it is split before it is swapped out.
"""

from __future__ import annotations

from errno import EAGAIN, EBUSY
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.kernel.huge_pmd import HugePmd
from rmaplab.kernel.locking import FOLIO_LOCK, MMAP_LOCK, READ
from rmaplab.kernel.objects import Folio
from rmaplab.kernel.pagetable import MigrationPte, Pte

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel.objects import Mm, Vma

__all__ = ["HugeMemory", "PagePlace"]


class PagePlace(NamedTuple):
    """A place where a VMA may map a page of a folio: address in bytes, number of the page within the folio."""

    vma: Vma
    address: int
    page: int


class HugeMemory(HugePmd):
    """Splitting a large folio, and who maps how much of it."""

    def folio_places(self, folio: Folio) -> Iterator[PagePlace]:
        """Every place where the folio's anon_vma says that one of its pages may be mapped, VMA by VMA."""
        anon_vma = folio.mapping
        if anon_vma is None:
            return
        last = folio.index + (1 << folio.order) - 1
        for avc in anon_vma.rb_root.stab(folio.index, last):
            vma = avc.vma
            pages = (vma.vm_end - vma.vm_start) >> PAGE_SHIFT
            low, high = max(folio.index, vma.vm_pgoff), min(last, vma.vm_pgoff + pages - 1)
            for index in range(low, high + 1):
                yield PagePlace(vma, vma.vm_start + ((index - vma.vm_pgoff) << PAGE_SHIFT), index - folio.index)

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

        The kernel keeps a count for two mms at a time and must guess low for
        a third; here it is exact.
        """
        found = {
            place.address
            for place in self.folio_places(folio)
            if place.vma.vm_mm is mm
            and (entry := mm.page_table.get(place.address)) is not None
            and isinstance(entry, Pte)
            and entry.folio is folio
        }
        return len(found) + sum(huge.folio is folio for huge in mm.page_table.pmds.values())

    # --- folio split ---------------------------------------------------------------------------

    def split_huge_pages(self, mm: Mm, start: int, end: int) -> int:
        """Split every large anonymous folio mapped in [start, end) (bytes), as debugfs' split_huge_pages does.

        0, or the error of the first that cannot be split.
        """
        self.locks.acquire(MMAP_LOCK, mm, READ)
        rc = 0
        for address in range(start, end, 1 << PAGE_SHIFT):
            pte = mm.page_table.present(address)
            if rc == 0 and pte is not None and pte.folio.anon and pte.folio.order:
                self.locks.acquire(FOLIO_LOCK, pte.folio)
                rc = self.split_folio(pte.folio)
                self.locks.release(FOLIO_LOCK, pte.folio)
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def split_folio(self, folio: Folio) -> int:
        """Split a locked large folio into single pages; 0, -EBUSY (unmapped, or swap-cached) or -EAGAIN (pinned).

        Its anon_vma is pinned, since the folio is unmapped for a while, and
        the root write-locked: nobody else may split or collapse meanwhile.
        """
        anon_vma = folio.mapping
        if anon_vma is None or folio.mapcount == 0 or folio.slot is not None:
            return -EBUSY
        self.get_anon_vma(anon_vma)
        self.anon_vma_lock_write(anon_vma)
        rc = -EAGAIN
        if folio.pins == 0:
            self.unmap_folio(folio)
            if folio.mapcount == 0:
                self.remap_pages(folio, self.split_unmapped_folio(folio))
                rc = 0
            else:  # a mapping the walk did not find: the folio stays whole
                self.remap_pages(folio, None)
        self.anon_vma_unlock_write(anon_vma)
        self.put_anon_vma(anon_vma)
        return rc

    def unmap_folio(self, folio: Folio) -> None:
        """Replace every entry of the folio by a migration entry, under its anon_vma's lock (try_to_migrate)."""
        for vma, address, page in self.folio_places(folio):
            table = vma.vm_mm.page_table
            pte = table.present(address)
            if pte is None or pte.folio is not folio or pte.page != page:
                continue
            self.split_huge_pmd(vma, address)
            exclusive = bool(folio.exclusive >> page & 1)
            table.set(address, MigrationPte(folio, pte.writable, exclusive, page))
            folio.exclusive &= ~(1 << page)
            folio.mapcount -= 1

    def split_unmapped_folio(self, folio: Folio) -> dict[int, Folio]:
        """Make single pages of a folio: those still wanted by a migration entry, by number; the rest are freed.

        Each inherits the mapping verbatim, and the index of its page.
        """
        wanted = {
            entry.page
            for vma, address, _ in self.folio_places(folio)
            if isinstance(entry := vma.vm_mm.page_table.get(address), MigrationPte) and entry.folio is folio
        }
        pages: dict[int, Folio] = {}
        for page in sorted(wanted):
            small = pages[page] = Folio(self.new_ident(Folio))
            small.mapping = folio.mapping
            small.index = folio.index + page
        return pages

    def remap_pages(self, folio: Folio, pages: dict[int, Folio] | None) -> None:
        """Undo :meth:`unmap_folio`: present entries for the new pages, or for the old folio if there are none."""
        for vma, address, page in list(self.folio_places(folio)):
            entry = vma.vm_mm.page_table.get(address)
            if not isinstance(entry, MigrationPte) or entry.folio is not folio:
                continue
            target, number = (folio, page) if pages is None else (pages[page], 0)
            self.set_pte(vma.vm_mm, address, target, entry.writable, number)
            target.mapcount += 1
            target.exclusive |= entry.exclusive << number
