# SPDX-License-Identifier: GPL-2.0-only
"""Takes a snapshot of a machine of the engine: equal to that of the specification's kernel in the same state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rmaplab.engine.layout import ANON_VMA, FIRST, MACHINE, PAGES, SLAB
from rmaplab.engine.pagetable import GUARD, MIGRATION
from rmaplab.kernel.flags import flags_name
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
    from collections.abc import Iterator, Mapping

    from rmaplab.engine.machine import Machine

__all__ = ["take_snapshot"]


def take_snapshot(machine: Machine, names: Mapping[int, str], contents: Mapping[int, str] | None = None) -> Snapshot:
    """The state of every process, anon_vma and page; ``names`` are those of processes by row.

    ``contents`` are those of KSM's pages by their numbers.  Objects are
    numbered as they appear, as in ``Kernel.snapshot()``.
    """
    return _View(machine, contents or {}).take(names)


class _View:
    def __init__(self, machine: Machine, contents: Mapping[int, str]) -> None:
        self.contents = contents
        self.m, self.c = machine.m, machine.c
        self.files = {number: name for name, number in machine.files.items()}
        self.mm_name, self.vma_name, self.av_name = Naming("mm"), Naming("vma"), Naming("av")
        self.folio_name, self.slot_name = Naming("folio"), Naming("slot")
        self.slots: dict[int, list[SwapPteView]] = {}
        self.found: dict[int, list[PteView]] = {}
        self.guards: list[GuardView] = []

    def in_order(self, tree: int) -> Iterator[int]:
        """The rows of a tree by their keys."""
        if tree:
            yield from self.in_order(int(self.m[tree]["left"]))
            yield tree
            yield from self.in_order(int(self.m[tree]["right"]))

    def chain(self, head: int, following: str) -> Iterator[Any]:
        """The AVCs of a list."""
        while head:
            yield self.c[head]
            head = int(self.c[head][following])

    def vma(self, row: int) -> VmaView:
        vma = self.m[row]
        name = self.vma_name[row]
        own = int(vma["anon_vma"])
        file = int(vma["file"])
        return VmaView(
            id=name,
            start=int(vma["key"]),
            end=int(vma["vm_end"]),
            pgoff=int(vma["vm_pgoff"]),
            anon_pgoff=int(vma["anon_pgoff"]),
            flags=flags_name(int(vma["vm_flags"])),
            file=f"/dev/zero#{-file}" if file < 0 else self.files[file],
            anon_vma=self.av_name[own] if own else None,
            chain=tuple([self.av_name[abs(int(avc["anon_vma"]))] for avc in self.chain(int(vma["head"]), "after")]),
        )

    def process(self, row: int, name: str) -> ProcessView:
        mm = int(self.m[row]["mm"])
        vmas = tuple([self.vma(vma) for vma in self.in_order(int(self.m[mm]["vmas"]))])
        return ProcessView(name, self.mm_name[mm], vmas)

    def visit_entries(self, mm: int) -> None:
        """Sort the page-table entries of an mm by what they name."""
        name = self.mm_name[mm]
        for leaf in self.in_order(int(self.m[mm]["leaves"])):
            for at, entry in enumerate(self.m[leaf]["pte"].tolist()):
                address = (int(self.m[leaf]["key"]) << 16) + (at << 12)
                if -MIGRATION < entry < 0:
                    self.slots.setdefault(-entry >> 1, []).append(SwapPteView(name, address, bool(-entry & 1)))
                elif entry >> 1 == GUARD:
                    self.guards.append(GuardView(name, address))
                elif entry >> 1 >= FIRST:
                    self.found.setdefault(entry >> 1, []).append(PteView(name, address, bool(entry & 1)))

    def anon_vma(self, row: int) -> AnonVmaView:
        av = self.m[row]
        known = self.vma_name
        tree = [
            known.get(int(avc["vma"]), "?")
            for place in self.in_order(int(av["ranges"]))
            for avc in self.chain(int(self.m[place]["head"]), "later")
        ]
        return AnonVmaView(
            id=self.av_name[row],
            root=self.av_name[int(av["root"])],
            parent=self.av_name[int(av["parent"])],
            refcount=int(av["refcount"]),
            num_children=int(av["num_children"]) & 0xFFFF_FFFF_FFFF_FFFF,
            num_active_vmas=int(av["num_active_vmas"]) & 0xFFFF_FFFF_FFFF_FFFF,
            degree=int(av["degree"]) & 0xFFFF_FFFF_FFFF_FFFF,
            tree=tuple(tree),
        )

    def folio(self, row: int, ptes: list[PteView]) -> FolioView:
        folio = self.m[row]
        mapping = int(folio["mapping"])
        return FolioView(
            id=self.folio_name[row],
            mapping=self.av_name[mapping] if mapping else None,
            index=int(folio["index"]),
            mapcount=int(folio["mapcount"]),
            exclusive=bool(folio["exclusive"]),
            ptes=tuple(ptes),
            pins=int(folio["pins"]),
            ksm=self.contents[int(self.m[int(folio["stable_node"])]["content"])] if folio["stable_node"] else None,
        )

    def swap(self) -> tuple[SwapView, ...]:
        views = []
        for slot, ptes in self.slots.items():
            folio = int(self.m[slot]["cached"])
            name = self.folio_name[folio] if folio else None
            views.append(SwapView(self.slot_name[slot], int(self.m[slot]["swap_count"]), name, tuple(ptes)))
        return tuple(views)

    def rows(self, first: int, following: str) -> Iterator[int]:
        """The rows of a list."""
        while first:
            yield first
            first = int(self.m[first][following])

    def ksm(self) -> tuple[KsmView, ...]:
        views = []
        for node in self.rows(int(self.m[PAGES]["first_node"]), "next_node"):
            items = [
                KsmItemView(
                    self.mm_name[int(item["item_mm"])],
                    int(item["address"]),
                    self.av_name[int(item["item_anon_vma"])],
                )
                for item in (self.m[row] for row in self.rows(int(self.m[node]["items"]), "next_item"))
            ]
            views.append(KsmView(self.contents[int(self.m[node]["content"])], tuple(items)))
        return tuple(views)

    def reachable(self) -> list[int]:
        """What VMAs and folios name, and then roots and parents as they are met."""
        order: dict[int, None] = {}
        waiting = list(self.av_name)
        while waiting:
            order |= dict.fromkeys(waiting)
            named = [int(self.m[row][link]) for row in waiting for link in ("root", "parent")]
            waiting = [row for row in named if row not in order]
        for row in order:
            self.av_name[row]
        return list(order)

    def take(self, names: Mapping[int, str]) -> Snapshot:
        m = self.m
        processes = tuple(
            [self.process(row, names[row]) for row in self.rows(int(m[MACHINE]["first_process"]), "later")]
        )
        for mm in list(self.mm_name):
            self.visit_entries(mm)
        for slot in self.slots:
            if m[slot]["cached"]:
                self.found.setdefault(int(m[slot]["cached"]), [])
        folios = tuple([self.folio(folio, ptes) for folio, ptes in self.found.items()])
        swap, ksm = self.swap(), self.ksm()
        used = range(FIRST, int(m[MACHINE]["used"]))
        live = [row for row in used if m[row]["kind"] == ANON_VMA and not m[row]["freed"]]
        live.sort(key=lambda row: int(m[row]["id"]))
        anon_vmas = [self.anon_vma(row) for row in self.reachable() if not m[row]["freed"]]
        anon_vmas += [self.anon_vma(row) for row in live if row not in self.av_name]
        slab = m[SLAB]
        return Snapshot(
            processes=processes,
            anon_vmas=tuple(anon_vmas),
            folios=folios,
            swap=swap,
            ksm=ksm,
            guards=tuple(self.guards),
            slab=SlabView(int(slab["live_anon_vmas"]), int(slab["live_avcs"]), int(slab["bytes"])),
        )
