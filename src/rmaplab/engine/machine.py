# SPDX-License-Identifier: GPL-2.0-only
"""One machine of the engine: its arrays, the state of a specification's kernel in them, and snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from rmaplab.engine.calls import make
from rmaplab.engine.choice import UnsupportedError
from rmaplab.engine.fork import process_add
from rmaplab.engine.gup import add_pin
from rmaplab.engine.interval_tree import interval_tree_insert
from rmaplab.engine.jit import entry
from rmaplab.engine.ksm import insert_item, insert_node
from rmaplab.engine.layout import (
    ANON_VMA,
    AVC,
    FIRST,
    FOLIO,
    IDS,
    MACHINE,
    MM,
    PARAMS,
    ROW,
    SLAB,
    SLOT,
    VMA,
    Avcs,
    Rows,
)
from rmaplab.engine.pagetable import FILE_PAGE, GUARD, ZERO_PAGE, pte_set
from rmaplab.engine.parameters import parameters_of
from rmaplab.engine.rmap import anon_vma_chain_assign
from rmaplab.engine.rows import new_avc, new_row
from rmaplab.engine.vma_adjust import vma_iter_store
from rmaplab.kernel import objects
from rmaplab.kernel.pagetable import GuardMarker, Pte, SwapPte

if TYPE_CHECKING:
    from rmaplab.kernel import Kernel

__all__ = ["Machine"]


class Machine:
    """Two arrays with room for so many objects (``m``) and AVCs (``c``), with the logic of a series.

    ``keeps``: freed objects stay what they were until they are settled, for
    series that use them.  ``watched``: the monitor's reports and counts are wanted.
    """

    def __init__(
        self, series: type[Kernel], rows: int = 4096, avcs: int = 4096, *, keeps: bool = False, watched: bool = False
    ) -> None:
        self.series = series
        self.m: Any = np.zeros(rows, ROW)
        self.c: Any = np.zeros(avcs, AVC)
        machine = self.m[MACHINE]
        machine["used"], machine["used_avcs"] = FIRST, 1
        machine["keeps"], machine["watched"] = keeps, watched
        for name, value in parameters_of(series).items():
            self.m[PARAMS][name] = value
        self.files: dict[str | None, int] = {None: 0}

    def file(self, name: str | None) -> int:
        """The number of a file."""
        return self.files.setdefault(name, len(self.files))

    def call(self, call: int, process: int, *arguments: int) -> int:
        """Make a call (:mod:`rmaplab.engine.calls`); its result."""
        a, b, d, e, f, g = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
        result: int = _call(self.m, self.c, call, process, a, b, d, e, f, g)
        return result

    def plan(self, n: int, *, nowait_only: bool = False) -> None:
        """Fail the n-th allocation of an anon_vma or AVC from now (0: none)."""
        slab = self.m[SLAB]
        slab["fail_at"], slab["nowait_only"] = n, nowait_only
        slab["count"] = slab["failed"] = slab["retrying"] = 0

    def load(self, kernel: Kernel) -> None:
        """Take over the state of a kernel; the machine is new.  :class:`UnsupportedError` if something is unknown."""
        _Loader(self).load(kernel)


@entry
def _call(m: Rows, c: Avcs, call: int, process: int, a: int, b: int, d: int, e: int, f: int, g: int) -> int:
    return make(m, c, call, process, a, b, d, e, f, g)


@entry
def _new_row(m: Rows, kind: int) -> int:
    return new_row(m, kind)


@entry
def _link(m: Rows, c: Avcs, vma: int, anon_vma: int) -> int:
    """A new AVC at the head of the VMA's list; the tree is another step."""
    avc = new_avc(m, c)
    anon_vma_chain_assign(m, c, vma, avc, anon_vma)
    return avc


@entry
def _insert(m: Rows, c: Avcs, avc: int, anon_vma: int) -> None:
    interval_tree_insert(m, c, avc, anon_vma, 0)


@entry
def _store(m: Rows, vma: int) -> None:
    vma_iter_store(m, vma)


@entry
def _set(m: Rows, mm: int, address: int, entry: int) -> None:
    pte_set(m, mm, address, entry)


@entry
def _pin(m: Rows, mm: int, address: int, folio: int) -> None:
    add_pin(m, mm, address, folio)


@entry
def _node(m: Rows, content: int, folio: int) -> int:
    return insert_node(m, content, folio)


@entry
def _item(m: Rows, node: int, mm: int, address: int, anon_vma: int, pgoff: int) -> None:
    insert_item(m, node, mm, address, anon_vma, pgoff)


@entry
def _process(m: Rows, number: int, mm: int) -> int:
    return process_add(m, number, mm)


class _Loader:
    """Copies a kernel object by object."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.m, self.c = machine.m, machine.c
        self.anon_vmas: dict[objects.AnonVma, int] = {}
        self.folios: dict[objects.Folio, int] = {objects.ZERO_PAGE: ZERO_PAGE, objects.FILE_PAGE: FILE_PAGE}
        self.slots: dict[objects.SwapSlot, int] = {}
        self.mms: dict[objects.Mm, int] = {}
        self.processes: dict[str, int] = {}

    def load(self, kernel: Kernel) -> None:
        m, c = self.m, self.c
        for anon_vma in kernel.live_anon_vmas.values():
            self.anon_vma(anon_vma)
        for anon_vma in kernel.live_anon_vmas.values():
            row = self.anon_vmas[anon_vma]
            if anon_vma.root.freed:
                raise UnsupportedError("an anon_vma whose root is freed")
            m[row]["root"] = self.anon_vmas[anon_vma.root]
            m[row]["parent"] = self.anon_vmas.get(anon_vma.parent, row)  # KSM may keep one longer than its parent
            m[row]["parent_id"] = anon_vma.parent.id
        avcs: dict[objects.AnonVmaChain, int] = {}
        for number, process in enumerate(kernel.processes.values()):
            mm = process.mm
            if mm not in self.mms:
                self.mms[mm] = self.mm(mm, avcs)
            _process(m, number, self.mms[mm])
        for anon_vma, row in self.anon_vmas.items():
            for avc in anon_vma.rb_root.keys:
                if avc not in avcs:
                    raise UnsupportedError("an AVC that no VMA has")
                _insert(m, c, avcs[avc], row)
        for node in kernel.stable_tree.values():
            self.node(node)
        if any(
            folio.stable_node is not None and not self.m[row]["stable_node"] for folio, row in self.folios.items()
        ):
            raise UnsupportedError("a page of KSM's that has left the stable tree")
        slab = kernel.slab
        m[IDS]["anon_vmas"], m[IDS]["avcs"] = slab.anon_vma.made, slab.anon_vma_chain.made
        m[IDS]["vma_ids"], m[IDS]["mm_ids"] = kernel.idents[objects.Vma], kernel.idents[objects.Mm]
        m[IDS]["shmem_ids"] = kernel.idents["shmem"]
        m[SLAB]["live_anon_vmas"], m[SLAB]["live_avcs"] = slab.anon_vma.in_use, slab.anon_vma_chain.in_use
        m[SLAB]["bytes"] = slab.bytes

    def anon_vma(self, anon_vma: objects.AnonVma) -> None:
        row = self.anon_vmas[anon_vma] = _new_row(self.m, ANON_VMA)
        for name in ("id", "refcount", "num_children", "num_active_vmas", "degree"):
            value = getattr(anon_vma, name)
            self.m[row][name] = value - (1 << 64) if value >> 63 else value
        self.m[row]["linked"] = anon_vma.linked

    def mm(self, mm: objects.Mm, avcs: dict[objects.AnonVmaChain, int]) -> int:
        m = self.m
        row = _new_row(m, MM)
        if mm.page_table.pmds:
            raise UnsupportedError("huge pages")
        for name in ("id", "users", "start_brk", "brk", "has_pinned"):
            m[row][name] = getattr(mm, name)
        for vma in mm.vmas:
            number = _new_row(m, VMA)
            for name in ("id", "vm_end", "vm_pgoff", "anon_pgoff", "vm_flags"):
                m[number][name] = getattr(vma, name)
            m[number]["key"], m[number]["vm_mm"] = vma.vm_start, row
            m[number]["file"] = self.machine.file(vma.file)
            if vma.anon_vma is not None:
                m[number]["anon_vma"] = self.anon_vmas[vma.anon_vma]
            for avc in reversed(vma.anon_vma_chain):
                avcs[avc] = _link(m, self.c, number, self.anon_vmas[avc.anon_vma])
            _store(m, number)
        for address, pte in mm.page_table:
            _set(m, row, address, self.entry(pte))
        pins = {folio: self.folio(folio) for _, folio in mm.pinned}
        for address, folio in mm.pinned:
            _pin(m, row, address, pins[folio])
        return row

    def node(self, node: objects.StableNode) -> None:
        """A node of the stable tree with its items, the oldest first, as each goes in front of all others."""
        folio = self.folio(node.folio)
        row = _node(self.m, crc32(node.content.encode()), folio)
        if node.folio.stable_node is node:
            self.m[folio]["stable_node"] = row
        for item in reversed(node.items):
            mm = self.mms.get(item.mm, -item.mm.id)
            _item(self.m, row, mm, item.address, self.anon_vmas[item.anon_vma], item.pgoff)

    def entry(self, pte: object) -> int:
        if isinstance(pte, GuardMarker):
            return 2 * GUARD
        if isinstance(pte, SwapPte):
            return -(2 * self.slot(pte.slot) + pte.exclusive)
        if not isinstance(pte, Pte):
            raise UnsupportedError("a migration under way")
        return 2 * self.folio(pte.folio) + pte.writable

    def folio(self, folio: objects.Folio) -> int:
        row = self.folios.get(folio)
        if row is None:
            if folio.order:
                raise UnsupportedError("a large page")
            if folio.mapping is not None and folio.mapping not in self.anon_vmas:
                raise UnsupportedError("a page that names a freed anon_vma")
            row = self.folios[folio] = _new_row(self.m, FOLIO)
            if folio.mapping is not None:
                self.m[row]["mapping"] = self.anon_vmas[folio.mapping]
            if folio.slot is not None:
                self.m[row]["slot"] = self.slot(folio.slot)
            for name in ("index", "mapcount", "exclusive"):
                self.m[row][name] = getattr(folio, name)
        return row

    def slot(self, slot: objects.SwapSlot) -> int:
        row = self.slots.get(slot)
        if row is None:
            row = self.slots[slot] = _new_row(self.m, SLOT)
            self.m[row]["swap_count"] = slot.count
            if slot.folio is not None:
                self.m[row]["cached"] = self.folio(slot.folio)
        return row
