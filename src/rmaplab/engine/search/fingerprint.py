# SPDX-License-Identifier: GPL-2.0-only
"""The fingerprint of a state on rows: the number that :func:`rmaplab.check.state.fingerprint` gives it.

Equal numbers for equal states are worth following Python's hash of a tuple of
integers (xxHash with a lane an item): then both explorers tell the same
states apart, whatever order objects were met in.  Where the specification
writes a list, this goes on with the hash.

``s`` (int64, rows x 4) is scratch: of a row of ``m`` the fingerprint that
numbered it last and its number; and the rows in the order of their numbers.
"""

from __future__ import annotations

from rmaplab.engine.interval_tree import range_first, range_next
from rmaplab.engine.jit import compiled
from rmaplab.engine.pagetable import GUARD, ZERO_PAGE, is_anon
from rmaplab.engine.rows import ANON_VMA, FIRST, MACHINE, SLAB, Avcs, Rows
from rmaplab.engine.trees import tree_first, tree_next

__all__ = ["Scratch", "fingerprint"]

Scratch = Rows  # numpy.ndarray of int64

PRIME_1, PRIME_2, PRIME_5 = 11400714785074694791 - (1 << 64), 14029467366897019727 - (1 << 64), 2870177450012600261
MODULUS = (1 << 61) - 1
EVERYTHING = 1 << 62
STAMP, NUMBER, ANON_VMAS, FOLIOS = range(4)  # columns of s
EPOCH, COUNT_VMAS, COUNT_AVS, COUNT_FOLIOS = range(4)  # rows of its first columns that are no objects


@compiled
def _lane(acc: int, value: int) -> int:
    """Add an integer to a tuple's hash."""
    if value == -1:
        value = -2
    acc += value * PRIME_2
    acc = (acc << 31) | ((acc >> 33) & 0x7FFF_FFFF)
    return acc * PRIME_1


@compiled
def _unsigned(counter: int) -> int:
    """The hash of a counter that wraps."""
    if counter >= 0:
        return counter
    return 8 + counter if counter >= -8 else MODULUS + 8 + counter


@compiled
def _number(s: Scratch, row: int, column: int, count: int) -> int:
    """The number of a row among those of its kind, in order of appearance."""
    if s[row, STAMP] != s[0, EPOCH]:
        number = s[count, NUMBER]
        s[row, STAMP] = s[0, EPOCH]
        s[count, NUMBER] = number + 1
        s[row, NUMBER] = number
        s[number, column] = row
        return number
    return s[row, NUMBER]


@compiled
def _known(s: Scratch, row: int, otherwise: int) -> int:
    """Its number, if it has one."""
    return s[row, NUMBER] if s[row, STAMP] == s[0, EPOCH] else otherwise


@compiled
def fingerprint(m: Rows, c: Avcs, s: Scratch, shapes: Scratch, walk_order: bool) -> int:
    """64-bit hash of a state up to the renaming of processes and objects."""
    s[0, EPOCH] += 1
    s[COUNT_VMAS, NUMBER] = s[COUNT_AVS, NUMBER] = s[COUNT_FOLIOS, NUMBER] = 0
    processes = _sorted_processes(m, c, shapes)
    acc, length = PRIME_5, 0
    for at in range(processes):
        mm = m[shapes[at]].mm
        seen = -1
        for before in range(at):
            if m[shapes[before]].mm == mm:
                seen = before
                break
        acc, length = _lane(acc, seen), length + 1
        if seen < 0:
            acc, length = _add_mm(m, c, s, acc, length, mm)
    if m[SLAB].live_anon_vmas != s[COUNT_AVS, NUMBER]:
        _number_all(m, s)
    done = 0
    while done < s[COUNT_AVS, NUMBER]:
        acc, length = _add_anon_vma(m, c, s, acc, length, s[done, ANON_VMAS], walk_order)
        done += 1
    for at in range(s[COUNT_FOLIOS, NUMBER]):
        folio = s[at, FOLIOS]
        mapping = m[folio].mapping
        acc = _lane(acc, _known(s, mapping, -2) if mapping else -1)
        acc = _lane(acc, m[folio].index)
        acc = _lane(acc, m[folio].mapcount)
        acc = _lane(acc, m[folio].exclusive)
        acc = _lane(_lane(acc, 0), m[folio].pins)
        length += 6
    acc += length ^ (PRIME_5 ^ 3527539)
    return 1546275796 if acc == -1 else acc


@compiled
def _add_mm(m: Rows, c: Avcs, s: Scratch, acc: int, length: int, mm: int) -> tuple[int, int]:
    vma = tree_first(m, m[mm].vmas)
    while vma:
        s[vma, STAMP] = s[0, EPOCH]
        s[vma, NUMBER] = s[COUNT_VMAS, NUMBER]
        s[COUNT_VMAS, NUMBER] += 1
        acc = _lane(acc, m[vma].key)
        acc = _lane(acc, m[vma].vm_end)
        acc = _lane(acc, m[vma].vm_pgoff)
        acc = _lane(acc, m[vma].anon_pgoff)
        acc = _lane(acc, m[vma].vm_flags)
        length += 6
        own = m[vma].anon_vma
        if own:
            acc = _lane(acc, _number(s, own, ANON_VMAS, COUNT_AVS))
            length += 1
        avc = m[vma].head
        while avc:
            acc = _lane(acc, _number(s, abs(c[avc].anon_vma), ANON_VMAS, COUNT_AVS))
            length += 1
            avc = c[avc].after
        acc = _lane(acc, -2 if own else -1)
        vma = tree_next(m, vma)
    leaf = tree_first(m, m[mm].leaves)
    while leaf:
        for at in range(16):
            entry = m[leaf].pte[at]
            if entry == 0:
                continue
            acc = _lane(acc, (m[leaf].key << 16) + (at << 12))
            folio = entry >> 1
            if folio == GUARD:
                acc, length = _lane(acc, -10), length + 2
                continue
            if is_anon(entry):
                number = _number(s, folio, FOLIOS, COUNT_FOLIOS)
            else:
                number = -3 if folio == ZERO_PAGE else -4
            acc = _lane(_lane(_lane(acc, number), entry & 1), 0)
            length += 4
        leaf = tree_next(m, leaf)
    acc = _lane(_lane(_lane(acc, -3), m[mm].has_pinned), m[mm].brk)
    return acc, length + 3


@compiled
def _number_all(m: Rows, s: Scratch) -> None:
    """Number the allocated anon_vmas that nothing led to, the oldest first."""
    while True:
        oldest = 0
        for row in range(FIRST, m[MACHINE].used):
            if m[row].kind == ANON_VMA and not m[row].freed and s[row, STAMP] != s[0, EPOCH]:
                if not oldest or m[row].id < m[oldest].id:
                    oldest = row
        if not oldest:
            return
        _number(s, oldest, ANON_VMAS, COUNT_AVS)


@compiled
def _add_anon_vma(
    m: Rows, c: Avcs, s: Scratch, acc: int, length: int, anon_vma: int, walk_order: bool
) -> tuple[int, int]:
    acc = _lane(acc, m[anon_vma].refcount)
    acc = _lane(acc, _unsigned(m[anon_vma].num_children))
    acc = _lane(acc, _unsigned(m[anon_vma].num_active_vmas))
    acc = _lane(acc, _unsigned(m[anon_vma].degree))
    acc = _lane(acc, m[anon_vma].freed)
    length += 5
    if not m[anon_vma].freed:
        parent, root = m[anon_vma].parent, m[anon_vma].root
        gone = m[parent].freed or m[parent].id != m[anon_vma].parent_id
        acc = _lane(acc, -1 if gone else _number(s, parent, ANON_VMAS, COUNT_AVS))
        acc = _lane(acc, _number(s, root, ANON_VMAS, COUNT_AVS))
        length += 2
    if walk_order or m[anon_vma].entries < 2:
        place = range_first(m, anon_vma, 0, EVERYTHING)
        while place:
            avc = m[place].head
            while avc:
                acc = _lane(acc, _known(s, c[avc].vma, -1))
                avc = c[avc].later
            place = range_next(m, place, 0, EVERYTHING)
    else:
        acc = _add_sorted(m, c, s, acc, anon_vma)
    length += m[anon_vma].entries + 1
    return _lane(acc, -2), length


@compiled
def _add_sorted(m: Rows, c: Avcs, s: Scratch, acc: int, anon_vma: int) -> int:
    """The VMAs' numbers in ascending order, by looking for the next one again and again: there are few."""
    last, left = -2, m[anon_vma].entries
    while left > 0:
        following, times = EVERYTHING, 0
        place = range_first(m, anon_vma, 0, EVERYTHING)
        while place:
            avc = m[place].head
            while avc:
                number = _known(s, c[avc].vma, -1)
                if last < number < following:
                    following, times = number, 1
                elif number == following:
                    times += 1
                avc = c[avc].later
            place = range_next(m, place, 0, EVERYTHING)
        for _ in range(times):
            acc = _lane(acc, following)
        left -= times
        last = following
    return acc


# --- the order of processes ------------------------------------------------------------------------


@compiled
def _sorted_processes(m: Rows, c: Avcs, shapes: Scratch) -> int:
    """Put the processes into the first items of ``shapes``, sorted by what can be said without names; their number."""
    number = m[MACHINE].processes
    process = m[MACHINE].first_process
    for at in range(number):
        shapes[at] = process
        process = m[process].later
    if number < 2:
        return number
    # Behind them for each: where its shape begins; then the shapes, with their length in front.
    end = 2 * number
    for at in range(number):
        shapes[number + at] = end
        shapes[end] = _shape(m, c, shapes, end + 1, m[shapes[at]].mm)
        end += 1 + shapes[end]
    for at in range(1, number):
        process, begin = shapes[at], shapes[number + at]
        to = at
        while to and _is_less(shapes, begin, shapes[number + to - 1]):
            shapes[to] = shapes[to - 1]
            shapes[number + to] = shapes[number + to - 1]
            to -= 1
        shapes[to] = process
        shapes[number + to] = begin
    return number


@compiled
def _is_less(shapes: Scratch, one: int, other: int) -> bool:
    """Whether a shape comes before another, as tuples do."""
    for at in range(1, min(shapes[one], shapes[other]) + 1):
        if shapes[one + at] != shapes[other + at]:
            return shapes[one + at] < shapes[other + at]
    return shapes[one] < shapes[other]


@compiled
def _highest(counter: int) -> int:
    """A counter that wraps, for comparison alone."""
    return counter if counter >= 0 else 0x7FFF_FFFF_FFFF_FFFF + (counter + 1)


@compiled
def _shape(m: Rows, c: Avcs, shapes: Scratch, to: int, mm: int) -> int:
    """Write what can be said of a process without naming shared objects; its length."""
    begin = to
    vma = tree_first(m, m[mm].vmas)
    while vma:
        shapes[to] = m[vma].key
        shapes[to + 1] = m[vma].vm_end
        shapes[to + 2] = m[vma].vm_flags
        to += 3
        own = m[vma].anon_vma
        avc = m[vma].head
        while avc:
            anon_vma = abs(c[avc].anon_vma)
            shapes[to] = m[anon_vma].refcount
            shapes[to + 1] = _highest(m[anon_vma].num_children)
            shapes[to + 2] = _highest(m[anon_vma].num_active_vmas)
            shapes[to + 3] = m[anon_vma].entries
            shapes[to + 4] = anon_vma == own
            to += 5
            avc = c[avc].after
        shapes[to] = -1
        to += 1
        vma = tree_next(m, vma)
    leaf = tree_first(m, m[mm].leaves)
    while leaf:
        for at in range(16):
            entry = m[leaf].pte[at]
            if entry == 0:
                continue
            shapes[to] = (m[leaf].key << 16) + (at << 12)
            to += 1
            if entry >> 1 != GUARD:
                anon = is_anon(entry)
                shapes[to] = m[entry >> 1].mapcount if anon else 0
                shapes[to + 1] = m[entry >> 1].exclusive if anon else 0
                shapes[to + 2] = entry & 1
                to += 3
        leaf = tree_next(m, leaf)
    return to - begin
