# SPDX-License-Identifier: GPL-2.0-only
"""mremap as older kernels knew it: each class takes one thing back, for a series to mix in."""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import TYPE_CHECKING

from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PAGE_SHIFT, PMD_SHIFT, VM_LOCKED

if TYPE_CHECKING:
    from rmaplab.kernel.mremap import VmaRemap
    from rmaplab.kernel.objects import Vma

__all__ = [
    "DontunmapAlone",
    "DontunmapApart",
    "MovesUnlocked",
    "NoDontunmap",
    "OneVmaMoved",
    "TablesMovedByEntry",
    "TablesMovedUnlocked",
]


class DontunmapApart(Kernel):
    """v7.2, and 6.12.114 (mremap.c and vma.c of Debian's sources): what MREMAP_DONTUNMAP leaves is a VMA apart.

    It does not merge with its own copy, it is cut off first if it is locked,
    since it alone loses the lock, and unfaulted anonymous memory takes the
    offset of its address.
    """

    def prep_move_vma(self, vrm: VmaRemap, vma: Vma) -> int:
        """Cut a locked source off from its VMA; 0 or -ENOMEM."""
        rc = super().prep_move_vma(vrm, vma)
        if rc != 0 or not (vrm.dontunmap and vma.vm_flags & VM_LOCKED):
            return rc
        end = vrm.addr + vrm.old_len
        split_after = end < vma.vm_end
        if vma.vm_start < vrm.addr:
            rc = self.split_vma(vma, vrm.addr, True)
        return self.split_vma(vma, end, False) if rc == 0 and split_after else rc

    def copy_vma_neighbours(self, vma: Vma, start: int, end: int, keep_source: bool) -> tuple[Vma | None, Vma | None]:
        """A VMA that stays is not one of them."""
        prev, following = super().copy_vma_neighbours(vma, start, end, keep_source)
        if keep_source:
            prev, following = None if prev is vma else prev, None if following is vma else following
        return prev, following

    def dontunmap_complete(self, vrm: VmaRemap, vma: Vma, new: Vma) -> None:
        """What is unfaulted again has the offset of its address."""
        super().dontunmap_complete(vrm, vma, new)
        if vma.file is None and (vma.vm_start, vma.vm_end) == (vrm.addr, vrm.addr + vrm.old_len):
            vma.vm_pgoff = vma.anon_pgoff = vma.vm_start >> PAGE_SHIFT


class DontunmapAlone(DontunmapApart):
    """6.1.192 (mmap.c of Debian's source): and right beside where it came from, the copy does not merge at all."""

    def copy_vma_neighbours(self, vma: Vma, start: int, end: int, keep_source: bool) -> tuple[Vma | None, Vma | None]:
        """None, if one of them is a VMA that stays, and the offset could be chosen so that they are adjacent."""
        unfaulted = vma.file is None and vma.anon_vma is None
        if keep_source and unfaulted and (start == vma.vm_end or end == vma.vm_start):
            return None, None
        return super().copy_vma_neighbours(vma, start, end, keep_source)


class OneVmaMoved(Kernel):
    """v6.16 and before (d23cb648e365): a call moves pages of one VMA.

    Only that there is one is looked at first; what else may be wrong with it
    comes to light when the new place is cleared already.
    """

    def check_mremap_params(self, vrm: VmaRemap) -> int:
        """0, -EINVAL, or -EFAULT: where nothing is mapped, the new place is not looked at."""
        rc = super().check_mremap_params(vrm)
        if rc == 0 or vrm.new_addr is None or not vrm.maymove:
            return rc
        place, vrm.new_addr = vrm.new_addr, None
        rc_without = super().check_mremap_params(vrm)
        vrm.new_addr = place
        return -EFAULT if rc_without == 0 and vrm.mm.lookup(vrm.addr) is None else rc

    def remap_one(self, vrm: VmaRemap) -> int:
        """Move first and ask later."""
        if vrm.new_addr is None and not vrm.dontunmap:
            return super().remap_one(vrm)
        return -EFAULT if vrm.mm.lookup(vrm.addr) is None else self.mremap_to(vrm)

    def prep_move_vma(self, vrm: VmaRemap, vma: Vma) -> int:
        """What ``vma_to_resize`` asks; 0, -EFAULT, -EINVAL or -ENOMEM."""
        return self.check_prep_vma(vrm, vma) or super().prep_move_vma(vrm, vma)

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
