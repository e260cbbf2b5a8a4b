# SPDX-License-Identifier: GPL-2.0-only
"""Page tables and the kinds of entry they hold (include/linux/pgtable.h and swapops.h, v7.0).

Addresses are in bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, PMD_SHIFT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel.objects import Folio, SwapSlot

__all__ = ["Entry", "GuardMarker", "MigrationPte", "PageTable", "Pte", "SwapPte"]


class Pte:
    """A present entry: subpage ``page`` of a folio; in ``PageTable.pmds`` the whole folio."""

    __slots__ = ("folio", "page", "writable")
    present: ClassVar[bool] = True

    def __init__(self, folio: Folio, writable: bool, page: int = 0) -> None:
        self.folio = folio
        self.writable = writable
        self.page = page


class SwapPte:
    """A swap entry; ``exclusive``: the page was this process's alone when it was swapped out."""

    __slots__ = ("exclusive", "slot")
    present: ClassVar[bool] = False

    def __init__(self, slot: SwapSlot, exclusive: bool) -> None:
        self.slot = slot
        self.exclusive = exclusive


class MigrationPte:
    """A migration entry for subpage ``page`` of ``folio``, the one that is being moved away."""

    __slots__ = ("exclusive", "folio", "page", "writable")
    present: ClassVar[bool] = False

    def __init__(self, folio: Folio, writable: bool, exclusive: bool, page: int = 0) -> None:
        self.folio = folio
        self.writable = writable
        self.exclusive = exclusive
        self.page = page


class GuardMarker:
    """A guard entry (MADV_GUARD_INSTALL, v6.13): any access is a fault."""

    __slots__ = ()
    present: ClassVar[bool] = False


Entry = Pte | SwapPte | MigrationPte | GuardMarker


class PageTable:
    """Entries of one mm by address, in tables of 512 as on x86-64, and huge ones in ``pmds`` by their start."""

    __slots__ = ("pmds", "tables")

    def __init__(self) -> None:
        self.tables: dict[int, dict[int, Entry]] = {}
        self.pmds: dict[int, Pte] = {}

    def get(self, address: int) -> Entry | None:
        """Entry of the page that starts at ``address``, or None."""
        table = self.tables.get(address >> PMD_SHIFT)
        return None if table is None else table.get(address)

    def present(self, address: int) -> Pte | None:
        """The present entry of a page, be it part of a huge one, or None."""
        entry = self.get(address)
        if type(entry) is Pte:
            return entry
        huge = self.pmds.get(address >> PMD_SHIFT << PMD_SHIFT) if self.pmds else None
        if huge is None:
            return None
        return Pte(huge.folio, huge.writable, (address & ((1 << PMD_SHIFT) - 1)) >> PAGE_SHIFT)

    def set(self, address: int, entry: Entry) -> None:
        """Install an entry."""
        table = self.tables.get(address >> PMD_SHIFT)
        if table is None:
            table = self.tables[address >> PMD_SHIFT] = {}
        table[address] = entry

    def clear(self, address: int) -> None:
        """Remove an entry; its table goes with its last one."""
        key = address >> PMD_SHIFT
        table = self.tables[key]
        del table[address]
        if not table:
            del self.tables[key]

    def range(self, start: int, end: int) -> list[tuple[int, Entry]]:
        """Entries with start <= address < end (bytes), ascending; huge ones are not among them."""
        first, last = start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT
        if first == last:
            keys = [first] if first in self.tables else []
        elif last - first < len(self.tables):
            keys = [key for key in range(first, last + 1) if key in self.tables]
        else:
            keys = sorted(key for key in self.tables if first <= key <= last)
        found: list[tuple[int, Entry]] = []
        for key in keys:
            table = self.tables[key]
            low, high = max(start, key << PMD_SHIFT), min(end, (key + 1) << PMD_SHIFT)
            if (high - low) >> PAGE_SHIFT < len(table):
                found += [(address, table[address]) for address in range(low, high, PAGE_SIZE) if address in table]
            else:
                found += sorted((item for item in table.items() if low <= item[0] < high), key=_address)
        return found

    def huge_range(self, start: int, end: int) -> list[tuple[int, Pte]]:
        """Huge entries that [start, end) meets, ascending."""
        if not self.pmds:
            return []
        size = 1 << PMD_SHIFT
        return sorted((item for item in self.pmds.items() if item[0] < end and item[0] + size > start), key=_address)

    def entries(self) -> list[tuple[int, Entry]]:
        """All entries but huge ones, ascending."""
        entries = [item for table in self.tables.values() for item in table.items()]
        if len(entries) > 1:
            entries.sort(key=_address)
        return entries

    def __iter__(self) -> Iterator[tuple[int, Entry]]:
        """All entries but huge ones, ascending."""
        return iter(self.entries())


def _address(item: tuple[int, object]) -> int:
    return item[0]
