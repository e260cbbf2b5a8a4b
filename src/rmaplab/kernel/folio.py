# SPDX-License-Identifier: GPL-2.0-only
"""The folio's side of the anonymous reverse map, and the walk (mm/rmap.c, v7.0).

What a folio names, and when that changes; how a walk finds its mappings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.kernel.locking import ANON_VMA_LOCK, FOLIO_LOCK, READ
from rmaplab.kernel.rmap import Rmap

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Folio, Vma

__all__ = ["FolioRmap", "Visit", "linear_page_index"]


class Visit(NamedTuple):
    """One step of a walk: a VMA, and the address (bytes) where it would map the folio."""

    vma: Vma
    address: int
    maps: bool


class FolioRmap(Rmap):
    """Adding, sharing, moving and removing a folio's mappings; visiting them."""

    def folio_add_new_anon_rmap(self, folio: Folio, vma: Vma, address: int) -> None:
        """First mapping of a new page: it belongs to this VMA's own anon_vma, exclusively."""
        folio.mapping = vma.anon_vma
        folio.index = linear_page_index(vma, address)
        folio.mapcount = 1
        folio.exclusive = 1

    def folio_try_dup_anon_rmap_pte(self, folio: Folio) -> None:
        """One more mapping, by fork: no longer exclusive to one process."""
        folio.mapcount += 1
        folio.exclusive = 0

    def folio_remove_rmap_pte(self, folio: Folio) -> None:
        """One mapping less; mapping and index stay behind until the page is freed."""
        folio.mapcount -= 1

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        """The last mapper writes: from now on only this VMA's own relatives can map the page."""
        folio.mapping = vma.anon_vma
        folio.exclusive = 1

    def rmap_walk_anon(self, folio: Folio) -> list[Visit]:
        """Visit every VMA that may map an anonymous folio, in the order of the interval tree."""
        anon_vma = folio.mapping
        if anon_vma is None or folio.mapcount == 0:
            return []
        if anon_vma.freed:
            raise KernelBug(f"{folio} names {anon_vma}, which is freed")
        self.locks.acquire(FOLIO_LOCK, folio)
        self.locks.acquire(ANON_VMA_LOCK, anon_vma.root, READ)
        visits = []
        for avc in anon_vma.rb_root.stab(folio.index, folio.index):
            vma = avc.vma
            address = vma.vm_start + ((folio.index - vma.vm_pgoff) << PAGE_SHIFT)
            pte = vma.vm_mm.page_table.present(address)
            visits.append(Visit(vma, address, pte is not None and pte.folio is folio))
        self.locks.release(ANON_VMA_LOCK, anon_vma.root)
        self.locks.release(FOLIO_LOCK, folio)
        return visits


def linear_page_index(vma: Vma, address: int) -> int:
    """Page offset of an address (bytes) in the object its VMA maps."""
    return vma.vm_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT)
