# SPDX-License-Identifier: GPL-2.0-only
"""States packed into a few integers, and the hash by which the table of states knows them.

Two states are the same here if and only if they are for
:mod:`rmaplab.check.state`.  Small numbers share an integer; where one is too
large for its place, a mark and the numbers themselves stand there.
"""

from __future__ import annotations

import numpy as np

from rmaplab.engine.interval_tree import range_first, range_next
from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import FIRST, PAGES, SLAB, Avcs, Rows
from rmaplab.engine.pagetable import is_anon, is_swap, slot_of, waits_for
from rmaplab.engine.search.naming import (
    ANON_VMAS,
    COUNT,
    FOLIOS,
    ORDER,
    SLOTS,
    VMAS,
    Scratch,
    begin_numbers,
    known,
    number_all,
    number_of,
    number_of_mm,
    sorted_processes,
)
from rmaplab.engine.trees import tree_first, tree_next

__all__ = ["KEYS", "LONGEST", "mark"]

LONGEST = 1 << 13  # integers of a state
EVERYTHING = 1 << 62
WIDE = -1  # a mark: what follows did not fit
KEYS = np.random.default_rng(0).integers(-(1 << 63), 1 << 63, LONGEST, np.int64) | 1
"""Odd random numbers, one for each place of an integer."""

MIX = 11400714785074694791 - (1 << 64)


@compiled
def mark(m: Rows, c: Avcs, s: Scratch, shapes: Scratch, out: Scratch, keys: Scratch) -> int:
    """64-bit hash of a state: each integer times a random one (multilinear, Carter and Wegman, 1979)."""
    length = pack(m, c, s, shapes, out)
    acc = length * keys[length]
    for at in range(length):
        value = out[at]
        acc += (value ^ (value >> 12)) * keys[at]
    acc = (acc ^ (acc >> 32)) * MIX
    return acc ^ (acc >> 29)


@compiled
def pack(m: Rows, c: Avcs, s: Scratch, shapes: Scratch, out: Scratch) -> int:
    """Write a state up to the renaming of processes and objects into ``out``; the number of integers."""
    begin_numbers(s)
    processes = sorted_processes(m, c, shapes)
    out[0] = (m[PAGES].first_node != 0) << 32 | processes
    to = 1
    for at in range(processes):
        mm = m[shapes[at]].mm
        seen = 0
        if m[mm].users > 1:
            for before in range(at):
                if m[shapes[before]].mm == mm:
                    seen = before + 1
                    break
        out[to] = m[mm].brk << 10 | m[mm].has_pinned << 9 | seen
        to += 1
        if not seen:
            to = _pack_mm(m, c, s, out, to, mm)
    if s[SLOTS, COUNT] or m[PAGES].first_node:
        to = _pack_swap_and_ksm(m, s, shapes, processes, out, to)
    if m[SLAB].live_anon_vmas != s[ANON_VMAS, COUNT]:
        number_all(m, s)
    done = 0
    while done < s[ANON_VMAS, COUNT]:
        to = _pack_anon_vma(m, c, s, out, to, s[done, ORDER + ANON_VMAS])
        done += 1
    for at in range(s[FOLIOS, COUNT]):
        folio = s[at, ORDER + FOLIOS]
        mapping = m[folio].mapping
        name = known(s, mapping, -1) + 2 if mapping else 1  # a freed one is like none: -1 and -2 have one hash
        merged = m[folio].stable_node
        out[to] = (
            ((m[folio].mapcount << 20 | m[folio].pins) << 1 | m[folio].exclusive) << 1 | (merged != 0)
        ) << 12 | name
        out[to + 1] = m[folio].index
        to += 2
        if merged:
            out[to] = m[merged].content
            to += 1
    return to


@compiled
def _pack_mm(m: Rows, c: Avcs, s: Scratch, out: Scratch, to: int, mm: int) -> int:
    """The VMAs, each with its anon_vma and its chain, and the pages."""
    head = to
    to += 1
    vma = tree_first(m, m[mm].vmas)
    while vma:
        number_of(s, vma, VMAS)
        start = m[vma].key >> 12
        unusual = m[vma].vm_pgoff != start or m[vma].anon_pgoff != start
        out[to] = start << 28 | ((m[vma].vm_end >> 12) - start)
        own = m[vma].anon_vma
        item = number_of(s, own, ANON_VMAS) + 1 if own else 0
        out[to + 1] = ((m[vma].length << 12 | item) << 1 | unusual) << 32 | m[vma].vm_flags
        to += 2
        if unusual:
            out[to] = m[vma].vm_pgoff
            out[to + 1] = m[vma].anon_pgoff
            to += 2
        avc = m[vma].head
        while avc:
            item = 0
            for _ in range(5):
                item = item << 12 | (number_of(s, abs(c[avc].anon_vma), ANON_VMAS) + 1)
                avc = c[avc].after
                if not avc:
                    break
            out[to] = item
            to += 1
        vma = tree_next(m, vma)
    first_page = to
    leaf = tree_first(m, m[mm].leaves)
    while leaf:
        at, left = 0, m[leaf].present
        while left:
            entry = m[leaf].pte[at]
            if entry:
                left -= 1
                if is_anon(entry):
                    what = (number_of(s, entry >> 1, FOLIOS) + 4) << 1 | (entry & 1)
                elif entry > 0:
                    what = entry
                else:
                    what = _nonpresent(s, entry)
                out[to] = ((m[leaf].key << 4) + at) << 24 | what
                to += 1
            at += 1
        leaf = tree_next(m, leaf)
    out[head] = m[mm].number_of_vmas << 32 | (to - first_page)
    return _pack_pins(m, s, out, to, head, mm) if m[mm].first_pin else to


@compiled
def _pack_pins(m: Rows, s: Scratch, out: Scratch, to: int, head: int, mm: int) -> int:
    """The pins of a process, and in the item at ``head`` how many there are."""
    number, pin = 0, m[mm].first_pin
    while pin:
        folio = m[pin].pinned
        out[to] = m[pin].address >> 12 << 24 | (number_of(s, folio, FOLIOS) + 4 if folio >= FIRST else folio)
        to += 1
        number += 1
        pin = m[pin].next_pin
    out[head] |= number << 48
    return to


@compiled
def _nonpresent(s: Scratch, entry: int) -> int:
    """A swap or migration entry as the lower part of an integer."""
    if is_swap(entry):
        return 1 << 22 | number_of(s, slot_of(entry), SLOTS) << 1 | (-entry & 1)
    return 1 << 23 | number_of(s, waits_for(entry), FOLIOS) << 2 | (-entry & 3)


@compiled
def _pack_swap_and_ksm(m: Rows, s: Scratch, shapes: Scratch, processes: int, out: Scratch, to: int) -> int:
    """The slots that entries name, and the stable tree; how many nodes there are stands in front of it."""
    for at in range(s[SLOTS, COUNT]):
        slot = s[at, ORDER + SLOTS]
        cached = m[slot].cached
        out[to] = m[slot].swap_count << 32 | (number_of(s, cached, FOLIOS) + 1 if cached else 0)
        to += 1
    nodes, node = to, m[PAGES].first_node
    out[nodes] = 0
    to += 1
    while node:
        out[nodes] += 1
        out[to] = m[node].content
        head = to + 1
        out[head] = number_of(s, m[node].kfolio, FOLIOS) << 32
        to += 2
        item = m[node].items
        while item:
            out[head] += 1
            out[to] = m[item].address >> 12 << 12 | (number_of_mm(m, shapes, processes, m[item].item_mm) + 1)
            out[to + 1] = m[item].item_pgoff
            out[to + 2] = number_of(s, m[item].item_anon_vma, ANON_VMAS)
            to += 3
            item = m[item].next_item
        node = m[node].next_node
    return to


@compiled
def _pack_anon_vma(m: Rows, c: Avcs, s: Scratch, out: Scratch, to: int, anon_vma: int) -> int:
    """The counters, parent and root, and the set of VMAs in the tree."""
    parent = root = 0
    if not m[anon_vma].freed:
        gone = m[m[anon_vma].parent].freed or m[m[anon_vma].parent].id != m[anon_vma].parent_id
        parent = 1 if gone else number_of(s, m[anon_vma].parent, ANON_VMAS) + 2
        root = number_of(s, m[anon_vma].root, ANON_VMAS) + 2
    refcount, degree = m[anon_vma].refcount, m[anon_vma].degree
    children, active = m[anon_vma].num_children, m[anon_vma].num_active_vmas
    names = parent << 12 | root
    if (refcount | degree | children | active) >> 9 == 0:
        out[to] = (((refcount << 9 | degree) << 9 | children) << 9 | active) << 24 | names
        to += 1
    else:
        out[to] = WIDE
        out[to + 1] = refcount
        out[to + 2] = degree
        out[to + 3] = children
        out[to + 4] = active
        out[to + 5] = names
        to += 6
    members, plain = 0, True
    entries = m[anon_vma].entries
    place = range_first(m, anon_vma, 0, EVERYTHING) if entries else 0
    while place:
        avc = m[place].head
        while avc:
            number = known(s, c[avc].vma, -1)
            if 0 <= number < 62 and not members >> number & 1:
                members |= 1 << number
            else:
                plain = False
            avc = c[avc].later
        place = range_next(m, place, 0, EVERYTHING)
    out[to] = members
    to += 1
    return to if plain else _pack_entries(m, c, s, out, to, anon_vma)


@compiled
def _pack_entries(m: Rows, c: Avcs, s: Scratch, out: Scratch, to: int, anon_vma: int) -> int:
    """The VMAs in a tree as an ascending list: more than a set has room for, one of them twice, or unknown ones."""
    out[to] = WIDE
    out[to + 1] = m[anon_vma].entries
    to += 2
    begin = to
    place = range_first(m, anon_vma, 0, EVERYTHING)
    while place:
        avc = m[place].head
        while avc:
            number = known(s, c[avc].vma, -1)
            at = to
            while at > begin and out[at - 1] > number:
                out[at] = out[at - 1]
                at -= 1
            out[at] = number
            to += 1
            avc = c[avc].later
        place = range_next(m, place, 0, EVERYTHING)
    return to
