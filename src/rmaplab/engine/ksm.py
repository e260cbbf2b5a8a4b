# SPDX-License-Identifier: GPL-2.0-only
"""KSM on rows: :mod:`rmaplab.kernel.ksm`.

A content is a number.  The stable tree is a list of nodes in the order of
their insertion, and a node has a list of items, the latest first.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL

from rmaplab.engine.folio import (
    folio_put,
    folio_remove_rmap_pte,
    folio_try_share_anon_rmap_pte,
    linear_page_index,
)
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import ITEM, LOCKS, MACHINE, NODE, PAGES, Avcs, Rows
from rmaplab.engine.memory import handle_pte_fault
from rmaplab.engine.pagetable import first_leaf, is_anon, pte_get, pte_set
from rmaplab.engine.rmap import put_anon_vma, vma_lookup
from rmaplab.engine.rows import free_row, new_row
from rmaplab.engine.trees import tree_next
from rmaplab.kernel.flags import PAGE_SIZE, VM_MERGEABLE

__all__ = ["forget_mm", "insert_item", "insert_node", "ksm_merge_range", "ksmd", "unmerge_ksm_pages"]


# --- merging -------------------------------------------------------------------------------------


@compiled
def ksm_merge_range(m: Rows, c: Avcs, mm: int, start: int, end: int, content: int) -> int:
    """Let ksmd find that the pages of [start, end) (bytes) have this content; 0, -EINVAL or -EBUSY."""
    m[LOCKS].mmap_locks += 1
    for address in range(start, end, PAGE_SIZE):
        rc = cmp_and_merge_page(m, mm, address, content)
        if rc != 0:
            return rc
    return 0


@compiled
def cmp_and_merge_page(m: Rows, mm: int, address: int, content: int) -> int:
    """Merge one page; -EINVAL if KSM would not look at it, -EBUSY if it is in use otherwise."""
    vma = vma_lookup(m, mm, address)
    if not vma or not m[vma].vm_flags & VM_MERGEABLE:
        return -EINVAL
    entry = pte_get(m, mm, address)
    if not is_anon(entry):
        return -EINVAL
    node = m[entry >> 1].stable_node
    if node:
        if m[node].content != content:
            return -EINVAL
        _merge_ksm_page(m, node, vma, address)
        return 0
    _remove_rmap_item_from_tree(m, _node_of(m, mm, address), mm, address)
    return _try_to_merge_one_page(m, vma, address, entry >> 1, content)


@compiled
def _merge_ksm_page(m: Rows, node: int, vma: int, address: int) -> None:
    """Note a place that maps a page of KSM already, unless it is noted."""
    noted = _node_of(m, m[vma].vm_mm, address)
    if noted != node:
        _remove_rmap_item_from_tree(m, noted, m[vma].vm_mm, address)
        _stable_tree_append(m, node, vma, address)


@compiled
def _try_to_merge_one_page(m: Rows, vma: int, address: int, folio: int, content: int) -> int:
    """Make a page the stable one of its content, or put the stable one in its place; 0 or -EBUSY."""
    mm, node = m[vma].vm_mm, _stable_tree_search(m, content)
    m[LOCKS].folio_locks += 1
    if m[folio].pins or not folio_try_share_anon_rmap_pte(m, folio):
        return -EBUSY
    if node:
        kfolio = m[node].kfolio
        folio_remove_rmap_pte(m, folio)
        m[kfolio].mapcount += 1
        folio = kfolio
    else:
        node = insert_node(m, content, folio)
        m[folio].mapping = 0
        m[folio].stable_node = node
    pte_set(m, mm, address, 2 * folio)
    _stable_tree_append(m, node, vma, address)
    return 0


# --- the stable tree -----------------------------------------------------------------------------


@compiled
def insert_node(m: Rows, content: int, folio: int) -> int:
    """A node for a page, behind all others; what the page names is the caller's to say."""
    node, last = new_row(m, NODE), m[PAGES].first_node
    m[node].content = content
    m[node].kfolio = folio
    m[folio].holders += 1
    if not last:
        m[PAGES].first_node = node
        return node
    while m[last].next_node:
        last = m[last].next_node
    m[last].next_node = node
    return node


@compiled
def insert_item(m: Rows, node: int, mm: int, address: int, anon_vma: int, pgoff: int) -> None:
    """An item in front of all others of a node; the reference is the caller's to take."""
    item = new_row(m, ITEM)
    m[item].item_mm = mm
    m[item].address = address
    m[item].item_anon_vma = anon_vma
    m[item].item_pgoff = pgoff
    m[item].next_item = m[node].items
    m[node].items = item


@compiled
def _stable_tree_search(m: Rows, content: int) -> int:
    """The node of a content, or 0; one whose page is gone is removed on the way."""
    node = m[PAGES].first_node
    while node and m[node].content != content:
        node = m[node].next_node
    if node and _stable_node_is_stale(m, node):
        _remove_node_from_stable_tree(m, node)
        return 0
    return node


@compiled
def _stable_node_is_stale(m: Rows, node: int) -> bool:
    """Whether the page was freed: nobody maps it, and it is not in the swap cache either."""
    folio = m[node].kfolio
    return m[folio].stable_node != node or (m[folio].mapcount == 0 and m[folio].slot == 0)


@compiled
def _stable_tree_append(m: Rows, node: int, vma: int, address: int) -> None:
    """Note the place, with a reference to the VMA's anon_vma of now."""
    anon_vma = m[vma].anon_vma
    m[anon_vma].refcount += 1
    insert_item(m, node, m[vma].vm_mm, address, anon_vma, linear_page_index(m, vma, address))


@compiled
def _node_of(m: Rows, mm: int, address: int) -> int:
    """The node with the item of a place, or 0."""
    node = m[PAGES].first_node
    while node:
        item = m[node].items
        while item:
            if m[item].item_mm == mm and m[item].address == address:
                return node
            item = m[item].next_item
        node = m[node].next_node
    return 0


@compiled
def _remove_rmap_item_from_tree(m: Rows, node: int, mm: int, address: int) -> None:
    """Forget what was merged at an address (bytes), if anything."""
    if not node:
        return
    before, item = 0, m[node].items
    while item:
        following = m[item].next_item
        if m[item].item_mm == mm and m[item].address == address:
            _drop_item(m, node, before, item)
        else:
            before = item
        item = following


@compiled
def _drop_item(m: Rows, node: int, before: int, item: int) -> None:
    """Drop an item with its reference, which may be the last."""
    anon_vma = m[item].item_anon_vma
    if before:
        m[before].next_item = m[item].next_item
    else:
        m[node].items = m[item].next_item
    free_row(m, item)
    put_anon_vma(m, anon_vma)


@compiled
def _remove_node_from_stable_tree(m: Rows, node: int) -> None:
    """Forget a page that is gone, and let go of its anon_vmas."""
    while m[node].items:
        _drop_item(m, node, 0, m[node].items)
    if m[PAGES].first_node == node:
        m[PAGES].first_node = m[node].next_node
    else:
        before = m[PAGES].first_node
        while m[before].next_node != node:
            before = m[before].next_node
        m[before].next_node = m[node].next_node
    folio = m[node].kfolio
    m[node].freed = 1
    if m[folio].stable_node != node:
        free_row(m, node)
    m[folio].holders -= 1
    folio_put(m, folio)


# --- ksmd's scan, and the end of merging -----------------------------------------------------------


@compiled
def ksmd(m: Rows) -> None:
    """One full scan: drop what is stale, note places that fork has added since."""
    node = m[PAGES].first_node
    while node:
        following = m[node].next_node
        if _stable_node_is_stale(m, node):
            _remove_node_from_stable_tree(m, node)
        else:
            _remove_unmerged(m, node)
        node = following
    process = m[MACHINE].first_process
    while process:
        if not _is_scanned(m, process):
            _scan_mm(m, m[process].mm)
        process = m[process].later


@compiled
def _is_scanned(m: Rows, process: int) -> bool:
    """Whether an earlier task has the same address space."""
    before = m[process].earlier
    while before and m[before].mm != m[process].mm:
        before = m[before].earlier
    return before != 0


@compiled
def _remove_unmerged(m: Rows, node: int) -> None:
    before, item = 0, m[node].items
    while item:
        following = m[item].next_item
        if _is_unmerged(m, node, item):
            _drop_item(m, node, before, item)
        else:
            before = item
        item = following


@compiled
def _is_unmerged(m: Rows, node: int, item: int) -> bool:
    """Whether an item is stale: the page is not mapped there any more, or the VMA is not mergeable."""
    mm, address = m[item].item_mm, m[item].address
    if mm < 0:
        return True
    vma = vma_lookup(m, mm, address)
    if not vma or not m[vma].vm_flags & VM_MERGEABLE:
        return True
    return pte_get(m, mm, address) >> 1 != m[node].kfolio


@compiled
def _scan_mm(m: Rows, mm: int) -> None:
    """Note every mergeable place where an mm maps a page of KSM."""
    leaf = first_leaf(m, mm, 0)
    while leaf:
        for at in range(16):
            entry = m[leaf].pte[at]
            node = m[entry >> 1].stable_node if is_anon(entry) else 0
            if not node:
                continue
            address = (m[leaf].key << 16) + (at << 12)
            vma = vma_lookup(m, mm, address)
            if vma and m[vma].vm_flags & VM_MERGEABLE:
                _merge_ksm_page(m, node, vma, address)
        leaf = tree_next(m, leaf)


@compiled
def unmerge_ksm_pages(m: Rows, c: Avcs, vma: int, start: int, end: int) -> int:
    """Give the process a page of its own for each merged one; 0 or -ENOMEM.  The items stay for ksmd."""
    if not m[vma].vm_flags & VM_MERGEABLE or not m[PAGES].first_node:
        return 0
    for address in range(start, end, PAGE_SIZE):
        entry = pte_get(m, m[vma].vm_mm, address)
        if is_anon(entry) and m[entry >> 1].stable_node:
            rc = handle_pte_fault(m, c, vma, address, False, True)
            if rc != 0:
                return rc
    return 0


@compiled
def forget_mm(m: Rows, mm: int) -> None:
    """An address space is gone: its items are no one's, whatever gets its row."""
    node = m[PAGES].first_node
    while node:
        item = m[node].items
        while item:
            if m[item].item_mm == mm:
                m[item].item_mm = -m[mm].id
            item = m[item].next_item
        node = m[node].next_node
