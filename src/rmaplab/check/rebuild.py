# SPDX-License-Identifier: GPL-2.0-only
"""Makes the specification's objects from a snapshot, so that invariants can be run on what was read elsewhere.

Nothing is repaired: counts, pointers and trees are as the snapshot has them.
What a snapshot does not tell: entries for the page cache and the zero page,
migration entries, which pages of a partly exclusive folio are exclusive,
ranges that were given a name, and the ages of objects.
"""

from __future__ import annotations

import re
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from rmaplab.check.monitor import Monitor, monitored
from rmaplab.errors import InputError
from rmaplab.kernel import Area
from rmaplab.kernel.flags import PAGE_SHIFT, parse_flags
from rmaplab.kernel.folio import all_pages, linear_page_index
from rmaplab.kernel.interval_tree import vma_last_pgoff
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
from rmaplab.kernel.pagetable import GuardMarker, Pte, SwapPte
from rmaplab.series.anon_vma_list import AnonVmaList

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rmaplab.kernel import Kernel
    from rmaplab.snapshot import AnonVmaView, FolioView, Snapshot, VmaView

__all__ = ["rebuild"]

T = TypeVar("T")
MOST_ORDER = 18  # of x86-64's pages of 1 GiB


def rebuild(snapshot: Snapshot, series: type[Kernel]) -> Monitor:
    """A watched machine of a series in the state that the snapshot shows, ready for more calls.

    An anon_vma that something names and that the snapshot does not have is a
    freed one; a VMA that only a tree has (``?``) is a freed one, too.  AVCs
    that the snapshot counts and does not show are allocated and nowhere
    linked.  Where a series keeps chains newest first (AV-024), anon_vmas are
    given ages that agree with their chains if any do.  Each process can be
    told by the ids of its VMAs as names of areas.  :class:`InputError` for
    names that no snapshot has.
    """
    watched = series if issubclass(series, Monitor) else monitored(series)
    return _Builder(snapshot, watched()).build()


def ages(snapshot: Snapshot) -> list[str]:
    """The anon_vmas, oldest first, as far as chains (newest first) and parents tell; if they disagree, parents."""
    linked = {av.id: av for av in snapshot.anon_vmas if av.tree}
    parents = {name: {av.parent} - {name} & linked.keys() for name, av in linked.items()}
    older: defaultdict[str, set[str]] = defaultdict(set)
    for av in snapshot.anon_vmas:
        older[av.id] |= parents.get(av.id, set())
    for process in snapshot.processes:
        for vma in process.vmas:
            for newer, next_older in pairwise(vma.chain):
                older[newer].add(next_older)
    for known in (older, parents):
        try:
            return list(TopologicalSorter(known).static_order())
        except CycleError:
            continue
    return []


class _DatedAnonVma(AnonVma):
    """An anon_vma whose number is its age, and not its name."""

    __slots__ = ("name",)

    name: str

    def __repr__(self) -> str:
        return self.name


class _UnknownVma(Vma):
    """A VMA that only a tree names."""

    __slots__ = ()

    def __init__(self, ident: int) -> None:
        super().__init__(ident, Mm(0), 0, 0, 0, 0)
        self.freed = True

    def __repr__(self) -> str:
        return "vma?"


class _Builder:
    def __init__(self, snapshot: Snapshot, kernel: Monitor) -> None:
        self.snapshot = snapshot
        self.kernel = kernel
        self.mms: dict[str, Mm] = {}
        self.vmas: dict[str, Vma] = {}
        self.anon_vmas: dict[str, AnonVma] = {}
        self.folios: dict[str, Folio] = {}
        self.nodes: dict[str, StableNode] = {}
        self.links: list[AnonVmaChain] = []
        self.ages: dict[str, int] = {}

    def build(self) -> Monitor:
        self.date()
        for view in self.snapshot.anon_vmas:
            self.anon_vma(view.id).freed = False
        self.processes()
        for view in self.snapshot.anon_vmas:
            self.fill(view)
        self.trees()
        for folio in self.snapshot.folios:
            self.folio(folio)
        self.swap_and_guards()
        self.ksm()
        self.count()
        return self.kernel

    # --- names -----------------------------------------------------------------------------

    def made(self, known: dict[str, T], name: str, prefix: str, make: Callable[[int], T]) -> T:
        """The object of that name, made if there is none yet."""
        found = known.get(name)
        if found is None:
            found = known[name] = make(number(name, prefix))
        return found

    def mm(self, name: str) -> Mm:
        return self.made(self.mms, name, "mm", Mm)

    def anon_vma(self, name: str) -> AnonVma:
        """By its name; freed until it turns out that the snapshot has it."""
        return self.made(self.anon_vmas, name, "av", lambda ident: self.new_anon_vma(name, ident))

    def new_anon_vma(self, name: str, ident: int) -> AnonVma:
        made = AnonVma(ident)
        if name in self.ages:
            made = dated = _DatedAnonVma(self.ages[name])
            dated.name = name
        if not self.kernel.has_interval_trees:
            made.rb_root = AnonVmaList()
        made.freed = made.linked = True
        return made

    def date(self) -> None:
        """Where ages matter, hand the numbers of all anon_vmas out by age."""
        if not self.kernel.mirrors_chains:
            names = ages(self.snapshot)
            dated = set(names)
            names += [view.id for view in self.snapshot.anon_vmas if view.id not in dated]
            self.ages = dict(zip(names, sorted(number(name, "av") for name in names), strict=True))

    # --- VMAs and anon_vmas ------------------------------------------------------------------

    def processes(self) -> None:
        for view in self.snapshot.processes:
            if view.name in self.kernel.processes:
                raise InputError(f"the snapshot has two processes of the name {view.name}; rename one")
            shared = view.mm in self.mms
            mm = self.mm(view.mm)
            if shared:
                mm.users += 1
            else:
                mm.vmas = [self.vma(vma, mm) for vma in view.vmas]
            process = self.kernel.add_process(view.name, mm)
            process.areas = {
                str(vma): Area(vma.vm_start, (vma.vm_end - vma.vm_start) >> PAGE_SHIFT) for vma in mm.vmas
            }

    def vma(self, view: VmaView, mm: Mm) -> Vma:
        ident = number(view.id, "vma")
        try:
            flags = parse_flags(view.flags)
        except ValueError as error:
            raise InputError(f"{view.id}: {error}") from None
        vma = self.vmas[view.id] = Vma(ident, mm, view.start, view.end, view.pgoff, flags, view.file)
        vma.anon_pgoff = view.anon_pgoff
        vma.attached = True
        vma.anon_vma = None if view.anon_vma is None else self.anon_vma(view.anon_vma)
        vma.anon_vma_chain = [self.link(vma, self.anon_vma(name)) for name in view.chain]
        return vma

    def link(self, vma: Vma, anon_vma: AnonVma) -> AnonVmaChain:
        avc = AnonVmaChain(len(self.links) + 1)
        avc.vma, avc.anon_vma, avc.linked = vma, anon_vma, True
        self.links.append(avc)
        return avc

    def fill(self, view: AnonVmaView) -> None:
        anon_vma = self.anon_vma(view.id)
        anon_vma.root, anon_vma.parent = self.anon_vma(view.root), self.anon_vma(view.parent)
        anon_vma.refcount = view.refcount
        anon_vma.num_children = view.num_children
        anon_vma.num_active_vmas = view.num_active_vmas
        anon_vma.degree = view.degree

    def trees(self) -> None:
        """Each tree in its order; an entry takes the AVC that its VMA's list has for it, if any is left."""
        listed: defaultdict[tuple[Vma, AnonVma], list[AnonVmaChain]] = defaultdict(list)
        for avc in reversed(self.links):
            listed[avc.vma, avc.anon_vma].append(avc)
        unknown = max((vma.id for vma in self.vmas.values()), default=0)
        for view in self.snapshot.anon_vmas:
            anon_vma, entries = self.anon_vma(view.id), []
            for name in view.tree:
                vma = self.vmas.get(name)
                if vma is None:
                    unknown += 1
                    vma = _UnknownVma(unknown)
                waiting = listed[vma, anon_vma]
                entries.append(waiting.pop() if waiting else self.link(vma, anon_vma))
            self.insert(anon_vma, entries)

    def insert(self, anon_vma: AnonVma, entries: Iterable[AnonVmaChain]) -> None:
        """Insert with keys that keep the order: an entry that comes too late had another key when it came."""
        start = 0
        for avc in entries:
            vma = avc.vma
            unknown = isinstance(vma, _UnknownVma)
            start = start if unknown else max(start, vma.anon_pgoff)
            anon_vma.rb_root.keys[avc] = (start, start if unknown else vma_last_pgoff(vma))

    # --- pages -------------------------------------------------------------------------------

    def folio(self, view: FolioView) -> None:
        if not 0 <= view.order <= MOST_ORDER:
            raise InputError(f"{view.id} has the order {view.order}; the largest page has {MOST_ORDER}")
        folio = self.folios[view.id] = Folio(number(view.id, "folio"), view.order)
        folio.mapping = None if view.mapping is None else self.anon_vma(view.mapping)
        folio.index, folio.mapcount, folio.pins = view.index, view.mapcount, view.pins
        folio.exclusive = all_pages(folio) if view.exclusive else 0
        if view.ksm is not None:
            node = folio.stable_node = StableNode(len(self.snapshot.ksm) + len(self.nodes) + 1, view.ksm, folio)
            self.nodes.setdefault(view.ksm, node)
        for pte in view.ptes:
            mm = self.mm(pte.mm)
            mm.has_pinned |= view.pins > 0
            if pte.pages > 1:
                mm.page_table.pmds[pte.address] = Pte(folio, pte.writable)
            else:
                mm.page_table.set(pte.address, Pte(folio, pte.writable, pte.page))

    def swap_and_guards(self) -> None:
        highest = 0
        for view in self.snapshot.swap:
            slot = SwapSlot(number(view.id, "slot"))
            highest = max(highest, slot.id)
            slot.count = view.count
            if view.folio is not None:
                folio = self.folios.get(view.folio)
                if folio is None:
                    raise InputError(f"{view.id} has {view.folio} in the swap cache, which is not among the folios")
                self.kernel.swap_cache_add_folio(folio, slot)
            for pte in view.ptes:
                self.mm(pte.mm).page_table.set(pte.address, SwapPte(slot, pte.exclusive))
        for guard in self.snapshot.guards:
            self.mm(guard.mm).page_table.set(guard.address, GuardMarker())
        self.kernel.idents[SwapSlot] = highest

    def ksm(self) -> None:
        """The stable tree; the page of a node that no folio belongs to is gone already."""
        gone = max((folio.id for folio in self.folios.values()), default=0)
        for place, view in enumerate(self.snapshot.ksm, 1):
            node = self.nodes.get(view.content)
            if node is None:
                gone += 1
                node = StableNode(place, view.content, Folio(gone))
            node.id = place
            self.kernel.stable_tree[view.content] = node
            for item in view.items:
                mm = self.mm(item.mm)
                vma = mm.lookup(item.address)
                pgoff = item.address >> PAGE_SHIFT if vma is None else linear_page_index(vma, item.address)
                node.items.append(KsmRmapItem(mm, item.address, self.anon_vma(item.anon_vma), pgoff))
        self.kernel.idents[Folio] = gone

    # --- totals --------------------------------------------------------------------------------

    def count(self) -> None:
        """What is allocated, and the numbers that are taken."""
        slab, idents = self.kernel.slab, self.kernel.idents
        for view in self.snapshot.anon_vmas:
            anon_vma = self.anon_vma(view.id)
            slab.anon_vma.live[anon_vma.id] = anon_vma
        allocated = self.snapshot.slab.anon_vma_chain
        links = self.links + [AnonVmaChain(ident + 1) for ident in range(len(self.links), allocated)]
        slab.anon_vma_chain.live.update((avc.id, avc) for avc in links[:allocated])
        slab.bytes = self.snapshot.slab.bytes
        slab.anon_vma.made = max((av.id for av in self.anon_vmas.values()), default=0)
        slab.anon_vma_chain.made = len(links)
        idents[Mm] = max((mm.id for mm in self.mms.values()), default=0)
        idents[Vma] = max((avc.vma.id for avc in self.links), default=0)
        idents[Vma] = max([idents[Vma], *(vma.id for vma in self.vmas.values())])
        idents[StableNode] = len(self.snapshot.ksm) + len(self.nodes)


def number(name: str, prefix: str) -> int:
    """The number in a name such as ``av3``; :class:`InputError` if it has none."""
    if not re.fullmatch(prefix + "(0|[1-9][0-9]*)", name):
        raise InputError(f"{name!r} in a snapshot: the names of these objects are {prefix} and a number")
    return int(name[len(prefix) :])
