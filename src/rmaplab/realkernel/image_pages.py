# SPDX-License-Identifier: GPL-2.0-only
"""Writes page tables and struct pages as x86-64 has them.

Formats: arch/x86/include/asm/pgtable_types.h, pgtable_64.h and
pgtable-invert.h; include/linux/mm_types.h, page-flags.h and swapops.h; read
in 6.12 and 7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT, VM_ACCESS_FLAGS
from rmaplab.kernel.pagetable import GuardMarker, Pte, SwapPte
from rmaplab.realkernel.image_memory import PAGE_OFFSET, VMEMMAP

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Folio, Mm, StableNode
    from rmaplab.kernel.pagetable import Entry
    from rmaplab.realkernel.image_memory import Slabs

__all__ = ["PageWriter"]

_PRESENT, _RW, _USER, _ACCESSED, _DIRTY, _LARGE, _PROTNONE = 0x1, 0x2, 0x4, 0x20, 0x40, 0x80, 0x100
_NX = 1 << 63
_FRAME = 0x000F_FFFF_FFFF_F000
_WORD = (1 << 64) - 1
_SWAP_EXCLUSIVE = 1 << 3
_PTE_MARKER, _GUARD = 31, 4
_ANON, _KSM = 1, 2  # low bits of folio.mapping
_TABLES_BELOW = (39, 30, 21)  # shifts of the levels whose entries name tables: pgd, pud, pmd
_FIRST_FRAME = 1 << 18  # of user memory; what is in it is not written


class PageWriter:
    """Page tables of mms, and the struct page of every page that they map."""

    def __init__(self, slabs: Slabs, anon_vmas: dict[AnonVma, int]) -> None:
        self.slabs = slabs
        self.layout = slabs.layout
        self.anon_vmas = anon_vmas
        self.page_size = self.layout.size("page")
        self.next_frame = _FIRST_FRAME
        self.frames: dict[Folio, int] = {}
        self.nodes: dict[StableNode, int] = {}
        self.head = 1 << self.layout.enums.get("PG_head", 6)
        exclusive = self.layout.enums.get("PG_anon_exclusive")
        self.exclusive = 0 if exclusive is None else 1 << exclusive

    # --- page tables -------------------------------------------------------------------------

    def write_tables(self, mm: Mm) -> int:
        """All entries of an mm; the address of its pgd."""
        tables: dict[tuple[int, int], int] = {}
        pgd = self.slabs.page()
        for address, huge in mm.page_table.pmds.items():
            table = self.table(pgd, tables, address, _TABLES_BELOW[-1])
            value = self.present(huge.folio, 0, huge.writable, _readable(mm, address)) | _LARGE
            self.set(table, address >> PMD_SHIFT, value)
        for address, entry in mm.page_table:
            table = self.table(pgd, tables, address, PAGE_SHIFT)
            self.set(table, address >> PAGE_SHIFT, self.entry(mm, address, entry))
        return pgd

    def table(self, pgd: int, tables: dict[tuple[int, int], int], address: int, shift: int) -> int:
        """The table whose entries span ``1 << shift`` bytes; those above it are made as needed."""
        above = pgd
        for level in _TABLES_BELOW:
            if level == shift:
                break
            key = level, address >> level
            if key not in tables:
                tables[key] = self.slabs.page()
                flags = _PRESENT | _RW | _USER | _ACCESSED | _DIRTY
                self.set(above, address >> level, tables[key] - PAGE_OFFSET | flags)
            above = tables[key]
        return above

    def set(self, table: int, index: int, value: int) -> None:
        """Write one of the 512 entries of a table."""
        self.slabs.memory.write(table + (index & 511) * 8, value.to_bytes(8, "little"))

    def entry(self, mm: Mm, address: int, entry: Entry) -> int:
        """The word for an entry of the lowest level; migration entries do not outlive a call and are left out."""
        if isinstance(entry, Pte):
            return self.present(entry.folio, entry.page, entry.writable, _readable(mm, address))
        if isinstance(entry, SwapPte):
            return _swap_entry(0, entry.slot.id + 1) | (_SWAP_EXCLUSIVE if entry.exclusive else 0)
        return _swap_entry(_PTE_MARKER, _GUARD) if isinstance(entry, GuardMarker) else 0

    def present(self, folio: Folio, page: int, writable: bool, readable: bool) -> int:
        """An entry for a page; where nothing may be accessed it is not present to the processor, and inverted."""
        frame = (self.frame(folio) + page) << PAGE_SHIFT
        flags = _USER | _ACCESSED | _NX | (_RW | _DIRTY if writable else 0)
        if readable:
            return frame | flags | _PRESENT
        return (~frame & _FRAME) | flags | _PROTNONE

    # --- struct pages ------------------------------------------------------------------------

    def frame(self, folio: Folio) -> int:
        """Number of the first page frame of a folio, which is written when first met."""
        if folio not in self.frames:
            pages = 1 << folio.order
            self.next_frame = -(-self.next_frame // pages) * pages
            self.frames[folio] = self.next_frame
            self.write_pages(folio, VMEMMAP + self.next_frame * self.page_size)
            self.next_frame += max(pages, 4)  # struct folio is about four pages of a large one
        return self.frames[folio]

    def write_pages(self, folio: Folio, head: int) -> None:
        """A folio's struct pages."""
        pages, put = 1 << folio.order, self.slabs.put
        self.slabs.memory.write(head, bytes(pages * self.page_size))
        for page in range(pages):
            flags = self.exclusive if folio.exclusive >> page & 1 else 0
            put(head + page * self.page_size, "folio.flags", flags | (self.head if pages > 1 and page == 0 else 0))
            put(head + page * self.page_size, "folio._mapcount", -1, "i")
        for page in range(1, pages):
            self.put_tail(head, head + page * self.page_size, pages)
        for lru in ("page.compound_head", "page.compound_info"):
            put(head, lru, head)  # the first word of a list's link: an address, hence even
        put(head, "folio.mapping", self.mapping(folio))
        put(head, "folio.index", folio.index)
        put(head, "folio.__folio_index", folio.index)
        if pages == 1:
            put(head, "folio._mapcount", folio.mapcount - 1, "i")
            return
        put(head, "folio._flags_1", folio.order | (self.exclusive if folio.exclusive & 2 else 0))
        put(head, "folio._folio_order", folio.order, "B")
        put(head, "folio._large_mapcount", folio.mapcount - 1, "i")
        put(head, "folio._total_mapcount", folio.mapcount - 1, "i")
        put(head, "folio._entire_mapcount", -1, "i")
        put(head, "folio._pincount", folio.pins, "i")

    def put_tail(self, head: int, page: int, pages: int) -> None:
        """How a page tells the first of its folio: by its address, or by a mask that leads to it (v7.1)."""
        put = self.slabs.put
        put(page, "page.compound_head", head | 1)
        has_mask = self.page_size & (self.page_size - 1) == 0
        put(page, "page.compound_info", (-pages * self.page_size & _WORD if has_mask else head) | 1)

    def mapping(self, folio: Folio) -> int:
        """``folio.mapping`` with the bits that say what it points to; that of a file is not followed by anyone."""
        if folio.stable_node is not None:
            node = folio.stable_node
            if node not in self.nodes:
                self.nodes[node] = self.slabs.allocate(PAGE_SIZE, 64)
            return self.nodes[node] | _ANON | _KSM
        if folio.mapping is not None:
            return self.anon_vmas[folio.mapping] | _ANON
        return 0 if folio.anon or folio.id == 0 else self.slabs.allocate(64, 64)


def _readable(mm: Mm, address: int) -> bool:
    vma = mm.lookup(address)
    return vma is None or bool(vma.vm_flags & VM_ACCESS_FLAGS)


def _swap_entry(kind: int, offset: int) -> int:
    """Type in the topmost five bits, the offset inverted below (pgtable_64.h)."""
    return kind << 59 | (~offset << 14 & _WORD) >> 5
