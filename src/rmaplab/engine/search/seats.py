# SPDX-License-Identifier: GPL-2.0-only
"""Processes one by one: a hash of what can be said of each alone, and the places where they name shared objects."""

from __future__ import annotations

import numpy as np

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import FIRST, Avcs, Rows
from rmaplab.engine.pagetable import GUARD, is_anon, is_swap, slot_of, waits_for
from rmaplab.engine.search.naming import ANON_VMAS, FOLIOS, SLOTS, Notes, is_known, number_of
from rmaplab.engine.trees import tree_first, tree_next
from rmaplab.engine.watch import mix

__all__ = [
    "PLACE",
    "SEAT",
    "VMA_ITEMS",
    "key_of",
    "look",
    "note_anon_vma",
    "note_counters",
    "rank",
    "times",
]

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


@compiled
def key_of(at: int) -> int:
    """A random odd number for a place."""
    return KEYS[at & (PLACES - 1)]


@compiled
def times(at: int, value: int) -> int:
    """A number times the key of its place, to be added up (multilinear, Carter and Wegman, 1979)."""
    return value * key_of(at)


@compiled
def look(m: Rows, c: Avcs, s: Notes, seats: Rows, seat: int, places: Rows, named: int) -> int:
    """Fill a seat, and write down what is named where, behind what others have named; the number of all that."""
    mm = m[seats[seat].process].mm
    if m[mm].users > 1:
        for before in range(seat):
            if m[seats[before].process].mm == mm:
                seats[seat].shape = seats[before].shape
                seats[seat].rest, seats[seat].first = 0, before
                return named
    shape, rest, at, named = _look_at_vmas(m, c, s, mm, seat, places, named)
    more, less, at, named = _look_at_pages(m, s, mm, seat, places, named, at)
    seats[seat].shape = mix(shape + more, at)  # pins are no part of it
    pins, named = _look_at_pins(m, s, mm, seat, places, named, at)
    seats[seat].rest = rest + less + pins + (m[mm].brk << 10 | m[mm].has_pinned << 9)
    seats[seat].first = seat
    return named


@compiled
def _look_at_vmas(
    m: Rows, c: Avcs, s: Notes, mm: int, seat: int, places: Rows, named: int
) -> tuple[int, int, int, int]:
    """What VMAs add to the shape and to the rest, and how many things they name."""
    shape = rest = at = 0
    vma = tree_first(m, m[mm].vmas)
    while vma:
        own, start = m[vma].anon_vma, m[vma].key >> 12
        shape += times(at, start) + times(at + 1, m[vma].vm_end >> 12) + times(at + 2, m[vma].vm_flags)
        if m[vma].vm_pgoff != start or m[vma].anon_pgoff != start:
            rest += times(at, m[vma].vm_pgoff) + times(at + 1, m[vma].anon_pgoff) + key_of(at + 2)
        if own:
            note_anon_vma(m, s, own)
            named = _put(places, named, own, seat, at)
        at += VMA_ITEMS - 1
        avc, linked = m[vma].head, -1 if m[vma].freed else vma
        while avc:
            anon_vma, place = abs(c[avc].anon_vma), c[avc].range
            note_anon_vma(m, s, anon_vma)
            shape += times(at, s[anon_vma].counters + (anon_vma == own))
            named = _put(places, named, anon_vma, seat, at)
            at += 1
            if place > 0 and m[place].owner == anon_vma and c[avc].vma == linked:
                s[anon_vma].links += 1
            avc = c[avc].after
        shape += times(at, END)
        at += 1
        vma = tree_next(m, vma)
    return shape, rest, at, named


@compiled
def _look_at_pages(
    m: Rows, s: Notes, mm: int, seat: int, places: Rows, named: int, at: int
) -> tuple[int, int, int, int]:
    """The same of page table entries."""
    shape = rest = 0
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
                    rest += times(at, _note_nonpresent(s, entry))
                    named = _put(places, named, slot_of(entry) if is_swap(entry) else waits_for(entry), seat, at)
                else:
                    page |= 1 << 27 | (entry & 1) if entry >> 1 != GUARD else 0
                    rest += times(at, entry)
                shape += times(at, page)
                at += 1
            number += 1
        leaf = tree_next(m, leaf)
    return shape, rest, at, named


@compiled
def _look_at_pins(m: Rows, s: Notes, mm: int, seat: int, places: Rows, named: int, at: int) -> tuple[int, int]:
    """What pins add to the rest."""
    rest, pin = 0, m[mm].first_pin
    while pin:
        folio = m[pin].pinned
        rest += times(at, m[pin].address >> 12) + times(at + 1, min(folio, FIRST))
        if folio >= FIRST:
            number_of(s, folio, FOLIOS)
            named = _put(places, named, folio, seat, at)
        at += 2
        pin = m[pin].next_pin
    return rest, named


@compiled
def _put(places: Rows, named: int, row: int, seat: int, at: int) -> int:
    places[named].row = row
    places[named].seat = seat
    places[named].key = key_of(at)
    return named + 1


@compiled
def note_anon_vma(m: Rows, s: Notes, anon_vma: int) -> None:
    """Note an anon_vma, unless it is known."""
    if not is_known(s, anon_vma):
        number_of(s, anon_vma, ANON_VMAS)
        note_counters(m, s, anon_vma)


@compiled
def note_counters(m: Rows, s: Notes, anon_vma: int) -> None:
    """Note a hash of its counters."""
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


@compiled
def rank(seats: Rows, processes: int) -> None:
    """Sort processes, which are few, without asking what a processor cannot guess."""
    for one in range(processes):
        place, shape = 0, seats[one].shape
        for other in range(one):
            before = seats[other].shape <= shape
            place += before
            seats[other].rank += not before
        seats[one].rank = place
    for one in range(processes):
        seats[one].key = RANKS[seats[one].rank & (len(RANKS) - 1)]
