# SPDX-License-Identifier: GPL-2.0-only
"""One call of a process, by number: what replays, histories and tests are made of.

The arguments by call, in bytes where nothing else is said:

========= ===================================================================
call      arguments
========= ===================================================================
MMAP      start, end, flags (VM_), file, page offset (below zero: of the address)
MUNMAP    start, end
MPROTECT  start, end, rights (VM_)
MREMAP    old start, old length, new length, new start or -1, 1 DONTUNMAP + 2
          may move, where to if nobody says where or -1
BRK       old end, new end, 1: the first one tells where the heap begins
MADVISE   start, end, kind (:mod:`rmaplab.engine.mmap`), flags set, flags cleared
FAULT     address, 1 write + 2 whatever the rights are; a stack grows
FORK      the child's number
EXIT
EXEC      start of the heap or 0, its end; the new space is empty
SHARE     the new task's number
SPAWN     the new task's number; of no process
EXECVE    like EXEC, but the new space has a stack
RECLAIM   address, 1: the page stays in the swap cache
SWAPIN    address
MIGRATE   start, end
PIN       address, 1: to write through it
UNPIN     address
KSM       start, end, content (any number)
KSMD      of no process
========= ===================================================================
"""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import TYPE_CHECKING

from rmaplab.engine.exec import do_execve
from rmaplab.engine.fork import dup_mm, mmput, new_mm, process_add, process_remove
from rmaplab.engine.gup import pin_user_page, unpin_user_page
from rmaplab.engine.jit import compiled
from rmaplab.engine.ksm import ksm_merge_range, ksmd
from rmaplab.engine.memory import handle_mm_fault
from rmaplab.engine.migrate import migrate_pages
from rmaplab.engine.mmap import do_brk, do_madvise, do_mmap, do_mprotect, do_munmap, do_user_addr_fault
from rmaplab.engine.mremap import do_mremap
from rmaplab.engine.pagetable import is_swap, pte_get
from rmaplab.engine.swap import reclaim_page

if TYPE_CHECKING:
    from rmaplab.engine.layout import Avcs, Rows

__all__ = [
    "BRK",
    "EXEC",
    "EXECVE",
    "EXIT",
    "FAULT",
    "FORK",
    "KSM",
    "KSMD",
    "MADVISE",
    "MIGRATE",
    "MMAP",
    "MPROTECT",
    "MREMAP",
    "MUNMAP",
    "PIN",
    "RECLAIM",
    "SHARE",
    "SPAWN",
    "SWAPIN",
    "UNPIN",
    "make",
]

MMAP, MUNMAP, MPROTECT, MREMAP, BRK, MADVISE, FAULT, FORK, EXIT, EXEC, SHARE, SPAWN = range(12)
EXECVE, RECLAIM, SWAPIN, MIGRATE, PIN, UNPIN, KSM, KSMD = range(12, 20)


@compiled
def make(m: Rows, c: Avcs, call: int, process: int, a: int, b: int, d: int, e: int, f: int, g: int) -> int:
    """Make a call: 0, a new address or task, or a negative errno."""
    mm = m[process].mm
    if call == FAULT:
        write, force = a_bit(b, 1), a_bit(b, 2)
        if force:
            rc = handle_mm_fault(m, c, mm, a, write, force)
            if rc != -EFAULT:
                return rc
        return do_user_addr_fault(m, c, mm, a, write, force)
    if call == MMAP:
        return do_mmap(m, c, mm, a, b, d, e, f)
    if call == MUNMAP:
        return do_munmap(m, c, mm, a, b)
    if call == MPROTECT:
        return do_mprotect(m, c, mm, a, b, d)
    if call == MREMAP:
        return do_mremap(m, c, mm, a, b, d, e, a_bit(f, 1), a_bit(f, 2), g)
    if call == BRK:
        if d and m[mm].brk == 0:
            m[mm].start_brk = a
        return do_brk(m, c, mm, a, b)
    if call == MADVISE:
        return do_madvise(m, c, mm, a, b, d, e, f)
    if call == FORK:
        child = dup_mm(m, c, mm)
        return child if child < 0 else process_add(m, a, child)
    if call == EXIT:
        process_remove(m, c, process)
        return 0
    if call >= EXECVE:
        return _make_further(m, c, call, process, a, b, d)
    if call == SHARE:
        m[mm].users += 1
        return process_add(m, a, mm)
    new = new_mm(m)
    if call == EXEC and a:
        m[new].start_brk = a
        m[new].brk = b
    if call == SPAWN:
        return process_add(m, a, new)
    m[process].mm = new
    mmput(m, c, mm)
    return 0


@compiled
def _make_further(m: Rows, c: Avcs, call: int, process: int, a: int, b: int, d: int) -> int:
    """What happens to pages behind a process's back, and exec."""
    mm = m[process].mm
    if call == EXECVE:
        return do_execve(m, c, process)
    if call == RECLAIM:
        return reclaim_page(m, c, mm, a, a_bit(b, 1))
    if call == SWAPIN:
        return handle_mm_fault(m, c, mm, a, False, False) if is_swap(pte_get(m, mm, a)) else -EINVAL
    if call == MIGRATE:
        return migrate_pages(m, c, mm, a, b)
    if call == PIN:
        return pin_user_page(m, c, mm, a, a_bit(b, 1))
    if call == UNPIN:
        return unpin_user_page(m, mm, a)
    if call == KSM:
        return ksm_merge_range(m, c, mm, a, b, d)
    ksmd(m)
    return 0


@compiled
def a_bit(number: int, bit: int) -> bool:
    """Whether a bit is set."""
    return number & bit != 0
