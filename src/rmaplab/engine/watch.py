# SPDX-License-Identifier: GPL-2.0-only
"""What the explorer's monitor keeps of a call that may fail: :mod:`rmaplab.check.watch`.

Only watched machines pay for it.
"""

from __future__ import annotations

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import ANON_VMA, FIRST, MACHINE, PARAMS, SLAB, Avcs, Rows
from rmaplab.engine.reached import OWN_MADE, OWN_REUSED
from rmaplab.engine.rows import report
from rmaplab.engine.services import reach
from rmaplab.engine.trees import tree_first, tree_next

__all__ = ["check_forked", "check_reusable", "graph", "graph_if_failing", "mix", "unchanged"]


@compiled
def mix(state: int, value: int) -> int:
    """Add a number to a hash (the round of SplitMix64, Steele and others, 2014)."""
    state = (state ^ value) * -0x61C8864680B583EB
    state = (state ^ (state >> 30 & 0x3_FFFF_FFFF)) * -0x40A7B892E31B1A47
    return state ^ (state >> 27 & 0x1F_FFFF_FFFF)


@compiled
def graph(m: Rows, c: Avcs) -> int:
    """A hash of the counters and the entries of every anon_vma: equal before and after a call that failed."""
    state = 0
    for row in range(FIRST, m[MACHINE].used):
        if m[row].kind != ANON_VMA or m[row].freed:
            continue
        state = mix(state, row)
        state = mix(state, m[row].refcount)
        state = mix(state, m[row].num_children)
        state = mix(state, m[row].num_active_vmas)
        state = mix(state, m[row].degree)
        place = tree_first(m, m[row].ranges)
        while place:
            state = mix(state, m[place].key)
            avc = m[place].head
            while avc:
                state = mix(state, avc)
                avc = c[avc].later
            place = tree_next(m, place)
    return state


@compiled
def graph_if_failing(m: Rows, c: Avcs) -> int:
    """The graph now, if an allocation is to fail and somebody watches."""
    return graph(m, c) if m[MACHINE].watched and m[SLAB].fail_at else 0


@compiled
def unchanged(m: Rows, c: Avcs, before: int) -> None:
    """AV-033: a function that failed left the graph as it was."""
    if m[MACHINE].watched and m[SLAB].fail_at and graph(m, c) != before:
        report(m, 33)


# --- fork ----------------------------------------------------------------------------------------


@compiled
def check_reusable(m: Rows, c: Avcs, pvma: int) -> bool:
    """Whether fork may adopt one of the anon_vmas of the parent's VMA."""
    avc = m[pvma].head
    while avc:
        anon_vma = c[avc].anon_vma
        if m[PARAMS].counts == 1:
            if 0 <= m[anon_vma].degree < 2 and anon_vma != m[pvma].anon_vma:
                return True
        elif m[anon_vma].num_active_vmas == 0 and 0 <= m[anon_vma].num_children <= 1:
            return True
        avc = c[avc].after
    return False


@compiled
def check_forked(m: Rows, c: Avcs, vma: int, pvma: int, reusable: bool) -> None:
    """AV-034 to AV-036, and what kind of fork it was."""
    own, parent = m[vma].anon_vma, m[pvma].anon_vma
    made = True
    expected = found = 0
    avc = m[pvma].head
    while avc:
        made &= c[avc].anon_vma != own
        expected += mix(0, c[avc].anon_vma)
        avc = c[avc].after
    avc = m[vma].head
    while avc:
        found += mix(0, c[avc].anon_vma)
        avc = c[avc].after
    if made:
        expected += mix(0, own)
    if made or m[PARAMS].counts != 2:
        reach(m, OWN_MADE if made else OWN_REUSED)
    if found != expected:
        report(m, 34)
    if made == reusable:
        report(m, 35)
    if made and m[own].parent != parent:
        report(m, 36)
