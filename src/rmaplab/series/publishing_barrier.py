# SPDX-License-Identifier: GPL-2.0-only
"""The publication of a new anon_vma, since b6ac0b3f6013."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel import Kernel

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Vma

__all__ = ["PublishingBarrier"]


class PublishingBarrier(Kernel):
    """A VMA's first anon_vma pointer is stored with release order.

    A fault in the neighbouring VMA reads the pointer without a lock; what it
    reads through it (root, counters) must not be older than the pointer.
    Calls run one at a time here, so it shows in the events alone.
    """

    def publish_anon_vma(self, vma: Vma, anon_vma: AnonVma) -> None:
        """Store with release order; the reader's address dependency is the other half."""
        vma.anon_vma = anon_vma
        if self.events.listeners:
            self.events.emit("publish", vma, f"{anon_vma} release")
