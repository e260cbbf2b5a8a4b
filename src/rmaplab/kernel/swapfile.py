# SPDX-License-Identifier: GPL-2.0-only
"""Swap slots and the swap cache (mm/swapfile.c and mm/swap_state.c, v7.0).

A slot lives as long as a page-table entry names it.  When the last entry
goes, the page that is cached for it leaves the swap cache at once.  A kernel
may leave a mapped page there until somebody needs the slot or writes to the
page; but nobody can tell, since whoever counts references to a page first
takes it out of the swap cache if its slot is unused (folio_free_swap).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel.folio import FolioRmap
from rmaplab.kernel.objects import SwapSlot

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Folio

__all__ = ["SwapFile"]


class SwapFile(FolioRmap):
    """Who uses a swap slot, and which folio stands for it in memory."""

    def folio_alloc_swap(self, folio: Folio) -> SwapSlot:
        """The folio's slot in the swap cache: a new one unless it has one. Swap space never runs out here."""
        if folio.slot is None:
            self.swap_cache_add_folio(folio, SwapSlot(self.new_ident(SwapSlot)))
        assert folio.slot is not None
        return folio.slot

    def swap_cache_add_folio(self, folio: Folio, slot: SwapSlot) -> None:
        """From now on the folio is found for the slot."""
        folio.slot = slot
        slot.folio = folio

    def swap_cache_del_folio(self, folio: Folio) -> None:
        """Take a folio out of the swap cache; the slot may live on without it."""
        assert folio.slot is not None
        folio.slot.folio = None
        folio.slot = None

    def swap_duplicate(self, slot: SwapSlot) -> None:
        """One more page-table entry names the slot."""
        slot.count += 1

    def swap_free(self, slot: SwapSlot) -> None:
        """One entry less; with the last the slot is free, and the cached folio if nobody maps it."""
        slot.count -= 1
        folio = slot.folio
        if slot.count == 0 and folio is not None:
            self.swap_cache_del_folio(folio)
            if folio.mapcount == 0:
                self.free_swapped_folio(folio)

    def folio_free_swap(self, folio: Folio) -> bool:
        """Take a folio out of the swap cache if no entry names its slot; whether it was done."""
        if folio.slot is None or folio.slot.count > 0:
            return False
        self.swap_cache_del_folio(folio)
        return True

    def free_swapped_folio(self, folio: Folio) -> None:
        """Free a folio that neither a page table nor the swap cache refers to: it names nothing any more."""
        folio.mapping = None
        folio.stable_node = None
