# SPDX-License-Identifier: GPL-2.0-only
"""Large folios as older kernels knew them: each class takes one thing back, for a series to mix in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PMD_ORDER, PMD_SIZE, VM_WRITE
from rmaplab.kernel.locking import FOLIO_LOCK
from rmaplab.kernel.objects import Folio
from rmaplab.kernel.pagetable import Pte

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma

__all__ = ["HugePagesCopied", "HugePagesOnly", "LargeFoliosCopied", "NoLargeFolios"]


class LargeFoliosCopied(Kernel):
    """v6.14 and before (1da190f4d0a6): a write to a shared page of a large folio always copies the page."""

    def wp_can_reuse_large_anon_folio(self, folio: Folio, vma: Vma) -> bool:
        """Never: sooner or later the large folio is free again."""
        return False


class HugePagesOnly(Kernel):
    """v6.7 and before (19eaf44954df): a large anonymous folio is a huge page."""

    def alloc_anon_folio(self, vma: Vma, address: int) -> tuple[Folio, int] | None:
        """A single page, whatever sizes are enabled."""
        enabled, self.anon_orders = self.anon_orders, (PMD_ORDER,)
        found = super().alloc_anon_folio(vma, address)
        self.anon_orders = enabled
        return found


class HugePagesCopied(Kernel):
    """v5.7 and before (3917c80280c9): a write to a shared huge page copies all of it, if there is a huge page.

    One that is not shared is reused, but keeps its anon_vma (until 6c54dc6c7437, v5.19).
    """

    def do_huge_pmd_wp_page(self, vma: Vma, address: int, huge: Pte, *, unshare: bool = False) -> int | None:
        """0, or None if the entry was split, for small pages to decide."""
        start = address & -PMD_SIZE
        if not self.reuse_huge_folio(huge.folio, vma):
            if not self.slab.reserve("page"):
                self.split_huge_pmd(vma, address)
                return None
            huge.folio.mapcount -= 1
            folio = Folio(self.new_ident(Folio), PMD_ORDER)
            self.folio_add_new_anon_rmap(folio, vma, start)
            huge = vma.vm_mm.page_table.pmds[start] = Pte(folio, False)
        huge.writable = bool(vma.vm_flags & VM_WRITE) and not unshare
        return 0

    def reuse_huge_folio(self, folio: Folio, vma: Vma) -> bool:
        """Whether this is the folio's only mapping."""
        self.locks.acquire(FOLIO_LOCK, folio)
        alone = folio.mapcount == 1
        self.locks.release(FOLIO_LOCK, folio)
        return alone


class NoLargeFolios(Kernel):
    """v2.6.37 and before: no huge page without hugetlbfs, which is not modelled."""

    def thp_vma_allowable(self, vma: Vma) -> bool:
        """Never."""
        return False
