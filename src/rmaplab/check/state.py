# SPDX-License-Identifier: GPL-2.0-only
"""What invariants look at: one pass over a kernel, and two fingerprints of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from rmaplab.kernel import Kernel, Process
    from rmaplab.kernel.objects import AnonVma, Folio, Mm, Pte, Vma

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
        self.ptes: dict[Folio, list[tuple[Mm, int, Pte]]] = {}
        for mm in self.mms:
            for table in mm.page_table.tables.values():
                for address, pte in table.items():
                    if pte.folio.mapping is not None:
                        self.ptes.setdefault(pte.folio, []).append((mm, address, pte))


def graph(kernel: Kernel) -> dict[int, tuple[int, ...]]:
    """Counters and tree of every live anon_vma by id: equal before and after a call that failed."""
    return {
        ident: (
            av.refcount,
            av.num_children,
            av.num_active_vmas,
            *(avc.id for avc in av.rb_root.keys),
        )
        for ident, av in kernel.live_anon_vmas.items()
    }


def fingerprint(kernel: Kernel) -> int:
    """64-bit hash of a state up to the renaming of processes and objects.

    Processes are sorted by a local shape; equal shapes keep their order, so
    two symmetric states may differ (which costs time), but equal fingerprints
    mean equal states, up to a collision of the hash.
    """
    return hash(tuple(_Encoder(kernel).encode()))


class _Encoder:
    """Writes a state as a list of integers, numbering objects as they turn up."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.pages = {
            process.mm: list(process.mm.page_table) for process in kernel.processes.values()
        }  # both passes need them in order
        self.anon_vmas: dict[AnonVma, int] = {}
        self.vmas: dict[Vma, int] = {}
        self.folios: dict[Folio, int] = {}
        self.out: list[int] = []

    def encode(self) -> list[int]:
        processes = list(self.kernel.processes.values())
        if len(processes) > 1:
            processes.sort(key=self.shape)
        mms: dict[Mm, int] = {}
        for process in processes:
            mm = process.mm
            self.out.append(mms.get(mm, -1))
            if mm not in mms:
                mms[mm] = len(mms)
                self.encode_mm(mm)
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
            self.out += (mapping, folio.index, folio.mapcount, folio.exclusive)
        return self.out

    def shape(self, process: Process) -> tuple[int, ...]:
        """What can be said of a process without naming shared objects."""
        shape: list[int] = []
        for vma in process.mm.vmas:
            shape += (vma.vm_start, vma.vm_end, vma.vm_flags)
            for avc in vma.anon_vma_chain:
                av = avc.anon_vma
                shape += (av.refcount, av.num_children, av.num_active_vmas, len(av.rb_root.keys), av is vma.anon_vma)
            shape.append(-1)
        for address, pte in self.pages[process.mm]:
            shape += (address, pte.folio.mapcount, pte.folio.exclusive, pte.writable)
        return tuple(shape)

    def number(self, anon_vma: AnonVma) -> int:
        return self.anon_vmas.setdefault(anon_vma, len(self.anon_vmas))

    def encode_mm(self, mm: Mm) -> None:
        out = self.out
        for vma in mm.vmas:
            self.vmas[vma] = len(self.vmas)
            out += (vma.vm_start, vma.vm_end, vma.vm_pgoff, vma.vm_flags)
            out.append(0 if vma.file is None else crc32(vma.file.encode()))
            out.append(-1 if vma.anon_vma is None else self.number(vma.anon_vma))
            out += [self.number(avc.anon_vma) for avc in vma.anon_vma_chain]
            out.append(-2)
        folios = self.folios
        for address, pte in self.pages[mm]:
            folio = pte.folio
            out += (address, folios.setdefault(folio, len(folios)) if folio.mapping else folio.id - 3, pte.writable)
        out.append(-3)

    def encode_anon_vma(self, anon_vma: AnonVma) -> None:
        out = self.out
        out += (anon_vma.refcount, anon_vma.num_children, anon_vma.num_active_vmas, anon_vma.freed)
        if not anon_vma.freed:
            out += (self.number(anon_vma.parent), self.number(anon_vma.root))
        out += [self.vmas.get(avc.vma, -1) for avc in anon_vma.rb_root]
        out.append(-2)
