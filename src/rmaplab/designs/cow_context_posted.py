# SPDX-License-Identifier: GPL-2.0-only
"""The COW context with two faults that its prototype (project/cow-context, early 2026) is suspected of.

Read from a description of the prototype, not from its text: whether it had
them is not for this file to say, only what follows if it had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.designs.cow_context import CowContext
from rmaplab.kernel.flags import PAGE_SHIFT

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, AnonVmaChain, Folio, Vma

__all__ = ["CowContextPosted"]


class CowContextPosted(CowContext):
    """Remaps of one range stand in an array sorted by offset; a walk of an exclusive page does without remaps."""

    name: ClassVar[str] = "cow_context_posted"
    parent: ClassVar[str | None] = "cow_context"
    summary: ClassVar[str] = "the same with two faults that its prototype is suspected of"

    def folio_vmas(self, folio: Folio) -> list[Vma]:
        """A page that is one process's alone is looked for where its index says, and the walk ends there."""
        found = super().folio_vmas(folio)
        return [vma for vma in found if not self._is_remapped(vma)] if folio.exclusive else found

    def anon_vma_interval_tree_insert(self, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """The shift that makes room in the array stops one slot early: below the top, the next higher is lost."""
        offset = self._offset(avc.vma)
        above = [other for other in self._array(avc.vma, anon_vma) if self._offset(other.vma) > offset]
        if above:
            self.anon_vma_interval_tree_remove(min(above, key=lambda other: self._offset(other.vma)), anon_vma)
        super().anon_vma_interval_tree_insert(avc, anon_vma)

    def anon_vma_interval_tree_remove(self, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """What was lost is not missed."""
        if avc in anon_vma.rb_root:
            super().anon_vma_interval_tree_remove(avc, anon_vma)

    def _array(self, vma: Vma, context: AnonVma) -> list[AnonVmaChain]:
        """The remaps that a context has for the page offset at which the VMA's pages begin."""
        return [other for other, (first, _) in context.rb_root.keys.items() if first == vma.anon_pgoff]

    def _offset(self, vma: Vma) -> int:
        """How far the VMA's pages are from where their index says, in pages."""
        return (vma.vm_start >> PAGE_SHIFT) - vma.anon_pgoff
