# SPDX-License-Identifier: GPL-2.0-only
"""Deferred anon_vmas that a split does not allocate: the pages of the new half are made to name it.

What a reviewer of ANON_VMA_LAZY took a split to do (D. Hildenbrand, June
2026: it is not atomic by any folio's lock).  It saves more, as most VMAs of a
program that was just loaded have been split by mprotect.  Here it looks for
the pages in the page table, which is where they can be found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.designs.lazy import Lazy
from rmaplab.kernel.pagetable import Pte
from rmaplab.kernel.rmap import Operation

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma

__all__ = ["LazyRepoint"]


class LazyRepoint(Lazy):
    """A split of a VMA that was never forked makes its pages name the half they are in."""

    name: ClassVar[str] = "lazy_repoint"
    parent: ClassVar[str | None] = "lazy"
    summary: ClassVar[str] = "the same, but a split allocates nothing and rewrites what the pages name"

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """At a split of a lone VMA, each half has its own pages."""
        whole = src.anon_vma
        if operation is not Operation.SPLIT or whole is None or not self._is_alone(whole):
            return super().anon_vma_clone(dst, src, operation)
        self._embed(dst, None)
        table = dst.vm_mm.page_table
        for entry in [entry for _, entry in table.range(dst.vm_start, dst.vm_end)] + [
            entry for _, entry in table.huge_range(dst.vm_start, dst.vm_end)
        ]:
            if isinstance(entry, Pte) and entry.folio.mapping is whole:
                entry.folio.mapping = dst.anon_vma
        return 0
