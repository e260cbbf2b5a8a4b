# SPDX-License-Identifier: GPL-2.0-only
"""One COW context for each address space, and no object for a VMA (L. Stoakes, LSF/MM/BPF topic of 2026).

LWN 1072378 and the topic of February 2026 on linux-mm describe it; a
prototype is in the branch project/cow-context.  This is the idea made whole
on top of v7.0's calls; :mod:`rmaplab.designs.cow_context_posted` has what the
prototype is thought to have otherwise.

    folio --mapping--> context --child--> context --child--> ...
                          |                  |
                          mm                 mm

A page is found in the contexts of its owner and all its descendants: at the
address that is its index, or, in a VMA that was moved, at another offset,
which the context has in its tree of remaps.  fork makes one context, not an
object for each VMA; split and merge change the remaps alone.

Open questions, which a model of calls that run one at a time does not answer:
a walk sleeps, so it needs more than RCU; a VMA found by address is held by
nobody; who waits for whom in fork and munmap.

The context is an :class:`AnonVma` here, a remap an :class:`AnonVmaChain` in
its tree, so that both are counted by the slabs that they would replace.
"""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.kernel.slab import GFP_KERNEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel.objects import AnonVma, AnonVmaChain, Mm, Vma
    from rmaplab.kernel.rmap import Operation
    from rmaplab.kernel.vma import VmaMerge

__all__ = ["CowContext"]


class CowContext(Kernel):
    """A context for each mm; ``vma.anon_vma`` is its mm's once the VMA has had a page.

    A context lives while a VMA of its mm has had a page or a child's context
    does.  Each has a lock of its own.  A private file mapping is remapped from
    the first page on, since its offset is the file's.
    """

    name: ClassVar[str] = "cow_context"
    parent: ClassVar[str | None] = "v7.0"
    commits: ClassVar[tuple[str, ...]] = ()
    release: ClassVar[str] = ""
    summary: ClassVar[str] = "a context for each mm, walks go down the tree of processes (as it should be)"
    has_links = False
    counts_apart = False
    reuses = False
    has_root_lock = False

    # --- contexts --------------------------------------------------------------------

    def _context_alloc(self, mm: Mm, parent: AnonVma | None = None) -> AnonVma | None:
        """Give an mm its context, below that of the mm it was forked from; None if out of memory."""
        context = self.anon_vma_alloc()
        if context is None:
            return None
        if parent is not None:
            context.root, context.parent = parent.root, parent
            self.get_anon_vma(parent)
            self.anon_vma_lock_write(parent)
            self.add_children(parent, 1)
            self.anon_vma_unlock_write(parent)
        mm.cow_context = context
        context.linked = True
        return context

    def put_anon_vma(self, anon_vma: AnonVma) -> None:
        """Drop a reference; the last frees the context, and then drops its hold on the parent."""
        context: AnonVma | None = anon_vma
        while context is not None:
            context.refcount -= 1
            if context.refcount != 0:
                return
            parent = None if context.parent is context else context.parent
            if parent is not None:
                self.add_children(parent, -1)
            self.anon_vma_free(context)
            context = parent

    def anon_vma_rwsem(self, anon_vma: AnonVma) -> AnonVma:
        """A context's own."""
        return anon_vma

    # --- a VMA and its context -------------------------------------------------------

    def _is_remapped(self, vma: Vma) -> bool:
        """Whether pages of the VMA are elsewhere than their index says."""
        return vma.vm_start >> PAGE_SHIFT != vma.anon_pgoff

    def _join_context(self, vma: Vma, parent: AnonVma | None = None) -> int:
        """Let a VMA's pages be found: the mm's context, made if need be, and a remap if it was moved; or -ENOMEM."""
        remap = self.anon_vma_chain_alloc(GFP_KERNEL) if self._is_remapped(vma) else None
        context = vma.vm_mm.cow_context
        if remap is not None or not self._is_remapped(vma):
            context = context or self._context_alloc(vma.vm_mm, parent)
            if context is not None:
                vma.anon_vma = context
                self._enter_context(vma, context, remap)
                return 0
            if remap is not None:
                self.anon_vma_chain_free(remap)
        return -ENOMEM

    def _enter_context(self, vma: Vma, context: AnonVma, remap: AnonVmaChain | None) -> None:
        """Count the VMA, and enter its remap."""
        self.anon_vma_lock_write(context)
        self.add_active_vmas(context, 1)
        self.anon_vma_unlock_write(context)
        if remap is not None:
            self._enter_remap(vma, context, remap)

    def _enter_remap(self, vma: Vma, context: AnonVma, remap: AnonVmaChain) -> None:
        """Let walks of a context find a VMA that was moved."""
        self.anon_vma_lock_write(context)
        self.anon_vma_chain_assign(vma, remap, context)
        self.anon_vma_interval_tree_insert(remap, context)
        self.anon_vma_unlock_write(context)

    def anon_vma_prepare(self, vma: Vma) -> int:
        """First page of a VMA: the context is there already unless it is the mm's first."""
        return 0 if vma.anon_vma is not None else self._join_context(vma)

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """A part, a moved copy or a grown neighbour of a VMA: a remap if it was moved, nothing otherwise."""
        if src.anon_vma is None:
            return 0
        rc = self._join_context(dst)
        if rc != 0:
            dst.anon_vma = None
        return rc

    def commit_merge(
        self,
        vmg: VmaMerge,
        target: Vma,
        exporter: Vma | None,
        start: int,
        end: int,
        removed: tuple[Vma, ...] = (),
    ) -> Vma | None:
        """Exec moves its stack, which keeps its page offsets: the one VMA that is remapped without a copy."""
        context = target.anon_vma
        if not vmg.keep_pgoff or context is None or self._is_remapped(target):
            return super().commit_merge(vmg, target, exporter, start, end, removed)
        remap = self.anon_vma_chain_alloc(GFP_KERNEL)
        if remap is None:
            vmg.oom = True
            return None
        merged = super().commit_merge(vmg, target, exporter, start, end, removed)
        if merged is None:
            self.anon_vma_chain_free(remap)
            return None
        self._enter_remap(target, context, remap)
        return merged

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> int:
        """The child's context is made with the first VMA that has had a page; each moved VMA takes a remap."""
        if pvma.anon_vma is None:
            return 0
        vma.anon_vma = None
        return self._join_context(vma, pvma.anon_vma)

    def unlink_anon_vmas(self, vma: Vma) -> None:
        """Forget a VMA's remap; the mm's last VMA that had a page takes the context along."""
        context = vma.anon_vma
        if context is None:
            return
        self.anon_vma_lock_write(context)
        for remap in vma.anon_vma_chain:
            self.anon_vma_interval_tree_remove(remap, context)
            self.anon_vma_chain_free(remap)
        vma.anon_vma_chain.clear()
        vma.anon_vma = None
        self.add_active_vmas(context, -1)
        self.anon_vma_unlock_write(context)
        if context.num_active_vmas == 0:
            vma.vm_mm.cow_context = None
            self.put_anon_vma(context)

    # --- walks ---------------------------------------------------------------------------

    def anon_vma_vmas(self, anon_vma: AnonVma, first: int, last: int) -> list[Vma]:
        """In the owner's context and all below: where the index says, then where the remaps say."""
        mms = {process.mm.cow_context: process.mm for process in self.processes.values()}
        found: list[Vma] = []
        for context in self._descendants(anon_vma):
            if context in mms:
                found += self._unmoved_vmas(mms[context], first, last)
            found += self._remapped_vmas(context, first, last)
        return found

    def _descendants(self, context: AnonVma) -> Iterator[AnonVma]:
        """A context and all below it, parents first."""
        children: dict[AnonVma, list[AnonVma]] = {}
        for other in self.live_anon_vmas.values():
            if other.parent is not other:
                children.setdefault(other.parent, []).append(other)
        waiting = [context]
        while waiting:
            context = waiting.pop()
            yield context
            waiting += reversed(children.get(context, ()))

    def _unmoved_vmas(self, mm: Mm, first: int, last: int) -> Iterator[Vma]:
        """VMAs of an mm that have pages [first, last] (page offsets) where the offsets say."""
        for vma in mm.vmas[mm.find(first << PAGE_SHIFT) :]:
            if vma.vm_start >> PAGE_SHIFT > last:
                return
            if vma.anon_vma is not None and not self._is_remapped(vma):
                yield vma

    def _remapped_vmas(self, context: AnonVma, first: int, last: int) -> Iterator[Vma]:
        """Moved VMAs of a context's mm that have pages [first, last]."""
        return (remap.vma for remap in context.rb_root.stab(first, last))
