# SPDX-License-Identifier: GPL-2.0-only
"""v2.6.34: the first kernel with anon_vma_chain."""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.kernel.folio import Visit
from rmaplab.kernel.locking import ANON_VMA_LOCK, WRITE
from rmaplab.kernel.madvise import SINCE
from rmaplab.kernel.slab import GFP_KERNEL
from rmaplab.series.anon_vma_list import AnonVmaList
from rmaplab.series.mremap_rules import MovesUnlocked
from rmaplab.series.thp import NoLargeFolios
from rmaplab.series.v3_19 import V3_19

if TYPE_CHECKING:
    from typing import Self

    from rmaplab.kernel.objects import AnonVma, AnonVmaChain, Folio, Vma
    from rmaplab.kernel.rmap import Operation
    from rmaplab.kernel.vma import VmaMerge

__all__ = ["V2_6_34"]


class V2_6_34(MovesUnlocked, NoLargeFolios, V3_19):  # noqa: N801
    """5beb49305251: a VMA is linked to several anon_vmas, by one AVC each; every fork adds one.

    As released, with the repairs of April 2010 (Z20, Z21): a chain is copied
    in its order, and only a singular one is lent to a neighbour.  Each
    anon_vma has a lock and a list of its own and goes with its last link.
    There are no counters and no reuse, so a line of daemons that fork and
    exit grows without bound (Z22).  ``root`` and ``parent`` are not the
    kernel's yet; they are kept for the invariants.
    """

    name = "v2.6.34"
    parent: ClassVar[str | None] = "v2.6.32"
    commits: ClassVar[tuple[str, ...]] = ("5beb49305251", "d0e9fe1758f2")
    release = "v2.6.34"
    summary = "anon_vma_chain: an anon_vma of its own for each forked VMA"
    counts_together = False
    reuses = False
    has_interval_trees = False
    spares_fork_children = False
    has_root_lock = False
    swapin_names_own = False
    unknown_advice = V3_19.unknown_advice | SINCE["v2.6.38"] | SINCE["v3.4"]

    # --- lifetime and lock -----------------------------------------------------------

    def anon_vma_alloc(self) -> AnonVma | None:
        """An anon_vma with an empty list."""
        anon_vma = super().anon_vma_alloc()
        if anon_vma is not None:
            anon_vma.rb_root = AnonVmaList()
        return anon_vma

    def put_anon_vma(self, anon_vma: AnonVma) -> None:
        """Free it with the last reference; it holds none on any other."""
        anon_vma.refcount -= 1
        if anon_vma.refcount == 0:
            self.anon_vma_free(anon_vma)

    def anon_vma_rwsem(self, anon_vma: AnonVma) -> AnonVma:
        """Each has a lock of its own (a spinlock)."""
        return anon_vma

    def anon_vma_lock_read(self, anon_vma: AnonVma) -> None:
        """Walks take it, too."""
        self.anon_vma_lock_write(anon_vma)

    def anon_vma_unlock_read(self, anon_vma: AnonVma) -> None:
        """Release what :meth:`anon_vma_lock_read` took."""
        self.anon_vma_unlock_write(anon_vma)

    def add_children(self, anon_vma: AnonVma, number: int) -> None:
        """Nobody counts."""

    def add_active_vmas(self, anon_vma: AnonVma, number: int) -> None:
        """Nobody counts."""

    # --- links -----------------------------------------------------------------------

    def anon_vma_prepare(self, vma: Vma) -> int:
        """Here, and here only, a VMA goes to the head of its anon_vma's list."""
        unfaulted = vma.anon_vma is None
        rc = super().anon_vma_prepare(vma)
        if unfaulted and vma.anon_vma is not None and isinstance(vma.anon_vma.rb_root, AnonVmaList):
            vma.anon_vma.rb_root.move_to_head(vma.anon_vma_chain[0])
        return rc

    def anon_vma_chain_link(self, vma: Vma, avc: AnonVmaChain, anon_vma: AnonVma) -> None:
        """Put an AVC on the VMA's list and, under its lock, at the tail of the anon_vma's."""
        self.anon_vma_chain_assign(vma, avc, anon_vma)
        self.anon_vma_lock_write(anon_vma)
        self.anon_vma_interval_tree_insert(avc, anon_vma)
        self.anon_vma_unlock_write(anon_vma)

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """Link by link, tail to head, each allocated before its lock is taken."""
        for pavc in reversed(src.anon_vma_chain):
            avc = self.anon_vma_chain_alloc(GFP_KERNEL)
            if avc is None:
                self.unlink_anon_vmas(dst)
                return -ENOMEM
            self.anon_vma_chain_link(dst, avc, pavc.anon_vma)
        return 0

    def anon_vma_link_child(self, vma: Vma, parent: AnonVma, anon_vma: AnonVma, avc: AnonVmaChain) -> None:
        """The own anon_vma of a forked VMA pins nothing."""
        anon_vma.root, anon_vma.parent = parent.root, parent
        self.anon_vma_chain_link(vma, avc, anon_vma)
        vma.anon_vma = anon_vma

    def unlink_anon_vmas(self, vma: Vma) -> None:
        """Leave the lists one by one, newest anon_vma first, and free those that get empty."""
        for avc in vma.anon_vma_chain:
            anon_vma = avc.anon_vma
            self.anon_vma_lock_write(anon_vma)
            self.anon_vma_interval_tree_remove(avc, anon_vma)
            self.anon_vma_unlock_write(anon_vma)
            if not anon_vma.rb_root.keys:
                self.put_anon_vma(anon_vma)
                if anon_vma.refcount:  # KSM keeps it, and it keeps no other
                    anon_vma.root = anon_vma.parent = anon_vma
            self.anon_vma_chain_free(avc)
        vma.anon_vma_chain.clear()
        vma.anon_vma = None

    # --- VMAs and walks --------------------------------------------------------------

    def vma_prepare(self, *vmas: Vma) -> AnonVma | None:
        """Lock the one anon_vma; links stay where they are while ranges change."""
        anon_vma = next((vma.anon_vma for vma in vmas if vma.anon_vma is not None), None)
        if anon_vma is not None:
            self.locks.acquire(ANON_VMA_LOCK, anon_vma, WRITE)
        return anon_vma

    def vma_complete(self, anon_vma: AnonVma | None, *vmas: Vma, removed: tuple[Vma, ...] = ()) -> None:
        """Unlock; only then unlink and free removed VMAs."""
        if anon_vma is not None:
            self.locks.release(ANON_VMA_LOCK, anon_vma)
        super().vma_complete(None, *vmas, removed=removed)

    def grow_vma_down(self, vma: Vma, start: int, pgoff: int) -> None:
        """The anon_vma's lock is enough."""
        self.vma_set_range(vma, start, vma.vm_end, pgoff)

    def is_mergeable_anon_vma(self, vmg: VmaMerge, target: Vma) -> bool:
        """Equal anon_vmas, or one side unfaulted."""
        src = vmg.anon_vma
        return target.anon_vma is None or src is None or target.anon_vma is src

    def rmap_walk_anon(self, folio: Folio) -> list[Visit]:
        """Visit every VMA on the list; one whose range leaves the page out is met in vain."""
        visits = super().rmap_walk_anon(folio)
        if folio.mapping is None or not visits:
            return visits
        useful = {visit.vma: visit for visit in visits}
        visits = []
        for avc in folio.mapping.rb_root:
            address = avc.vma.vm_start + ((folio.index - avc.vma.anon_pgoff) << PAGE_SHIFT)
            visits.append(useful.get(avc.vma, Visit(avc.vma, address, False)))
        return visits

    def copy(self) -> Self:
        """An independent copy of the whole state."""
        new = super().copy()
        for anon_vma in new.live_anon_vmas.values():
            entries, anon_vma.rb_root = anon_vma.rb_root.keys, AnonVmaList()
            anon_vma.rb_root.keys = entries
        return new
