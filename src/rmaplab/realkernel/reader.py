# SPDX-License-Identifier: GPL-2.0-only
"""Reads the anonymous reverse map out of a kernel's memory, breadth first: all objects of a kind in one batch.

Nothing is trusted: what cannot be read, or does not end, becomes a remark.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

from rmaplab.realkernel.folios import FolioReader
from rmaplab.realkernel.graph import Graph, RawAnonVma, RawAvc, RawVma
from rmaplab.realkernel.maple import MapleReader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from rmaplab.realkernel.layout import Fields, Layout
    from rmaplab.realkernel.memory import Memory
    from rmaplab.realkernel.target import Target, Task

__all__ = ["GraphReader", "read_graph"]


class GraphReader:
    """Reads one graph; ``lo`` and ``hi`` bound the addresses of the VMAs, in bytes."""

    def __init__(self, target: Target, lo: int = 0, hi: int = 1 << 64) -> None:
        self.memory: Memory = target.memory
        self.target = target
        self.lo, self.hi = lo, hi
        self.fields = _fields(target.layout)
        layout = target.layout
        self.same_vma = layout.offset("anon_vma_chain.same_vma")
        self.rb = layout.offset("anon_vma_chain.rb")
        self.chain = layout.offset("vm_area_struct.anon_vma_chain")
        # VMAs have an offset of their own for anonymous pages (v7.3).
        self.has_anon_pgoff = layout.has("vm_area_struct.__vm_anon_pgoff_lo")
        self.folios = FolioReader(target)
        self.graph = Graph(target.release)

    def anew(self) -> Self:
        """For another reading of the same machine."""
        reader = copy.copy(self)
        reader.graph = Graph(self.target.release)
        return reader

    def remark(self, text: str) -> None:
        """Note what could not be read."""
        self.graph.remarks.append(text)

    def read(self, tasks: Sequence[Task], *, folios: bool = True) -> Graph:
        """All of it."""
        graph = self.graph
        graph.tasks = list(tasks)
        self.read_vmas(self.find_vmas())
        self.read_chains()
        return self.read_rest(folios=folios)

    def read_rest(self, *, folios: bool = True) -> Graph:
        """What hangs on the chains, once they are known."""
        self.read_anon_vmas()
        self.read_trees()
        if folios:
            if self.target.machine.knows_pages:
                self.folios.read(self.graph)
                self.read_anon_vmas()  # that only folios name
                self.read_trees()
            else:
                self.remark("pages were not read: where this kernel keeps page tables and struct pages is not known")
        return self.graph

    def many(self, kind: str, addresses: Sequence[int]) -> Iterable[tuple[int, tuple[Any, ...] | None]]:
        """The members of each object, None for one that cannot be read."""
        if not addresses:
            return
        fields = self.fields[kind]
        start, unpack = fields.start, fields.unpack
        read = self.memory.read_many([address + start for address in addresses], fields.size)
        for address, data in zip(addresses, read, strict=True):
            yield address, None if data is None else unpack(data)

    # --- VMAs and chains (mm_types.h, rmap.h) ---------------------------------------------------

    def find_vmas(self) -> list[tuple[int, int]]:
        """Each VMA's task (as its place in the list) and address, in the order of addresses."""
        mms: dict[int, int] = {}
        for number, task in enumerate(self.graph.tasks):
            mms.setdefault(task.mm, number)
        trees = MapleReader(self.memory, self.target.layout, self.lo, self.hi)
        found = trees.read([(mms[mm], root) for mm, root in self.read_mms(list(mms))])
        for number, least in trees.unreadable:
            pid = self.graph.tasks[number].pid
            self.remark(f"process {pid}: VMAs from {least:#x} on: their maple node cannot be read")
        if trees.endless:
            self.remark("a maple tree of VMAs does not end")
        return found

    def read_mms(self, mms: Sequence[int]) -> list[tuple[int, int]]:
        """Each mm_struct's address and the root of its tree; its page table is noted."""
        roots = []
        for mm, values in self.many("mm_struct", mms):
            if values is None:
                pid = next(task.pid for task in self.graph.tasks if task.mm == mm)
                self.remark(f"process {pid}: its mm_struct cannot be read")
                continue
            roots.append((mm, values[0]))
            self.graph.pgds[mm] = values[1]
        return roots

    def read_vmas(self, places: Sequence[tuple[int, int]]) -> None:
        """The VMAs themselves."""
        found = self.many("vm_area_struct", [vma for _, vma in places])
        for (task, _), (address, values) in zip(places, found, strict=True):
            if values is None:
                pid = self.graph.tasks[task].pid
                self.remark(f"process {pid}: the VMA at {address:#x} cannot be read")
            else:
                self.make_vma(task, address, values)

    def add_vma(self, task: int, address: int, raw: bytes) -> RawVma | None:
        """A VMA of which the bytes are there; None if it is out of bounds."""
        fields = self.fields["vm_area_struct"]
        return self.make_vma(task, address, fields.unpack(raw[fields.start :]))

    def make_vma(self, task: int, address: int, values: tuple[Any, ...]) -> RawVma | None:
        """A VMA of a task, if it begins within bounds."""
        start, end, flags, pgoff, file, anon_vma, head, low, high = values
        if not self.lo <= start < self.hi:
            return None
        anon_pgoff = low | high << 32 if self.has_anon_pgoff else pgoff
        vma = RawVma(task, address, start, end, flags, pgoff, anon_pgoff, file, anon_vma, head, [])
        self.graph.vmas.append(vma)
        return vma

    def read_chains(self, going: list[tuple[RawVma, int]] | None = None) -> None:
        """Follow all lists at once, one link a round, from their heads on or from the links that are given."""
        if going is None:
            going = [(vma, vma.head) for vma in self.graph.vmas if vma.head != vma.address + self.chain]
        while going:
            links = [link - self.same_vma for _, link in going]
            following = []
            for (vma, _), (address, values) in zip(going, self.many("anon_vma_chain", links), strict=True):
                if values is None:
                    self.remark(f"the chain of the VMA at {vma.start:#x}: AVC {address:#x} cannot be read")
                elif self.add_link(vma, address, avc := RawAvc(*values)) and avc.next != vma.address + self.chain:
                    following.append((vma, avc.next))
            going = following

    def add_link(self, vma: RawVma, address: int, avc: RawAvc) -> bool:
        """An AVC of a chain; False if it is on one already."""
        if address in self.graph.avcs:
            self.remark(f"the chain of the VMA at {vma.start:#x}: AVC {address:#x} is on two lists, or twice on one")
            return False
        self.graph.avcs[address] = avc
        vma.chain.append(address)
        return True

    # --- anon_vmas and their trees -----------------------------------------------------------------

    def read_anon_vmas(self) -> None:
        """Those that VMAs, chains and folios name, and then their roots and parents."""
        graph = self.graph
        # With the root that each is said to have, 0 if nobody said: what lies about it was freed and leads anywhere.
        wanted = {
            address: 0
            for source in (
                (vma.anon_vma for vma in graph.vmas),
                (avc.anon_vma for avc in graph.avcs.values()),
                (folio.anon_vma for folio in graph.folios.values()),
            )
            for address in source
        }
        while wanted := {at: root for at, root in wanted.items() if at and at not in graph.anon_vmas}:
            following: dict[int, int] = {}
            for (address, values), root in zip(self.many("anon_vma", list(wanted)), wanted.values(), strict=True):
                if values is None:
                    self.remark(f"the anon_vma at {address:#x} cannot be read")
                    graph.anon_vmas[address] = None
                    continue
                graph.anon_vmas[address] = found = RawAnonVma(*values)
                if root in (0, found.root):
                    following[found.root] = following[found.parent] = found.root
            wanted = following

    def read_trees(self) -> None:
        """Read the AVCs that no chain had, level by level; then bring each tree in order."""
        graph, rb = self.graph, self.rb
        new = [(a, av) for a, av in graph.anon_vmas.items() if av is not None and a not in graph.trees]
        nodes = {av.rb_node - rb: address for address, av in new if av.rb_node}
        while nodes:
            unread = [node for node in nodes if node not in graph.avcs]
            for address, values in self.many("anon_vma_chain", unread):
                if values is None:
                    graph.unread.add(address)
                else:
                    graph.avcs[address] = RawAvc(*values)
            graph.visited |= nodes.keys()
            below: dict[int, int] = {}
            for node, owner in nodes.items():
                avc = graph.avcs.get(node)
                if avc is not None and avc.anon_vma == owner:
                    below |= {child - rb: owner for child in (avc.left, avc.right) if child}
            nodes = {node: owner for node, owner in below.items() if node not in graph.visited}
        for address, anon_vma in new:
            graph.trees[address] = self.in_order(address, anon_vma)

    def in_order(self, address: int, anon_vma: RawAnonVma) -> list[int]:
        """The AVCs of a tree from left to right; what hangs on an AVC of another anon_vma is none of it."""
        found: list[int] = []
        seen: set[int] = set()
        above: list[int] = []
        node = anon_vma.rb_node
        avcs, rb = self.graph.avcs, self.rb
        while node or above:
            while node:
                avc = avcs.get(node - rb)
                if avc is None or node in seen:
                    what = "cannot be read" if avc is None else "is there twice"
                    self.remark(f"the tree of the anon_vma at {address:#x}: node {node:#x} {what}")
                    break
                seen.add(node)
                above.append(node)
                node = avc.left if avc.anon_vma == address else 0
            if not above:
                break
            at = above.pop() - rb
            found.append(at)
            avc = avcs[at]
            node = avc.right if avc.anon_vma == address else 0
            if avc.anon_vma != address and (avc.left or avc.right):
                self.remark(
                    f"the tree of the anon_vma at {address:#x}: AVC {at:#x} is another's, and what is below it"
                )
        return found


def read_graph(
    target: Target, pids: Collection[int] | None = None, lo: int = 0, hi: int = 1 << 64, *, folios: bool = True
) -> Graph:
    """The graph of some processes (None: all), of their VMAs that begin in [lo, hi).

    :class:`rmaplab.errors.InputError` if the kernel cannot be read at all.
    """
    reader = GraphReader(target, lo, hi)
    target.begin(reader, pids)
    return reader.read_rest(folios=folios)


def _fields(layout: Layout) -> dict[str, Fields]:
    """What is read of each structure, in the order of the fields of :mod:`rmaplab.realkernel.graph`."""
    return {name: layout.fields(name, *members) for name, members in _READ.items()}


_READ = {
    "mm_struct": (("mm_mt.ma_root", "Q"), ("pgd", "Q")),
    "vm_area_struct": (
        *(("vm_start", "Q"), ("vm_end", "Q"), ("vm_flags", "Q"), ("vm_pgoff", "Q"), ("vm_file", "Q")),
        *(("anon_vma", "Q"), ("anon_vma_chain", "Q")),
        *(("__vm_anon_pgoff_lo", "I"), ("__vm_anon_pgoff_hi", "I")),
    ),
    "anon_vma_chain": (("vma", "Q"), ("anon_vma", "Q"), ("same_vma", "Q"), ("rb+16", "Q"), ("rb+8", "Q")),
    "anon_vma": (
        *(("root", "Q"), ("refcount", "i"), ("parent", "Q"), ("num_children", "Q")),
        *(("num_active_vmas", "Q"), ("degree", "I"), ("rb_root", "Q")),
    ),
}
