# SPDX-License-Identifier: GPL-2.0-only
"""v7.3: private file mappings have an offset of their own for anonymous pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.flags import PAGE_SHIFT, VM_SHARED
from rmaplab.series.mremap_rules import DontunmapApart
from rmaplab.series.publishing_barrier import PublishingBarrier

if TYPE_CHECKING:
    from rmaplab.kernel.mremap import VmaRemap
    from rmaplab.kernel.objects import KsmRmapItem, Mm, Vma
    from rmaplab.kernel.vma import CopiedVma, VmaMerge

__all__ = ["V7_3"]


class V7_3(DontunmapApart, PublishingBarrier):  # noqa: N801
    """An anonymous page is indexed by the address of its first fault, in private file mappings, too.

    Read in Debian's linux-source-7.3 (7.3.4), which does not tell the commits.
    So such mappings merge only if these offsets are adjacent as well.  KSM's
    walk looks at the one offset that an item remembers.  What
    MREMAP_DONTUNMAP leaves behind is a VMA apart (by v7.2).  The kernel also renamed
    ``anon_vma_interval_tree_*`` to ``anon_rmap_tree_*`` and gives them the
    anon_vma; the functions here keep v7.0's names.
    """

    name = "v7.3"
    parent: ClassVar[str | None] = "v7.0"
    commits: ClassVar[tuple[str, ...]] = ("b6ac0b3f6013",)
    release = "v7.3"
    summary = "offsets of anonymous pages apart from a file's, publication with release order, KSM walks one offset"

    # --- offsets ---------------------------------------------------------------------------

    def vm_area_alloc(
        self, mm: Mm, start: int, end: int, pgoff: int, flags: int, file: str | None = None
    ) -> Vma | None:
        """A new mapping's anonymous offset is its address."""
        vma = super().vm_area_alloc(mm, start, end, pgoff, flags, file)
        if vma is not None:
            vma.anon_pgoff = start >> PAGE_SHIFT
        return vma

    def vma_set_range(self, vma: Vma, start: int, end: int, pgoff: int) -> None:
        """It is asserted that unfaulted anonymous memory has the offset of its address (``assert_sane_pgoff``)."""
        super().vma_set_range(vma, start, end, pgoff)
        anonymous = vma.file is None and not vma.vm_flags & VM_SHARED
        wrong = anonymous and vma.anon_vma is None and pgoff != start >> PAGE_SHIFT
        self.vm_warn_on(wrong, "vma_set_pgoff: {} is unfaulted, and its offset is not its address", vma)

    def copy_vma(self, vma: Vma, start: int, end: int, pgoff: int, keep_source: bool) -> CopiedVma | None:
        """An unfaulted file mapping, too, takes the offset of its new address."""
        unfaulted = vma.anon_vma is None
        copied = super().copy_vma(vma, start, end, pgoff, keep_source)
        if copied is not None and unfaulted and (copied.vma.vm_start, copied.vma.vm_end) == (start, end):
            copied.vma.anon_pgoff = start >> PAGE_SHIFT
        return copied

    def dontunmap_complete(self, vrm: VmaRemap, vma: Vma, new: Vma) -> None:
        """An unfaulted file mapping, too, has the offset of its address."""
        super().dontunmap_complete(vrm, vma, new)
        if (vma.vm_start, vma.vm_end) == (vrm.addr, vrm.addr + vrm.old_len):
            vma.anon_pgoff = vma.vm_start >> PAGE_SHIFT

    # --- merging ---------------------------------------------------------------------------

    def merge_anon_pgoff(self, vmg: VmaMerge) -> int:
        """The anonymous offset of the range that might be merged."""
        source = vmg.middle or vmg.copied_from
        if vmg.middle is None and vmg.anon_vma is None:
            return vmg.start >> PAGE_SHIFT
        if source is None:  # mremap in place: the range continues the VMA before it
            assert vmg.prev is not None
            return vmg.prev.anon_pgoff + ((vmg.start - vmg.prev.vm_start) >> PAGE_SHIFT)
        return source.anon_pgoff + vmg.pgoff - source.vm_pgoff

    def needs_adjacent_anon_pgoff(self, vmg: VmaMerge) -> bool:
        """Whether the offset of anonymous pages says more than the file's: in private mappings of files."""
        return vmg.file is not None and not vmg.flags & VM_SHARED

    def can_vma_merge_left(self, vmg: VmaMerge) -> bool:
        """Adjacent by both offsets."""
        prev = vmg.prev
        if prev is None or not super().can_vma_merge_left(vmg):
            return False
        pages = (vmg.start - prev.vm_start) >> PAGE_SHIFT
        return not self.needs_adjacent_anon_pgoff(vmg) or self.merge_anon_pgoff(vmg) == prev.anon_pgoff + pages

    def can_vma_merge_right(self, vmg: VmaMerge, merge_left: bool) -> bool:
        """Adjacent by both offsets."""
        following = vmg.next
        if following is None or not super().can_vma_merge_right(vmg, merge_left):
            return False
        pages = (vmg.end - vmg.start) >> PAGE_SHIFT
        return not self.needs_adjacent_anon_pgoff(vmg) or following.anon_pgoff == self.merge_anon_pgoff(vmg) + pages

    def anon_vma_compatible(self, lower: Vma, upper: Vma) -> bool:
        """Adjacent by both offsets."""
        pages = (upper.vm_start - lower.vm_start) >> PAGE_SHIFT
        return super().anon_vma_compatible(lower, upper) and upper.anon_pgoff == lower.anon_pgoff + pages

    # --- KSM -------------------------------------------------------------------------------

    def ksm_walk_range(self, item: KsmRmapItem) -> tuple[int, int]:
        """The offset of the page when it was merged: mremap breaks merged pages, so it is still the same."""
        return item.pgoff, item.pgoff
