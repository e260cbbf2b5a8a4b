# SPDX-License-Identifier: GPL-2.0-only
"""Names for the objects of a state: numbers, given to them as they turn up.

What is known of an object stands in its note.  There is one for each row of
``m``; it counts for as long as it has the stamp of the naming under way, so
that nobody has to clear them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import ANON_VMA, FIRST, MACHINE, Rows, overlaid

__all__ = [
    "ANON_VMAS",
    "BITS",
    "FOLIOS",
    "SLOTS",
    "VMAS",
    "Notes",
    "begin_numbers",
    "is_known",
    "is_orphan",
    "known",
    "notes",
    "number_all",
    "number_of",
]

VMAS, ANON_VMAS, FOLIOS, SLOTS = range(4)
BITS = 64  # anon_vmas that a set has room for
_FIELDS = [
    ("stamp", "i8", 0),  # the naming that it is of; of row 0: the one under way
    ("name", "i8", 8),  # what mark() makes of its places
    ("counters", "i8", 16),  # of an anon_vma: a hash of them
    ("set", "i8", 24),  # of a VMA: the anon_vmas of its chain, by number, as bits
    ("number", "i4", 32),  # among those of its kind
    ("next", "i4", 36),  # the one with the next number
    ("links", "i4", 40),  # of an anon_vma: AVCs of chains that are in its tree
    ("users", "i4", 44),  # of an anon_vma: VMAs that name it; of a folio or slot: entries that do
    ("children", "i4", 48),  # of an anon_vma: linked ones below it; of a slot: exclusive entries
    ("below", "i4", 52),  # of a root: other anon_vmas of the tree
    ("first_user", "i4", 56),
    ("pins", "i4", 60),  # of an anon_vma: items of KSM's
    # Of a kind:
    ("count", "i4", 40),  # how many have a number
    ("first", "i4", 44),
    ("last", "i4", 48),
]
NOTE = overlaid(_FIELDS, 64)
Notes = Rows  # numpy.ndarray of NOTE


def notes(room: int) -> Any:  # noqa: ANN401 (numpy tells no shapes)
    """Notes for machines of so many rows."""
    return np.zeros(room, NOTE)


@compiled
def begin_numbers(s: Notes) -> None:
    """Nothing has a number."""
    s[0].stamp += 1
    for kind in range(4):
        s[kind].count = s[kind].first = s[kind].last = 0


@compiled
def is_known(s: Notes, row: int) -> bool:
    """Whether a row has a number."""
    return s[row].stamp == s[0].stamp


@compiled
def number_of(s: Notes, row: int, kind: int) -> int:
    """The number of a row among those of its kind, in order of appearance."""
    if not is_known(s, row):
        number = s[kind].count
        if number:
            s[s[kind].last].next = row
        else:
            s[kind].first = row
        s[kind].last = row
        s[kind].count = number + 1
        s[row].stamp = s[0].stamp
        s[row].number = number
        s[row].name = s[row].set = 0
        s[row].next = s[row].links = s[row].users = s[row].children = s[row].below = 0
        s[row].first_user = s[row].pins = 0
    return s[row].number


@compiled
def known(s: Notes, row: int, otherwise: int) -> int:
    """Its number, if it has one."""
    return s[row].number if is_known(s, row) else otherwise


@compiled
def is_orphan(m: Rows, anon_vma: int) -> bool:
    """Whether the parent of an anon_vma is gone."""
    parent = m[anon_vma].parent
    return m[parent].freed != 0 or m[parent].id != m[anon_vma].parent_id


@compiled
def number_all(m: Rows, s: Notes) -> None:
    """Number the allocated anon_vmas that nothing led to, the oldest first."""
    while True:
        oldest = 0
        for row in range(FIRST, m[MACHINE].used):
            unknown = m[row].kind == ANON_VMA and not m[row].freed and not is_known(s, row)
            if unknown and (not oldest or m[row].id < m[oldest].id):
                oldest = row
        if not oldest:
            return
        number_of(s, oldest, ANON_VMAS)
