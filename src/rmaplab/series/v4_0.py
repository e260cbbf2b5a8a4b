# SPDX-License-Identifier: GPL-2.0-only
"""v4.0: a failed clone drops the pointer before it unlinks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.madvise import SINCE
from rmaplab.series.mremap_rules import TablesMovedByEntry
from rmaplab.series.v5_5 import V5_5

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Vma

__all__ = ["V4_0"]


class V4_0(TablesMovedByEntry, V5_5):  # noqa: N801
    """3fe89b3e2a7b: a failed clone has counted no VMA, so unlinking what it linked must count none off.

    Against v5.5: fork is known by the unset pointer of the target alone.
    That decides alike: a source without anon_vma has no chain to walk.
    """

    name = "v4.0"
    parent: ClassVar[str | None] = "v3.19"
    commits: ClassVar[tuple[str, ...]] = ("3fe89b3e2a7b",)
    release = "v4.0"
    summary = "no underflow of degree when a clone fails"
    reuses_ksm_pages = False
    unknown_advice = V5_5.unknown_advice | SINCE["v4.14"]

    def try_reuse_anon_vma(self, dst: Vma, src: Vma, anon_vma: AnonVma) -> None:
        """Reuse below degree 2, but never the parent's own."""
        if dst.anon_vma is None and anon_vma is not src.anon_vma and anon_vma.degree < 2:
            dst.anon_vma = anon_vma
