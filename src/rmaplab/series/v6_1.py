# SPDX-License-Identifier: GPL-2.0-only
"""v6.1: VMAs in a maple tree, and an mmap that merges by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from rmaplab.series.older_calls import PinsPagesOfFiles
from rmaplab.series.thp import HugePagesOnly
from rmaplab.series.uffdio_move import NoUffdioMove
from rmaplab.series.v6_12 import V6_12

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Folio, Vma
    from rmaplab.kernel.vma import VmaMerge

__all__ = ["V6_1"]


class V6_1(PinsPagesOfFiles, HugePagesOnly, NoUffdioMove, V6_12):  # noqa: N801
    """524e00b36e8c: mmap looks at the VMA behind first; the one before must fit what that one brings.

    So an unfaulted VMA before a faulted one does not take part, where v6.0
    and v6.12 join all three.  v6.12 has another shape of the merge, large
    folios of any size and UFFDIO_MOVE; links and counters are the same.
    Held against 6.1.192.
    """

    name = "v6.1"
    parent: ClassVar[str | None] = "v6.0"
    commits: ClassVar[tuple[str, ...]] = ("7d8faaf15545", "524e00b36e8c")
    release = "v6.1"
    summary = "maple tree; mmap merges with the VMA behind first"

    def vma_merge_mapped_range(self, vmg: VmaMerge) -> Vma | None:
        """As mmap_region does it until v6.11; whoever grows, out of memory the range is a VMA of its own."""
        following = vmg.next
        if following is None or not self.can_vma_merge_right(vmg, False):
            return self.vma_merge_new_range(vmg)
        if self.can_vma_merge_left(replace(vmg, anon_vma=following.anon_vma)) and vmg.prev is not None:
            return self.vma_expand(vmg, vmg.prev, vmg.prev.vm_start, following.vm_end)
        return self.vma_expand(vmg, following, vmg.start, following.vm_end)

    def may_unaccount(self, vma: Vma) -> bool:
        """Never: what was charged once stays so (mprotect.c of 6.1.192; that of 6.12.117 gives it back)."""
        return False

    def anon_mapping_changed(self, folio: Folio, anon_vma: AnonVma) -> bool:
        """Not asked: no call moves a page to another tree (before UFFDIO_MOVE, v6.8)."""
        return False
