# SPDX-License-Identifier: GPL-2.0-only
"""Large folios as older kernels knew them: each class takes one thing back, for a series to mix in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PMD_ORDER

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Folio, Vma

__all__ = ["HugePagesOnly", "LargeFoliosCopied", "NoLargeFolios"]


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


class NoLargeFolios(Kernel):
    """v2.6.37 and before: no huge page without hugetlbfs, which is not modelled."""

    def thp_vma_allowable(self, vma: Vma) -> bool:
        """Never."""
        return False
