# SPDX-License-Identifier: GPL-2.0-only
"""Bugs in who keeps whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.series.v4_0 import V4_0

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma

__all__ = ["Z32"]


class Z32(V4_0):
    """The last reference to an anon_vma drops its hold on the root first, and then looks at the root's lock.

    It takes a reference that outlives all VMAs: KSM's or migration's.
    v3.0 to v3.15, until 624483f3ea82.
    """

    name = "zoo/Z32"
    parent: ClassVar[str | None] = "v4.0"
    commits: ClassVar[tuple[str, ...]] = ("624483f3ea82",)
    release = "v3.0"
    summary = "a root is freed before its child"

    def put_anon_vma(self, anon_vma: AnonVma) -> None:
        """Root first, child second."""
        anon_vma.refcount -= 1
        if anon_vma.refcount != 0:
            return
        root = anon_vma.root
        if root is not anon_vma:
            root.refcount -= 1
            if root.refcount == 0:
                self.anon_vma_free(root)
        self.anon_vma_free(anon_vma)
