# SPDX-License-Identifier: GPL-2.0-only
"""KSM: pages of equal content become one (mm/ksm.c, v7.0).

Contents are not modelled: the caller says which pages are equal, by a name.
A merged page names no anon_vma but a node of the stable tree.  For each place
that it merged ksmd keeps an item with a reference to the VMA's anon_vma, and
drops it on a later scan only, so an anon_vma may outlive all its VMAs.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL
from functools import partial
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SIZE, VM_MERGEABLE
from rmaplab.kernel.folio import linear_page_index
from rmaplab.kernel.gup import Gup
from rmaplab.kernel.locking import FOLIO_LOCK, MMAP_LOCK, READ
from rmaplab.kernel.objects import KsmRmapItem, StableNode
from rmaplab.kernel.pagetable import Pte

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmaplab.kernel.objects import AnonVma, Folio, Mm, Vma

__all__ = ["Ksm"]


class Ksm(Gup):
    """What ksmd does, and what undoes it."""

    # --- merging -----------------------------------------------------------------------------

    def ksm_merge_range(self, mm: Mm, start: int, end: int, content: str) -> int:
        """Let ksmd find that the pages of [start, end) (bytes) have this content; 0, -EINVAL or -EBUSY."""
        self.locks.acquire(MMAP_LOCK, mm, READ)
        rc, noted = 0, self.rmap_items(mm)
        for address in range(start, end, PAGE_SIZE):
            rc = self.cmp_and_merge_page(mm, address, content, noted.get(address))
            if rc != 0:
                break
        self.locks.release(MMAP_LOCK, mm)
        return rc

    def cmp_and_merge_page(self, mm: Mm, address: int, content: str, noted: StableNode | None) -> int:
        """Merge one page; -EINVAL if KSM would not look at it, -EBUSY if it is in use otherwise.

        ``noted`` has the place's item, perhaps of a page that was here before.
        """
        vma = mm.lookup(address)
        if vma is None or not vma.vm_flags & VM_MERGEABLE:
            return -EINVAL
        pte = mm.page_table.present(address)
        if pte is None or not pte.folio.anon:
            return -EINVAL
        if pte.folio.stable_node is not None:
            if pte.folio.stable_node.content != content:
                return -EINVAL  # a page of KSM is never written to
            self.merge_ksm_page(pte.folio.stable_node, vma, address, noted)
            return 0
        self.remove_rmap_item_from_tree(noted, mm, address)
        if pte.folio.order and self.split_folio_locked(pte.folio) != 0:
            return -EBUSY
        return self.try_to_merge_one_page(vma, address, content)

    def merge_ksm_page(self, node: StableNode, vma: Vma, address: int, noted: StableNode | None) -> None:
        """Note a place that maps a page of KSM already, unless it is noted (a page that fork shared).

        A place is known by its address: if another VMA was there at the time,
        the item still names the anon_vma of that one.
        """
        if noted is not node:
            self.remove_rmap_item_from_tree(noted, vma.vm_mm, address)
            self.stable_tree_append(node, vma, address)

    def try_to_merge_one_page(self, vma: Vma, address: int, content: str) -> int:
        """Make a small page the stable one of its content, or put the stable one in its place; 0 or -EBUSY."""
        pte = vma.vm_mm.page_table.present(address)
        assert pte is not None
        folio, node = pte.folio, self.stable_tree_search(content)
        self.locks.acquire(FOLIO_LOCK, folio)
        rc = 0 if self.write_protect_page(pte) else -EBUSY
        if rc == 0:
            if node is None:
                node = self.stable_tree_insert(content, folio)
            else:
                self.replace_page(vma, address, pte, node.folio)
            self.stable_tree_append(node, vma, address)
        self.locks.release(FOLIO_LOCK, folio)
        return rc

    def write_protect_page(self, pte: Pte) -> bool:
        """Make sure that nobody writes to the page any more; False if it is pinned, which would go unnoticed."""
        if pte.folio.pins or not self.folio_try_share_anon_rmap_pte(pte.folio, pte.page):
            return False
        pte.writable = False
        return True

    def replace_page(self, vma: Vma, address: int, pte: Pte, kfolio: Folio) -> None:
        """Map the stable page in the place of its equal."""
        self.folio_remove_rmap_pte(pte.folio, pte.page)
        kfolio.mapcount += 1
        self.set_pte(vma.vm_mm, address, kfolio, False)

    # --- the stable tree -----------------------------------------------------------------------

    def stable_tree_search(self, content: str) -> StableNode | None:
        """The node of a content; one whose page is gone is removed on the way (ksm_get_folio)."""
        node = self.stable_tree.get(content)
        if node is not None and self.stable_node_is_stale(node):
            self.remove_node_from_stable_tree(node)
            return None
        return node

    def stable_node_is_stale(self, node: StableNode) -> bool:
        """Whether the page was freed: nobody maps it, and it is not in the swap cache either."""
        folio = node.folio
        return folio.stable_node is not node or (folio.mapcount == 0 and folio.slot is None)

    def stable_tree_insert(self, content: str, folio: Folio) -> StableNode:
        """Turn a page, wherever it is mapped, into the stable one of its content."""
        node = self.stable_tree[content] = StableNode(self.new_ident(StableNode), content, folio)
        folio.mapping, folio.stable_node = None, node
        return node

    def stable_tree_append(self, node: StableNode, vma: Vma, address: int) -> None:
        """Note the place, with a reference to the VMA's anon_vma of now; walks begin with the latest."""
        assert vma.anon_vma is not None
        self.get_anon_vma(vma.anon_vma)
        node.items.insert(0, KsmRmapItem(vma.vm_mm, address, vma.anon_vma, linear_page_index(vma, address)))

    def rmap_items(self, mm: Mm) -> dict[int, StableNode]:
        """The addresses (bytes) that ksmd has merged in an mm, one item for each at most, and whose they are."""
        return {item.address: node for node in self.stable_tree.values() for item in node.items if item.mm is mm}

    def remove_rmap_item_from_tree(self, noted: StableNode | None, mm: Mm, address: int) -> None:
        """Forget what was merged at an address (bytes), if anything."""
        if noted is not None:
            self.remove_items(noted, lambda item: item.mm is mm and item.address == address)

    def remove_node_from_stable_tree(self, node: StableNode) -> None:
        """Forget a page that is gone, and let go of its anon_vmas."""
        self.remove_items(node, lambda item: True)
        del self.stable_tree[node.content]

    def remove_items(self, node: StableNode, doomed: Callable[[KsmRmapItem], bool]) -> None:
        """Drop items with their references; the last may free an anon_vma."""
        gone = [item for item in node.items if doomed(item)]
        if not gone:
            return
        node.items = [item for item in node.items if item not in gone]
        for item in gone:
            self.ksm_put_anon_vma(item.anon_vma)

    def ksm_put_anon_vma(self, anon_vma: AnonVma) -> None:
        """Drop an item's reference."""
        self.put_anon_vma(anon_vma)

    # --- ksmd's scan, and the end of merging -----------------------------------------------------

    def ksmd(self) -> None:
        """One full scan: drop what is stale, note places that fork has added since."""
        for node in list(self.stable_tree.values()):
            if self.stable_node_is_stale(node):
                self.remove_node_from_stable_tree(node)
                continue
            self.remove_items(node, partial(self.is_unmerged, node))
        for mm in self.ksm_mms():
            self.scan_mm(mm)

    def ksm_mms(self) -> list[Mm]:
        """The mms on ksmd's list; those of the processes that run."""
        return []

    def scan_mm(self, mm: Mm) -> None:
        """Note every mergeable place where an mm maps a page of KSM (an item is made for what fork has shared)."""
        noted = self.rmap_items(mm)
        for address, pte in mm.page_table:
            node = pte.folio.stable_node if isinstance(pte, Pte) else None
            vma = None if node is None else mm.lookup(address)
            if node is not None and vma is not None and vma.vm_flags & VM_MERGEABLE:
                self.merge_ksm_page(node, vma, address, noted.get(address))

    def is_unmerged(self, node: StableNode, item: KsmRmapItem) -> bool:
        """Whether an item is stale: the page is not mapped there any more, or the VMA is not mergeable."""
        pte, vma = item.mm.page_table.get(item.address), item.mm.lookup(item.address)
        if vma is None or not vma.vm_flags & VM_MERGEABLE:
            return True
        return not isinstance(pte, Pte) or pte.folio is not node.folio

    def unmerge_ksm_pages(self, vma: Vma, start: int, end: int) -> int:
        """Give the process a page of its own for each merged one (break_ksm); 0 or -ENOMEM.

        The items stay for ksmd: it alone may take them off the stable tree's
        lists.  A VMA that is not mergeable is passed over (ksm_madvise), even
        if it has such pages, from a fork before a relative was merged.
        """
        if not vma.vm_flags & VM_MERGEABLE:
            return 0
        for address, pte in vma.vm_mm.page_table.range(start, end):
            if isinstance(pte, Pte) and pte.folio.stable_node is not None:
                rc = self.handle_pte_fault(vma, address, write=False, unshare=True)
                if rc != 0:
                    return rc
        return 0
