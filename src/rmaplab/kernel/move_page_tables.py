# SPDX-License-Identifier: GPL-2.0-only
"""The move of page-table entries from one address to another (mm/mremap.c, v7.0).

Entries of every kind move as they are.  The kernel's two short cuts that
change nothing but speed are left out: whole tables of tables, and an
alignment of the range to a table's start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PMD_SHIFT, PMD_SIZE
from rmaplab.kernel.mmap import Mmap

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Mm, Vma

__all__ = ["MovePageTables"]


class MovePageTables(Mmap):
    """move_page_tables and its parts, for mremap and for exec's stack."""

    def move_page_tables(
        self, vma: Vma, old: int, new: int, length: int, *, need_rmap_locks: bool, back: bool = False
    ) -> int:
        """Move the entries of ``vma`` in [old, old + length) to ``new``; the bytes done, less if a table is lacking.

        ``back`` undoes such a failure: the tables are still there.
        """
        mm, done = vma.vm_mm, 0
        while done < length:
            source, target = old + done, new + done
            extent = self.get_extent(source, target, length - done)
            if extent == PMD_SIZE and self.move_pgt_entry(vma, source, target, need_rmap_locks):
                done += extent
                continue
            self.split_huge_pmd(vma, source)
            if source >> PMD_SHIFT in mm.page_table.tables:
                if not back and self.pte_alloc(mm, target) != 0:
                    return done
                self.move_ptes(vma, source, target, extent, need_rmap_locks)
            done += extent
        return done

    def get_extent(self, old: int, new: int, length: int) -> int:
        """Bytes up to the next boundary of a page table on either side, or to the end."""
        return min(length, PMD_SIZE - old % PMD_SIZE, PMD_SIZE - new % PMD_SIZE)

    def move_pgt_entry(self, vma: Vma, old: int, new: int, need_rmap_locks: bool) -> bool:
        """Move 2 MiB at once, by a huge entry or a whole table; False if that is not possible.

        A table always moves under the rmap locks: a walker could else miss its pages (97113eb39fa7, v5.14).
        """
        mm = vma.vm_mm
        huge = old in mm.page_table.pmds
        locked = need_rmap_locks or not huge
        if not huge and old >> PMD_SHIFT not in mm.page_table.tables:
            return True
        if locked:
            self.take_rmap_locks(vma)
        moved = self.move_huge_pmd(mm, old, new) if huge else self.move_normal_pmd(mm, old, new)
        if locked:
            self.drop_rmap_locks(vma)
        return moved

    def move_normal_pmd(self, mm: Mm, old: int, new: int) -> bool:
        """Hang a whole page table in at another place; False if there is one already."""
        if not self.pmd_none(mm, new):
            return False
        self.move_entries(mm, old, new, PMD_SIZE)
        return True

    def move_ptes(self, vma: Vma, old: int, new: int, extent: int, need_rmap_locks: bool) -> None:
        """Move the entries of at most one table to at most one other."""
        if need_rmap_locks:
            self.take_rmap_locks(vma)
        self.move_entries(vma.vm_mm, old, new, extent)
        if need_rmap_locks:
            self.drop_rmap_locks(vma)

    def move_entries(self, mm: Mm, old: int, new: int, extent: int) -> None:
        """Take entries out and put them in elsewhere, unchanged."""
        for address, entry in mm.page_table.range(old, old + extent):
            mm.page_table.clear(address)
            mm.page_table.set(new + address - old, entry)

    def take_rmap_locks(self, vma: Vma) -> None:
        """Keep walks out while an entry is at neither place."""
        if vma.anon_vma is not None:
            self.anon_vma_lock_write(vma.anon_vma)

    def drop_rmap_locks(self, vma: Vma) -> None:
        """Let walks in again."""
        if vma.anon_vma is not None:
            self.anon_vma_unlock_write(vma.anon_vma)
