# SPDX-License-Identifier: GPL-2.0-only
"""A reverse map of a million AVCs in memory that only looks like a kernel's, to read and to sum up."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.gcpause import paused_gc
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.reader import GraphReader
from rmaplab.realkernel.target import Machine, Target, Task
from rmaplab.report.inspection import Inspection, inspection_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rmaplab.snapshot import Snapshot

_PAGE = 4096
_LEAF = 1  # maple_leaf_64
_SPACE = 1 << 24  # bytes of a process
_BASE = 0xFFFF_8880_0000_0000


class Shape(NamedTuple):
    """So many processes, each the child of the one before, with so many VMAs, each with a chain of that length."""

    processes: int = 670
    vmas: int = 15  # one node of a maple tree
    chain: int = 100


class Objects:
    """Memory as a dictionary of objects by address."""

    def __init__(self) -> None:
        self.objects: dict[int, bytes] = {}

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        """As a kernel's memory, from the first member that is read on."""
        get = self.objects.get
        return [get(address) for address in addresses]


class BigGraph:
    """The memory and a target to read it by; made once, read many times."""

    def __init__(self, layout: Path, shape: Shape | None = None) -> None:
        self.shape = shape = Shape() if shape is None else shape
        self.layout = Layout.of_file(layout)
        self.memory = Objects()
        self.target = Target(self.memory, self.layout, Machine(), release="7.0")  # type: ignore[arg-type]
        self.reader_fields = GraphReader(self.target).fields
        for process in range(shape.processes):
            self._process(process)

    def _put(self, kind: str, address: int, **members: int) -> None:
        """An object of which only what is read is there: its members by the name in the layout."""
        fields = self.reader_fields[kind]
        data = bytearray(fields.size)
        for name, value in members.items():
            member, _, extra = name.partition("_plus_")
            at = self.layout.offset(f"{kind}.{member}") + int(extra or 0) - fields.start
            struct.pack_into("<i" if member == "refcount" else "<Q", data, at, value)
        self.memory.objects[address + fields.start] = bytes(data)

    def mm(self, process: int) -> int:
        """Address of a process's mm_struct."""
        return _BASE + process * _SPACE

    def vma(self, process: int, number: int) -> int:
        """Address of one of its VMAs."""
        return self.mm(process) + 0x1000 + 0x200 * number

    def anon_vma(self, process: int, number: int) -> int:
        """Address of the anon_vma of that VMA's own."""
        return self.mm(process) + 0x10000 + 0x100 * number

    def avc(self, process: int, number: int, link: int) -> int:
        """The link to the anon_vma of the ancestor ``link`` generations up."""
        return self.mm(process) + 0x100000 + 0x80 * (number * self.shape.chain + link)

    def _process(self, process: int) -> None:
        shape, layout = self.shape, self.layout
        node = bytearray(256)
        pivot, slot = layout.offset("maple_range_64.pivot"), layout.offset("maple_range_64.slot")
        maple = self.mm(process) + 0x800
        for number in range(shape.vmas):
            struct.pack_into("<Q", node, pivot + 8 * number, (number + 2) * _PAGE - 1)
            struct.pack_into("<Q", node, slot + 8 * number, self.vma(process, number))
            self._vma(process, number)
        self.memory.objects[maple] = bytes(node)
        fields = self.reader_fields["mm_struct"]
        data = bytearray(fields.size)
        at = layout.offset("mm_struct.mm_mt.ma_root") - fields.start
        struct.pack_into("<Q", data, at, maple | _LEAF << 3 | 2)
        self.memory.objects[self.mm(process) + fields.start] = bytes(data)

    def _vma(self, process: int, number: int) -> None:
        shape, vma = self.shape, self.vma(process, number)
        length = min(shape.chain, process + 1)
        same_vma = self.layout.offset("anon_vma_chain.same_vma")
        head = vma + self.layout.offset("vm_area_struct.anon_vma_chain")
        start = (number + 1) * _PAGE
        self._put(
            "vm_area_struct",
            vma,
            vm_start=start,
            vm_end=start + _PAGE,
            vm_flags=3,
            vm_pgoff=start // _PAGE,
            anon_vma=self.anon_vma(process, number),
            anon_vma_chain=self.avc(process, number, 0) + same_vma,
        )
        rb = self.layout.offset("anon_vma_chain.rb")
        for link in range(length):
            ancestor = process - link
            last = min(self.shape.processes - 1, ancestor + shape.chain - 1)
            following = self.avc(process, number, link + 1) + same_vma if link + 1 < length else head
            right = self.avc(process + 1, number, link + 1) + rb if process < last else 0
            self._put(
                "anon_vma_chain",
                self.avc(process, number, link),
                vma=vma,
                anon_vma=self.anon_vma(ancestor, number),
                same_vma=following,
                rb_plus_8=right,
            )
        self._put(
            "anon_vma",
            self.anon_vma(process, number),
            root=self.anon_vma(0, number),
            parent=self.anon_vma(max(0, process - 1), number),
            refcount=1,
            num_children=1,
            num_active_vmas=1,
            rb_root=self.avc(process, number, 0) + rb,
        )

    @property
    def avcs(self) -> int:
        """How many links there are."""
        shape = self.shape
        return shape.vmas * sum(min(shape.chain, process + 1) for process in range(shape.processes))

    def read(self) -> Snapshot:
        """All of it, as `inspect --no-pages` does."""
        tasks = [Task(number + 1, "bench", self.mm(number)) for number in range(self.shape.processes)]
        with paused_gc():
            graph = GraphReader(self.target).read(tasks, folios=False)
            assert len(graph.avcs) == self.avcs
            return graph.snapshot(layout=self.layout)

    def reading(self) -> float:
        """AVCs read a second, into a snapshot."""
        began = time.perf_counter()
        self.read()
        return self.avcs / (time.perf_counter() - began)

    @staticmethod
    def summing_up(snapshot: Snapshot) -> float:
        """Seconds for the operator's summary."""
        began = time.perf_counter()
        inspection_text(Inspection("bench", "v7.0", snapshot))
        return time.perf_counter() - began
