# SPDX-License-Identifier: GPL-2.0-only
"""Series with one plausible mistake in swapping, migration or a walk."""

from mutant_scenarios import registering

from rmaplab.kernel import Kernel
from rmaplab.kernel.pagetable import MigrationPte, SwapPte

MUTANTS = {}
reports = registering(MUTANTS)

FAMILY = """\
P0 mmap A 2
P0 write A
P0 fork P1
P1 write A[1]
P1 fork P2
"""
SWAPPED = FAMILY + "P1 swapout A\n"
IN_THE_CACHE = FAMILY + "P1 swapout A cached\nP2 swapin A[0]\nP1 write A[1]\n"
MOVED = FAMILY + "P2 migrate A\n"
READ_ONLY = "P0 mmap A 1\nP0 write A\nP0 swapout A\nP0 mprotect A r\nP0 swapin A\n"


@reports("AV-030", on=FAMILY + "P0 swapout A[0]\nP1 swapin A[0]")
class SwapInNamesWhoeverReads(Kernel):
    def anon_vma_for_new(self, anon_vma, exclusive):
        return anon_vma


@reports("AV-030", "AV-044", on=IN_THE_CACHE)
class SwapCacheHitsAreMadeNew(Kernel):
    def map_swapped_page(self, vma, address, entry, folio, write):
        folio.mapping = None
        folio.index = 0
        super().map_swapped_page(vma, address, entry, folio, write)
        folio.index = vma.vm_pgoff + 1


@reports("AV-042", on=SWAPPED + "P1 swapin A[0]\nP2 swapin A[0]")
class SwappedPagesAreAlwaysExclusive(Kernel):
    def swapin_sole_reference(self, folio, vma, write):
        return True


@reports("AV-048", on=SWAPPED)
class SwapOutCountsOneEntry(Kernel):
    def swap_duplicate(self, slot):
        slot.count = 1


@reports("AV-048", on="P0 mmap A 1\nP0 write A\nP0 swapout A\nP0 fork P1")
class ForkLeavesSwapEntriesExclusive(Kernel):
    def copy_nonpresent_pte(self, pte):
        copy = super().copy_nonpresent_pte(pte)
        if isinstance(pte, SwapPte):
            pte.exclusive = copy.exclusive = True
        return copy


@reports("AV-048", on=IN_THE_CACHE)
class SwapInKeepsItsEntry(Kernel):
    def swap_free(self, slot):
        """Forgets to count."""


@reports("AV-048", on=IN_THE_CACHE + "P1 swapin A[0]\nP0 swapin A[0]")
class AFreeSlotKeepsItsPage(Kernel):
    def swap_free(self, slot):
        slot.count -= 1
        if slot.count == 0 and slot.folio is not None:
            slot.folio = None


@reports("AV-041", on=SWAPPED + "P0 swapin A[0]")
class UnmappingCountsOnce(Kernel):
    def try_to_unmap_one(self, folio, vma, address):
        mapcount = folio.mapcount
        more = super().try_to_unmap_one(folio, vma, address)
        if folio.mapcount < mapcount:
            folio.mapcount = 0
        return more

    def free_swapped_folio(self, folio):
        """Forgets to."""


@reports("AV-049", on=READ_ONLY)
class SwapInDoesNotAskForTheRights(Kernel):
    def map_swapped_page(self, vma, address, entry, folio, write):
        super().map_swapped_page(vma, address, entry, folio, write)
        vma.vm_mm.page_table.get(address).writable = True


@reports("AV-013", on=MOVED)
class MigrationKeepsItsReference(Kernel):
    def migration_unpin(self, anon_vma):
        """Forgets to."""


@reports("AV-047", on=MOVED)
class MigrationRestoresOnePlace(Kernel):
    def remove_migration_ptes(self, src, dst):
        walk = self.page_vma_mapped_walk
        self.page_vma_mapped_walk = lambda folio, *place: [] if folio.mapcount else walk(folio, *place)
        visits = super().remove_migration_ptes(src, dst)
        del self.page_vma_mapped_walk
        return visits


@reports("AV-042", on=MOVED)
class MigrationMakesPagesExclusive(Kernel):
    def try_to_migrate_one(self, folio, vma, address):
        more = super().try_to_migrate_one(folio, vma, address)
        for table in vma.vm_mm.page_table.tables.values():
            for entry in table.values():
                if isinstance(entry, MigrationPte):
                    entry.exclusive = entry.writable = True
        return more


@reports("AV-044", on=MOVED)
class MigrationForgetsTheIndex(Kernel):
    def migrate_end(self, migration):
        super().migrate_end(migration)
        migration.dst.index += 1


@reports("AV-029", on=MOVED)
class WalksStayLocked(Kernel):
    def anon_vma_unlock_read(self, anon_vma):
        """Forgets to."""


@reports("AV-037", on=FAMILY + "walk P0 A[0]")
class LooksAndKeepsAReference(Kernel):
    def folio_lock_anon_vma_read(self, folio, rwc=None):
        self.get_anon_vma(folio.mapping)
        return super().folio_lock_anon_vma_read(folio, rwc)


@reports("AV-045", on=MOVED)
class LooksForAWrongAddress(Kernel):
    def vma_address(self, vma, pgoff, pages):
        return super().vma_address(vma, pgoff + 2, pages)
