# SPDX-License-Identifier: GPL-2.0-only
"""UFFDIO_MOVE as it was when it was new, for a series to mix in."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel import Kernel

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Folio
    from rmaplab.kernel.userfaultfd import MovePlace

__all__ = ["MoveForgetsSwapCache", "MoveLocksAnonVma", "NoUffdioMove"]


class MoveLocksAnonVma(Kernel):
    """v6.8 to v6.18: some walks did without the folio's lock, so the anon_vma that the page leaves is write-locked.

    A walker that waited for that lock has to look again whether the folio
    still names the anon_vma.
    """

    def lock_moved_folio(self, folio: Folio) -> AnonVma | None:
        """The folio, then the anon_vma that it names, with a reference."""
        super().lock_moved_folio(folio)
        anon_vma = self.folio_get_anon_vma(folio)
        assert anon_vma is not None  # the page is mapped
        self.anon_vma_lock_write(anon_vma)
        return anon_vma

    def unlock_moved_folio(self, folio: Folio, anon_vma: AnonVma | None) -> None:
        """In reverse order; the folio names another anon_vma by now."""
        assert anon_vma is not None
        self.anon_vma_unlock_write(anon_vma)
        self.put_anon_vma(anon_vma)
        super().unlock_moved_folio(folio, anon_vma)


class MoveForgetsSwapCache(Kernel):
    """v6.8 to v6.13, before c50f8e6053b0: a swap entry moves, the page in the swap cache keeps its old name.

    A swap-in at the destination finds it there, with an index and perhaps an
    anon_vma of another place: the kernel hits a BUG_ON.
    """

    def move_cached_folio(self, folio: Folio, dst: MovePlace) -> None:
        """Nobody looks into the swap cache."""


class NoUffdioMove(Kernel):
    """v6.7 and before (adef440691ba): the ioctl is unknown."""

    has_uffdio_move: ClassVar[bool] = False
