# SPDX-License-Identifier: GPL-2.0-only
"""The invariants of states on rows: bit n of the result is set if AV-n does not hold.

What each says and where it is from stands in :mod:`rmaplab.check.invariants`
and ``page_invariants``.  All are looked at; whoever asks drops those that the
series does not promise.  States are small: lists are searched from the front.

``s`` are the notes that :mod:`rmaplab.engine.search.mark` has just made; what
can be counted from the other side is added to them first.
"""

from __future__ import annotations

from rmaplab.engine.interval_tree import range_first, range_next, vma_last_pgoff
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import MACHINE, PAGES, PARAMS, SLAB, Avcs, Rows
from rmaplab.engine.search.judge_pages import in_chain, judge_pages, links
from rmaplab.engine.search.naming import ANON_VMAS, BITS, VMAS, Notes, is_orphan, number_all, number_of
from rmaplab.engine.search.steps import ALLOWED, PROMISES
from rmaplab.engine.trees import tree_first, tree_next

__all__ = ["HAS_ROOT_LOCK", "judge", "judge_call"]

EVERYTHING = 1 << 62
HAS_ROOT_LOCK = 1  # of ``promises``: roots are pinned
HELD, CRASH = 29, 45  # AV-029: a call left a lock held; AV-045: the kernel cannot go on


@compiled
def _note_vmas(m: Rows, c: Avcs, s: Notes) -> None:
    """Of VMAs the anon_vmas of their chains, of anon_vmas the VMAs that name them."""
    process = m[MACHINE].first_process
    while process:
        vma = tree_first(m, m[m[process].mm].vmas)
        while vma:
            number_of(s, vma, VMAS)
            vma = tree_next(m, vma)
        process = m[process].later
    vma = s[VMAS].first
    while vma:
        own = m[vma].anon_vma
        if own:
            s[own].users += 1
            s[own].first_user = vma
        chain, avc = 0, m[vma].head
        while avc:
            chain |= 1 << (s[abs(c[avc].anon_vma)].number & (BITS - 1))
            avc = c[avc].after
        s[vma].set = chain
        vma = s[vma].next


@compiled
def _note_kin(m: Rows, s: Notes) -> None:
    """Of anon_vmas the linked ones below them, and of roots all others of the tree."""
    live, anon_vma = 0, s[ANON_VMAS].first
    while anon_vma:
        live += not m[anon_vma].freed
        anon_vma = s[anon_vma].next
    if live != m[SLAB].live_anon_vmas:  # where freed ones have numbers, others may lack them
        number_all(m, s)
    anon_vma = s[ANON_VMAS].first
    while anon_vma:
        if not m[anon_vma].freed:
            if not is_orphan(m, anon_vma):
                s[m[anon_vma].parent].children += m[anon_vma].entries > 0
            s[m[anon_vma].root].below += m[anon_vma].root != anon_vma
        anon_vma = s[anon_vma].next


@compiled
def _note_pins(m: Rows, s: Notes) -> None:
    """Of anon_vmas the items of KSM's that hold them."""
    node = m[PAGES].first_node
    while node:
        item = m[node].items
        while item:
            s[m[item].item_anon_vma].pins += 1
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
def judge_call(m: Rows, c: Avcs, s: Notes, bounds: Rows, known: bool) -> int:
    """The violations that count after a call, as bits; a state that is known was judged."""
    if m[MACHINE].crashed:
        return 1 << CRASH
    found = m[MACHINE].reports
    if m[MACHINE].number_held:
        found |= 1 << HELD
        m[MACHINE].number_held = 0
    if found or not known:
        found |= judge(m, c, s, bounds[PROMISES])
    return found & bounds[ALLOWED]


@compiled
def judge(m: Rows, c: Avcs, s: Notes, promises: int) -> int:
    """Every invariant that does not hold now."""
    _note_vmas(m, c, s)
    _note_kin(m, s)
    _note_pins(m, s)
    found = listed = faulted = 0
    if not m[MACHINE].first_process and (m[SLAB].live_anon_vmas or m[SLAB].live_avcs) and not _has_items(m):
        found = 1 << 40
    vma = s[VMAS].first
    while vma:
        found |= _judge_vma(m, c, s, vma)
        listed += m[vma].length
        faulted += m[vma].anon_vma != 0
        vma = s[vma].next
    in_trees = active = children = linked = 0
    anon_vma = s[ANON_VMAS].first
    while anon_vma:
        if not m[anon_vma].freed:
            found |= _judge_anon_vma(m, c, s, anon_vma, promises)
            in_trees += m[anon_vma].entries
            active += m[anon_vma].num_active_vmas
            children += m[anon_vma].num_children
            linked += m[anon_vma].entries > 0
        anon_vma = s[anon_vma].next
    if listed != in_trees:
        found |= 1 << 1
    if listed != m[SLAB].live_avcs or (active != faulted and m[PARAMS].counts == 0):
        found |= 1 << 15
    if children != linked:
        found |= 1 << 16
    process = m[MACHINE].first_process
    while process:
        found |= judge_pages(m, c, s, m[process].mm)
        process = m[process].later
    return found


# --- VMAs ----------------------------------------------------------------------------------------


@compiled
def _judge_vma(m: Rows, c: Avcs, s: Notes, vma: int) -> int:
    found, own = 0, m[vma].anon_vma
    if own and s[own].users > 1:
        other = s[own].first_user
        if m[vma].vm_mm != m[other].vm_mm:
            found |= 1 << 43
        if other != vma and _chains_differ(m, c, s, other, vma):
            found |= 1 << 8
        if _is_unmoved(m, vma) and _overlaps_next(m, vma):
            found |= 1 << 9
    if (own == 0) != (m[vma].length == 0):
        found |= 1 << 3
    if own and not in_chain(m, c, s, vma, own):
        found |= 1 << 4
    if own and m[own].freed:
        found |= 1 << 18
    avc = m[vma].head
    first = m[abs(c[avc].anon_vma)].root if avc else 0
    if m[vma].length == 1 and m[abs(c[avc].anon_vma)].root != abs(c[avc].anon_vma):
        found |= 1 << 7
    last, met = 1 << 62, 0
    while avc:
        anon_vma, place = abs(c[avc].anon_vma), c[avc].range
        if c[avc].vma != vma or place <= 0 or m[place].owner != anon_vma:
            found |= 1 << 1
        if c[avc].anon_vma < 0 or m[anon_vma].freed:
            found |= 1 << 18
        if m[anon_vma].root != first:
            found |= 1 << 5
        if not in_chain(m, c, s, vma, m[anon_vma].parent):
            found |= 1 << 6
        if place > 0 and m[PARAMS].lists == 0 and m[place].key != m[vma].anon_pgoff:
            found |= 1 << 10
        if m[anon_vma].id >= last:
            found |= 1 << 24
        last = m[anon_vma].id
        if s[ANON_VMAS].count <= BITS:
            found |= (met >> s[anon_vma].number & 1) << 2
            met |= 1 << s[anon_vma].number
        elif links(m, c, c[avc].after, anon_vma):
            found |= 1 << 2
        avc = c[avc].after
    return found


@compiled
def _chains_differ(m: Rows, c: Avcs, s: Notes, vma: int, other: int) -> bool:
    """Whether two VMAs have different sets of anon_vmas."""
    if s[ANON_VMAS].count <= BITS:
        return s[vma].set != s[other].set
    return not (_is_within(m, c, vma, other) and _is_within(m, c, other, vma))


@compiled
def _is_within(m: Rows, c: Avcs, vma: int, other: int) -> bool:
    """Whether the other VMA has every anon_vma of this one."""
    avc = m[vma].head
    while avc:
        if not links(m, c, m[other].head, abs(c[avc].anon_vma)):
            return False
        avc = c[avc].after
    return True


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
def _judge_anon_vma(m: Rows, c: Avcs, s: Notes, anon_vma: int, promises: int) -> int:
    found = 0
    users, children, below = s[anon_vma].users, s[anon_vma].children, s[anon_vma].below
    linked = m[anon_vma].entries > 0
    parent, root = m[anon_vma].parent, m[anon_vma].root
    if linked and m[parent].root != root:
        found |= 1 << 5
    if m[anon_vma].num_active_vmas != users:
        found |= 1 << 11
    if m[anon_vma].num_children != children:
        found |= 1 << 12
    if m[anon_vma].refcount != linked + s[anon_vma].pins + (below if promises & HAS_ROOT_LOCK else 0):
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
    if s[anon_vma].links == m[anon_vma].entries:  # all of them are on chains
        return found
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
