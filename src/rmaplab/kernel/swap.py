# SPDX-License-Identifier: GPL-2.0-only
"""Swap-out and swap-in of anonymous pages (mm/vmscan.c and mm/memory.c, v7.0).

Every swap-in goes through the swap cache, as since v7.0 it always does.  The
page that comes back from the device is new and names nothing yet; one that
never left memory still names what it named when it was swapped out.
"""

from __future__ import annotations

from errno import EBUSY, EFAULT, EINVAL, ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import VM_LOCKED, VM_WRITE
from rmaplab.kernel.folio import linear_page_index
from rmaplab.kernel.locking import FOLIO_LOCK
from rmaplab.kernel.objects import Folio
from rmaplab.kernel.pagetable import SwapPte
from rmaplab.kernel.unmap import RmapUnmap

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Mm, SwapSlot, Vma

__all__ = ["Swap"]


class Swap(RmapUnmap):
    """Reclaim of one page, and the fault that brings it back."""

    if TYPE_CHECKING:

        def split_folio(self, folio: Folio) -> int:
            """Defined with large folios, on top of this."""

    # --- out ---------------------------------------------------------------------------------

    def reclaim_page(self, mm: Mm, address: int, *, cached: bool) -> int:
        """Swap out the page at an address (bytes), wherever it is mapped; ``cached``: keep it in the swap cache.

        0; -EFAULT: nothing is there; -EINVAL: not an anonymous page; -EBUSY:
        pinned, or locked in memory.
        """
        entry = mm.page_table.get(address)
        if isinstance(entry, SwapPte):
            folio = entry.slot.folio
            return 0 if folio is None else self.shrink_folio(folio, cached=cached)
        pte = mm.page_table.present(address)
        if pte is None:
            return -EFAULT
        if not pte.folio.anon:
            return -EINVAL
        if pte.folio.order:
            rc = self.split_folio_locked(pte.folio)
            if rc != 0:
                return rc
            pte = mm.page_table.present(address)
            assert pte is not None
        return self.shrink_folio(pte.folio, cached=cached)

    def split_folio_locked(self, folio: Folio) -> int:
        """Large folios are swapped out page by page here; 0, or -EBUSY if the folio does not come apart."""
        self.locks.acquire(FOLIO_LOCK, folio)
        rc = self.split_folio(folio)
        self.locks.release(FOLIO_LOCK, folio)
        return 0 if rc == 0 else -EBUSY

    def shrink_folio(self, folio: Folio, *, cached: bool) -> int:
        """shrink_folio_list for a list of one; 0 or -EBUSY."""
        if folio.pins:
            return -EBUSY  # a device may be writing to it: not even tried (v5.18)
        self.locks.acquire(FOLIO_LOCK, folio)
        _, flags = self.folio_referenced(folio)
        rc = -EBUSY
        if not flags & VM_LOCKED:  # else it goes back to the unevictable list
            self.folio_alloc_swap(folio)
            self.try_to_unmap(folio)
            if folio.mapcount == 0:
                rc = 0
                if not cached:
                    self.remove_mapping(folio)
            else:
                self.folio_free_swap(folio)  # if it was unmapped nowhere
        self.locks.release(FOLIO_LOCK, folio)
        return rc

    def remove_mapping(self, folio: Folio) -> None:
        """The folio is written and nobody refers to it: leave the content to the slot, and free it."""
        self.swap_cache_del_folio(folio)
        self.free_swapped_folio(folio)

    # --- in ----------------------------------------------------------------------------------

    def do_swap_page(self, vma: Vma, address: int, entry: SwapPte, write: bool) -> int:
        """Map the page that a swap entry stands for; 0 or -ENOMEM.

        It is writable if it is exclusive, which it is if the entry says so.
        The VMA has an anon_vma: the page was anonymous in it before, and
        whoever moves, copies or merges entries sees to the links.
        """
        slot = entry.slot
        swapcache = slot.folio or self.swapin_readahead(slot)
        if swapcache is None:
            return -ENOMEM
        self.locks.acquire(FOLIO_LOCK, swapcache)
        folio = self.ksm_might_need_to_copy(swapcache, vma, address)
        rc = -ENOMEM
        if folio is not None:
            rc = 0
            self.map_swapped_page(vma, address, entry, folio, write)
            self.swap_free(slot)
        self.locks.release(FOLIO_LOCK, swapcache)
        return rc

    def map_swapped_page(self, vma: Vma, address: int, entry: SwapPte, folio: Folio, write: bool) -> None:
        """The part of do_swap_page that decides what the folio names and whether it is exclusive."""
        copied = folio is not entry.slot.folio
        self.vm_warn_on(folio.exclusive, "do_swap_page: {} in the swap cache is exclusive", folio)
        exclusive = folio.stable_node is None and (
            copied or entry.exclusive or self.swapin_sole_reference(folio, vma, write)
        )
        if folio.mapping is None and folio.stable_node is None:
            self.folio_add_new_anon_rmap(folio, vma, address, exclusive)
        else:
            self.folio_add_anon_rmap_pte(folio, vma, address, 0, exclusive)
        self.set_pte(vma.vm_mm, address, folio, exclusive and bool(vma.vm_flags & VM_WRITE))

    def swapin_readahead(self, slot: SwapSlot) -> Folio | None:
        """Read a page from the device into the swap cache, anonymous in no VMA yet; None if out of memory."""
        if not self.slab.reserve("page"):
            return None
        folio = Folio(self.new_ident(Folio))
        self.swap_cache_add_folio(folio, slot)
        return folio

    def ksm_might_need_to_copy(self, folio: Folio, vma: Vma, address: int) -> Folio | None:
        """The folio itself if it may be mapped here, else a copy; None if there is no memory for it.

        KSM's swapped pages have entries in unrelated VMAs.  Once one of them
        has brought the page back as an ordinary one, the others can have
        only a copy: they have another root, or another offset.
        """
        if folio.stable_node is not None or folio.mapping is None:
            return folio
        assert vma.anon_vma is not None
        if folio.index == linear_page_index(vma, address) and folio.mapping.root is vma.anon_vma.root:
            return folio
        return Folio(self.new_ident(Folio)) if self.slab.reserve("page") else None

    def swapin_sole_reference(self, folio: Folio, vma: Vma, write: bool) -> bool:
        """Whether nobody else refers to the folio: never; since v7.0 it is in the swap cache until it is mapped."""
        return False
