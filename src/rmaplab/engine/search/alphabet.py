# SPDX-License-Identifier: GPL-2.0-only
"""Which calls a state allows within bounds, in the order of :mod:`rmaplab.check.histories`; and making one.

A step is a number: the call, who makes it, on which pages, and which of its
allocations is to fail.  Processes are called by number, in the order of their
making over the whole history; areas too, the one apart from all others last.
"""

from __future__ import annotations

from errno import EINVAL
from zlib import crc32

from rmaplab.engine import calls
from rmaplab.engine.choice import OPERATIONS
from rmaplab.engine.jit import compiled
from rmaplab.engine.mmap import PRIVATE_ANONYMOUS_FLAGS, PRIVATE_FLAGS, SET_FLAGS
from rmaplab.engine.pagetable import is_anon, is_present, is_swap, pte_get
from rmaplab.engine.rmap import vma_lookup
from rmaplab.engine.rows import MACHINE, PAGES, SLAB, Avcs, Rows
from rmaplab.engine.vma_adjust import find

__all__ = [
    "ADVICE",
    "ALLOWED",
    "AREAS",
    "AWAY",
    "BOUND_AREAS",
    "BOUND_FAILURES",
    "BOUND_PAGES",
    "BOUND_PROCESSES",
    "CALL",
    "CONTENT",
    "EXEC",
    "EXIT",
    "FORK",
    "HAS",
    "KSM",
    "KSMD",
    "MADVISE",
    "MIGRATE",
    "MMAP",
    "MPROTECT",
    "MREMAP",
    "MUNMAP",
    "ONLY_FORK_FAILS",
    "PIN",
    "PROMISES",
    "READ",
    "RIGHTS",
    "SWAPIN",
    "SWAPOUT",
    "UNKNOWN_ADVICE",
    "UNPIN",
    "WRITE",
    "decode",
    "make_step",
    "steps_from",
    "with_plan",
]

AREAS, AWAY = 7, 7  # areas that there are names for; the one apart
MMAP_BASE, PAGE_SIZE, AWAY_PAGES = 0x7F00_0000_0000, 4096, 256
MMAP, WRITE, READ, MUNMAP, MPROTECT, MREMAP, MADVISE, FORK, EXIT = range(1, 10)
SWAPOUT, SWAPIN, MIGRATE, PIN, UNPIN, KSM, KSMD, EXEC = range(10, 18)
CALL = 31  # the part of a step that is the call
RIGHTS = ("r", "rw", "rwx")
ADVICE = ("dontfork", "dofork", "wipeonfork", "keeponfork", "mergeable")
MERGEABLE = 4
CONTENT = "zeros"  # of all pages that KSM merges
CONTENT_NUMBER = crc32(CONTENT.encode())
VM_READ, VM_WRITE, VM_EXEC, VM_DONTCOPY, VM_WIPEONFORK = 0x1, 0x2, 0x4, 0x20000, 0x2000000
VM_MERGEABLE = 0x80000000

# What a history is made of, as bits.
HAS = {name: 1 << at for at, name in enumerate(OPERATIONS)}
HAS_EXIT, HAS_FORK, HAS_MMAP, HAS_MPROTECT, HAS_MUNMAP, HAS_READ, HAS_WRITE = (1 << at for at in range(7))
HAS_RWX, HAS_HALF, HAS_MREMAP, HAS_FORK_ADVICE = (1 << at for at in range(7, 11))
HAS_SWAP, HAS_MIGRATE, HAS_PIN, HAS_KSM, HAS_EXEC = (1 << at for at in range(11, 16))
ON_PAGES = HAS_SWAP | HAS_MIGRATE | HAS_PIN | HAS_KSM

# Places in the array of bounds.
(
    BOUND_PROCESSES,
    BOUND_AREAS,
    BOUND_PAGES,
    BOUND_FAILURES,
    BOUND_OPERATIONS,
    ONLY_FORK_FAILS,
    UNKNOWN_ADVICE,  # bit n: of ADVICE
    ALLOWED,  # bit n: a violation of AV-n counts
    PROMISES,  # see judge()
) = range(9)


# --- steps as numbers ------------------------------------------------------------------------------


@compiled
def _step(call: int, process: int, area: int, first: int, last: int, more: int) -> int:
    return call | process << 5 | area << 15 | first << 19 | last << 25 | more << 31


@compiled
def with_plan(step: int, n: int, nowait: int) -> int:
    """The same call with its n-th allocation failing, or only the first attempt at it."""
    return step | n << 43 | nowait << 55


def decode(step: int) -> tuple[int, int, int, int, int, int, int, bool]:
    """Call, process, area, first and last page, more (rights, advice or target; the child), and the plan."""
    parts = ((0, 5), (5, 10), (15, 4), (19, 6), (25, 6), (31, 12), (43, 12), (55, 1))
    call, process, area, first, last, more, n, nowait = (step >> at & (1 << bits) - 1 for at, bits in parts)
    return call, process, area, first, last, more, n, bool(nowait)


@compiled
def _start(bounds: Rows, area: int) -> int:
    """Where an area is, in bytes."""
    pages = AWAY_PAGES if area == AWAY else area * bounds[BOUND_PAGES]
    return MMAP_BASE + pages * PAGE_SIZE


# --- enumeration -----------------------------------------------------------------------------------


@compiled
def steps_from(m: Rows, bounds: Rows, created: int, steps: Rows) -> int:
    """Write every call worth making into ``steps``; their number.  A child is called after ``created``."""
    operations, count = bounds[BOUND_OPERATIONS], 0
    process = m[MACHINE].first_process
    while process:
        number = m[process].id
        for area in range(bounds[BOUND_AREAS]):
            count = _on_slot(m, bounds, process, area, steps, count)
        if m[process].area_pages[AWAY]:
            count = _on_area(m, bounds, process, AWAY, steps, count)
        if operations & HAS_FORK and m[MACHINE].processes < bounds[BOUND_PROCESSES]:
            steps[count] = _step(FORK, number, 0, 0, 0, created)
            count += 1
        if operations & HAS_EXEC and m[m[process].mm].vmas:
            steps[count] = _step(EXEC, number, 0, 0, 0, 0)
            count += 1
        if operations & HAS_EXIT:
            steps[count] = _step(EXIT, number, 0, 0, 0, 0)
            count += 1
        process = m[process].later
    if operations & HAS_KSM and m[PAGES].first_node:
        steps[count] = _step(KSMD, 0, 0, 0, 0, 0)
        count += 1
    return count


@compiled
def _on_slot(m: Rows, bounds: Rows, process: int, area: int, steps: Rows, count: int) -> int:
    """The place of an area: mapped if it is free, else what can be done to the area there."""
    start, pages, operations = _start(bounds, area), bounds[BOUND_PAGES], bounds[BOUND_OPERATIONS]
    vma = find(m, m[process].mm, start)
    if not vma or m[vma].key >= start + pages * PAGE_SIZE:
        if operations & HAS_MMAP:
            steps[count] = _step(MMAP, m[process].id, area, 0, 0, 1)
            count += 1
            if operations & HAS_RWX:
                steps[count] = _step(MMAP, m[process].id, area, 0, 0, 2)
                count += 1
    elif m[process].area_pages[area]:
        count = _on_area(m, bounds, process, area, steps, count)
    return count


@compiled
def _on_area(m: Rows, bounds: Rows, process: int, area: int, steps: Rows, count: int) -> int:
    """Pages one by one, then ranges of them."""
    mm, number, operations = m[process].mm, m[process].id, bounds[BOUND_OPERATIONS]
    start, pages = _start(bounds, area), m[process].area_pages[area]
    for page in range(pages):
        address = start + page * PAGE_SIZE
        vma = vma_lookup(m, mm, address)
        if not vma:
            continue
        entry, flags = pte_get(m, mm, address), m[vma].vm_flags
        if flags & VM_WRITE and not (is_present(entry) and entry & 1) and operations & HAS_WRITE:
            steps[count] = _step(WRITE, number, area, page, page, 0)
            count += 1
        if flags & VM_READ and not is_present(entry) and operations & HAS_READ:
            steps[count] = _step(READ, number, area, page, page, 0)
            count += 1
        if operations & ON_PAGES:
            count = _on_page(m, operations, number, area, page, entry, flags, steps, count)
    for first in range(pages):
        for last in range(first, pages):
            if vma_lookup(m, mm, start + first * PAGE_SIZE) and vma_lookup(m, mm, start + last * PAGE_SIZE):
                count = _on_range(m, bounds, process, area, first, last, steps, count)
    return count


@compiled
def _on_page(
    m: Rows, operations: int, number: int, area: int, page: int, entry: int, flags: int, steps: Rows, count: int
) -> int:
    """What happens to a page behind the process's back."""
    if is_swap(entry) and operations & HAS_SWAP:
        steps[count] = _step(SWAPIN, number, area, page, page, 0)
        count += 1
    if not is_anon(entry):
        return count
    folio = entry >> 1
    if operations & HAS_SWAP:
        steps[count] = _step(SWAPOUT, number, area, page, page, 0)
        count += 1
    if operations & HAS_MIGRATE:
        steps[count] = _step(MIGRATE, number, area, page, page, 0)
        count += 1
    if operations & HAS_PIN:
        steps[count] = _step(UNPIN if m[folio].pins else PIN, number, area, page, page, 0)
        count += 1
    if operations & HAS_KSM and flags & VM_MERGEABLE and not m[folio].stable_node:
        steps[count] = _step(KSM, number, area, page, page, 0)
        count += 1
    return count


@compiled
def _on_range(m: Rows, bounds: Rows, process: int, area: int, first: int, last: int, steps: Rows, count: int) -> int:
    """What changes VMAs."""
    mm, number, operations = m[process].mm, m[process].id, bounds[BOUND_OPERATIONS]
    start = _start(bounds, area)
    if operations & HAS_MUNMAP:
        steps[count] = _step(MUNMAP, number, area, first, last, 0)
        count += 1
    # Bits that some page's VMA has, and bits that some does not have.
    some, lacking, whole = 0, 0, True
    for page in range(first, last + 1):
        vma = vma_lookup(m, mm, start + page * PAGE_SIZE)
        if vma:
            some |= m[vma].vm_flags
            lacking |= ~m[vma].vm_flags
        else:
            whole = False
    if not whole:
        return count
    if operations & HAS_MPROTECT:
        for rights in range(3 if operations & HAS_RWX else 2):
            access = _access(rights)
            if lacking & access or some & (7 & ~access):
                steps[count] = _step(MPROTECT, number, area, first, last, rights)
                count += 1
    if operations & HAS_HALF and last == 0:
        steps[count] = _step(MPROTECT, number, area, first, last, 0 if some & VM_WRITE else 1)
        count += 1
    if operations & HAS_MREMAP:
        count = _on_targets(m, bounds, process, area, first, last, steps, count)
    if operations & HAS_FORK_ADVICE:
        for advice in range(4):
            flag = VM_DONTCOPY if advice < 2 else VM_WIPEONFORK
            if (some if advice & 1 else lacking) & flag:
                steps[count] = _step(MADVISE, number, area, first, last, advice)
                count += 1
    if operations & HAS_KSM and lacking & VM_MERGEABLE:
        steps[count] = _step(MADVISE, number, area, first, last, MERGEABLE)
        count += 1
    return count


@compiled
def _access(rights: int) -> int:
    """VM_ bits of one of :data:`RIGHTS`."""
    return VM_READ | (VM_WRITE if rights else 0) | (VM_EXEC if rights == 2 else 0)


@compiled
def _on_targets(
    m: Rows, bounds: Rows, process: int, area: int, first: int, last: int, steps: Rows, count: int
) -> int:
    """Where pages can move to: each other area's place, and the one apart."""
    start = _start(bounds, area) + first * PAGE_SIZE
    size = (last - first + 1) * PAGE_SIZE
    for at in range(bounds[BOUND_AREAS] + 1):
        target = AWAY if at == bounds[BOUND_AREAS] else at
        place = _start(bounds, target)
        if target != area and (place >= start + size or place + size <= start):
            for dontunmap in range(2):
                steps[count] = _step(MREMAP, m[process].id, area, first, last, target | dontunmap << 4)
                count += 1
    return count


# --- making a call ---------------------------------------------------------------------------------


@compiled
def make_step(m: Rows, c: Avcs, bounds: Rows, step: int) -> int:
    """Make a call with the failure plan that its step has; 0 or above, or a negative errno."""
    call, number, area = step & CALL, step >> 5 & 1023, step >> 15 & 15
    first, last, more = step >> 19 & 63, step >> 25 & 63, step >> 31 & 4095
    m[SLAB].count = m[SLAB].failed = m[SLAB].retrying = 0
    m[SLAB].fail_at = step >> 43 & 4095
    m[SLAB].nowait_only = step >> 55 & 1
    m[MACHINE].reports = 0
    m[MACHINE].crashed = m[MACHINE].number_held = 0
    process = m[MACHINE].first_process
    while process and m[process].id != number:
        process = m[process].later
    rc = _make(m, c, bounds, process, call, area, first, last, more)
    m[SLAB].fail_at = 0
    return rc


@compiled
def _make(
    m: Rows, c: Avcs, bounds: Rows, process: int, call: int, area: int, first: int, last: int, more: int
) -> int:
    start = _start(bounds, area) + first * PAGE_SIZE
    size = (last - first + 1) * PAGE_SIZE
    end = start + size
    if call == WRITE or call == READ:
        return calls.make(m, c, calls.FAULT, process, start, call == WRITE, 0, 0, 0, 0)
    if call == MUNMAP:
        return calls.make(m, c, calls.MUNMAP, process, start, end, 0, 0, 0, 0)
    if call == MPROTECT:
        return calls.make(m, c, calls.MPROTECT, process, start, end, _access(more), 0, 0, 0)
    if call == FORK:
        child = calls.make(m, c, calls.FORK, process, more, 0, 0, 0, 0, 0)
        if child > 0:
            for at in range(8):
                m[child].area_pages[at] = m[process].area_pages[at]
        return child
    if call == EXIT:
        return calls.make(m, c, calls.EXIT, process, 0, 0, 0, 0, 0, 0)
    if call == MMAP:
        pages = bounds[BOUND_PAGES]
        rc = calls.make(m, c, calls.MMAP, process, start, start + pages * PAGE_SIZE, _access(more), 0, -1, 0)
        m[process].area_pages[area] = pages if rc == 0 else 0
        return rc
    if call == MREMAP:
        target = more & 15
        place, flags = _start(bounds, target), 2 | more >> 4
        rc = calls.make(m, c, calls.MREMAP, process, start, size, size, place, flags, -1)
        m[process].area_pages[target] = size // PAGE_SIZE if rc > 0 else 0
        return rc
    if call >= SWAPOUT:
        return _make_on_page(m, c, process, call, start)
    if bounds[UNKNOWN_ADVICE] >> more & 1:
        return -EINVAL
    if more == MERGEABLE:
        return calls.make(m, c, calls.MADVISE, process, start, end, PRIVATE_FLAGS, VM_MERGEABLE, 0, 0)
    flag = VM_DONTCOPY if more < 2 else VM_WIPEONFORK
    kind = PRIVATE_ANONYMOUS_FLAGS if more == 2 else SET_FLAGS
    added, removed = (0, flag) if more & 1 else (flag, 0)
    return calls.make(m, c, calls.MADVISE, process, start, end, kind, added, removed, 0)


@compiled
def _make_on_page(m: Rows, c: Avcs, process: int, call: int, start: int) -> int:
    """What happens to a page, ksmd's scan, and exec."""
    if call == SWAPOUT:
        return calls.make(m, c, calls.RECLAIM, process, start, 0, 0, 0, 0, 0)
    if call == SWAPIN:
        return calls.make(m, c, calls.SWAPIN, process, start, 0, 0, 0, 0, 0)
    if call == MIGRATE:
        return calls.make(m, c, calls.MIGRATE, process, start, start + PAGE_SIZE, 0, 0, 0, 0)
    if call == PIN:
        return calls.make(m, c, calls.PIN, process, start, 1, 0, 0, 0, 0)
    if call == UNPIN:
        return calls.make(m, c, calls.UNPIN, process, start, 0, 0, 0, 0, 0)
    if call == KSM:
        return calls.make(m, c, calls.KSM, process, start, start + PAGE_SIZE, CONTENT_NUMBER, 0, 0, 0)
    if call == KSMD:
        return calls.make(m, c, calls.KSMD, process, 0, 0, 0, 0, 0, 0)
    rc = calls.make(m, c, calls.EXECVE, process, 0, 0, 0, 0, 0, 0)
    if rc == 0:
        for area in range(8):
            m[process].area_pages[area] = 0
    return rc
