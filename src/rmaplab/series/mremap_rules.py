# SPDX-License-Identifier: GPL-2.0-only
"""mremap as older kernels knew it: each class takes one thing back, for a series to mix in."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PMD_SHIFT

if TYPE_CHECKING:
    from rmaplab.kernel.mremap import VmaRemap
    from rmaplab.kernel.objects import Vma

__all__ = ["MovesUnlocked", "NoDontunmap", "OneVmaMoved", "TablesMovedByEntry", "TablesMovedUnlocked"]


class OneVmaMoved(Kernel):
    """v6.16 and before (d23cb648e365): a call moves pages of one VMA."""

    def vrm_move_only(self, vrm: VmaRemap) -> bool:
        """Not asked: a range that leaves its first VMA is -EFAULT, moved and resized or only moved."""
        return False


class NoDontunmap(Kernel):
    """v5.6 and before (e346b3813067): the flag is unknown."""

    def check_mremap_params(self, vrm: VmaRemap) -> int:
        """0 or -EINVAL."""
        return -EINVAL if vrm.dontunmap else super().check_mremap_params(vrm)


class TablesMovedUnlocked(Kernel):
    """v5.0 to v5.13, before 97113eb39fa7: a whole page table moves without the rmap locks if single entries would.

    Walks run beside it, and may find a page at neither place (Z41, CVE-2022-41222).
    """

    def move_pgt_entry(self, vma: Vma, old: int, new: int, need_rmap_locks: bool) -> bool:
        """The same rule for huge entries and for tables."""
        mm = vma.vm_mm
        if old in mm.page_table.pmds or old >> PMD_SHIFT not in mm.page_table.tables:
            return super().move_pgt_entry(vma, old, new, need_rmap_locks)
        if need_rmap_locks:
            self.take_rmap_locks(vma)
        moved = self.move_normal_pmd(mm, old, new)
        if need_rmap_locks:
            self.drop_rmap_locks(vma)
        return moved


class TablesMovedByEntry(Kernel):
    """v4.20 and before (2c91bd4a4e2e): 2 MiB move at once only if one huge entry maps them."""

    def move_pgt_entry(self, vma: Vma, old: int, new: int, need_rmap_locks: bool) -> bool:
        """Leave a table to move_ptes, which needs one at the new place first."""
        mm = vma.vm_mm
        if old not in mm.page_table.pmds and old >> PMD_SHIFT in mm.page_table.tables:
            return False
        return super().move_pgt_entry(vma, old, new, need_rmap_locks)


class MovesUnlocked(Kernel):
    """v3.6 and before: mremap never took an anon_vma's lock; order on its list had to do (Z39 where it did not)."""

    def take_rmap_locks(self, vma: Vma) -> None:
        """None for anonymous pages."""

    def drop_rmap_locks(self, vma: Vma) -> None:
        """Nothing to release."""
