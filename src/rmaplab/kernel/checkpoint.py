# SPDX-License-Identifier: GPL-2.0-only
"""Copies the whole state of a kernel, object by object, and takes a copy apart again.

Written out by hand because the explorer does it once per transition:
:func:`copy.deepcopy` takes ten times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from rmaplab.kernel.objects import (
    FILE_PAGE,
    ZERO_PAGE,
    AnonVma,
    AnonVmaChain,
    Folio,
    KsmRmapItem,
    Mm,
    StableNode,
    SwapSlot,
    Vma,
)
from rmaplab.kernel.pagetable import GuardMarker, MigrationPte, Pte, SwapPte

if TYPE_CHECKING:
    from rmaplab.kernel.kernel import Kernel
    from rmaplab.kernel.pagetable import Entry

__all__ = ["copy_state", "drop_state"]

K = TypeVar("K", bound="Kernel")


def copy_state(source: K, target: K) -> K:
    """Fill ``target``, a fresh kernel of the same class, with copies of all live objects."""
    copies = _Copies(source)
    for name, process in source.processes.items():
        copied = target.add_process(name, copies.mm(process.mm))
        copied.mmap_hint = process.mmap_hint
        copied.areas = process.areas
    for content, node in source.stable_tree.items():
        target.stable_tree[content] = copies.stable_node(node)

    avcs: dict[AnonVmaChain, AnonVmaChain] = {}
    for avc in source.slab.anon_vma_chain.live.values():
        target.slab.anon_vma_chain.live[avc.id] = copies.avc(avc, avcs)
    for old_vma, new_vma in copies.vmas.items():
        new_vma.anon_vma_chain = [
            avcs[avc] if avc in avcs else copies.avc(avc, avcs) for avc in old_vma.anon_vma_chain
        ]
    for old_av, new_av in copies.anon_vmas.items():
        new_av.rb_root.keys = {avcs[avc]: key for avc, key in old_av.rb_root.keys.items()}
        if not old_av.freed:
            target.slab.anon_vma.live[new_av.id] = new_av

    target.anon_orders = source.anon_orders
    target.data_default_flags = source.data_default_flags
    target.idents = source.idents.copy()
    target.slab.bytes = source.slab.bytes
    for theirs, own in (
        (source.slab.anon_vma, target.slab.anon_vma),
        (source.slab.anon_vma_chain, target.slab.anon_vma_chain),
    ):
        own.made, own.embedded, own.spared = theirs.made, theirs.embedded, theirs.spared
    return target


def drop_state(kernel: Kernel) -> None:
    """Take a kernel that nobody needs any more apart, so that its memory is free at once.

    Its objects point at each other in cycles, which Python's collector would
    have to find: that took a seventh of an exploration.
    """
    for process in kernel.processes.values():
        process.mm.vmas.clear()
    kernel.processes.clear()
    for avc in kernel.live_anon_vma_chains.values():
        if hasattr(avc, "vma"):  # a crash may have come before it was assigned
            del avc.vma, avc.anon_vma
    for anon_vma in kernel.live_anon_vmas.values():
        del anon_vma.root, anon_vma.parent
        anon_vma.rb_root.keys.clear()


class _Copies:
    """The copies made so far, by original."""

    def __init__(self, source: Kernel) -> None:
        self.anon_vmas = _copy_anon_vmas(source)
        self.vmas: dict[Vma, Vma] = {}
        self.folios: dict[Folio, Folio] = {ZERO_PAGE: ZERO_PAGE, FILE_PAGE: FILE_PAGE}
        self.slots: dict[SwapSlot, SwapSlot] = {}
        self.nodes: dict[StableNode, StableNode] = {}
        self.mms: dict[Mm, Mm] = {}

    def mm(self, old: Mm) -> Mm:
        new = self.mms.get(old)
        if new is not None:
            return new
        new = self.mms[old] = Mm(old.id)
        new.users = old.users
        new.start_brk, new.brk = old.start_brk, old.brk
        new.cow_context = None if old.cow_context is None else self.anon_vmas[old.cow_context]
        new.has_pinned = old.has_pinned
        new.pinned = [(address, self.folio(folio)) for address, folio in old.pinned]
        new.vmas = [self.vma(vma, new) for vma in old.vmas]
        folios = self.folios
        for key, table in old.page_table.tables.items():
            copied = new.page_table.tables[key] = {}
            for address, pte in table.items():
                if type(pte) is Pte:
                    folio = folios.get(pte.folio)
                    copied[address] = Pte(folio or self.folio(pte.folio), pte.writable, pte.page)
                else:
                    copied[address] = self.entry(pte)
        for address, huge in old.page_table.pmds.items():
            new.page_table.pmds[address] = Pte(self.folio(huge.folio), huge.writable)
        return new

    def entry(self, old: Entry) -> Entry:
        if isinstance(old, SwapPte):
            return SwapPte(self.slot(old.slot), old.exclusive)
        if isinstance(old, MigrationPte):
            return MigrationPte(self.folio(old.folio), old.writable, old.exclusive, old.page)
        return GuardMarker()

    def vma(self, old: Vma, mm: Mm) -> Vma:
        new = self.vmas[old] = Vma(old.id, mm, old.vm_start, old.vm_end, old.vm_pgoff, old.vm_flags, old.file)
        if old.anon_vma is not None:
            new.anon_vma = self.anon_vmas[old.anon_vma]
        new.anon_pgoff = old.anon_pgoff
        new.attached = old.attached
        new.freed = old.freed
        return new

    def avc(self, old: AnonVmaChain, avcs: dict[AnonVmaChain, AnonVmaChain]) -> AnonVmaChain:
        new = avcs[old] = AnonVmaChain(old.id)
        new.linked = old.linked
        new.embedded = old.embedded
        new.vma = self.vmas.get(old.vma) or self.vma(old.vma, old.vma.vm_mm)
        new.anon_vma = self.anon_vmas[old.anon_vma]
        return new

    def folio(self, old: Folio) -> Folio:
        new = self.folios.get(old)
        if new is not None:
            return new
        new = self.folios[old] = Folio(old.id, old.order)
        if old.mapping is not None:
            new.mapping = self.anon_vmas.get(
                old.mapping, old.mapping
            )  # a page in the swap cache may name a freed one
        new.index = old.index
        new.mapcount = old.mapcount
        new.exclusive = old.exclusive
        new.pins = old.pins
        if old.slot is not None:
            new.slot = self.slot(old.slot)
        if old.stable_node is not None:
            new.stable_node = self.stable_node(old.stable_node)
        return new

    def slot(self, old: SwapSlot) -> SwapSlot:
        new = self.slots.get(old)
        if new is None:
            new = self.slots[old] = SwapSlot(old.id)
            new.count = old.count
            new.folio = None if old.folio is None else self.folio(old.folio)
        return new

    def stable_node(self, old: StableNode) -> StableNode:
        new = self.nodes.get(old)
        if new is None:
            new = self.nodes[old] = StableNode.__new__(StableNode)
            new.id, new.content, new.folio = old.id, old.content, self.folio(old.folio)
            new.items = [
                KsmRmapItem(self.mm(item.mm), item.address, self.anon_vmas[item.anon_vma], item.pgoff)
                for item in old.items
            ]
        return new


def _copy_anon_vmas(source: Kernel) -> dict[AnonVma, AnonVma]:
    live = source.slab.anon_vma.live.values()
    copies: dict[AnonVma, AnonVma] = {}
    for old in live:
        new = copies[old] = AnonVma(old.id)
        new.refcount = old.refcount
        new.num_children = old.num_children
        new.num_active_vmas = old.num_active_vmas
        new.degree = old.degree
        new.linked = old.linked
        new.embedded = old.embedded
    for old in live:
        copies[old].root = copies[old.root]
        # That of an emptied one, kept by a reference alone, may be gone.
        copies[old].parent = copies.get(old.parent, old.parent)
    return copies
