# SPDX-License-Identifier: GPL-2.0-only
"""The structures: anon_vma, anon_vma_chain, VMA, mm, folio, swap slot and KSM's stable node.

Fields carry the kernel's names (include/linux/mm_types.h and rmap.h, v7.0).
Addresses are in bytes, page offsets in pages of 4 KiB.
"""

from __future__ import annotations

from bisect import bisect_right

from rmaplab.kernel.interval_tree import IntervalTree
from rmaplab.kernel.pagetable import PageTable

__all__ = [
    "FILE_PAGE",
    "START_BRK",
    "ZERO_PAGE",
    "AnonVma",
    "AnonVmaChain",
    "Folio",
    "KsmRmapItem",
    "Mm",
    "StableNode",
    "SwapSlot",
    "Vma",
]


class AnonVma:
    """struct anon_vma: one node in the tree of VMAs that a page may be mapped by.

    ``degree`` counts users and children together, on series before v6.0.
    ``linked`` remembers whether a VMA was ever linked to it; an object freed
    without that was allocated in vain.  ``embedded``: part of its VMA and no
    slab object, in designs that defer it.
    """

    __slots__ = (
        "degree",
        "embedded",
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
        self.degree = 0
        self.rb_root = IntervalTree()
        self.linked = False
        self.freed = False
        self.embedded = False

    def __repr__(self) -> str:
        return f"av{self.id}"


class AnonVmaChain:
    """struct anon_vma_chain: links one VMA to one anon_vma (AVC)."""

    __slots__ = ("anon_vma", "embedded", "freed", "id", "linked", "vma")

    vma: Vma
    anon_vma: AnonVma

    def __init__(self, ident: int) -> None:
        self.id = ident
        self.linked = False
        self.freed = False
        self.embedded = False

    def __repr__(self) -> str:
        return f"avc{self.id}"


class Vma:
    """struct vm_area_struct, as far as the reverse map reads it.

    ``anon_vma_chain`` is the same_vma list, head first.  ``file`` is None for
    anonymous memory.  ``anon_pgoff`` is the offset by which anonymous pages
    are indexed: another name of ``vm_pgoff``, but since v7.3 apart from a file's.
    """

    __slots__ = (
        "anon_pgoff",
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
        self.anon_pgoff = pgoff
        self.vm_flags = flags
        self.file = file
        self.anon_vma: AnonVma | None = None
        self.anon_vma_chain: list[AnonVmaChain] = []
        self.attached = False
        self.freed = False

    def __repr__(self) -> str:
        return f"vma{self.id}"


class Folio:
    """A folio of 2**order pages.

    ``anon`` is False for the stand-ins of the zero page and the page cache.
    ``mapping`` names an anon_vma; for a KSM page it is None and
    ``stable_node`` is set.  ``index`` is the linear page offset at the first
    mapping, ``mapcount`` the number of page-table entries (a PMD is one), bit
    k of ``exclusive`` is PageAnonExclusive of subpage k.  ``slot`` is set
    while the folio is in the swap cache, ``pins`` counts FOLL_PIN references.
    """

    __slots__ = (
        "anon",
        "exclusive",
        "id",
        "index",
        "mapcount",
        "mapping",
        "order",
        "pins",
        "slot",
        "stable_node",
    )

    def __init__(self, ident: int, order: int = 0, *, anon: bool = True) -> None:
        self.id = ident
        self.anon = anon
        self.order = order
        self.mapping: AnonVma | None = None
        self.stable_node: StableNode | None = None
        self.index = 0
        self.mapcount = 0
        self.exclusive = 0
        self.slot: SwapSlot | None = None
        self.pins = 0

    def __repr__(self) -> str:
        return f"folio{self.id}"


ZERO_PAGE = Folio(0, anon=False)  # the shared zero page: never reverse mapped
FILE_PAGE = Folio(-1, anon=False)  # stands for any page-cache page: its reverse map is not this one


class SwapSlot:
    """A slot of the swap area: ``count`` entries in page tables name it (swap_map).

    ``folio`` is the page in the swap cache, None if the slot alone has the content.
    """

    __slots__ = ("count", "folio", "id")

    def __init__(self, ident: int) -> None:
        self.id = ident
        self.count = 0
        self.folio: Folio | None = None

    def __repr__(self) -> str:
        return f"slot{self.id}"


class KsmRmapItem:
    """struct ksm_rmap_item: one place where ksmd merged a page; it holds a reference to ``anon_vma``.

    ``address`` is in bytes, ``pgoff`` the page's linear offset at the merge, in pages.
    """

    __slots__ = ("address", "anon_vma", "mm", "pgoff")

    def __init__(self, mm: Mm, address: int, anon_vma: AnonVma, pgoff: int) -> None:
        self.mm = mm
        self.address = address
        self.anon_vma = anon_vma
        self.pgoff = pgoff


class StableNode:
    """struct ksm_stable_node: a page of KSM's stable tree, and the places merged into it."""

    __slots__ = ("content", "folio", "id", "items")

    def __init__(self, ident: int, content: str, folio: Folio) -> None:
        self.id = ident
        self.content = content
        self.folio = folio
        self.items: list[KsmRmapItem] = []

    def __repr__(self) -> str:
        return f"ksm{self.id}"


def _vm_end(vma: Vma) -> int:
    return vma.vm_end


START_BRK = 0x5555_5555_6000  # where heaps begin, in bytes, unless someone knows better


class Mm:
    """struct mm_struct: the VMAs in address order (the maple tree) and the page table."""

    __slots__ = ("brk", "cow_context", "has_pinned", "id", "page_table", "pinned", "start_brk", "users", "vmas")

    def __init__(self, ident: int) -> None:
        self.id = ident
        self.vmas: list[Vma] = []
        self.page_table = PageTable()
        self.users = 1
        self.start_brk = START_BRK  # where the heap begins
        self.brk = 0  # end of the heap in bytes, 0 before the first brk()
        self.cow_context: AnonVma | None = None  # of designs that keep one for a whole mm
        self.has_pinned = False  # MMF_HAS_PINNED: a page was pinned for DMA once
        self.pinned: list[tuple[int, Folio]] = []  # pins of this process: address (bytes) at the time, folio

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
