# SPDX-License-Identifier: GPL-2.0-only
"""The structures: anon_vma, anon_vma_chain, VMA, mm, folio and page table.

Fields carry the kernel's names (include/linux/mm_types.h and rmap.h, v7.0).
Addresses are in bytes, page offsets in pages of 4 KiB.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE
from rmaplab.kernel.interval_tree import IntervalTree

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "FILE_PAGE",
    "ZERO_PAGE",
    "AnonVma",
    "AnonVmaChain",
    "Folio",
    "Mm",
    "PageTable",
    "Pte",
    "Vma",
]


class AnonVma:
    """struct anon_vma: one node in the tree of VMAs that a page may be mapped by.

    ``linked`` remembers whether a VMA was ever linked to it; an object freed
    without that was allocated in vain.
    """

    __slots__ = (
        "freed",
        "id",
        "linked",
        "num_active_vmas",
        "num_children",
        "parent",
        "rb_root",
        "refcount",
        "root",
    )

    def __init__(self, ident: int) -> None:
        self.id = ident
        self.root: AnonVma = self
        self.parent: AnonVma = self
        self.refcount = 0
        self.num_children = 0
        self.num_active_vmas = 0
        self.rb_root = IntervalTree()
        self.linked = False
        self.freed = False

    def __repr__(self) -> str:
        return f"av{self.id}"


class AnonVmaChain:
    """struct anon_vma_chain: links one VMA to one anon_vma (AVC)."""

    __slots__ = ("anon_vma", "freed", "id", "linked", "vma")

    vma: Vma
    anon_vma: AnonVma

    def __init__(self, ident: int) -> None:
        self.id = ident
        self.linked = False
        self.freed = False

    def __repr__(self) -> str:
        return f"avc{self.id}"


class Vma:
    """struct vm_area_struct, as far as the reverse map reads it.

    ``anon_vma_chain`` is the same_vma list, head first.  ``file`` is None for
    anonymous memory.
    """

    __slots__ = (
        "anon_vma",
        "anon_vma_chain",
        "attached",
        "file",
        "freed",
        "id",
        "vm_end",
        "vm_flags",
        "vm_mm",
        "vm_pgoff",
        "vm_start",
    )

    def __init__(
        self, ident: int, mm: Mm, start: int, end: int, pgoff: int, flags: int, file: str | None = None
    ) -> None:
        self.id = ident
        self.vm_mm = mm
        self.vm_start = start
        self.vm_end = end
        self.vm_pgoff = pgoff
        self.vm_flags = flags
        self.file = file
        self.anon_vma: AnonVma | None = None
        self.anon_vma_chain: list[AnonVmaChain] = []
        self.attached = False
        self.freed = False

    def __repr__(self) -> str:
        return f"vma{self.id}"


class Folio:
    """A small folio (one page).  ``mapping`` names an anon_vma, or None if it is not anonymous.

    ``exclusive`` is PageAnonExclusive, ``index`` the linear page offset at
    the first mapping, ``mapcount`` the number of page-table entries.
    """

    __slots__ = ("exclusive", "id", "index", "mapcount", "mapping")

    def __init__(self, ident: int) -> None:
        self.id = ident
        self.mapping: AnonVma | None = None
        self.index = 0
        self.mapcount = 0
        self.exclusive = False

    def __repr__(self) -> str:
        return f"folio{self.id}"


ZERO_PAGE = Folio(0)  # the shared zero page: never reverse mapped
FILE_PAGE = Folio(-1)  # stands for any page-cache page: its reverse map is not this one


class Pte:
    """A present page-table entry."""

    __slots__ = ("folio", "writable")

    def __init__(self, folio: Folio, writable: bool) -> None:
        self.folio = folio
        self.writable = writable


class PageTable:
    """Present entries of one mm by address (bytes), in tables of 512 as on x86-64."""

    __slots__ = ("tables",)

    SHIFT = PAGE_SHIFT + 9

    def __init__(self) -> None:
        self.tables: dict[int, dict[int, Pte]] = {}

    def get(self, address: int) -> Pte | None:
        """Entry of the page that starts at ``address``, or None."""
        table = self.tables.get(address >> self.SHIFT)
        return None if table is None else table.get(address)

    def set(self, address: int, pte: Pte) -> None:
        """Install an entry."""
        table = self.tables.get(address >> self.SHIFT)
        if table is None:
            table = self.tables[address >> self.SHIFT] = {}
        table[address] = pte

    def clear(self, address: int) -> None:
        """Remove an entry; its table goes with its last one."""
        key = address >> self.SHIFT
        table = self.tables[key]
        del table[address]
        if not table:
            del self.tables[key]

    def range(self, start: int, end: int) -> list[tuple[int, Pte]]:
        """Entries with start <= address < end (bytes), ascending."""
        first, last = start >> self.SHIFT, (end - 1) >> self.SHIFT
        if last - first < len(self.tables):
            keys = [key for key in range(first, last + 1) if key in self.tables]
        else:
            keys = sorted(key for key in self.tables if first <= key <= last)
        found: list[tuple[int, Pte]] = []
        for key in keys:
            table = self.tables[key]
            low, high = max(start, key << self.SHIFT), min(end, (key + 1) << self.SHIFT)
            if (high - low) >> PAGE_SHIFT < len(table):
                found += [(address, table[address]) for address in range(low, high, PAGE_SIZE) if address in table]
            else:
                found += sorted((item for item in table.items() if low <= item[0] < high), key=_address)
        return found

    def __iter__(self) -> Iterator[tuple[int, Pte]]:
        """All entries, ascending."""
        for key in sorted(self.tables):
            yield from sorted(self.tables[key].items(), key=_address)


def _address(item: tuple[int, Pte]) -> int:
    return item[0]


def _vm_end(vma: Vma) -> int:
    return vma.vm_end


class Mm:
    """struct mm_struct: the VMAs in address order (the maple tree) and the page table."""

    __slots__ = ("brk", "id", "page_table", "users", "vmas")

    def __init__(self, ident: int) -> None:
        self.id = ident
        self.vmas: list[Vma] = []
        self.page_table = PageTable()
        self.users = 1
        self.brk = 0  # end of the heap in bytes, 0 before the first brk()

    def __repr__(self) -> str:
        return f"mm{self.id}"

    def find(self, address: int) -> int:
        """Position of the first VMA that ends above ``address`` (``find_vma``)."""
        return bisect_right(self.vmas, address, key=_vm_end)

    def lookup(self, address: int) -> Vma | None:
        """The VMA that contains ``address``, or None (``vma_lookup``)."""
        at = self.find(address)
        if at < len(self.vmas) and self.vmas[at].vm_start <= address:
            return self.vmas[at]
        return None

    def neighbours(self, start: int, end: int) -> tuple[Vma | None, Vma | None]:
        """The VMAs that end at ``start`` and begin at ``end``, if they touch."""
        prev = self.lookup(start - 1)
        following = self.lookup(end)
        return (
            prev if prev is not None and prev.vm_end == start else None,
            following if following is not None and following.vm_start == end else None,
        )
