# SPDX-License-Identifier: GPL-2.0-only
"""v3.19: reuse, to end the endless growth; one lock and one interval tree had come before."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.series.v4_0 import V4_0

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma

__all__ = ["V3_19"]


class V3_19(V4_0):  # noqa: N801
    """7a3ef208e662: fork adopts an ancestor's anon_vma that has no VMA and one child, told by its ``degree``.

    As released, with the importer of a merge counted (b800c91a0517; without
    it Z10), and not yet with 3fe89b3e2a7b: a clone that fails counts off a
    VMA that it never counted (Z11).

    From the years since v2.6.34: all of a tree is locked at its root, which
    its other anon_vmas pin (012f18004da3), clone allocates without waiting
    under that lock (dd34739c03f2), fork children merge with their equals only
    (965f55dea0e3), and lists became interval trees (bf181b9f9d8d).
    """

    name = "v3.19"
    parent: ClassVar[str | None] = "v2.6.34"
    commits: ClassVar[tuple[str, ...]] = (
        "012f18004da3",
        "ad8c2ee801ad",
        "dd34739c03f2",
        "965f55dea0e3",
        "bf181b9f9d8d",
        "7a3ef208e662",
        "b800c91a0517",
    )
    release = "v3.19"
    summary = "degree, and reuse of an ancestor's anon_vma by fork"

    def cleanup_partial_anon_vmas(self, vma: Vma) -> None:
        """In line in anon_vma_clone: unlink, with the pointer as the caller had set it."""
        self.unlink_anon_vmas(vma)
