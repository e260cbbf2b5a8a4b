# SPDX-License-Identifier: GPL-2.0-only
"""mremap: shrink, grow and move mappings (mm/mremap.c, v7.0).

Addresses and lengths are in bytes and page-aligned.  A move makes a VMA at
the new place first, then moves the page-table entries, and then unmaps the
old place; pages keep their folios, and folios their anon_vma and index.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EFAULT, EINVAL, ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import (
    PAGE_SHIFT,
    PAGE_SIZE,
    TASK_SIZE,
    VM_ACCOUNT,
    VM_LOCKED,
    VM_MERGEABLE,
    VM_SHARED,
)
from rmaplab.kernel.locking import MMAP_LOCK
from rmaplab.kernel.move_page_tables import MovePageTables

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Mm, Vma

__all__ = ["Mremap", "VmaRemap"]


@dataclass(slots=True)
class VmaRemap:
    """struct vma_remap_struct: one call, or the part of it that concerns one VMA.

    ``new_addr`` is None unless the caller names the new place (MREMAP_FIXED);
    ``unmapped_area`` is the free place to move to where nobody names one.
    """

    mm: Mm
    addr: int
    old_len: int
    new_len: int
    new_addr: int | None = None
    dontunmap: bool = False
    maymove: bool = True
    unmapped_area: int | None = None


class Mremap(MovePageTables):
    """The system call and its steps."""

    def do_mremap(
        self,
        mm: Mm,
        addr: int,
        old_len: int,
        new_len: int,
        *,
        new_addr: int | None = None,
        dontunmap: bool = False,
        maymove: bool = True,
        unmapped_area: int | None = None,
    ) -> int:
        """The new address of a mapping that was resized or moved, or a negative errno.

        -EFAULT where a VMA is missing or ends too early, -EINVAL for
        arguments that contradict each other, -ENOMEM without memory or
        without room to grow.
        """
        vrm = VmaRemap(mm, addr, old_len, new_len, new_addr, dontunmap, maymove, unmapped_area)
        rc = self.check_mremap_params(vrm)
        if rc != 0:
            return rc
        self.locks.acquire(MMAP_LOCK, mm)
        rc = self.remap_move(vrm) if self.vrm_move_only(vrm) else self.remap_one(vrm)
        vma = mm.lookup(rc) if rc > 0 and new_len > old_len else None
        self.locks.release(MMAP_LOCK, mm)
        if vma is not None and vma.vm_flags & VM_LOCKED:
            self.mm_populate(mm, rc + old_len, rc + new_len)  # what fails is left for later faults
        return rc

    def remap_one(self, vrm: VmaRemap) -> int:
        """Resize, or move what begins in one VMA."""
        rc = self.check_prep_vma(vrm, vrm.mm.lookup(vrm.addr))
        if rc != 0:
            return rc
        return self.mremap_at(vrm) if vrm.new_addr is None and not vrm.dontunmap else self.mremap_to(vrm)

    # --- checks ------------------------------------------------------------------------------

    def check_mremap_params(self, vrm: VmaRemap) -> int:
        """What can be said of the arguments alone; 0 or -EINVAL."""
        if (vrm.addr | vrm.old_len | vrm.new_len) % PAGE_SIZE or not 0 < vrm.new_len <= TASK_SIZE or vrm.old_len < 0:
            return -EINVAL
        if vrm.dontunmap and (vrm.old_len != vrm.new_len or not vrm.maymove):
            return -EINVAL
        if vrm.new_addr is None:
            return 0
        if not vrm.maymove or vrm.new_addr % PAGE_SIZE or not 0 < vrm.new_addr <= TASK_SIZE - vrm.new_len:
            return -EINVAL
        overlaps = vrm.addr < vrm.new_addr + vrm.new_len and vrm.new_addr < vrm.addr + vrm.old_len
        return -EINVAL if overlaps else 0

    def check_prep_vma(self, vrm: VmaRemap, vma: Vma | None) -> int:
        """Whether this VMA may be resized or moved like that; 0, -EFAULT or -EINVAL."""
        if vma is None:
            return -EFAULT
        if vrm.new_addr is None and not vrm.dontunmap and vrm.new_len <= vrm.old_len:
            return 0
        if vrm.old_len == 0 and not vma.vm_flags & VM_SHARED:
            return -EINVAL  # only a shared mapping can be duplicated
        if min(vrm.old_len, vrm.new_len) > vma.vm_end - vrm.addr:
            return -EFAULT
        return 0

    def vrm_move_only(self, vrm: VmaRemap) -> bool:
        """Whether the call moves and resizes nothing: then it may span VMAs (since d23cb648e365, v6.17)."""
        return vrm.new_addr is not None and vrm.old_len == vrm.new_len

    # --- to a place that the caller names --------------------------------------------------------

    def remap_move(self, vrm: VmaRemap) -> int:
        """Move every VMA of a range, each to its distance from the first; what lies between stays unmapped.

        A failure leaves moved what was moved before.
        """
        assert vrm.new_addr is not None
        end, delta = vrm.addr + vrm.old_len, vrm.new_addr - vrm.addr
        address = vrm.addr
        while address < end:
            at = vrm.mm.find(address)
            vma = vrm.mm.vmas[at] if at < len(vrm.mm.vmas) else None
            if vma is None or vma.vm_start >= end:
                break
            if address == vrm.addr < vma.vm_start:
                return -EFAULT
            start, upto = max(vma.vm_start, address), min(vma.vm_end, end)
            length = upto - start
            part = VmaRemap(vrm.mm, start, length, length, start + delta, vrm.dontunmap)
            rc = self.check_prep_vma(part, vma)
            rc = self.mremap_to(part) if rc == 0 else rc
            if rc < 0:
                return rc
            address = upto
        return vrm.new_addr if address > vrm.addr else -EFAULT

    def mremap_to(self, vrm: VmaRemap) -> int:
        """Clear the new place, shrink if asked to, and move; the new address or a negative errno."""
        if vrm.new_addr is not None and self.do_vmi_munmap(vrm.mm, vrm.new_addr, vrm.new_addr + vrm.new_len) != 0:
            return -ENOMEM
        if vrm.new_len < vrm.old_len:
            rc = self.shrink_vma(vrm)
            if rc != 0:
                return rc
            vrm.old_len = vrm.new_len
        if vrm.new_addr is None:
            vrm.new_addr = vrm.unmapped_area
        return self.move_vma(vrm)

    def shrink_vma(self, vrm: VmaRemap) -> int:
        """Unmap the tail that is too much; it may reach into other VMAs; 0 or -ENOMEM."""
        return self.do_vmi_munmap(vrm.mm, vrm.addr + vrm.new_len, vrm.addr + vrm.old_len)

    # --- at the old place if possible ------------------------------------------------------------

    def mremap_at(self, vrm: VmaRemap) -> int:
        """Resize in place, or move where there is room; the address or a negative errno."""
        if vrm.new_len < vrm.old_len:
            return self.shrink_vma(vrm) or vrm.addr
        if vrm.new_len == vrm.old_len:
            return vrm.addr
        return self.expand_vma(vrm)

    def expand_vma(self, vrm: VmaRemap) -> int:
        """Grow over the free range behind, else move."""
        vma = vrm.mm.lookup(vrm.addr)
        assert vma is not None
        delta = vrm.new_len - vrm.old_len
        if vma.vm_end == vrm.addr + vrm.old_len and self.vma_expandable(vma, delta):
            return vrm.addr if self.vma_merge_extend(vma, delta) is not None else -ENOMEM
        if not vrm.maymove:
            return -ENOMEM
        vrm.new_addr = vrm.unmapped_area
        return self.move_vma(vrm)

    def vma_expandable(self, vma: Vma, delta: int) -> bool:
        """Whether ``delta`` bytes behind a VMA are free."""
        end = vma.vm_end + delta
        at = vma.vm_mm.find(vma.vm_end)
        return end <= TASK_SIZE and (at == len(vma.vm_mm.vmas) or vma.vm_mm.vmas[at].vm_start >= end)

    # --- move ----------------------------------------------------------------------------------

    def move_vma(self, vrm: VmaRemap) -> int:
        """Move (a part of) one VMA to a place that is free now; its address, or a negative errno."""
        vma = vrm.mm.lookup(vrm.addr)
        if vma is None:
            return -EFAULT
        if vrm.new_addr is None:
            return -ENOMEM
        rc = self.prep_move_vma(vrm, vma)
        if rc != 0:
            return rc
        pgoff = vma.vm_pgoff + ((vrm.addr - vma.vm_start) >> PAGE_SHIFT)
        copied = self.copy_vma(vma, vrm.new_addr, vrm.new_addr + vrm.new_len, pgoff, vrm.dontunmap)
        if copied is None:
            return -ENOMEM
        locked = copied.need_rmap_locks
        moved = self.move_page_tables(copied.source, vrm.addr, vrm.new_addr, vrm.old_len, need_rmap_locks=locked)
        if moved < vrm.old_len:
            self.move_page_tables(copied.vma, vrm.new_addr, vrm.addr, moved, need_rmap_locks=True, back=True)
            self.unmap_source_vma(vrm, copied.vma, vrm.new_addr, vrm.new_len)
            return -ENOMEM
        if vrm.dontunmap:
            self.dontunmap_complete(vrm, copied.source, copied.vma)
        else:
            self.unmap_source_vma(vrm, copied.source, vrm.addr, vrm.old_len)
        return vrm.new_addr

    def prep_move_vma(self, vrm: VmaRemap, vma: Vma) -> int:
        """Break the KSM pages, whose items know them by their address; 0 or -ENOMEM."""
        if not vma.vm_flags & VM_MERGEABLE:
            return 0
        return self.unmerge_ksm_pages(vma, vrm.addr, vrm.addr + vrm.old_len)

    def unmap_source_vma(self, vrm: VmaRemap, vma: Vma, addr: int, length: int) -> None:
        """Unmap the old place, or, after a failure, the new one.

        What stays of the VMA on either side stays accounted.  If an edge
        cannot be split off, the empty range stays mapped and the call
        succeeds all the same.
        """
        if length == 0:
            return
        end = addr + length
        hidden = vma.vm_flags & VM_ACCOUNT and not vrm.dontunmap
        rest = vma.vm_start < addr, vma.vm_end > end
        if hidden:
            vma.vm_flags &= ~VM_ACCOUNT  # the pages are charged to the new place
        if self.do_vmi_munmap(vrm.mm, addr, end) != 0 or not hidden:
            return
        for kept, neighbour in zip(rest, vrm.mm.neighbours(addr, end), strict=True):
            if kept and neighbour is not None:
                neighbour.vm_flags |= VM_ACCOUNT

    def dontunmap_complete(self, vrm: VmaRemap, vma: Vma, new: Vma) -> None:
        """The old VMA stays, empty and unlocked; if all of it was moved it is unfaulted again."""
        vma.vm_flags &= ~VM_LOCKED
        if new is not vma and (vma.vm_start, vma.vm_end) == (vrm.addr, vrm.addr + vrm.old_len):
            self.unlink_anon_vmas(vma)
