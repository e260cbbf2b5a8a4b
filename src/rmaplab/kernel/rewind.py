# SPDX-License-Identifier: GPL-2.0-only
"""Notes the whole state of a kernel, so that calls made from it can be undone.

The explorer tries dozens of calls from one state.  Writing the fields back
takes half the time of making a copy for each call: nothing is allocated, and
the objects that a call made are forgotten with it.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from rmaplab.kernel.interval_tree import IntervalTree
from rmaplab.kernel.objects import (
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
from rmaplab.kernel.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmaplab.kernel.kernel import Kernel

    Write = Callable[[Any, tuple[object, ...]], None]

__all__ = ["Checkpoint"]


def _writer(names: tuple[str, ...]) -> Write:
    """A function that sets these attributes of an object; written out, as dataclasses do, because it is hot."""
    namespace: dict[str, Write] = {}
    exec(f"def write(obj, values):\n    {', '.join(f'obj.{name}' for name in names)}, = values", namespace)
    return namespace["write"]


def _fields(kind: type) -> tuple[Callable[[Any], tuple[object, ...]], Write]:
    names = tuple(name for base in kind.__mro__ for name in getattr(base, "__slots__", ()))
    return attrgetter(*names), _writer(names)


_OBJECTS = {
    kind: _fields(kind)
    for kind in (
        AnonVma,
        AnonVmaChain,
        Folio,
        IntervalTree,
        KsmRmapItem,
        MigrationPte,
        Mm,
        Process,
        Pte,
        StableNode,
        SwapPte,
        SwapSlot,
        Vma,
    )
}


class Checkpoint:
    """The state of a kernel between two calls; its counts of locks and its listeners are not part of it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.values: list[tuple[Write, object, tuple[object, ...]]] = []
        self.lists: list[tuple[list[Any], list[Any]]] = []
        self.dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self.orders = kernel.anon_orders
        slab = kernel.slab
        self.slab_bytes = slab.bytes
        self.caches = [
            (cache, cache.made, cache.embedded, cache.spared) for cache in (slab.anon_vma, slab.anon_vma_chain)
        ]
        self._note()

    def restore(self) -> None:
        """Bring the kernel back to that moment, however a call since then ended."""
        for write, obj, values in self.values:
            write(obj, values)
        for own, then in self.lists:
            own[:] = then
        for mapping, before in self.dicts:
            mapping.clear()
            if before:
                mapping.update(before)
        kernel = self.kernel
        if kernel.anon_orders is not self.orders:
            kernel.anon_orders = self.orders
        kernel.slab.bytes = self.slab_bytes
        for cache, made, embedded, spared in self.caches:
            cache.made, cache.embedded, cache.spared = made, embedded, spared

    def _note(self) -> None:
        kernel, values, lists, dicts = self.kernel, self.values, self.lists, self.dicts
        live, chains = kernel.slab.anon_vma.live, kernel.slab.anon_vma_chain.live
        mappings: list[dict[Any, Any]] = [kernel.processes, kernel.stable_tree, kernel.idents, live, chains]
        mms: dict[Mm, None] = {}
        folios: dict[Folio, None] = {}
        slots: dict[SwapSlot, None] = {}
        read, write = _OBJECTS[Process]
        for process in kernel.processes.values():
            values.append((write, process, read(process)))
            mms[process.mm] = None
        for node in kernel.stable_tree.values():
            self._note_ksm(node)
            folios[node.folio] = None
            mms.update((item.mm, None) for item in node.items)
        read_mm, write_mm = _OBJECTS[Mm]
        read_vma, write_vma = _OBJECTS[Vma]
        read_pte, write_pte = _OBJECTS[Pte]
        for mm in mms:
            values.append((write_mm, mm, read_mm(mm)))
            lists.append((mm.vmas, mm.vmas.copy()))
            if mm.pinned:
                folios.update((folio, None) for _, folio in mm.pinned)
            lists.append((mm.pinned, mm.pinned.copy()))
            for vma in mm.vmas:
                values.append((write_vma, vma, read_vma(vma)))
                lists.append((vma.anon_vma_chain, vma.anon_vma_chain.copy()))
            mappings += (mm.page_table.tables, mm.page_table.pmds, *mm.page_table.tables.values())
            for huge in mm.page_table.pmds.values():
                values.append((write_pte, huge, read_pte(huge)))
                folios[huge.folio] = None
            for table in mm.page_table.tables.values():
                for pte in table.values():
                    if type(pte) is Pte:
                        values.append((write_pte, pte, read_pte(pte)))
                        folios[pte.folio] = None
                    elif not isinstance(pte, GuardMarker):
                        read, write = _OBJECTS[type(pte)]
                        values.append((write, pte, read(pte)))
                        if isinstance(pte, SwapPte):
                            slots[pte.slot] = None
                        else:
                            folios[pte.folio] = None
        slots.update((folio.slot, None) for folio in folios if folio.slot is not None)
        folios.update((slot.folio, None) for slot in slots if slot.folio is not None)
        for kind, objects in ((Folio, folios), (SwapSlot, slots), (AnonVma, live.values())):
            read, write = _OBJECTS[kind]
            values += [(write, obj, read(obj)) for obj in objects]
        read, write = _OBJECTS[AnonVmaChain]
        values += [(write, avc, read(avc)) for avc in chains.values() if hasattr(avc, "vma")]
        read, write = _OBJECTS[IntervalTree]
        for anon_vma in live.values():
            tree = anon_vma.rb_root
            values.append((write, tree, read(tree)))
            mappings.append(tree.keys)
        dicts += [(mapping, mapping.copy()) for mapping in mappings]

    def _note_ksm(self, node: StableNode) -> None:
        read, write = _OBJECTS[StableNode]
        self.values.append((write, node, read(node)))
        self.lists.append((node.items, node.items.copy()))
        read, write = _OBJECTS[KsmRmapItem]
        self.values += [(write, item, read(item)) for item in node.items]
