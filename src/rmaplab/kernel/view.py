# SPDX-License-Identifier: GPL-2.0-only
"""Takes a snapshot of a kernel; works on corrupt graphs too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel.flags import flags_name
from rmaplab.kernel.objects import AnonVma
from rmaplab.kernel.pagetable import GuardMarker, Pte, SwapPte
from rmaplab.snapshot import (
    AnonVmaView,
    FolioView,
    GuardView,
    KsmItemView,
    KsmView,
    Naming,
    ProcessView,
    PteView,
    SlabView,
    Snapshot,
    SwapPteView,
    SwapView,
    VmaView,
)

if TYPE_CHECKING:
    from rmaplab.kernel.kernel import Kernel
    from rmaplab.kernel.objects import Folio, Mm, SwapSlot, Vma

__all__ = ["take_snapshot", "view_of_vma"]


class _OwnNames(Naming):
    """The numbers that the kernel gave."""

    def __missing__(self, key: object) -> str:
        name = self[key] = str(key)
        return name


class _View:
    def __init__(self, kernel: Kernel, canonical: bool) -> None:
        self.kernel = kernel
        naming = Naming if canonical else _OwnNames
        self.mm_name, self.vma_name, self.av_name = naming("mm"), naming("vma"), naming("av")
        self.folio_name, self.slot_name = naming("folio"), naming("slot")
        self.found: dict[Folio, list[PteView]] = {}
        self.slots: dict[SwapSlot, list[SwapPteView]] = {}
        self.guards: list[GuardView] = []
        self.mms: dict[Mm, None] = {process.mm: None for process in kernel.processes.values()}

    def vma(self, vma: Vma) -> VmaView:
        return VmaView(
            id=self.vma_name[vma],
            start=vma.vm_start,
            end=vma.vm_end,
            pgoff=vma.vm_pgoff,
            anon_pgoff=vma.anon_pgoff,
            flags=flags_name(vma.vm_flags),
            file=vma.file,
            anon_vma=None if vma.anon_vma is None else self.av_name[vma.anon_vma],
            chain=tuple([self.av_name[avc.anon_vma] for avc in vma.anon_vma_chain]),
        )

    def anon_vma(self, anon_vma: AnonVma) -> AnonVmaView:
        known = self.vma_name
        return AnonVmaView(
            id=self.av_name[anon_vma],
            root=self.av_name[anon_vma.root],
            parent=self.av_name[anon_vma.parent],
            refcount=anon_vma.refcount,
            num_children=anon_vma.num_children,
            num_active_vmas=anon_vma.num_active_vmas,
            degree=anon_vma.degree,
            tree=tuple([known.get(avc.vma, "?") for avc in anon_vma.rb_root]),
        )

    def visit_entries(self) -> None:
        """Sort every page-table entry by what it names; folios and slots in order of appearance."""
        for mm in self.mms:
            name = self.mm_name[mm]
            for address, pte in sorted(mm.page_table.pmds.items()):
                view = PteView(name, address, pte.writable, pages=1 << pte.folio.order)
                self.found.setdefault(pte.folio, []).append(view)
            for address, entry in mm.page_table:
                if isinstance(entry, Pte):
                    if entry.folio.anon:
                        self.found.setdefault(entry.folio, []).append(
                            PteView(name, address, entry.writable, entry.page)
                        )
                elif isinstance(entry, SwapPte):
                    self.slots.setdefault(entry.slot, []).append(SwapPteView(name, address, entry.exclusive))
                elif isinstance(entry, GuardMarker):
                    self.guards.append(GuardView(name, address))
        for slot in self.slots:
            if slot.folio is not None:
                self.found.setdefault(slot.folio, [])

    def folio(self, folio: Folio, ptes: list[PteView]) -> FolioView:
        node = folio.stable_node
        return FolioView(
            id=self.folio_name[folio],
            mapping=None if folio.mapping is None else self.av_name[folio.mapping],
            index=folio.index,
            mapcount=folio.mapcount,
            exclusive=folio.exclusive == (1 << (1 << folio.order)) - 1,
            ptes=tuple(ptes),
            order=folio.order,
            pins=folio.pins,
            ksm=None if node is None else node.content,
        )

    def swap(self) -> tuple[SwapView, ...]:
        return tuple(
            SwapView(
                id=self.slot_name[slot],
                count=slot.count,
                folio=None if slot.folio is None else self.folio_name[slot.folio],
                ptes=tuple(ptes),
            )
            for slot, ptes in self.slots.items()
        )

    def ksm(self) -> tuple[KsmView, ...]:
        return tuple(
            KsmView(
                node.content,
                tuple(
                    KsmItemView(self.mm_name[item.mm], item.address, self.av_name[item.anon_vma])
                    for item in node.items
                ),
            )
            for node in self.kernel.stable_tree.values()
        )

    def reachable(self) -> list[AnonVma]:
        """What VMAs and folios name, and then roots and parents as they are met."""
        order: dict[AnonVma, None] = {}
        waiting = [av for av in self.av_name if isinstance(av, AnonVma)]
        while waiting:
            order |= dict.fromkeys(waiting)
            waiting = [av for known in waiting for av in (known.root, known.parent) if av not in order]
        for av in order:
            self.av_name[av]
        return list(order)

    def take(self) -> Snapshot:
        slab = self.kernel.slab
        processes = tuple(
            ProcessView(process.name, self.mm_name[process.mm], tuple([self.vma(vma) for vma in process.mm.vmas]))
            for process in self.kernel.processes.values()
        )
        self.visit_entries()
        folios = tuple([self.folio(folio, ptes) for folio, ptes in self.found.items()])
        swap, ksm = self.swap(), self.ksm()
        # Reachable ones first in order of appearance, then what nobody links to.
        live = dict.fromkeys(slab.anon_vma.live.values())
        anon_vmas = [self.anon_vma(av) for av in self.reachable() if av in live]
        anon_vmas += [self.anon_vma(av) for av in live if av not in self.av_name]
        return Snapshot(
            processes=processes,
            anon_vmas=tuple(anon_vmas),
            folios=folios,
            swap=swap,
            guards=tuple(self.guards),
            ksm=ksm,
            slab=SlabView(slab.anon_vma.in_use, slab.anon_vma_chain.in_use, slab.bytes),
        )


def take_snapshot(kernel: Kernel, *, canonical: bool = True) -> Snapshot:
    """The state of every process, anon_vma and mapped anonymous folio.

    With ``canonical`` objects are numbered as they appear, so equal states give
    equal snapshots; without, they keep the numbers they were made with.
    """
    return _View(kernel, canonical).take()


def view_of_vma(kernel: Kernel, vma: Vma) -> VmaView:
    """One VMA, whether an address space has it or not; all have the numbers they were made with."""
    return _View(kernel, canonical=False).vma(vma)
