# SPDX-License-Identifier: GPL-2.0-only
"""Bugs in what a page names."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.series.v2_6_34 import V2_6_34
from rmaplab.series.v4_0 import V4_0

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, AnonVmaChain, Folio, Vma

__all__ = ["Z33", "Z21c", "Z21e"]


class Z21c(V2_6_34):
    """A page that comes back from swap names the newest anon_vma of whoever brings it back, shared or not.

    The others that have the page in swap are not linked to that anon_vma;
    and it is freed with the process, while the page stays in the swap cache.
    Before ea90002b0fa7, in v2.6.34-rc.
    """

    name = "zoo/Z21c"
    parent: ClassVar[str | None] = "v2.6.34"
    commits: ClassVar[tuple[str, ...]] = ("ea90002b0fa7",)
    release = "v2.6.34-rc"
    summary = "a shared page from swap names an anon_vma that is too young"

    def anon_vma_for_new(self, anon_vma: AnonVma, exclusive: bool) -> AnonVma:
        """The VMA's own, as for a page that is exclusive."""
        return anon_vma


class Z21e(V2_6_34):
    """A page that its last mapper writes to keeps the name it has, for ever.

    Nothing is missed, but every walk of it visits all relatives (before the
    page_move_anon_rmap of v2.6.34-rc).
    """

    name = "zoo/Z21e"
    parent: ClassVar[str | None] = "v2.6.34"
    release = "v2.6.34-rc"
    summary = "an exclusive page stays on the anon_vma of an ancestor"

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        """Only note that it is exclusive."""
        mapping = folio.mapping
        super().folio_move_anon_rmap(folio, vma)
        folio.mapping = mapping


class Z33(V4_0):
    """A reference to an anon_vma, KSM's or migration's, does not keep the root, in which the lock of the tree is.

    While the root's lock was made (v2.6.36-rc), until 76545066c852.
    """

    name = "zoo/Z33"
    parent: ClassVar[str | None] = "v4.0"
    commits: ClassVar[tuple[str, ...]] = ("76545066c852",)
    release = "v2.6.36-rc"
    summary = "KSM keeps an anon_vma but not its root"
    has_root_lock = False  # there is one, but nothing keeps it: AV-013 has nothing to count

    def anon_vma_link_child(self, vma: Vma, parent: AnonVma, anon_vma: AnonVma, avc: AnonVmaChain) -> None:
        """Hang it below its parent without a reference to the root."""
        super().anon_vma_link_child(vma, parent, anon_vma, avc)
        anon_vma.root.refcount -= 1

    def put_anon_vma(self, anon_vma: AnonVma) -> None:
        """Free it with the last reference; it holds none on the root."""
        anon_vma.refcount -= 1
        if anon_vma.refcount == 0:
            self.anon_vma_free(anon_vma)
