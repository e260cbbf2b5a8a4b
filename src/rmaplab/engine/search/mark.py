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

import numpy as np

from rmaplab.engine.interval_tree import range_first, range_next
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import FIRST, MACHINE, PAGES, SLAB, Avcs, Rows
from rmaplab.engine.pagetable import GUARD, is_anon, is_swap, slot_of, waits_for
from rmaplab.engine.search.naming import (
    ANON_VMAS,
    FOLIOS,
    SLOTS,
    VMAS,
    Notes,
    begin_numbers,
    is_known,
    number_all,
    number_of,
)
from rmaplab.engine.trees import tree_first, tree_next
from rmaplab.engine.watch import mix

__all__ = ["PLACE", "SEAT", "is_orphan", "mark"]

EVERYTHING = 1 << 62
SEAT = np.dtype(
    [
        ("shape", "i8"),  # what sorts processes
        ("rest", "i8"),  # what else can be said of one without naming objects
        ("process", "i8"),
        ("first", "i8"),  # the first seat with its address space
        ("rank", "i8"),  # in the order of their shapes, equal ones in the order of their making
        ("key", "i8"),  # of the rank
    ]
)
"""One for each process."""
PLACE = np.dtype([("row", "i4"), ("seat", "i4"), ("key", "i8")])
"""What is named by whom, and the key of how many other things stand before it."""
PLACES = 1 << 14  # more than a process names things within the explorer's bounds
KEYS = np.random.default_rng(0).integers(-(1 << 63), 1 << 63, PLACES + 8, np.int64) | 1
RANKS = np.random.default_rng(1).integers(-(1 << 63), 1 << 63, 1 << 10, np.int64) | 1
REFCOUNT, NUM_CHILDREN, NUM_ACTIVE_VMAS, ENTRIES, END = map(int, KEYS[PLACES:][:5])
VMA_ITEMS = 4  # of a shape, beside those of the chain: where it begins and ends, its flags, and END
NOBODY, LOST, LED_TO, CACHED, NODE = (kind << 56 for kind in range(1, 6))  # what names are made of


@compiled
def mark(m: Rows, c: Avcs, s: Notes, seats: Rows, places: Rows) -> int:
    """64-bit hash of a state up to the renaming of processes and objects."""
    begin_numbers(s)
    named = processes = 0
    process = m[MACHINE].first_process
    while process:
        seats[processes].process = process
        named = _look(m, c, s, seats, processes, places, named)
        processes += 1
        process = m[process].later
    _rank(seats, processes)
    for number in range(named):
        s[places[number].row].name += places[number].key * seats[places[number].seat].key
    acc = _key(processes)
    for number in range(processes):
        rank, first_rank = seats[number].rank, seats[seats[number].first].rank
        acc += mix(seats[number].shape, _times(0, seats[number].rest) + _times(1, rank) + _times(2, first_rank))
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


@compiled
def _rank(seats: Rows, processes: int) -> None:
    """Sort processes, which are few, without asking what a processor cannot guess."""
    for one in range(processes):
        rank, shape = 0, seats[one].shape
        for other in range(one):
            before = seats[other].shape <= shape
            rank += before
            seats[other].rank += not before
        seats[one].rank = rank
    for one in range(processes):
        seats[one].key = RANKS[seats[one].rank & (len(RANKS) - 1)]


@compiled
def _times(at: int, value: int) -> int:
    """A number times a random one for its place, to be added up (multilinear, Carter and Wegman, 1979)."""
    return value * _key(at)


@compiled
def _key(at: int) -> int:
    return KEYS[at & (PLACES - 1)]


# --- one process after the other ---------------------------------------------------------------------


@compiled
def _look(m: Rows, c: Avcs, s: Notes, seats: Rows, seat: int, places: Rows, named: int) -> int:
    """Fill a seat, and write down what is named where, behind what others have named; the number of all that."""
    mm = m[seats[seat].process].mm
    if m[mm].users > 1:
        for before in range(seat):
            if m[seats[before].process].mm == mm:
                seats[seat].shape = seats[before].shape
                seats[seat].rest, seats[seat].first = 0, before
                return named
    shape, rest, at = 0, m[mm].brk << 10 | m[mm].has_pinned << 9, 0
    vma = tree_first(m, m[mm].vmas)
    while vma:
        own, start = m[vma].anon_vma, m[vma].key >> 12
        shape += _times(at, start) + _times(at + 1, m[vma].vm_end >> 12) + _times(at + 2, m[vma].vm_flags)
        if m[vma].vm_pgoff != start or m[vma].anon_pgoff != start:
            rest += _times(at, m[vma].vm_pgoff) + _times(at + 1, m[vma].anon_pgoff) + _key(at + 2)
        if own:
            _note_anon_vma(m, s, own)
            named = _put(places, named, own, seat, at)
        at += VMA_ITEMS - 1
        avc, linked = m[vma].head, -1 if m[vma].freed else vma
        while avc:
            anon_vma, place = abs(c[avc].anon_vma), c[avc].range
            _note_anon_vma(m, s, anon_vma)
            shape += _times(at, s[anon_vma].counters + (anon_vma == own))
            named = _put(places, named, anon_vma, seat, at)
            at += 1
            if place > 0 and m[place].owner == anon_vma and c[avc].vma == linked:
                s[anon_vma].links += 1
            avc = c[avc].after
        shape += _times(at, END)
        at += 1
        vma = tree_next(m, vma)
    leaf = tree_first(m, m[mm].leaves)
    while leaf:
        number, left = 0, m[leaf].present
        while left:
            entry = m[leaf].pte[number]
            if entry:
                left -= 1
                page = ((m[leaf].key << 4) + number) << 28
                if is_anon(entry):
                    folio = entry >> 1
                    page |= 1 << 27 | m[folio].mapcount << 2 | m[folio].exclusive << 1 | (entry & 1)
                    number_of(s, folio, FOLIOS)
                    s[folio].users += 1
                    named = _put(places, named, folio, seat, at)
                elif entry < 0:
                    rest += _times(at, _note_nonpresent(s, entry))
                    named = _put(places, named, slot_of(entry) if is_swap(entry) else waits_for(entry), seat, at)
                else:
                    page |= 1 << 27 | (entry & 1) if entry >> 1 != GUARD else 0
                    rest += _times(at, entry)
                shape += _times(at, page)
                at += 1
            number += 1
        leaf = tree_next(m, leaf)
    seats[seat].shape = mix(shape, at)  # pins are no part of it
    pin = m[mm].first_pin
    while pin:
        folio = m[pin].pinned
        rest += _times(at, m[pin].address >> 12) + _times(at + 1, min(folio, FIRST))
        if folio >= FIRST:
            number_of(s, folio, FOLIOS)
            named = _put(places, named, folio, seat, at)
        at += 2
        pin = m[pin].next_pin
    seats[seat].rest, seats[seat].first = rest, seat
    return named


@compiled
def _put(places: Rows, named: int, row: int, seat: int, at: int) -> int:
    places[named].row = row
    places[named].seat = seat
    places[named].key = _key(at)
    return named + 1


@compiled
def _note_anon_vma(m: Rows, s: Notes, anon_vma: int) -> None:
    """Note an anon_vma, unless it is known."""
    if not is_known(s, anon_vma):
        number_of(s, anon_vma, ANON_VMAS)
        _note_counters(m, s, anon_vma)


@compiled
def _note_counters(m: Rows, s: Notes, anon_vma: int) -> None:
    acc = m[anon_vma].refcount * REFCOUNT + m[anon_vma].num_children * NUM_CHILDREN
    s[anon_vma].counters = acc + m[anon_vma].num_active_vmas * NUM_ACTIVE_VMAS + m[anon_vma].entries * ENTRIES


@compiled
def _note_nonpresent(s: Notes, entry: int) -> int:
    """Note what a swap or migration entry names; the rest of it."""
    if not is_swap(entry):
        number_of(s, waits_for(entry), FOLIOS)
        return 1 << 3 | (-entry & 3)
    slot = slot_of(entry)
    number_of(s, slot, SLOTS)
    s[slot].users += 1
    s[slot].children += -entry & 1
    return 1 << 4 | (-entry & 1)


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
        acc += mix(s[slot].name, _times(1, m[slot].swap_count) + (cached != 0))
        slot = s[slot].next
    return acc


@compiled
def _stable_tree(m: Rows, s: Notes, seats: Rows, processes: int) -> int:
    """The nodes, in the order of insertion, and the items of each."""
    acc, at, node = 0, NODE, m[PAGES].first_node
    while node:
        number_of(s, m[node].kfolio, FOLIOS)
        s[m[node].kfolio].name += mix(0, at)
        acc += mix(at, _times(0, m[node].content))
        at += 1
        item = m[node].items
        while item:
            _note_anon_vma(m, s, m[item].item_anon_vma)
            s[m[item].item_anon_vma].name += mix(0, at)
            rank = _first_rank(m, seats, processes, m[item].item_mm)
            acc += mix(at, _times(0, m[item].address >> 12) + _times(1, m[item].item_pgoff) + _times(2, rank + 1))
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
        _note_counters(m, s, lost)
        s[lost].name = mix(s[lost].number, LOST)
        lost = s[lost].next


@compiled
def _anon_vma(m: Rows, c: Avcs, s: Notes, seats: Rows, processes: int, anon_vma: int) -> int:
    """The counters, parent and root, and what its tree has more or less than the chains."""
    acc = s[anon_vma].counters + _times(0, m[anon_vma].degree)
    if not m[anon_vma].freed:
        parent = NOBODY if is_orphan(m, anon_vma) else _name(m, s, m[anon_vma].parent)
        acc += _times(1, parent) + _times(2, _name(m, s, m[anon_vma].root))
    if s[anon_vma].links != m[anon_vma].entries:
        acc += _times(3, _astray(m, c, s, seats, processes, anon_vma))
    return mix(s[anon_vma].name, acc)


@compiled
def _name(m: Rows, s: Notes, anon_vma: int) -> int:
    """The name of a parent or root, given to it if nothing else has led there."""
    if not is_known(s, anon_vma):
        _note_anon_vma(m, s, anon_vma)
        s[anon_vma].name = mix(s[anon_vma].number, LED_TO)
    return s[anon_vma].name


@compiled
def is_orphan(m: Rows, anon_vma: int) -> bool:
    """Whether its parent is gone."""
    parent = m[anon_vma].parent
    return m[parent].freed != 0 or m[parent].id != m[anon_vma].parent_id


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
                s[vma].name = _key(at) * seats[seat].key
            at += VMA_ITEMS + m[vma].length
            vma = tree_next(m, vma)


@compiled
def _folio(m: Rows, s: Notes, folio: int) -> int:
    mapping, merged = m[folio].mapping, m[folio].stable_node
    name = s[mapping].name if mapping and is_known(s, mapping) else NOBODY  # -1 and -2 have one hash
    acc = _times(0, m[folio].mapcount) + _times(1, m[folio].index) + _times(2, name)
    acc += _times(3, (m[folio].pins << 1 | m[folio].exclusive) << 1 | (merged != 0))
    return mix(s[folio].name, acc + _times(4, m[merged].content) if merged else acc)
