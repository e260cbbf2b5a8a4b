# SPDX-License-Identifier: GPL-2.0-only
"""The fingerprint of a state on rows: the number that :func:`rmaplab.check.state.fingerprint` gives it.

The same list of integers is written, and hashed as Python hashes a tuple
(xxHash with a lane an item).  It sums up an exploration, and shows that both
explorers tell the same states apart; the search itself goes by
:mod:`rmaplab.engine.search.mark`, which is faster.
"""

from __future__ import annotations

from rmaplab.engine.interval_tree import range_first, range_next
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import FIRST, PAGES, SLAB, Avcs, Rows
from rmaplab.engine.pagetable import GUARD, ZERO_PAGE, is_anon, is_swap, slot_of, waits_for
from rmaplab.engine.search.naming import (
    ANON_VMAS,
    FOLIOS,
    SLOTS,
    VMAS,
    Notes,
    begin_numbers,
    is_orphan,
    known,
    number_all,
    number_of,
)
from rmaplab.engine.search.shapes import number_of_mm, sorted_processes
from rmaplab.engine.trees import tree_first, tree_next

__all__ = ["exact", "fingerprint"]

EVERYTHING = 1 << 62


# --- hashes ----------------------------------------------------------------------------------------

PRIME_1, PRIME_2, PRIME_5 = 11400714785074694791 - (1 << 64), 14029467366897019727 - (1 << 64), 2870177450012600261
MODULUS = (1 << 61) - 1


@compiled
def exact(out: Rows, length: int) -> int:
    """Python's ``hash(tuple(out[:length]))``."""
    acc = PRIME_5
    for at in range(length):
        value = out[at]
        acc += (-2 if value == -1 else value) * PRIME_2
        acc = (acc << 31) | ((acc >> 33) & 0x7FFF_FFFF)
        acc *= PRIME_1
    acc += length ^ (PRIME_5 ^ 3527539)
    return 1546275796 if acc == -1 else acc


@compiled
def fingerprint(m: Rows, c: Avcs, s: Notes, shapes: Rows, out: Rows, walk_order: bool) -> int:
    """64-bit hash of a state up to the renaming of processes and objects."""
    return exact(out, encode(m, c, s, shapes, out, walk_order))


@compiled
def _unsigned(counter: int) -> int:
    """The hash of a counter that wraps at 64 bits."""
    if counter >= 0:
        return counter
    return 8 + counter if counter >= -8 else MODULUS + 8 + counter


# --- the list --------------------------------------------------------------------------------------


@compiled
def encode(m: Rows, c: Avcs, s: Notes, shapes: Rows, out: Rows, walk_order: bool) -> int:
    """Write a state up to the renaming of processes and objects as integers into ``out``; their number."""
    begin_numbers(s)
    processes = sorted_processes(m, c, shapes)
    to = 0
    for at in range(processes):
        seen = number_of_mm(m, shapes, at, m[shapes[at]].mm)
        out[to] = seen
        to += 1
        if seen < 0:
            to = _encode_mm(m, c, s, out, to, m[shapes[at]].mm)
    if s[SLOTS].count or m[PAGES].first_node:
        to = _encode_swap_and_ksm(m, s, shapes, processes, out, to)
    if m[SLAB].live_anon_vmas != s[ANON_VMAS].count:
        number_all(m, s)
    anon_vma = s[ANON_VMAS].first
    while anon_vma:
        to = _encode_anon_vma(m, c, s, out, to, anon_vma, walk_order)
        anon_vma = s[anon_vma].next
    folio = s[FOLIOS].first
    while folio:
        mapping = m[folio].mapping
        out[to] = known(s, mapping, -2) if mapping else -1
        out[to + 1] = m[folio].index
        out[to + 2] = m[folio].mapcount
        out[to + 3] = m[folio].exclusive
        out[to + 4] = 0
        out[to + 5] = m[folio].pins
        to += 6
        if m[folio].stable_node:
            out[to] = m[m[folio].stable_node].content
            to += 1
        folio = s[folio].next
    return to


@compiled
def _encode_mm(m: Rows, c: Avcs, s: Notes, out: Rows, to: int, mm: int) -> int:
    vma = tree_first(m, m[mm].vmas)
    while vma:
        number_of(s, vma, VMAS)
        out[to] = m[vma].key
        out[to + 1] = m[vma].vm_end
        out[to + 2] = m[vma].vm_pgoff
        out[to + 3] = m[vma].anon_pgoff
        out[to + 4] = m[vma].vm_flags
        to += 5
        own = m[vma].anon_vma
        if own:
            out[to] = number_of(s, own, ANON_VMAS)
            to += 1
        avc = m[vma].head
        while avc:
            out[to] = number_of(s, abs(c[avc].anon_vma), ANON_VMAS)
            to += 1
            avc = c[avc].after
        out[to] = -2 if own else -1
        to += 1
        vma = tree_next(m, vma)
    leaf = tree_first(m, m[mm].leaves)
    while leaf:
        at, left = 0, m[leaf].present
        while left:
            entry = m[leaf].pte[at]
            if entry:
                left -= 1
                folio = entry >> 1
                out[to] = (m[leaf].key << 16) + (at << 12)
                if folio == GUARD:
                    out[to + 1] = -10
                    to += 2
                elif entry < 0:
                    to = _encode_nonpresent(s, out, to, entry)
                else:
                    number = -3 if folio == ZERO_PAGE else -4
                    out[to + 1] = number_of(s, folio, FOLIOS) if is_anon(entry) else number
                    out[to + 2] = entry & 1
                    out[to + 3] = 0
                    to += 4
            at += 1
        leaf = tree_next(m, leaf)
    pin = m[mm].first_pin
    while pin:
        out[to] = m[pin].address
        out[to + 1] = -12
        out[to + 2] = _folio(s, m[pin].pinned)
        to += 3
        pin = m[pin].next_pin
    out[to] = -3
    out[to + 1] = m[mm].has_pinned
    out[to + 2] = m[mm].brk
    return to + 3


@compiled
def _folio(s: Notes, folio: int) -> int:
    """The number of an anonymous folio, or of what stands for others."""
    if folio >= FIRST:
        return number_of(s, folio, FOLIOS)
    return -3 if folio == ZERO_PAGE else -4


@compiled
def _encode_nonpresent(s: Notes, out: Rows, to: int, entry: int) -> int:
    """A swap or migration entry, behind its address."""
    if is_swap(entry):
        out[to + 1] = -8
        out[to + 2] = number_of(s, slot_of(entry), SLOTS)
        out[to + 3] = -entry & 1
        return to + 4
    out[to + 1] = -9
    out[to + 2] = number_of(s, waits_for(entry), FOLIOS)
    out[to + 3] = -entry >> 1 & 1
    out[to + 4] = -entry & 1
    out[to + 5] = 0
    return to + 6


@compiled
def _encode_swap_and_ksm(m: Rows, s: Notes, shapes: Rows, processes: int, out: Rows, to: int) -> int:
    """The slots that entries name, and the stable tree."""
    slot = s[SLOTS].first
    while slot:
        out[to] = m[slot].swap_count
        out[to + 1] = number_of(s, m[slot].cached, FOLIOS) if m[slot].cached else -1
        to += 2
        slot = s[slot].next
    node = m[PAGES].first_node
    while node:
        out[to] = m[node].content
        out[to + 1] = number_of(s, m[node].kfolio, FOLIOS)
        to += 2
        item = m[node].items
        while item:
            out[to] = number_of_mm(m, shapes, processes, m[item].item_mm)
            out[to + 1] = m[item].address
            out[to + 2] = m[item].item_pgoff
            out[to + 3] = number_of(s, m[item].item_anon_vma, ANON_VMAS)
            to += 4
            item = m[item].next_item
        out[to] = -4
        to += 1
        node = m[node].next_node
    return to


@compiled
def _encode_anon_vma(m: Rows, c: Avcs, s: Notes, out: Rows, to: int, anon_vma: int, walk_order: bool) -> int:
    out[to] = m[anon_vma].refcount
    out[to + 1] = _unsigned(m[anon_vma].num_children)
    out[to + 2] = _unsigned(m[anon_vma].num_active_vmas)
    out[to + 3] = _unsigned(m[anon_vma].degree)
    out[to + 4] = m[anon_vma].freed
    to += 5
    if not m[anon_vma].freed:
        out[to] = -1 if is_orphan(m, anon_vma) else number_of(s, m[anon_vma].parent, ANON_VMAS)
        out[to + 1] = number_of(s, m[anon_vma].root, ANON_VMAS)
        to += 2
    begin = to
    place = range_first(m, anon_vma, 0, EVERYTHING) if m[anon_vma].entries else 0
    while place:
        avc = m[place].head
        while avc:
            number = known(s, c[avc].vma, -1)
            at = to
            if not walk_order:
                while at > begin and out[at - 1] > number:
                    out[at] = out[at - 1]
                    at -= 1
            out[at] = number
            to += 1
            avc = c[avc].later
        place = range_next(m, place, 0, EVERYTHING)
    out[to] = -2
    return to + 1
