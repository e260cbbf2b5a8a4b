# SPDX-License-Identifier: GPL-2.0-only
"""Which calls a state allows within bounds, in the order of :mod:`rmaplab.check.histories`."""

from __future__ import annotations

from rmaplab.engine.jit import compiled
from rmaplab.engine.layout import MACHINE, PAGES, Rows
from rmaplab.engine.pagetable import is_anon, is_present, is_swap, pte_get
from rmaplab.engine.rmap import vma_lookup
from rmaplab.engine.search.steps import (
    AWAY,
    BOUND_AREAS,
    BOUND_OPERATIONS,
    BOUND_PAGES,
    BOUND_PROCESSES,
    EXEC,
    EXIT,
    FORK,
    HAS_EXEC,
    HAS_EXIT,
    HAS_FORK,
    HAS_FORK_ADVICE,
    HAS_HALF,
    HAS_KSM,
    HAS_MIGRATE,
    HAS_MMAP,
    HAS_MPROTECT,
    HAS_MREMAP,
    HAS_MUNMAP,
    HAS_PIN,
    HAS_READ,
    HAS_RWX,
    HAS_SWAP,
    HAS_WRITE,
    KSM,
    KSMD,
    MADVISE,
    MERGEABLE,
    MIGRATE,
    MMAP,
    MPROTECT,
    MREMAP,
    MUNMAP,
    ON_AREAS,
    ON_PAGES,
    PIN,
    READ,
    SWAPIN,
    SWAPOUT,
    UNPIN,
    WRITE,
    access_of,
    start_of,
    step_number,
)
from rmaplab.engine.vma_adjust import find
from rmaplab.kernel.flags import PAGE_SIZE, VM_DONTCOPY, VM_MERGEABLE, VM_READ, VM_WIPEONFORK, VM_WRITE

__all__ = [
    "steps_from",
]


@compiled
def _write(steps: Rows, count: int, step: int) -> int:
    if count == len(steps):
        raise MemoryError
    steps[count] = step
    return count + 1


@compiled
def steps_from(m: Rows, bounds: Rows, created: int, steps: Rows) -> int:
    """Write every call worth making into ``steps``; their number.  A child is called after ``created``."""
    operations, count = bounds[BOUND_OPERATIONS], 0
    process = m[MACHINE].first_process
    while process:
        number = m[process].id
        if operations & ON_AREAS:
            for area in range(bounds[BOUND_AREAS]):
                count = _on_slot(m, bounds, process, area, steps, count)
            if m[process].area_pages[AWAY]:
                count = _on_area(m, bounds, process, AWAY, steps, count)
        if operations & HAS_FORK and m[MACHINE].processes < bounds[BOUND_PROCESSES]:
            count = _write(steps, count, step_number(FORK, number, 0, 0, 0, created))
        if operations & HAS_EXEC and m[m[process].mm].vmas:
            count = _write(steps, count, step_number(EXEC, number, 0, 0, 0, 0))
        if operations & HAS_EXIT:
            count = _write(steps, count, step_number(EXIT, number, 0, 0, 0, 0))
        process = m[process].later
    if operations & HAS_KSM and m[PAGES].first_node:
        count = _write(steps, count, step_number(KSMD, 0, 0, 0, 0, 0))
    return count


@compiled
def _on_slot(m: Rows, bounds: Rows, process: int, area: int, steps: Rows, count: int) -> int:
    """The place of an area: mapped if it is free, else what can be done to the area there."""
    start, pages, operations = start_of(bounds, area), bounds[BOUND_PAGES], bounds[BOUND_OPERATIONS]
    vma = find(m, m[process].mm, start)
    if not vma or m[vma].key >= start + pages * PAGE_SIZE:
        if operations & HAS_MMAP:
            count = _write(steps, count, step_number(MMAP, m[process].id, area, 0, 0, 1))
            if operations & HAS_RWX:
                count = _write(steps, count, step_number(MMAP, m[process].id, area, 0, 0, 2))
    elif m[process].area_pages[area]:
        count = _on_area(m, bounds, process, area, steps, count)
    return count


@compiled
def _on_area(m: Rows, bounds: Rows, process: int, area: int, steps: Rows, count: int) -> int:
    """Pages one by one, then ranges of them."""
    mm, number, operations = m[process].mm, m[process].id, bounds[BOUND_OPERATIONS]
    start, pages = start_of(bounds, area), m[process].area_pages[area]
    for page in range(pages):
        address = start + page * PAGE_SIZE
        vma = vma_lookup(m, mm, address)
        if not vma:
            continue
        entry, flags = pte_get(m, mm, address), m[vma].vm_flags
        if flags & VM_WRITE and not (is_present(entry) and entry & 1) and operations & HAS_WRITE:
            count = _write(steps, count, step_number(WRITE, number, area, page, page, 0))
        if flags & VM_READ and not is_present(entry) and operations & HAS_READ:
            count = _write(steps, count, step_number(READ, number, area, page, page, 0))
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
        count = _write(steps, count, step_number(SWAPIN, number, area, page, page, 0))
    if not is_anon(entry):
        return count
    folio = entry >> 1
    if operations & HAS_SWAP:
        count = _write(steps, count, step_number(SWAPOUT, number, area, page, page, 0))
    if operations & HAS_MIGRATE:
        count = _write(steps, count, step_number(MIGRATE, number, area, page, page, 0))
    if operations & HAS_PIN:
        count = _write(steps, count, step_number(UNPIN if m[folio].pins else PIN, number, area, page, page, 0))
    if operations & HAS_KSM and flags & VM_MERGEABLE and not m[folio].stable_node:
        count = _write(steps, count, step_number(KSM, number, area, page, page, 0))
    return count


@compiled
def _on_range(m: Rows, bounds: Rows, process: int, area: int, first: int, last: int, steps: Rows, count: int) -> int:
    """What changes VMAs."""
    mm, number, operations = m[process].mm, m[process].id, bounds[BOUND_OPERATIONS]
    start = start_of(bounds, area)
    if operations & HAS_MUNMAP:
        count = _write(steps, count, step_number(MUNMAP, number, area, first, last, 0))
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
            access = access_of(rights)
            if lacking & access or some & (7 & ~access):
                count = _write(steps, count, step_number(MPROTECT, number, area, first, last, rights))
    if operations & HAS_HALF and last == 0:
        count = _write(steps, count, step_number(MPROTECT, number, area, first, last, 0 if some & VM_WRITE else 1))
    if operations & HAS_MREMAP:
        count = _on_targets(m, bounds, process, area, first, last, steps, count)
    if operations & HAS_FORK_ADVICE:
        for advice in range(4):
            flag = VM_DONTCOPY if advice < 2 else VM_WIPEONFORK
            if (some if advice & 1 else lacking) & flag:
                count = _write(steps, count, step_number(MADVISE, number, area, first, last, advice))
    if operations & HAS_KSM and lacking & VM_MERGEABLE:
        count = _write(steps, count, step_number(MADVISE, number, area, first, last, MERGEABLE))
    return count


@compiled
def _on_targets(
    m: Rows, bounds: Rows, process: int, area: int, first: int, last: int, steps: Rows, count: int
) -> int:
    """Where pages can move to: each other area's place, and the one apart."""
    start = start_of(bounds, area) + first * PAGE_SIZE
    size = (last - first + 1) * PAGE_SIZE
    for at in range(bounds[BOUND_AREAS] + 1):
        target = AWAY if at == bounds[BOUND_AREAS] else at
        place = start_of(bounds, target)
        if target != area and (place >= start + size or place + size <= start):
            for dontunmap in range(2):
                count = _write(
                    steps, count, step_number(MREMAP, m[process].id, area, first, last, target | dontunmap << 4)
                )
    return count
