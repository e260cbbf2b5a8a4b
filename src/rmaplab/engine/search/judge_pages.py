# SPDX-License-Identifier: GPL-2.0-only
"""The invariants about pages, on rows: :mod:`rmaplab.check.page_invariants`.

``s`` has the notes that :mod:`rmaplab.engine.search.mark` has made.
"""

from __future__ import annotations

from rmaplab.engine.folio import linear_page_index
from rmaplab.engine.interval_tree import range_first, range_next, vma_last_pgoff
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import PARAMS, Avcs, Rows
from rmaplab.engine.pagetable import is_anon, is_swap, slot_of, waits_for
from rmaplab.engine.rmap import vma_lookup
from rmaplab.engine.search.naming import ANON_VMAS, BITS, Notes, is_known
from rmaplab.engine.trees import tree_first, tree_next
from rmaplab.kernel.flags import VM_WRITE

__all__ = ["in_chain", "judge_pages", "links"]


EVERYTHING = 1 << 62
HAS_ROOT_LOCK = 1  # of ``promises``: roots are pinned


# --- pages ---------------------------------------------------------------------------------------


@compiled
def judge_pages(m: Rows, c: Avcs, s: Notes, mm: int) -> int:
    """What does not hold of the pages of an address space."""
    found = 0
    leaf = tree_first(m, m[mm].leaves)
    while leaf:
        at, left = 0, m[leaf].present
        while left:
            entry = m[leaf].pte[at]
            left -= entry != 0
            if is_anon(entry):
                found |= _judge_page(m, c, s, mm, (m[leaf].key << 16) + (at << 12), entry)
            elif entry < 0:
                found |= _judge_nonpresent(m, c, s, mm, (m[leaf].key << 16) + (at << 12), entry)
            at += 1
        leaf = tree_next(m, leaf)
    return found


@compiled
def _judge_page(m: Rows, c: Avcs, s: Notes, mm: int, address: int, entry: int) -> int:
    found, folio = 0, entry >> 1
    mapping, node, number = m[folio].mapping, m[folio].stable_node, s[folio].users
    if mapping and m[mapping].freed:
        found |= 1 << 21
    if m[folio].mapcount != number:
        found |= 1 << 41
    if number > 1 and (m[folio].exclusive or entry & 1):
        found |= 1 << 42
    slot = m[folio].slot
    if slot and (m[slot].cached != folio or m[slot].swap_count != _users(s, slot)):
        found |= 1 << 48
    vma = vma_lookup(m, mm, address)
    if not vma:
        return found | 1 << 44 | (0 if node else 1 << 30)
    if node:
        if _is_noted(m, c, s, node, mm, vma, address) and not _is_visited_by_ksm(m, c, node, vma, address):
            found |= 1 << 30
    else:
        if not _is_visited(m, c, folio, vma, address):
            found |= 1 << 30
        own = m[vma].anon_vma
        index = linear_page_index(m, vma, address)
        if m[folio].index != index or not own or not mapping or m[mapping].root != m[own].root:
            found |= 1 << 44
    if entry & 1 and not m[vma].vm_flags & VM_WRITE:
        found |= 1 << 49
    return found


@compiled
def _judge_nonpresent(m: Rows, c: Avcs, s: Notes, mm: int, address: int, entry: int) -> int:
    """Swap entries, and migration entries that are left."""
    vma = vma_lookup(m, mm, address)
    if not is_swap(entry):
        folio = waits_for(entry)
        return 1 << 47 | (0 if vma and _is_found(m, c, folio, vma, address) else 1 << 30)
    found, slot = 0, slot_of(entry)
    folio = m[slot].cached
    if m[slot].swap_count != s[slot].users or (s[slot].children and s[slot].users > 1):
        found |= 1 << 48
    if folio and _comes_back(m, folio, vma, address) and not (vma and _is_visited(m, c, folio, vma, address)):
        found |= 1 << 30
    return found


@compiled
def _comes_back(m: Rows, folio: int, vma: int, address: int) -> bool:
    """Whether a swap-in maps this very page, and not a copy of what was KSM's and now is another tree's."""
    mapping = m[folio].mapping
    if m[folio].stable_node or not mapping:
        return False
    own = m[vma].anon_vma if vma else 0
    if not own:
        return True
    return m[mapping].root == m[own].root and m[folio].index == linear_page_index(m, vma, address)


@compiled
def _is_found(m: Rows, c: Avcs, folio: int, vma: int, address: int) -> bool:
    """Whether a walk of a folio, be it KSM's or not, looks for it there."""
    node = m[folio].stable_node
    return _is_visited_by_ksm(m, c, node, vma, address) if node else _is_visited(m, c, folio, vma, address)


@compiled
def _is_noted(m: Rows, c: Avcs, s: Notes, node: int, mm: int, vma: int, address: int) -> bool:
    """Whether ksmd knows of a place, and of the VMA that is there now."""
    item = m[node].items
    while item and not (m[item].item_mm == mm and m[item].address == address):
        item = m[item].next_item
    if not item:
        return False
    anon_vma = m[item].item_anon_vma
    if m[vma].head or not m[vma].anon_vma:
        return in_chain(m, c, s, vma, anon_vma)
    own = m[vma].anon_vma
    while own != anon_vma and m[own].parent != own:
        own = m[own].parent
    return own == anon_vma


@compiled
def _is_visited_by_ksm(m: Rows, c: Avcs, node: int, vma: int, address: int) -> bool:
    """Whether a walk of a page of KSM's looks for it there: at the address of an item whose anon_vma has the VMA."""
    item = m[node].items
    while item:
        if m[item].address == address:
            place = range_first(m, m[item].item_anon_vma, 0, EVERYTHING)
            while place:
                avc = m[place].head
                while avc:
                    if c[avc].vma == vma:
                        return True
                    avc = c[avc].later
                place = range_next(m, place, 0, EVERYTHING)
        item = m[item].next_item
    return False


@compiled
def _is_visited(m: Rows, c: Avcs, folio: int, vma: int, address: int) -> bool:
    """Whether a walk of a folio looks for it there."""
    anon_vma, index = m[folio].mapping, m[folio].index
    if not anon_vma or m[vma].key + ((index - m[vma].anon_pgoff) << 12) != address:
        return False
    if not m[vma].anon_pgoff <= index <= vma_last_pgoff(m, vma):
        return False
    avc = m[vma].head
    while avc:
        if abs(c[avc].anon_vma) == anon_vma and c[avc].range > 0:
            place = m[c[avc].range].key
            return m[PARAMS].lists == 1 or place <= index
        avc = c[avc].after
    return False


@compiled
def _users(s: Notes, slot: int) -> int:
    """How many entries name a slot."""
    return s[slot].users if is_known(s, slot) else 0


@compiled
def in_chain(m: Rows, c: Avcs, s: Notes, vma: int, anon_vma: int) -> bool:
    """Whether a VMA is linked to an anon_vma."""
    if s[ANON_VMAS].count <= BITS:
        return is_known(s, anon_vma) and s[vma].set >> s[anon_vma].number & 1 != 0
    return links(m, c, m[vma].head, anon_vma)


@compiled
def links(m: Rows, c: Avcs, avc: int, anon_vma: int) -> bool:
    """Whether an AVC or one behind it on the chain links an anon_vma."""
    while avc:
        if abs(c[avc].anon_vma) == anon_vma:
            return True
        avc = c[avc].after
    return False
