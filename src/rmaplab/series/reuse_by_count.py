# SPDX-License-Identifier: GPL-2.0-only
"""Pages before PageAnonExclusive (v5.19): counting told who may write in place.  For a series to mix in."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import VM_WRITE
from rmaplab.kernel.folio import linear_page_index
from rmaplab.kernel.locking import FOLIO_LOCK

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Folio, Vma
    from rmaplab.kernel.pagetable import Pte, SwapPte

__all__ = ["KsmPageReused", "PinnedUnnoticed", "ReuseByCount"]


class ReuseByCount(Kernel):
    """v5.7 and before: mappings and swap entries are counted (reuse_swap_page), and nothing else.

    No page has an exclusive bit, so every write to a write-protected page
    that the writer is alone with moves it to the writer's anon_vma.  From
    09854ba94c6a (v5.9) to v5.18 references were counted, which no series shows.
    """

    swapin_names_own: ClassVar[bool] = True
    """Whether a page that its only user writes to as it comes back names its own anon_vma (ad8c2ee801ad, v2.6.36)."""

    # --- no bit --------------------------------------------------------------------------------

    def folio_add_new_anon_rmap(self, folio: Folio, vma: Vma, address: int, exclusive: bool = True) -> None:
        """``exclusive`` says only what the folio names."""
        super().folio_add_new_anon_rmap(folio, vma, address, exclusive)
        folio.exclusive = 0

    def folio_add_anon_rmap_pte(self, folio: Folio, vma: Vma, address: int, page: int, exclusive: bool) -> None:
        """One mapping more."""
        super().folio_add_anon_rmap_pte(folio, vma, address, page, False)

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        """page_move_anon_rmap: the mapping and no more."""
        super().folio_move_anon_rmap(folio, vma)
        folio.exclusive = 0

    # --- counting --------------------------------------------------------------------------------

    def reuse_swap_page(self, folio: Folio) -> bool:
        """Whether a small folio has one user at most: a page-table entry, or a swap entry that is about to be one."""
        entries = 0 if folio.slot is None else folio.slot.count
        return folio.stable_node is None and folio.mapcount + entries <= 1

    def wp_can_reuse_anon_folio(self, folio: Folio, vma: Vma, page: int) -> bool:
        """In line in do_wp_page; a device that has the page pinned does not count."""
        if folio.order:
            return self.wp_can_reuse_large_anon_folio(folio, vma)
        if folio.stable_node is not None:
            return False
        self.locks.acquire(FOLIO_LOCK, folio)
        reuse = self.reuse_swap_page(folio)
        if reuse:
            self.folio_move_anon_rmap(folio, vma)
        self.locks.release(FOLIO_LOCK, folio)
        return reuse

    def wp_can_reuse_large_anon_folio(self, folio: Folio, vma: Vma) -> bool:
        """Whether no page of a large folio is mapped twice (page_trans_huge_mapcount, 6d0a07edd17c, v4.7).

        The folio moves only if the writer's is its last mapping.
        """
        if folio.mapcount == 1:
            self.folio_move_anon_rmap(folio, vma)
            return True
        return len(self.mapped_pages(folio)) == folio.mapcount

    def mapped_pages(self, folio: Folio) -> set[int]:
        """The pages of a large folio that a small entry maps somewhere."""
        pages = 1 << folio.order
        return {
            entry.page
            for vma in self.folio_vmas(folio)
            for at, entry in self.page_vma_mapped_walk(folio, vma, self.vma_address(vma, folio.index, pages))
            if at not in vma.vm_mm.page_table.pmds
        }

    def map_swapped_page(self, vma: Vma, address: int, entry: SwapPte, folio: Folio, write: bool) -> None:
        """Only a write finds out whether it is alone; a page that a read brings back names the root."""
        copied = folio is not entry.slot.folio
        alone = write and (copied or self.reuse_swap_page(folio))
        if folio.mapping is None and folio.stable_node is None:
            own = (copied or alone) and self.swapin_names_own
            self.folio_add_new_anon_rmap(folio, vma, address, own)
        else:
            self.folio_add_anon_rmap_pte(folio, vma, address, 0, False)
        self.set_pte(vma.vm_mm, address, folio, alone and bool(vma.vm_flags & VM_WRITE))


class PinnedUnnoticed(Kernel):
    """v5.5 and before: a pin is a reference like any other, and does not bind a page to its place.

    fork shares the page, a read-only pin does not unshare it, and reclaim
    unmaps it; after the next copy on write process and device see different
    pages.  Since 70e806e4e645 (v5.9) fork copies, since 6c287605fd56 (v5.19) the rest.
    """

    def folio_needs_cow_for_dma(self, vma: Vma, folio: Folio) -> bool:
        """Not asked by fork."""
        return False

    def gup_must_unshare(self, pte: Pte, vma: Vma) -> bool:
        """Never."""
        return False

    def folio_try_share_anon_rmap_pte(self, folio: Folio, page: int) -> bool:
        """Nothing to give up; who cannot do with further references finds out after the page is unmapped."""
        return True

    def shrink_folio(self, folio: Folio, *, cached: bool) -> int:
        """Unmap a pinned page all the same; it stays in the swap cache, where the next fault finds it."""
        pins, folio.pins = folio.pins, 0
        rc = super().shrink_folio(folio, cached=cached or pins > 0)
        folio.pins = pins
        return rc


class KsmPageReused(Kernel):
    """v5.1 to v5.8 (52d1e606ee73): a page of KSM's that is left with one mapping is written in place."""

    reuses_ksm_pages: ClassVar[bool] = True

    def do_wp_page(self, vma: Vma, address: int, pte: Pte, *, unshare: bool = False) -> int:
        """Ask about pages of KSM first."""
        if self.reuses_ksm_pages and self.reuse_ksm_page(pte.folio, vma, address):
            pte.writable = bool(vma.vm_flags & VM_WRITE) and not unshare
            return 0
        return super().do_wp_page(vma, address, pte, unshare=unshare)

    def reuse_ksm_page(self, folio: Folio, vma: Vma, address: int) -> bool:
        """Make a stable page that has no other user an ordinary one of the VMA; its node is stale from here on."""
        if folio.stable_node is None or folio.slot is not None or folio.mapcount != 1 or folio.pins:
            return False
        self.locks.acquire(FOLIO_LOCK, folio)
        folio.stable_node = None
        self.folio_move_anon_rmap(folio, vma)
        folio.index = linear_page_index(vma, address)
        self.locks.release(FOLIO_LOCK, folio)
        return True
