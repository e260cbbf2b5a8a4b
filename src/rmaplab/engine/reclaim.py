# SPDX-License-Identifier: GPL-2.0-only
"""The pages that a replay walks, by a pattern: :mod:`rmaplab.workload.reclaim`."""

from __future__ import annotations

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import MACHINE, PROCESS, Avcs, Rows
from rmaplab.engine.pagetable import first_leaf, folio_of, is_anon
from rmaplab.engine.tally import WALK_VISITS, Array, count
from rmaplab.engine.trees import tree_first, tree_next
from rmaplab.engine.vma_adjust import find
from rmaplab.engine.walk import rmap_walk_anon

__all__ = ["AT_EXIT", "BY_CLOCK", "EVERY", "NEVER", "PAGES", "ends", "tick"]

AT_EXIT, BY_CLOCK, NEVER = range(3)
EVERY = 100  # trace events between two rounds of the clock
PAGES = 8  # that a round walks


@compiled
def ends(m: Rows, c: Avcs, tally: Array, histograms: Array, overflow: Array, visited: Array, process: int) -> None:
    """The process is about to leave its address space."""
    mm = m[process].mm
    if tally[0].pattern != AT_EXIT or m[mm].users > 1:
        return
    vma = tree_first(m, m[mm].vmas)
    while vma:
        if m[vma].anon_vma:
            address, folio = _anon_page(m, mm, m[vma].key, m[vma].vm_end)
            if folio:
                _walk(m, c, tally, histograms, overflow, visited, folio, process, address)
        vma = tree_next(m, vma)


@compiled
def tick(m: Rows, c: Avcs, tally: Array, histograms: Array, overflow: Array, visited: Array) -> None:
    """An event of the trace is over."""
    if tally[0].pattern != BY_CLOCK:
        return
    tally[0].until_round -= 1
    if tally[0].until_round == 0:
        tally[0].until_round = EVERY
        _round(m, c, tally, histograms, overflow, visited)


@compiled
def _walk(
    m: Rows,
    c: Avcs,
    tally: Array,
    histograms: Array,
    overflow: Array,
    visited: Array,
    folio: int,
    process: int,
    address: int,
) -> None:
    visits, maps = rmap_walk_anon(m, c, folio, visited)
    count(tally, histograms, overflow, WALK_VISITS, visits)
    tally[0].walk_maps += maps
    if visits > tally[0].worst_visits:
        tally[0].worst_visits = visits
        tally[0].worst_maps = maps
        tally[0].worst_event = tally[0].events
        tally[0].worst_process = m[process].id
        tally[0].worst_address = address


@compiled
def _anon_page(m: Rows, mm: int, start: int, end: int) -> tuple[int, int]:
    """Address (bytes) and folio of the first anonymous page in [start, end), or twice 0."""
    leaf = first_leaf(m, mm, start)
    while leaf and m[leaf].key << 16 < end:
        base = m[leaf].key << 16
        for at in range(max(start - base, 0) >> 12, min(end - base, 1 << 16) >> 12):
            entry = m[leaf].pte[at]
            if is_anon(entry):
                return base + (at << 12), folio_of(entry)
        leaf = tree_next(m, leaf)
    return 0, 0


@compiled
def _round(m: Rows, c: Avcs, tally: Array, histograms: Array, overflow: Array, visited: Array) -> None:
    """The next pages from the hand on; no page twice in a round."""
    process, address = tally[0].hand, tally[0].hand_address
    if not process or m[process].kind != PROCESS or m[process].id != tally[0].hand_number:
        process, address = m[MACHINE].first_process, 0
    walked = 0
    for _ in range(m[MACHINE].processes + 1 if process else 0):
        mm = m[process].mm
        vma = find(m, mm, address)
        while vma:
            at = max(address, m[vma].key)
            while True:
                at, folio = _anon_page(m, mm, at, m[vma].vm_end)
                if not folio:
                    break
                at += 4096
                if _was_walked(tally, walked, folio):
                    continue
                tally[0].walked[walked] = folio
                walked += 1
                _walk(m, c, tally, histograms, overflow, visited, folio, process, at - 4096)
                if walked == PAGES:
                    tally[0].hand = process
                    tally[0].hand_number = m[process].id
                    tally[0].hand_address = at
                    return
            vma = tree_next(m, vma)
        process, address = m[process].later, 0
        if not process:
            process = m[MACHINE].first_process
    tally[0].hand = 0


@compiled
def _was_walked(tally: Array, number: int, folio: int) -> bool:
    for at in range(number):
        if tally[0].walked[at] == folio:
            return True
    return False
