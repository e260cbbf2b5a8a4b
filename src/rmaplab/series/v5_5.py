# SPDX-License-Identifier: GPL-2.0-only
"""v5.5: one counter, ``degree``, and a copy that does not look for an anon_vma to reuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.rmap import u64
from rmaplab.series.mremap_rules import NoDontunmap, TablesMovedUnlocked
from rmaplab.series.reuse_by_count import KsmPageReused, PinnedUnnoticed, ReuseByCount
from rmaplab.series.thp import HugePagesCopied
from rmaplab.series.v6_0 import V6_0

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Vma

__all__ = ["V5_5"]


class V5_5(KsmPageReused, ReuseByCount, PinnedUnnoticed, HugePagesCopied, TablesMovedUnlocked, NoDontunmap, V6_0):  # noqa: N801
    """47b390d23bf8: reuse asks for a faulted source, too, so that a copy (split, merge, mremap) is told from a fork.

    VMAs and children add up in ``degree``; of an anon_vma that was reused
    once, 1 does not say which of the two is left, so two processes may come
    to own it (Z23, CVE-2022-42703, until v6.0).  4e4a9eb92133, which v5.5 had
    too until it was reverted, is the zoo's Z25.

    Pages have no exclusive bit, and pins do not bind them.
    """

    name = "v5.5"
    parent: ClassVar[str | None] = "v4.0"
    commits: ClassVar[tuple[str, ...]] = ("2c91bd4a4e2e", "52d1e606ee73", "47b390d23bf8")
    release = "v5.5"
    summary = "a copy must not reuse an anon_vma"
    counts_apart = False
    counts_together = True

    def add_children(self, anon_vma: AnonVma, number: int) -> None:
        """Children count in ``degree``.

        The kernel starts a new anon_vma at 1 for its first VMA, and so counts
        nothing where v6.0 counts that VMA; the sums are the same.
        """
        anon_vma.degree = u64(anon_vma.degree + number)

    def add_active_vmas(self, anon_vma: AnonVma, number: int) -> None:
        """So do VMAs."""
        anon_vma.degree = u64(anon_vma.degree + number)

    def try_reuse_anon_vma(self, dst: Vma, src: Vma, anon_vma: AnonVma) -> None:
        """Reuse below degree 2, but never the parent's own: its first child would."""
        if dst.anon_vma is None and src.anon_vma is not None and anon_vma is not src.anon_vma and anon_vma.degree < 2:
            dst.anon_vma = anon_vma

    def check_emptied_anon_vma(self, anon_vma: AnonVma) -> None:
        """Nobody counts on an anon_vma that nobody is linked to (a BUG_ON at first)."""
        self.vm_warn_on(anon_vma.degree, "unlink_anon_vmas: emptied {} has a degree", anon_vma)
