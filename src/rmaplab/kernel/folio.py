# SPDX-License-Identifier: GPL-2.0-only
"""The folio's side of the anonymous reverse map (mm/rmap.c and include/linux/rmap.h, v7.0).

What a folio names, and when that changes.  ``mapping`` is written in three
places only: when a folio becomes anonymous, when its last mapper takes it
over, and when it is moved or merged as a whole (UFFDIO_MOVE, migration, KSM).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import PAGE_SHIFT, PMD_ORDER
from rmaplab.kernel.rmap import Rmap

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Folio, Vma
    from rmaplab.kernel.pagetable import Pte

__all__ = ["FolioRmap", "Visit", "all_pages", "linear_page_index"]


class Visit(NamedTuple):
    """One step of a walk: a VMA, the address (bytes) where it would map the folio, and whether it does."""

    vma: Vma
    address: int
    maps: bool


class FolioRmap(Rmap):
    """Adding, sharing, moving and removing a folio's mappings."""

    # --- becoming anonymous -----------------------------------------------------------------

    def folio_set_anon(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """``__folio_set_anon``: name the VMA's own anon_vma, or its root if others may map the page, too.

        A page that comes back from swap may belong to any relative of the
        VMA, and the root is the one anon_vma that all of them are linked to.
        """
        if vma.anon_vma is None:
            raise KernelBug(f"{folio} becomes anonymous in {vma}, which has no anon_vma")
        folio.mapping = self.anon_vma_for_new(vma.anon_vma, exclusive)
        folio.index = linear_page_index(vma, address)

    def anon_vma_for_new(self, anon_vma: AnonVma, exclusive: bool) -> AnonVma:
        """The anon_vma that a new page names: the oldest of the tree unless it is exclusive (ea90002b0fa7)."""
        return anon_vma if exclusive else anon_vma.root

    def folio_add_new_anon_rmap(self, folio: Folio, vma: Vma, address: int, exclusive: bool = True) -> None:
        """First mapping of a folio that is not anonymous yet; ``address`` (bytes) is that of its first page.

        A folio as large as a PMD is mapped by one, a smaller large folio by
        an entry for each page.
        """
        self.folio_set_anon(folio, vma, address, exclusive)
        folio.mapcount = 1 if folio.order in (0, PMD_ORDER) else 1 << folio.order
        folio.exclusive = all_pages(folio) if exclusive else 0

    # --- further mappings -------------------------------------------------------------------

    def folio_add_anon_rmap_pte(self, folio: Folio, vma: Vma, address: int, page: int, exclusive: bool) -> None:
        """Map one page of an anonymous folio again; what the folio names does not change."""
        if folio.stable_node is None:
            self.page_check_anon_rmap(folio, vma, address, page)
        folio.mapcount += 1
        if exclusive:
            folio.exclusive |= 1 << page
        shared = folio.order == 0 and folio.mapcount > 1 and folio.exclusive
        self.vm_warn_on(shared, "folio_add_anon_rmap_pte: exclusive {} is mapped again", folio)

    def page_check_anon_rmap(self, folio: Folio, vma: Vma, address: int, page: int) -> None:
        """``__page_check_anon_rmap``: the same tree and the same offset; the kernel does not look at the chain."""
        root = None if folio.mapping is None else folio.mapping.root
        wrong = root is None or vma.anon_vma is None or root is not vma.anon_vma.root
        self.vm_warn_on(wrong, "page_check_anon_rmap: {} names {}, {} is in another tree", folio, folio.mapping, vma)
        wrong = folio.index + page != linear_page_index(vma, address)
        self.vm_warn_on(wrong, "page_check_anon_rmap: {} has another index than its place in {}", folio, vma)

    def folio_try_dup_anon_rmap_pte(self, folio: Folio, page: int, dst: Vma, src: Vma) -> bool:
        """One more mapping of a page, by fork; False if it is exclusive to ``src`` and may be pinned: copy it now."""
        if folio.exclusive >> page & 1:
            if self.folio_needs_cow_for_dma(src, folio):
                return False
            folio.exclusive &= ~(1 << page)
        folio.mapcount += 1
        return True

    def folio_needs_cow_for_dma(self, vma: Vma, folio: Folio) -> bool:
        """Whether a device may be writing to the page: its mm has pinned pages, and this one looks pinned."""
        return vma.vm_mm.has_pinned and folio.pins > 0

    # --- less ---------------------------------------------------------------------------------

    def folio_try_share_anon_rmap_pte(self, folio: Folio, page: int) -> bool:
        """Give up that a page is exclusive, to put a swap or migration entry in its place; False if it is pinned."""
        if folio.pins > 0:
            return False
        folio.exclusive &= ~(1 << page)
        return True

    def folio_remove_rmap_pte(self, folio: Folio, page: int) -> None:
        """One mapping of a page less; mapping and index stay behind until the folio is freed."""
        folio.mapcount -= 1

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        """The last mapper writes: from now on only this VMA's own relatives can map the folio."""
        folio.mapping = vma.anon_vma
        folio.exclusive = all_pages(folio)

    def can_change_pte_writable(self, pte: Pte) -> bool:
        """Whether a fault would do no more than allow the write: the page is this process's alone.

        v6.0, 64fe24a3e05e; of pages of files and shared memory the model knows no write permission.
        """
        return pte.folio.anon and pte.folio.exclusive >> pte.page & 1 == 1


def all_pages(folio: Folio) -> int:
    """The value of ``exclusive`` with every page of the folio exclusive."""
    return (1 << (1 << folio.order)) - 1


def linear_page_index(vma: Vma, address: int) -> int:
    """Page offset by which an anonymous page at an address (bytes) is found (linear_anon_page_index in v7.3)."""
    return vma.anon_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT)
