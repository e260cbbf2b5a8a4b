# SPDX-License-Identifier: GPL-2.0-only
"""Follows page tables to the anonymous folios that VMAs map."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, VM_MAYBE_GUARD
from rmaplab.realkernel.graph import Graph, RawFolio, RawPte, RawSwap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmaplab.realkernel.target import Machine, Target

__all__ = ["FolioReader"]

_ENTRIES = 512  # of 8 bytes in a table of any level
_FRAME = 0x000F_FFFF_FFFF_F000  # the physical address in an entry
_WORD = (1 << 64) - 1
_PTE_MARKER, _GUARD = 31, 4  # swapops.h: the type of markers, and the bit of a guard
_MOST_ORDER = 18  # of pages of 1 GiB
_MOST_SWAPFILES = 23  # types above are migration, device and hardware-error entries


class Bits(NamedTuple):
    """The bits of a page-table entry (pgtable.h, pgtable_types.h of an architecture)."""

    present: int
    protnone: int
    write: int
    large: int
    swap_exclusive: int


class Leaf(NamedTuple):
    """An entry that maps memory, or that stands for memory that is elsewhere."""

    task: int
    address: int
    value: int
    pages: int


class Table(NamedTuple):
    """A page table at an address, which is about addresses from ``base`` on; of these, ``ranges`` [start, end)."""

    task: int
    address: int
    base: int
    ranges: list[tuple[int, int]]


BITS = {
    "x86_64": Bits(present=0x1, protnone=0x100, write=0x2, large=0x80, swap_exclusive=0x8),
    "um": Bits(present=0x1, protnone=0x10, write=0x20, large=0, swap_exclusive=0x400),
}


class FolioReader:
    """Reads the pages of graphs whose VMAs are known; those without an anon_vma map no anonymous page."""

    def __init__(self, target: Target) -> None:
        self.graph = Graph()
        self.memory = target.memory
        self.machine: Machine = target.machine
        self.bits = BITS[target.machine.arch]
        layout = target.layout
        self.page_size = layout.size("page")
        self.places: dict[
            int, tuple[int, int]
        ] = {}  # what each page table is about: without it they may go in circles
        index = "index" if layout.has("folio.index") else "__folio_index"
        compound = "compound_info" if layout.has("page.compound_info") else "compound_head"
        self.page = layout.fields("page", (compound, "Q"))
        self.folio = layout.fields("folio", ("flags", "Q"), ("mapping", "Q"), (index, "Q"), ("_mapcount", "i"))
        # An order of its own until v6.5; one mapcount of all since v6.9.
        order = ("_folio_order", "B") if layout.has("folio._folio_order") else ("_flags_1", "Q")
        entire = "_total_mapcount" if layout.has("folio._total_mapcount") else "_entire_mapcount"
        self.large = (
            layout.fields("folio", order, ("_large_mapcount", "i"), (entire, "i"), ("_pincount", "i"))
            if layout.has("folio._flags_1")
            else None
        )
        self.sums_mapcount = layout.has("folio._large_mapcount")
        self.double_bit = 1 << layout.enums["PG_double_map"] if "PG_double_map" in layout.enums else 0
        self.head_bit = 1 << layout.enums.get("PG_head", 6)
        self.exclusive_bit = 1 << layout.enums["PG_anon_exclusive"] if "PG_anon_exclusive" in layout.enums else 0

    def read(self, graph: Graph) -> None:
        """Fill in a graph's folios, swap entries and guards."""
        self.graph, self.places = graph, {}
        leaves = sorted(self.leaves(), key=lambda leaf: (leaf.task, leaf.pages == 1, leaf.address))
        present = []
        for leaf in leaves:
            if leaf.value & (self.bits.present | self.bits.protnone):
                present.append(leaf)
            else:
                self.absent(leaf)
        self.read_pages(present)

    # --- page tables ---------------------------------------------------------------------------

    def leaves(self) -> list[Leaf]:
        """Every entry that is not empty, of the VMAs that may have anonymous pages or guards."""
        found: list[Leaf] = []
        tables: dict[int, Table] = {}
        for number, task in enumerate(self.graph.tasks):
            if task.mm in self.graph.pgds:
                tables.setdefault(task.mm, Table(number, self.graph.pgds[task.mm], 0, []))
        for vma in self.graph.vmas:
            top = tables.get(self.graph.tasks[vma.task].mm)
            if (vma.anon_vma or vma.flags & VM_MAYBE_GUARD) and top is not None and top.task == vma.task:
                top.ranges.append((vma.start, vma.end))
        level = [table for table in tables.values() if table.ranges]
        for number in range(self.machine.levels - 1, -1, -1):
            level = self.read_level(level, PAGE_SHIFT + 9 * number, found)
        return found

    def read_level(self, tables: list[Table], shift: int, found: list[Leaf]) -> list[Table]:
        """The tables of one level; those of the next."""
        read = self.memory.read_many([table.address for table in tables], PAGE_SIZE)
        following: list[Table] = []
        present, large, last = self.bits.present, self.bits.large, shift == PAGE_SHIFT
        mapped, pages = present | self.bits.protnone, 1 << (shift - PAGE_SHIFT)
        for (task, table, base, ranges), data in zip(tables, read, strict=True):
            if data is None or self.places.setdefault(table, (shift, base)) != (shift, base):
                what = "cannot be read" if data is None else "is used in two places"
                self.graph.remarks.append(f"the page table at {table:#x} {what}")
                continue
            entries = memoryview(data).cast("Q")
            below: dict[int, list[tuple[int, int]]] = {}
            for start, end in ranges:
                low = (start - base) >> shift & _ENTRIES - 1
                for at in range(low, min(_ENTRIES, ((end - 1 - base) >> shift) + 1)):
                    value = entries[at]
                    if not value:
                        continue
                    address = base + (at << shift)
                    if last or (value & large and value & mapped):
                        found.append(Leaf(task, address, value, pages))
                    elif value & present:
                        below.setdefault(at, []).append((max(start, address), min(end, address + (1 << shift))))
            for at, parts in below.items():
                following.append(
                    Table(task, self.machine.page_offset + (entries[at] & _FRAME), base + (at << shift), parts)
                )
        return following

    # --- entries that name no page ---------------------------------------------------------------

    def absent(self, leaf: Leaf) -> None:
        """A swap entry, a guard, or something that is neither."""
        kind, offset = self.swap_entry(leaf.value)
        if kind == _PTE_MARKER:
            if offset & _GUARD:
                self.graph.guards.append((leaf.task, leaf.address))
        elif kind < _MOST_SWAPFILES and offset:
            exclusive = bool(leaf.value & self.bits.swap_exclusive)
            self.graph.swap.setdefault((kind, offset), []).append(RawSwap(leaf.task, leaf.address, exclusive))

    def swap_entry(self, value: int) -> tuple[int, int]:
        """Type and offset: x86's from the top, the offset inverted; a user-mode kernel's from bit 5 on."""
        if self.machine.arch == "um":
            return value >> 5 & 31, value >> 11
        return value >> 59, ((~value << 5) & _WORD) >> 14

    def frame(self, value: int) -> int:
        """Page frame number of an entry; x86 inverts those that are not present (pgtable-invert.h)."""
        if self.machine.arch == "x86_64" and not value & self.bits.present:
            value = ~value
        return (value & _FRAME) >> PAGE_SHIFT

    # --- folios -----------------------------------------------------------------------------------

    def read_pages(self, leaves: list[Leaf]) -> None:
        """The struct pages of all entries, and the folios they are part of."""
        pages = [self.machine.vmemmap + self.frame(leaf.value) * self.page_size for leaf in leaves]
        unique = list(dict.fromkeys(pages))
        raw = dict(zip(unique, self.memory.read_many(unique, self.page_size), strict=True))
        heads = {page: self.head_of(page, data) for page, data in raw.items() if data is not None}
        missing = [head for head in dict.fromkeys(heads.values()) if head not in raw]
        raw.update(zip(missing, self.memory.read_many(missing, self.page_size), strict=True))
        unreadable = sum(data is None for data in raw.values())
        if unreadable:
            self.graph.remarks.append(f"{unreadable} struct pages cannot be read")
        self.make_folios(dict.fromkeys(heads.values()), raw)
        for leaf, page in zip(leaves, pages, strict=True):
            data = raw[page]
            folio = self.graph.folios.get(heads.get(page, 0))
            if folio is None or data is None:
                continue
            number = (page - heads[page]) // self.page_size
            flags = int.from_bytes(data[:8], "little")
            folio.exclusive = folio.exclusive and bool(flags & self.exclusive_bit)
            writable = bool(leaf.value & self.bits.write)
            folio.ptes.append(RawPte(leaf.task, leaf.address, writable, number, leaf.pages))

    def head_of(self, page: int, data: bytes) -> int:
        """The first page of its folio (page-flags.h, _compound_head): by address, or since v7.1 by a mask."""
        info: int = self.page.unpack(data[self.page.start :])[0]
        if not info & 1:
            return page
        return info - 1 if info <= page else page & (info - 1)

    def make_folios(self, heads: Iterable[int], raw: dict[int, bytes | None]) -> None:
        """The folios that are anonymous, in order of appearance."""
        for head in heads:
            data = raw[head]
            if data is None:
                continue
            flags, mapping, index, mapcount = self.folio.unpack(data[self.folio.start :])
            if not mapping & 1:
                continue
            ksm = mapping & 3 == 3
            order, pins = 0, 0
            if flags & self.head_bit and self.large is not None:
                order, mapcount, pins = self.read_large(head)
            self.graph.folios[head] = RawFolio(
                anon_vma=0 if ksm else mapping & ~3,
                ksm=ksm,
                index=index,
                mapcount=mapcount + 1,
                order=order,
                pins=pins,
                exclusive=bool(self.exclusive_bit),
            )

    def read_large(self, head: int) -> tuple[int, int, int]:
        """Order, mapcount - 1 and pins of a large folio, that its second page has."""
        assert self.large is not None
        data = self.memory.read_many([head + self.large.start], self.large.size)[0]
        if data is None:
            self.graph.remarks.append(f"the large folio at {head:#x} cannot be read")
            return 0, 0, 0
        info, mapcount, entire, pins = self.large.unpack(data)
        order = info & 0xFF
        if not 0 < order <= _MOST_ORDER:
            self.graph.remarks.append(f"the large folio at {head:#x} cannot have the order {order}")
            return 0, 0, 0
        if not self.sums_mapcount:
            mapcount = entire + self.mapcount_of_pages(head, 1 << order)
        return order, mapcount if mapcount >= 0 else entire, pins

    def mapcount_of_pages(self, head: int, pages: int) -> int:
        """How many entries map single pages of a large folio, before v6.9 (``folio_mapcount``)."""
        found = self.memory.read_many([head + page * self.page_size for page in range(pages)], self.page_size)
        counts = [self.folio.unpack(data[self.folio.start :])[3] + 1 for data in found if data is not None]
        if len(counts) < pages:
            self.graph.remarks.append(f"the large folio at {head:#x}: {pages - len(counts)} pages cannot be read")
        second = found[1]
        # While a huge entry and small ones map it, each page counts the huge ones once as well.
        doubled = second is not None and int.from_bytes(second[:8], "little") & self.double_bit
        total: int = sum(counts)
        return total - pages if doubled else total
