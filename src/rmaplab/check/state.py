# SPDX-License-Identifier: GPL-2.0-only
"""What invariants look at: one pass over a kernel, and two fingerprints of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from rmaplab.kernel.pagetable import MigrationPte, Pte, SwapPte

if TYPE_CHECKING:
    from rmaplab.kernel import Kernel, Process
    from rmaplab.kernel.objects import AnonVma, Folio, Mm, SwapSlot, Vma
    from rmaplab.kernel.pagetable import Entry

__all__ = ["State", "fingerprint", "graph"]


class State:
    """The live objects of a kernel, and what can be counted from the VMAs' side."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.anon_vmas = list(kernel.live_anon_vmas.values())
        self.avcs = list(kernel.live_anon_vma_chains.values())
        self.mms: list[Mm] = list({process.mm: None for process in kernel.processes.values()})
        self.vmas: list[Vma] = [vma for mm in self.mms for vma in mm.vmas]
        self.active: dict[AnonVma, list[Vma]] = {}  # users by ->anon_vma
        self.children: dict[AnonVma, int] = {}  # linked anon_vmas by ->parent
        self.tree_size: dict[AnonVma, int] = {}  # non-root anon_vmas by ->root
        for vma in self.vmas:
            if vma.anon_vma is not None:
                self.active.setdefault(vma.anon_vma, []).append(vma)
        for anon_vma in self.anon_vmas:
            if anon_vma.rb_root.keys:
                self.children[anon_vma.parent] = self.children.get(anon_vma.parent, 0) + 1
            if anon_vma.root is not anon_vma:
                self.tree_size[anon_vma.root] = self.tree_size.get(anon_vma.root, 0) + 1
        self.ptes: dict[Folio, list[tuple[Mm, int, Pte]]] = {}  # present entries of anonymous folios
        self.migrating: dict[Folio, list[tuple[Mm, int, MigrationPte]]] = {}
        self.swapped: dict[SwapSlot, list[tuple[Mm, int, SwapPte]]] = {}
        for mm in self.mms:
            for address, huge in mm.page_table.pmds.items():
                self.ptes.setdefault(huge.folio, []).append((mm, address, huge))
            for table in mm.page_table.tables.values():
                for address, pte in table.items():
                    if type(pte) is Pte:
                        if pte.folio.anon:
                            self.ptes.setdefault(pte.folio, []).append((mm, address, pte))
                    elif isinstance(pte, SwapPte):
                        self.swapped.setdefault(pte.slot, []).append((mm, address, pte))
                    elif isinstance(pte, MigrationPte):
                        self.migrating.setdefault(pte.folio, []).append((mm, address, pte))
        self.pins: dict[AnonVma, int] = {}  # references from outside the graph: KSM's items
        for node in kernel.stable_tree.values():
            for item in node.items:
                self.pins[item.anon_vma] = self.pins.get(item.anon_vma, 0) + 1


def graph(kernel: Kernel) -> dict[int, tuple[int, ...]]:
    """Counters and tree of every live anon_vma by id: equal before and after a call that failed."""
    return {
        ident: (
            av.refcount,
            av.num_children,
            av.num_active_vmas,
            av.degree,
            *(avc.id for avc in av.rb_root.keys),
        )
        for ident, av in kernel.live_anon_vmas.items()
    }


def fingerprint(kernel: Kernel, *, walk_order: bool = True) -> int:
    """64-bit hash of a state up to the renaming of processes and objects.

    Processes are sorted by a local shape; equal shapes keep their order, so
    two symmetric states may differ (which costs time), but equal fingerprints
    mean equal states, up to a collision of the hash.

    Without ``walk_order``, also up to the order in which an anon_vma's
    interval tree has its VMAs: nobody's future depends on it but what a walk
    tells, and half of all states differ in nothing else.
    """
    return hash(tuple(_Encoder(kernel, walk_order).encode()))


class _Encoder:
    """Writes a state as a list of integers, numbering objects as they turn up."""

    def __init__(self, kernel: Kernel, walk_order: bool) -> None:
        self.kernel = kernel
        self.walk_order = walk_order
        self.pages: dict[Mm, list[tuple[int, Entry]]] = {}  # both passes need them in order
        self.anon_vmas: dict[AnonVma, int] = {}
        self.vmas: dict[Vma, int] = {}
        self.folios: dict[Folio, int] = {}
        self.slots: dict[SwapSlot, int] = {}
        self.out: list[int] = []

    def encode(self) -> list[int]:
        processes = list(self.kernel.processes.values())
        for process in processes:
            self.pages[process.mm] = process.mm.page_table.entries()
        if len(processes) > 1:
            processes.sort(key=self.shape)
        mms: dict[Mm, int] = {}
        for process in processes:
            mm = process.mm
            self.out.append(mms.get(mm, -1))
            if mm not in mms:
                mms[mm] = len(mms)
                self.encode_mm(mm)
        if self.slots or self.kernel.stable_tree:
            self.encode_swap_and_ksm(mms)
        live = self.kernel.live_anon_vmas
        if len(live) != len(self.anon_vmas):  # leaked ones, or a pointer to a freed one
            for anon_vma in live.values():
                self.number(anon_vma)
        done = 0
        while done < len(self.anon_vmas):  # parents and roots may add to them
            for anon_vma in list(self.anon_vmas)[done:]:
                self.encode_anon_vma(anon_vma)
                done += 1
        for folio in self.folios:
            mapping = -1 if folio.mapping is None else self.anon_vmas.get(folio.mapping, -2)
            self.out += (mapping, folio.index, folio.mapcount, folio.exclusive, folio.order, folio.pins)
            if folio.stable_node is not None:
                self.out.append(crc32(folio.stable_node.content.encode()))
        return self.out

    def shape(self, process: Process) -> tuple[int, ...]:
        """What can be said of a process without naming shared objects."""
        shape: list[int] = []
        for vma in process.mm.vmas:
            shape += (vma.vm_start, vma.vm_end, vma.vm_flags)
            own = vma.anon_vma
            for avc in vma.anon_vma_chain:
                av = avc.anon_vma
                shape += (av.refcount, av.num_children, av.num_active_vmas, len(av.rb_root.keys), av is own)
            shape.append(-1)
        for address, pte in self.pages[process.mm]:
            shape.append(address)
            if type(pte) is Pte:
                shape += (pte.folio.mapcount, pte.folio.exclusive, pte.writable)
        return tuple(shape)

    def number(self, anon_vma: AnonVma) -> int:
        return self.anon_vmas.setdefault(anon_vma, len(self.anon_vmas))

    def encode_mm(self, mm: Mm) -> None:
        out, vmas, anon_vmas, folios = self.out, self.vmas, self.anon_vmas, self.folios
        for vma in mm.vmas:
            vmas[vma] = len(vmas)
            out += (vma.vm_start, vma.vm_end, vma.vm_pgoff, vma.anon_pgoff, vma.vm_flags)
            if vma.file is not None:
                out += (-13, crc32(vma.file.encode()))
            own = vma.anon_vma
            if own is not None:
                out.append(anon_vmas.setdefault(own, len(anon_vmas)))
            for avc in vma.anon_vma_chain:
                anon_vma = avc.anon_vma
                out.append(anon_vmas.setdefault(anon_vma, len(anon_vmas)))
            out.append(-1 if own is None else -2)
        for address, pte in self.pages[mm]:
            if type(pte) is Pte:
                folio = pte.folio
                number = folios.setdefault(folio, len(folios)) if folio.anon else folio.id - 3
                out += (address, number, pte.writable, pte.page)
            elif isinstance(pte, SwapPte):
                out += (address, -8, self.slots.setdefault(pte.slot, len(self.slots)), pte.exclusive)
            elif isinstance(pte, MigrationPte):
                out += (address, -9, self.folio(pte.folio), pte.writable, pte.exclusive, pte.page)
            else:
                out += (address, -10)
        for address, pte in sorted(mm.page_table.pmds.items()) if mm.page_table.pmds else ():
            out += (address, -11, self.folio(pte.folio), pte.writable)
        for address, folio in mm.pinned:
            out += (address, -12, self.folio(folio))
        out += (-3, mm.has_pinned, mm.brk)

    def folio(self, folio: Folio) -> int:
        if not folio.anon:
            return folio.id - 3
        return self.folios.setdefault(folio, len(self.folios))

    def encode_swap_and_ksm(self, mms: dict[Mm, int]) -> None:
        out = self.out
        for slot in self.slots:
            out += (slot.count, -1 if slot.folio is None else self.folio(slot.folio))
        for content, node in self.kernel.stable_tree.items():
            out += (crc32(content.encode()), self.folio(node.folio))
            for item in node.items:
                out += (mms.get(item.mm, -1), item.address, item.pgoff, self.number(item.anon_vma))
            out.append(-4)

    def encode_anon_vma(self, anon_vma: AnonVma) -> None:
        out, vmas, anon_vmas = self.out, self.vmas, self.anon_vmas
        out += (anon_vma.refcount, anon_vma.num_children, anon_vma.num_active_vmas, anon_vma.degree)
        out.append(anon_vma.freed + 2 * anon_vma.embedded)
        if not anon_vma.freed:
            parent, root = anon_vma.parent, anon_vma.root
            out.append(-1 if parent.freed else anon_vmas.setdefault(parent, len(anon_vmas)))
            out.append(anon_vmas.setdefault(root, len(anon_vmas)))
        tree = anon_vma.rb_root
        if len(tree.keys) < 2:
            out += [vmas.get(avc.vma, -1) for avc in tree.keys]
        elif self.walk_order:
            out += [vmas.get(avc.vma, -1) for avc in tree]
        else:
            out += sorted([vmas.get(avc.vma, -1) for avc in tree.keys])
        out.append(-2)
