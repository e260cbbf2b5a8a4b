# SPDX-License-Identifier: GPL-2.0-only
"""v6.18+9: the whole clean-up series as posted in January 2026 (v3, patches 1 to 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.flags import VM_LOCKED
from rmaplab.series.uffdio_move import MoveLocksAnonVma
from rmaplab.series.unlocked_walk import UnlockedWalk

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Folio, Mm, Vma

__all__ = ["V6_18_9"]


class V6_18_9(UnlockedWalk, MoveLocksAnonVma):  # noqa: N801 (the series' own name)
    """d17f02417a33: anon_vma_clone is told its operation; only fork looks for a reusable anon_vma.

    Still without 3a206a8649f8: after a failed merge into an unfaulted VMA
    the VMA keeps an anon_vma pointer that nothing backs.

    Like all of v6.18+1 to v6.18+9 it is v6.18 outside mm/rmap.c and
    mm/vma.c: what v7.0 changed in faults, walks, UFFDIO_MOVE and guards is
    taken back here.
    """

    name = "v6.18+9"
    parent: ClassVar[str | None] = "v6.18+8"
    commits: ClassVar[tuple[str, ...]] = ("d17f02417a33",)
    release = "v7.0"
    summary = "patch 9: separate out fork-only logic on anon_vma_clone()"

    def cleanup_partial_anon_vmas(self, vma: Vma) -> None:
        """Free the AVCs, and leave ``vma.anon_vma`` as the caller had set it."""
        for avc in vma.anon_vma_chain:
            self.anon_vma_chain_free(avc)
        vma.anon_vma_chain.clear()

    def dup_mmap_failed(self, mm: Mm) -> None:
        """Leave the half-copied mm to exit_mmap (before 43873af772f8)."""

    def prepare_guards(self, vma: Vma) -> int:
        """An anon_vma for every VMA with guards, a file's too, for fork copies the page tables of no others.

        Until VM_MAYBE_GUARD (v6.19).
        """
        return self.anon_vma_prepare(vma)

    def swapin_sole_reference(self, folio: Folio, vma: Vma, write: bool) -> bool:
        """Whether the slot could be given up before the page was mapped (before 4b34f1d82c65): the last entry's.

        Then a page that nobody else refers to is exclusive although its
        entry was not, and keeps what it names if it never left memory.
        """
        alone = folio.mapcount == 0 and folio.pins == 0 and folio.slot is not None and folio.slot.count == 1
        return alone and (write or bool(vma.vm_flags & VM_LOCKED))

    def anon_mapping_changed(self, folio: Folio, anon_vma: AnonVma) -> bool:
        """Not every walker held the folio lock yet, so who has waited for the anon_vma's looks again."""
        return folio.mapping is not anon_vma
