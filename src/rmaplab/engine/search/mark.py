# SPDX-License-Identifier: GPL-2.0-only
"""The hash by which the table of states knows a state, and notes for those who judge it.

Two states have the same hash here if and only if they are the same for
:mod:`rmaplab.check.state`, up to a collision of 64 bits.

Processes are sorted by a hash of what can be said of each without naming
shared objects, its shape.  An object is known by its places: by which process
and where in its shape it is named.  No two have a place in common, so the sum
of the hashes of its places is as good as the number that the specification
gives it, and needs no order to go by.  A state is the sum of its objects.
"""

from __future__ import annotations

from rmaplab.engine.interval_tree import range_first, range_next
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import MACHINE, PAGES, SLAB, Avcs, Rows
from rmaplab.engine.search.naming import (
    ANON_VMAS,
    FOLIOS,
    SLOTS,
    VMAS,
    Notes,
    begin_numbers,
    is_known,
    is_orphan,
    number_all,
    number_of,
)
from rmaplab.engine.search.seats import VMA_ITEMS, key_of, look, note_anon_vma, note_counters, rank, times
from rmaplab.engine.trees import tree_first, tree_next
from rmaplab.engine.watch import mix

__all__ = ["mark"]

EVERYTHING = 1 << 62
NOBODY, LOST, LED_TO, CACHED, NODE = (kind << 56 for kind in range(1, 6))  # what names are made of


@compiled
def mark(m: Rows, c: Avcs, s: Notes, seats: Rows, places: Rows) -> int:
    """64-bit hash of a state up to the renaming of processes and objects."""
    begin_numbers(s)
    named = processes = 0
    process = m[MACHINE].first_process
    while process:
        seats[processes].process = process
        named = look(m, c, s, seats, processes, places, named)
        processes += 1
        process = m[process].later
    rank(seats, processes)
    for number in range(named):
        s[places[number].row].name += places[number].key * seats[places[number].seat].key
    acc = key_of(processes)
    for number in range(processes):
        own, first = seats[number].rank, seats[seats[number].first].rank
        acc += mix(seats[number].shape, times(0, seats[number].rest) + times(1, own) + times(2, first))
    if s[SLOTS].count:
        acc += _slots(m, s)
    if m[PAGES].first_node:
        acc += _stable_tree(m, s, seats, processes)
    if m[SLAB].live_anon_vmas != s[ANON_VMAS].count:
        _name_lost(m, s)
    anon_vma = s[ANON_VMAS].first
    while anon_vma:  # roots and parents may add to them
        acc += _anon_vma(m, c, s, seats, processes, anon_vma)
        anon_vma = s[anon_vma].next
    folio = s[FOLIOS].first
    while folio:
        acc += _folio(m, s, folio)
        folio = s[folio].next
    return acc


# --- what processes share ----------------------------------------------------------------------------


@compiled
def _slots(m: Rows, s: Notes) -> int:
    """The slots that entries name."""
    acc, slot = 0, s[SLOTS].first
    while slot:
        cached = m[slot].cached
        if cached:
            number_of(s, cached, FOLIOS)
            s[cached].name += mix(s[slot].name, CACHED)
        acc += mix(s[slot].name, times(1, m[slot].swap_count) + (cached != 0))
        slot = s[slot].next
    return acc


@compiled
def _stable_tree(m: Rows, s: Notes, seats: Rows, processes: int) -> int:
    """The nodes, in the order of insertion, and the items of each."""
    acc, at, node = 0, NODE, m[PAGES].first_node
    while node:
        number_of(s, m[node].kfolio, FOLIOS)
        s[m[node].kfolio].name += mix(0, at)
        acc += mix(at, times(0, m[node].content))
        at += 1
        item = m[node].items
        while item:
            note_anon_vma(m, s, m[item].item_anon_vma)
            s[m[item].item_anon_vma].name += mix(0, at)
            owner = _first_rank(m, seats, processes, m[item].item_mm)
            acc += mix(at, times(0, m[item].address >> 12) + times(1, m[item].item_pgoff) + times(2, owner + 1))
            at += 1
            item = m[item].next_item
        node = m[node].next_node
    return acc


@compiled
def _first_rank(m: Rows, seats: Rows, processes: int, mm: int) -> int:
    """The rank of the first process that has an address space; -1 if none has."""
    for seat in range(processes):
        if m[seats[seat].process].mm == mm:
            return seats[seat].rank
    return -1


@compiled
def _name_lost(m: Rows, s: Notes) -> None:
    """Name the allocated anon_vmas that nothing led to, in the order of their making."""
    last = s[ANON_VMAS].last
    number_all(m, s)
    lost = s[last].next if last else s[ANON_VMAS].first
    while lost:
        note_counters(m, s, lost)
        s[lost].name = mix(s[lost].number, LOST)
        lost = s[lost].next


@compiled
def _anon_vma(m: Rows, c: Avcs, s: Notes, seats: Rows, processes: int, anon_vma: int) -> int:
    """The counters, parent and root, and what its tree has more or less than the chains."""
    acc = s[anon_vma].counters + times(0, m[anon_vma].degree)
    if not m[anon_vma].freed:
        parent = NOBODY if is_orphan(m, anon_vma) else _name(m, s, m[anon_vma].parent)
        acc += times(1, parent) + times(2, _name(m, s, m[anon_vma].root))
    if s[anon_vma].links != m[anon_vma].entries:
        acc += times(3, _astray(m, c, s, seats, processes, anon_vma))
    return mix(s[anon_vma].name, acc)


@compiled
def _name(m: Rows, s: Notes, anon_vma: int) -> int:
    """The name of a parent or root, given to it if nothing else has led there."""
    if not is_known(s, anon_vma):
        note_anon_vma(m, s, anon_vma)
        s[anon_vma].name = mix(s[anon_vma].number, LED_TO)
    return s[anon_vma].name


@compiled
def _astray(m: Rows, c: Avcs, s: Notes, seats: Rows, processes: int, anon_vma: int) -> int:
    """The VMAs in a tree without those that have the anon_vma on their chains, each by its place."""
    if not s[VMAS].count:
        _place_vmas(m, s, seats, processes)
    acc, vma = 0, s[VMAS].first
    while vma:
        avc = m[vma].head
        while avc:
            if abs(c[avc].anon_vma) == anon_vma:
                acc -= s[vma].name
            avc = c[avc].after
        vma = s[vma].next
    place = range_first(m, anon_vma, 0, EVERYTHING)
    while place:
        avc = m[place].head
        while avc:
            acc += s[c[avc].vma].name if is_known(s, c[avc].vma) else NOBODY
            avc = c[avc].later
        place = range_next(m, place, 0, EVERYTHING)
    return acc


@compiled
def _place_vmas(m: Rows, s: Notes, seats: Rows, processes: int) -> None:
    """Name VMAs by their places."""
    for seat in range(processes):
        at, vma = 0, tree_first(m, m[m[seats[seat].process].mm].vmas)
        while vma:
            if not is_known(s, vma):  # by an earlier process with the same address space
                number_of(s, vma, VMAS)
                s[vma].name = key_of(at) * seats[seat].key
            at += VMA_ITEMS + m[vma].length
            vma = tree_next(m, vma)


@compiled
def _folio(m: Rows, s: Notes, folio: int) -> int:
    mapping, merged = m[folio].mapping, m[folio].stable_node
    name = s[mapping].name if mapping and is_known(s, mapping) else NOBODY  # -1 and -2 have one hash
    acc = times(0, m[folio].mapcount) + times(1, m[folio].index) + times(2, name)
    acc += times(3, (m[folio].pins << 1 | m[folio].exclusive) << 1 | (merged != 0))
    return mix(s[folio].name, acc + times(4, m[merged].content) if merged else acc)
