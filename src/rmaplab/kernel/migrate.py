# SPDX-License-Identifier: GPL-2.0-only
"""Page migration: a page moves, and nobody notices (mm/migrate.c, v7.0).

Two passes over the reverse map, one to put migration entries in the place
of the old folio, one to map the new folio instead.  Between them nothing is
mapped, so a reference keeps the anon_vma; and both must find the same places.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EAGAIN, EFAULT, EINVAL, ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.ksm import Ksm
from rmaplab.kernel.locking import FOLIO_LOCK
from rmaplab.kernel.objects import Folio
from rmaplab.kernel.pagetable import SwapPte

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Mm

__all__ = ["Migrate", "Migration"]


@dataclass(slots=True)
class Migration:
    """A migration between its passes: old and new folio, both locked, and the anon_vma it holds a reference to."""

    src: Folio
    dst: Folio
    anon_vma: AnonVma | None = None
    was_mapped: bool = False


class Migrate(Ksm):
    """migrate_pages for anonymous folios."""

    def migrate_pages(self, mm: Mm, start: int, end: int) -> int:
        """Migrate each folio of [start, end) (bytes) once, up to the first that fails.

        0; -EFAULT: nothing is there; -EINVAL: not an anonymous page; -ENOMEM;
        -EAGAIN: it is pinned, or could not be unmapped everywhere.
        """
        done: set[Folio] = set()
        for address in range(start, end, PAGE_SIZE):
            folio = self.folio_at(mm, address)
            if folio in done:
                continue
            if folio is None or not folio.anon:
                return -EFAULT if folio is None else -EINVAL
            migration = self.migrate_unmap(folio)
            rc = migration if isinstance(migration, int) else self.migrate_move(migration)
            if rc != 0:
                return rc
            assert isinstance(migration, Migration)
            done.add(migration.dst)
        return 0

    def folio_at(self, mm: Mm, address: int) -> Folio | None:
        """The folio mapped at an address (bytes), or in the swap cache for it."""
        entry = mm.page_table.get(address)
        if isinstance(entry, SwapPte):
            return entry.slot.folio
        pte = mm.page_table.present(address)
        return None if pte is None else pte.folio

    def migrate_unmap(self, src: Folio) -> Migration | int:
        """First pass (migrate_folio_unmap): allocate, pin, unmap; a negative errno with everything as before."""
        if not self.slab.reserve("page"):
            return -ENOMEM
        dst = Folio(self.new_ident(Folio), src.order)
        self.locks.acquire(FOLIO_LOCK, src)
        self.locks.acquire(FOLIO_LOCK, dst)
        migration = Migration(src, dst, self.migration_pin(src))
        if src.mapcount > 0:
            migration.was_mapped = True
            self.try_to_migrate(src)
        if src.mapcount > 0:
            self.migrate_undo(migration)
            return -EAGAIN
        return migration

    def migration_pin(self, folio: Folio) -> AnonVma | None:
        """A reference to the anon_vma, since mapcount is about to fall to 0; KSM's items have theirs."""
        return self.folio_get_anon_vma(folio)

    def migration_unpin(self, anon_vma: AnonVma) -> None:
        """Drop what :meth:`migration_pin` took, perhaps the last reference."""
        self.put_anon_vma(anon_vma)

    def migrate_move(self, migration: Migration) -> int:
        """Second pass (migrate_folio_move): hand everything to the new folio and map it; 0 or -EAGAIN."""
        src, dst = migration.src, migration.dst
        if src.pins > 0:  # a reference more than mappings and swap cache account for
            self.migrate_undo(migration)
            return -EAGAIN
        self.folio_migrate_mapping(dst, src)
        if migration.was_mapped:
            self.remove_migration_ptes(src, dst)
        self.migrate_end(migration)
        return 0

    def migrate_undo(self, migration: Migration) -> None:
        """Map the old folio again where it is not (migrate_folio_undo_src)."""
        if migration.was_mapped:
            self.remove_migration_ptes(migration.src, migration.src)
        self.migrate_end(migration)

    def migrate_end(self, migration: Migration) -> None:
        """Unlock, and let the anon_vma go."""
        self.locks.release(FOLIO_LOCK, migration.dst)
        if migration.anon_vma is not None:
            self.migration_unpin(migration.anon_vma)
        self.locks.release(FOLIO_LOCK, migration.src)

    def folio_migrate_mapping(self, dst: Folio, src: Folio) -> None:
        """The new folio takes over what the old one names, its place in the swap cache, and its stable node."""
        dst.mapping, dst.index = src.mapping, src.index
        slot = src.slot
        if slot is not None:
            self.swap_cache_del_folio(src)
            self.swap_cache_add_folio(dst, slot)
        if src.stable_node is not None:
            dst.stable_node = src.stable_node
            dst.stable_node.folio = dst
        src.mapping = src.stable_node = None
