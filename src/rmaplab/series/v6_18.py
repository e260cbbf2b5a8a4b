# SPDX-License-Identifier: GPL-2.0-only
"""v6.18: the code before the clean-up series."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.series.v6_18_1 import V6_18_1

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma
    from rmaplab.kernel.rmap import Operation

__all__ = ["V6_18"]


class V6_18(V6_18_1):  # noqa: N801
    """No assertions; a failed clone clears the pointer and sends what it has through unlink_anon_vmas().

    Against v6.12: a faulted VMA may be merged into an unfaulted one
    (879bca0a2c4f, v6.16), a page of a large folio reused, and mremap may move
    several VMAs at once.  It stands for 6.18.y, which has 61f67c230a5e and
    3b617fd3d317 from v6.19: without them it has Z07 and Z08.
    """

    name = "v6.18"
    parent: ClassVar[str | None] = "v6.12"
    commits: ClassVar[tuple[str, ...]] = ("879bca0a2c4f", "1da190f4d0a6", "d23cb648e365")
    release = "v6.18"
    summary = "before the clean-up series"

    def check_anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> None:
        """Nothing is asserted."""

    def check_unlink_anon_vmas(self, vma: Vma) -> None:
        """Nothing is asserted."""

    def cleanup_partial_anon_vmas(self, vma: Vma) -> None:
        """In line in anon_vma_clone: nobody was counted yet, so clear the pointer before unlinking."""
        vma.anon_vma = None
        self.unlink_anon_vmas(vma)
