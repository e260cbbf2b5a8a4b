# SPDX-License-Identifier: GPL-2.0-only
"""v6.12: the merge rule of v6.15 and before."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.locking import PAGE_TABLE_LOCK
from rmaplab.kernel.madvise import SINCE
from rmaplab.series.mremap_rules import OneVmaMoved
from rmaplab.series.thp import LargeFoliosCopied
from rmaplab.series.v6_18 import V6_18

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma
    from rmaplab.kernel.vma import VmaMerge

__all__ = ["V6_12"]


class V6_12(OneVmaMoved, LargeFoliosCopied, V6_18):  # noqa: N801
    """Before 879bca0a2c4f: the fork-child test looks at the absorbing VMA only.

    An unfaulted VMA has an empty chain, which is not singular, so by
    accident it never absorbed a faulted neighbour.

    It stands for 6.12.y, where UFFDIO_MOVE renames pages in the swap cache (c50f8e6053b0, v6.14).
    """

    name = "v6.12"
    parent: ClassVar[str | None] = "v6.1"
    commits: ClassVar[tuple[str, ...]] = (
        "84209e87c696",
        "19eaf44954df",
        "adef440691ba",
    )
    release = "v6.12"
    summary = "merge rule of v6.15 and before"
    merges_into_unfaulted = False
    unknown_advice = SINCE["v6.13"]

    def is_mergeable_anon_vma(self, vmg: VmaMerge, target: Vma) -> bool:
        """Equal anon_vmas, or one side unfaulted and the absorbing VMA's chain singular."""
        src = vmg.anon_vma
        if (target.anon_vma is None or src is None) and len(target.anon_vma_chain) == 1:
            return True
        return target.anon_vma is src

    def grow_vma_down(self, vma: Vma, start: int, pgoff: int) -> None:
        """Under the mm's page_table_lock too, from times when faults let stacks grow side by side."""
        self.locks.acquire(PAGE_TABLE_LOCK, vma.vm_mm)
        super().grow_vma_down(vma, start, pgoff)
        self.locks.release(PAGE_TABLE_LOCK, vma.vm_mm)
