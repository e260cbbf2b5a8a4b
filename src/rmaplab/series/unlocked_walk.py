# SPDX-License-Identifier: GPL-2.0-only
"""Walks that do without the folio's lock, for a series to mix in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel import Kernel

if TYPE_CHECKING:
    from rmaplab.kernel.folio import Visit
    from rmaplab.kernel.objects import Folio
    from rmaplab.kernel.walk import RmapWalkControl

__all__ = ["UnlockedWalk"]


class UnlockedWalk(Kernel):
    """v6.18 and before: who only looks for use of an ordinary anonymous page (folio_referenced) need not lock it.

    So between two steps of such a walk the page may come to name another
    anon_vma.  A page of KSM's, whose walk starts from the page, was always locked.
    """

    def rmap_walk(self, folio: Folio, rwc: RmapWalkControl) -> list[Visit]:
        """Nothing is asserted but for pages of KSM's."""
        if folio.stable_node is not None:
            return super().rmap_walk(folio, rwc)
        return self.walk_anon_vma(folio, rwc)

    def rmap_walk_anon(self, folio: Folio) -> list[Visit]:
        """Look without a lock but the anon_vma's."""
        return self.walk_anon_vma(folio, self.looking())
