# SPDX-License-Identifier: GPL-2.0-only
"""What walks of the reverse map are for: looking for use, unmapping, migrating (mm/rmap.c and mm/migrate.c, v7.0).

Each is a pair: what is done at one place, and the walk over all places.
None of them takes or drops a reference to an anon_vma; an entry is replaced
under the page table's own lock, which is not modelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel.flags import VM_LOCKED, VM_STACK_INCOMPLETE_SETUP
from rmaplab.kernel.pagetable import MigrationPte, SwapPte
from rmaplab.kernel.vma import VmaOps
from rmaplab.kernel.walk import RmapWalkControl

if TYPE_CHECKING:
    from rmaplab.kernel.folio import Visit
    from rmaplab.kernel.objects import Folio, Vma

__all__ = ["RmapUnmap"]


class RmapUnmap(VmaOps):
    """Taking a folio out of every page table, for good or for a while."""

    if TYPE_CHECKING:

        def split_huge_pmd(self, vma: Vma, address: int) -> None:
            """Defined with huge entries, on top of this."""

    # --- looking --------------------------------------------------------------------------

    def folio_referenced(self, folio: Folio) -> tuple[list[Visit], int]:
        """Look for use of a locked folio: what was visited, and VM_LOCKED if reclaim must not touch it.

        Every mapping counts as used since the last time.  The walk ends when
        it has seen as many as the folio has, or one that is locked.
        """
        expected = folio.mapcount
        flags = 0

        def folio_referenced_one(folio: Folio, vma: Vma, address: int) -> bool:
            nonlocal expected, flags
            found = self.page_vma_mapped_walk(folio, vma, address)
            if found and vma.vm_flags & VM_LOCKED:
                flags |= VM_LOCKED
                return False
            expected -= len(found)
            return expected > 0

        if expected == 0:
            return [], 0
        rwc = RmapWalkControl(folio_referenced_one, anon_lock=self.folio_lock_anon_vma_read, try_lock=True)
        return self.rmap_walk(folio, rwc), flags

    # --- swap -----------------------------------------------------------------------------

    def try_to_unmap(self, folio: Folio) -> list[Visit]:
        """Replace the entries of a small locked folio in the swap cache by swap entries; what was visited.

        The folio stays mapped where the walk gave up: in memory that is
        locked, or if it is pinned.
        """
        rwc = RmapWalkControl(
            self.try_to_unmap_one, done=self.folio_not_mapped, anon_lock=self.folio_lock_anon_vma_read
        )
        return self.rmap_walk(folio, rwc)

    def folio_not_mapped(self, folio: Folio) -> bool:
        """Whether a walk that unmaps has no more to do."""
        return folio.mapcount == 0

    def try_to_unmap_one(self, folio: Folio, vma: Vma, address: int) -> bool:
        """Unmap one place; False if it must stay.  An exclusive page's entry remembers it."""
        slot = folio.slot
        assert slot is not None
        for at, entry in self.page_vma_mapped_walk(folio, vma, address):
            if vma.vm_flags & VM_LOCKED:
                return False
            exclusive = bool(folio.exclusive >> entry.page & 1)
            # Only now, with the entry gone, can nobody pin the page any more; if somebody was faster it comes back.
            vma.vm_mm.page_table.clear(at)
            if exclusive and not self.folio_try_share_anon_rmap_pte(folio, entry.page):
                vma.vm_mm.page_table.set(at, entry)
                return False
            self.swap_duplicate(slot)
            vma.vm_mm.page_table.set(at, SwapPte(slot, exclusive))
            self.folio_remove_rmap_pte(folio, entry.page)
        return True

    # --- migration ------------------------------------------------------------------------

    def try_to_migrate(self, folio: Folio) -> list[Visit]:
        """Replace the entries of a locked folio by migration entries; what was visited.

        exec moves its stack without telling the reverse map, so an entry in
        a temporary stack might not be found again: it is left alone (a8bef8ff6ea1).
        """
        rwc = RmapWalkControl(
            self.try_to_migrate_one, done=self.folio_not_mapped, anon_lock=self.folio_lock_anon_vma_read
        )
        if folio.stable_node is None:
            rwc.invalid_vma = self.invalid_migration_vma
        return self.rmap_walk(folio, rwc)

    def invalid_migration_vma(self, vma: Vma) -> bool:
        """Whether a VMA is exec's stack before its move (vma_is_temporary_stack)."""
        return vma.vm_flags & VM_STACK_INCOMPLETE_SETUP == VM_STACK_INCOMPLETE_SETUP

    def try_to_migrate_one(self, folio: Folio, vma: Vma, address: int) -> bool:
        """Unmap one place for a while; False if a page there is pinned.

        A huge entry is split first: there are no huge migration entries here.
        """
        if folio.order:
            self.split_mapping_pmds(folio, vma, address)
        for at, entry in self.page_vma_mapped_walk(folio, vma, address):
            exclusive = bool(folio.exclusive >> entry.page & 1)
            vma.vm_mm.page_table.clear(at)
            if exclusive and not self.folio_try_share_anon_rmap_pte(folio, entry.page):
                vma.vm_mm.page_table.set(at, entry)
                return False
            waiting = MigrationPte(folio, entry.writable, exclusive, entry.page)
            vma.vm_mm.page_table.set(at, waiting)
            self.folio_remove_rmap_pte(folio, entry.page)
        return True

    def split_mapping_pmds(self, folio: Folio, vma: Vma, address: int) -> None:
        """Map a folio that a VMA maps by a huge entry page by page."""
        for at, _ in self.page_vma_mapped_walk(folio, vma, address):
            if at in vma.vm_mm.page_table.pmds:
                self.split_huge_pmd(vma, at)

    def remove_migration_ptes(self, src: Folio, dst: Folio) -> list[Visit]:
        """Map ``dst``, which names what ``src`` named, wherever an entry waits for ``src``; what was visited.

        Neither of them is mapped, so the anon_vma is locked without the
        usual protocol: the caller has a reference to it.
        """

        def remove_migration_pte(folio: Folio, vma: Vma, address: int) -> bool:
            for at, entry in self.page_vma_mapped_walk(folio, vma, address, src):
                assert isinstance(entry, MigrationPte)
                self.folio_add_anon_rmap_pte(folio, vma, at, entry.page, entry.exclusive)
                self.set_pte(vma.vm_mm, at, folio, entry.writable, entry.page)
            return True

        return self.rmap_walk(dst, RmapWalkControl(remove_migration_pte, waiting=src))
