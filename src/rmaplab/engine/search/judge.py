# SPDX-License-Identifier: GPL-2.0-only
"""The invariants of states on rows: bit n of the result is set if AV-n does not hold.

What each says and where it is from stands in :mod:`rmaplab.check.invariants`
and ``page_invariants``.  All are looked at; whoever asks drops those that the
series does not promise.  States are small: lists are searched from the front.

What can be counted from the other side is counted first, in ``s`` (see
:mod:`rmaplab.engine.search.naming`).
"""

from __future__ import annotations

from rmaplab.engine.interval_tree import range_first, range_next, vma_last_pgoff
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import ANON_VMA, FIRST, LEAF, MACHINE, MM, PAGES, PARAMS, SLAB, VMA, Avcs, Rows
from rmaplab.engine.pagetable import is_swap, slot_of
from rmaplab.engine.search.judge_pages import in_chain, judge_pages
from rmaplab.engine.search.naming import BELOW, CHILDREN, FIRST_USER, PINS, USERS, Scratch
from rmaplab.engine.trees import tree_next

__all__ = ["HAS_ROOT_LOCK", "judge"]

EVERYTHING = 1 << 62
HAS_ROOT_LOCK = 1  # of ``promises``: roots are pinned


@compiled
def _count(m: Rows, s: Scratch) -> None:
    """Of anon_vmas the VMAs and children that name them, of folios and slots the entries that map or name them.

    Of slots the exclusive entries are counted apart, as if they were children.
    """
    used = m[MACHINE].used
    for row in range(FIRST, used):
        s[row, USERS] = s[row, CHILDREN] = s[row, BELOW] = s[row, FIRST_USER] = 0
    for row in range(FIRST, used):
        kind = m[row].kind
        if kind == VMA:
            own = m[row].anon_vma
            if own and m[row].attached and not m[row].freed:
                s[own, USERS] += 1
                if not s[own, FIRST_USER]:
                    s[own, FIRST_USER] = row
        elif kind == ANON_VMA:
            if not m[row].freed:
                s[m[row].parent, CHILDREN] += m[row].entries > 0
                s[m[row].root, BELOW] += m[row].root != row
        elif kind == LEAF:
            at, left = 0, m[row].present
            while left:
                entry = m[row].pte[at]
                if entry:
                    left -= 1
                    if entry > 0:
                        s[entry >> 1, USERS] += 1
                    elif is_swap(entry):
                        s[slot_of(entry), USERS] += 1
                        s[slot_of(entry), CHILDREN] += -entry & 1
                at += 1
    if m[PAGES].first_node:
        _count_pins(m, s)


@compiled
def _count_pins(m: Rows, s: Scratch) -> None:
    """Of anon_vmas the items of KSM's that hold them."""
    for row in range(FIRST, m[MACHINE].used):
        s[row, PINS] = 0
    node = m[PAGES].first_node
    while node:
        item = m[node].items
        while item:
            s[m[item].item_anon_vma, PINS] += 1
            item = m[item].next_item
        node = m[node].next_node


@compiled
def _has_items(m: Rows) -> bool:
    """Whether KSM holds an anon_vma."""
    node = m[PAGES].first_node
    while node and not m[node].items:
        node = m[node].next_node
    return node != 0


@compiled
def judge(m: Rows, c: Avcs, s: Scratch, promises: int) -> int:
    """Every invariant that does not hold now."""
    _count(m, s)
    found = listed = faulted = 0
    if not m[MACHINE].first_process and (m[SLAB].live_anon_vmas or m[SLAB].live_avcs) and not _has_items(m):
        found = 1 << 40
    for vma in range(FIRST, m[MACHINE].used):
        if m[vma].kind == VMA and m[vma].attached and not m[vma].freed:
            found |= _judge_vma(m, c, s, vma)
            listed += m[vma].length
            faulted += m[vma].anon_vma != 0
    in_trees = active = children = linked = 0
    for anon_vma in range(FIRST, m[MACHINE].used):
        if m[anon_vma].kind == ANON_VMA and not m[anon_vma].freed:
            found |= _judge_anon_vma(m, c, s, anon_vma, promises)
            in_trees += m[anon_vma].entries
            active += m[anon_vma].num_active_vmas
            children += m[anon_vma].num_children
            linked += m[anon_vma].entries > 0
    if listed != in_trees:
        found |= 1 << 1
    if listed != m[SLAB].live_avcs or (active != faulted and m[PARAMS].counts == 0):
        found |= 1 << 15
    if children != linked:
        found |= 1 << 16
    for mm in range(FIRST, m[MACHINE].used):
        if m[mm].kind == MM and m[mm].users > 0:
            found |= judge_pages(m, c, s, mm)
    return found


# --- VMAs ----------------------------------------------------------------------------------------


@compiled
def _judge_vma(m: Rows, c: Avcs, s: Scratch, vma: int) -> int:
    found, own = 0, m[vma].anon_vma
    if own and s[own, USERS] > 1:
        other = s[own, FIRST_USER]
        if m[vma].vm_mm != m[other].vm_mm:
            found |= 1 << 43
        if other != vma and _chains_differ(m, c, other, vma):
            found |= 1 << 8
        if _is_unmoved(m, vma) and _overlaps_next(m, vma):
            found |= 1 << 9
    if (own == 0) != (m[vma].length == 0):
        found |= 1 << 3
    if own and not in_chain(m, c, vma, own):
        found |= 1 << 4
    if own and m[own].freed:
        found |= 1 << 18
    avc = m[vma].head
    first = m[abs(c[avc].anon_vma)].root if avc else 0
    if m[vma].length == 1 and m[abs(c[avc].anon_vma)].root != abs(c[avc].anon_vma):
        found |= 1 << 7
    last = 1 << 62
    while avc:
        anon_vma = abs(c[avc].anon_vma)
        if c[avc].vma != vma or c[avc].range <= 0 or m[c[avc].range].owner != anon_vma:
            found |= 1 << 1
        if c[avc].anon_vma < 0 or m[anon_vma].freed:
            found |= 1 << 18
        if m[anon_vma].root != first:
            found |= 1 << 5
        if not in_chain(m, c, vma, m[anon_vma].parent):
            found |= 1 << 6
        if c[avc].range > 0 and m[PARAMS].lists == 0 and m[c[avc].range].key != m[vma].anon_pgoff:
            found |= 1 << 10
        if m[anon_vma].id >= last:
            found |= 1 << 24
        last = m[anon_vma].id
        after = c[avc].after
        while after:
            if abs(c[after].anon_vma) == anon_vma:
                found |= 1 << 2
            after = c[after].after
        avc = c[avc].after
    return found


@compiled
def _chains_differ(m: Rows, c: Avcs, vma: int, other: int) -> bool:
    """Whether two VMAs have different sets of anon_vmas."""
    avc = m[vma].head
    while avc:
        if not in_chain(m, c, other, abs(c[avc].anon_vma)):
            return True
        avc = c[avc].after
    avc = m[other].head
    while avc:
        if not in_chain(m, c, vma, abs(c[avc].anon_vma)):
            return True
        avc = c[avc].after
    return False


@compiled
def _is_unmoved(m: Rows, vma: int) -> bool:
    return m[vma].file == 0 and m[vma].vm_pgoff == m[vma].key >> 12


@compiled
def _overlaps_next(m: Rows, vma: int) -> bool:
    """Whether an unmoved VMA has offsets of the next unmoved one that has its anon_vma."""
    other = tree_next(m, vma)
    while other:
        if m[other].anon_vma == m[vma].anon_vma and _is_unmoved(m, other):
            return vma_last_pgoff(m, vma) >= m[other].anon_pgoff
        other = tree_next(m, other)
    return False


# --- anon_vmas -----------------------------------------------------------------------------------


@compiled
def _judge_anon_vma(m: Rows, c: Avcs, s: Scratch, anon_vma: int, promises: int) -> int:
    found = 0
    users, children, below = s[anon_vma, USERS], s[anon_vma, CHILDREN], s[anon_vma, BELOW]
    linked = m[anon_vma].entries > 0
    parent, root = m[anon_vma].parent, m[anon_vma].root
    if linked and m[parent].root != root:
        found |= 1 << 5
    if m[anon_vma].num_active_vmas != users:
        found |= 1 << 11
    if m[anon_vma].num_children != children:
        found |= 1 << 12
    pins = s[anon_vma, PINS] if m[PAGES].first_node else 0
    if m[anon_vma].refcount != linked + pins + (below if promises & HAS_ROOT_LOCK else 0):
        found |= 1 << 13
    if not linked and (m[anon_vma].num_children or m[anon_vma].num_active_vmas):
        found |= 1 << 14
    if min(m[anon_vma].num_children, m[anon_vma].num_active_vmas, m[anon_vma].degree, m[anon_vma].refcount) < 0:
        found |= 1 << 17
    if m[anon_vma].degree != users + children:
        found |= 1 << 50
    if m[anon_vma].refcount <= 0:
        found |= 1 << 18
    if m[root].freed or (linked and m[parent].freed):
        found |= 1 << 19
    place = range_first(m, anon_vma, 0, EVERYTHING)
    while place:
        avc = m[place].head
        while avc:
            vma = c[avc].vma
            if abs(c[avc].anon_vma) != anon_vma or m[vma].freed or not _has_avc(m, c, vma, avc):
                found |= 1 << 1
            avc = c[avc].later
        place = range_next(m, place, 0, EVERYTHING)
    return found


@compiled
def _has_avc(m: Rows, c: Avcs, vma: int, avc: int) -> bool:
    own = m[vma].head
    while own:
        if own == avc:
            return True
        own = c[own].after
    return False
