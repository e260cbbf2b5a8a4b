# SPDX-License-Identifier: GPL-2.0-only
"""What was read out of a kernel, by address; and as a snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.kernel.flags import flags_name
from rmaplab.snapshot import (
    AnonVmaView,
    FolioView,
    GuardView,
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
    from collections.abc import Mapping

    from rmaplab.realkernel.layout import Layout
    from rmaplab.realkernel.target import Task

__all__ = ["Graph", "RawAnonVma", "RawAvc", "RawFolio", "RawPte", "RawSwap", "RawVma"]


class RawVma(NamedTuple):
    """A vm_area_struct.

    ``task``: the place in the list of the first task that has it; ``head``:
    the first link; ``chain``: addresses of AVCs.
    """

    task: int
    address: int
    start: int
    end: int
    flags: int
    pgoff: int
    anon_pgoff: int
    file: int
    anon_vma: int
    head: int
    chain: list[int]


class RawAvc(NamedTuple):
    """An anon_vma_chain; ``next`` link of its VMA's list, ``left`` and ``right`` nodes of its tree."""

    vma: int
    anon_vma: int
    next: int
    left: int
    right: int


class RawAnonVma(NamedTuple):
    """An anon_vma; ``rb_node`` is the topmost node of its tree.  Counters that the kernel lacks are 0."""

    root: int
    refcount: int
    parent: int
    num_children: int
    num_active_vmas: int
    degree: int
    rb_node: int


class RawPte(NamedTuple):
    """A present entry of a VMA's page table, that maps ``pages`` pages from ``page`` of its folio on."""

    task: int
    address: int
    writable: bool
    page: int
    pages: int


class RawSwap(NamedTuple):
    """An entry that names a swap slot."""

    task: int
    address: int
    exclusive: bool


@dataclass(slots=True)
class RawFolio:
    """An anonymous folio; ``anon_vma`` is 0 for one that KSM merged."""

    anon_vma: int
    ksm: bool
    index: int
    mapcount: int
    order: int
    pins: int
    exclusive: bool = True
    ptes: list[RawPte] = field(default_factory=list)


@dataclass(slots=True)
class Graph:
    """Everything, by address; ``remarks`` say what could not be read: the graph is incomplete then.

    ``addresses`` are those of objects by their names in the last snapshot.
    """

    release: str = ""
    tasks: list[Task] = field(default_factory=list)
    pgds: dict[int, int] = field(default_factory=dict)
    vmas: list[RawVma] = field(default_factory=list)
    avcs: dict[int, RawAvc] = field(default_factory=dict)
    anon_vmas: dict[int, RawAnonVma | None] = field(default_factory=dict)
    trees: dict[int, list[int]] = field(default_factory=dict)
    folios: dict[int, RawFolio] = field(default_factory=dict)
    swap: dict[tuple[int, int], list[RawSwap]] = field(default_factory=dict)
    guards: list[tuple[int, int]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    unread: set[int] = field(default_factory=set)
    visited: set[int] = field(default_factory=set)
    named: tuple[dict[int, str], ...] = ()

    def snapshot(self, names: Mapping[int, str] | None = None, layout: Layout | None = None) -> Snapshot:
        """As the model's snapshots are, numbered in order of appearance.

        ``names`` are those of processes by id, by default ``comm:pid``.  With
        a layout, the objects' bytes are counted.
        """
        numbering = _Numbering(self, names)
        self.named = numbering.av, numbering.vma
        return numbering.snapshot(layout)

    @property
    def addresses(self) -> dict[str, int]:
        """Where the objects of the last :meth:`snapshot` are, by their names there."""
        found = {name: address for names in self.named for address, name in names.items()}
        return found | {f"folio{number}": address for number, address in enumerate(self.folios)}


class _Numbering:
    """Gives names to addresses, as :mod:`rmaplab.kernel.view` gives them to objects."""

    def __init__(self, graph: Graph, names: Mapping[int, str] | None) -> None:
        self.graph = graph
        self.names = names
        mms = Naming("mm")
        self.mms = [mms[task.mm] for task in graph.tasks]
        self.av, self.vma = Naming("av"), Naming("vma")

    def snapshot(self, layout: Layout | None) -> Snapshot:
        graph = self.graph
        processes = self.processes()
        folio_names = {address: f"folio{n}" for n, address in enumerate(graph.folios)}
        folios = tuple(self.folio(folio_names[address], folio) for address, folio in graph.folios.items())
        anon_vmas = self.anon_vmas()
        avs = sum(found is not None for found in graph.anon_vmas.values())
        size = 0
        if layout is not None:
            size = avs * layout.size("anon_vma") + len(graph.avcs) * layout.size("anon_vma_chain")
        return Snapshot(
            processes=processes,
            anon_vmas=anon_vmas,
            folios=folios,
            slab=SlabView(avs, len(graph.avcs), size),
            swap=self.swap(),
            guards=tuple(GuardView(self.mms[task], address) for task, address in graph.guards),
        )

    def processes(self) -> tuple[ProcessView, ...]:
        graph = self.graph
        views: dict[str, list[VmaView]] = {mm: [] for mm in self.mms}
        for vma in graph.vmas:
            views[self.mms[vma.task]].append(
                VmaView(
                    id=self.vma[vma.address],
                    start=vma.start,
                    end=vma.end,
                    pgoff=vma.pgoff,
                    anon_pgoff=vma.anon_pgoff,
                    flags=flags_name(vma.flags),
                    file=f"{vma.file:#x}" if vma.file else None,
                    anon_vma=self.av[vma.anon_vma] if vma.anon_vma else None,
                    chain=tuple([self.av[graph.avcs[avc].anon_vma] for avc in vma.chain]),
                )
            )
        return tuple(
            ProcessView(self.name(task), mm, tuple(views[mm])) for task, mm in zip(graph.tasks, self.mms, strict=True)
        )

    def name(self, task: Task) -> str:
        return f"{task.comm}:{task.pid}" if self.names is None else self.names[task.pid]

    def anon_vmas(self) -> tuple[AnonVmaView, ...]:
        graph, views = self.graph, []
        order = list(self.av)
        for address in order:  # grows while roots and parents are met
            found = graph.anon_vmas.get(address)
            if found is None:
                continue
            root, parent = self.av[found.root], self.av[found.parent]
            if len(self.av) > len(order):
                order += list(self.av)[len(order) :]
            tree = tuple([self.vma.get(graph.avcs[avc].vma, "?") for avc in graph.trees.get(address, ())])
            views.append(
                AnonVmaView(
                    id=self.av[address],
                    root=root,
                    parent=parent,
                    refcount=found.refcount,
                    num_children=found.num_children,
                    num_active_vmas=found.num_active_vmas,
                    degree=found.degree,
                    tree=tree,
                )
            )
        return tuple(views)

    def folio(self, name: str, folio: RawFolio) -> FolioView:
        return FolioView(
            id=name,
            mapping=self.av[folio.anon_vma] if folio.anon_vma else None,
            index=folio.index,
            mapcount=folio.mapcount,
            exclusive=folio.exclusive,
            ptes=tuple(
                [PteView(self.mms[pte.task], pte.address, pte.writable, pte.page, pte.pages) for pte in folio.ptes]
            ),
            order=folio.order,
            pins=folio.pins,
            ksm="?" if folio.ksm else None,
        )

    def swap(self) -> tuple[SwapView, ...]:
        return tuple(
            SwapView(
                id=f"slot{number}",
                count=len(entries),
                folio=None,
                ptes=tuple(SwapPteView(self.mms[one.task], one.address, one.exclusive) for one in entries),
            )
            for number, entries in enumerate(self.graph.swap.values())
        )
