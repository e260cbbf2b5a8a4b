# SPDX-License-Identifier: GPL-2.0-only
"""Moves among random calls of a few processes, some of which run out of something: every invariant after each."""

from random import Random

import pytest
from machine_parts import BASE

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.kernel.flags import PAGE_SIZE, prot_flags
from rmaplab.kernel.slab import KINDS
from rmaplab.series import SERIES

PAGES = 16
CALLS = (
    "mmap",
    "munmap",
    "mprotect",
    "write",
    "write",
    "write",
    "read",
    "move",
    "move",
    "move",
    "resize",
    "fork",
    "exit",
)


def address(page):
    return BASE + page * PAGE_SIZE


def access(random):
    return prot_flags(random.choice(("rw", "rw", "r", "rwx")))


def make(call, kernel, process, random):
    """One call on one to four of the pages; what fails is part of the game."""
    first, pages = random.randrange(PAGES - 3), random.randint(1, 4)
    mm, start, end, length = process.mm, address(first), address(first + pages), pages * PAGE_SIZE
    match call:
        case "mmap":
            kernel.do_mmap(mm, start, end, access(random))
        case "munmap":
            kernel.do_munmap(mm, start, end)
        case "mprotect":
            kernel.do_mprotect(mm, start, end, access(random))
        case "read" | "write":
            kernel.handle_mm_fault(mm, start, call == "write")
        case "move":
            dontunmap = random.random() < 0.4
            size = pages if dontunmap or random.random() < 0.6 else random.randint(1, 4)
            to = address(random.randrange(PAGES - 3) + (512 if random.random() < 0.1 else 0))
            kernel.do_mremap(mm, start, length, size * PAGE_SIZE, new_addr=to, dontunmap=dontunmap)
        case "resize":
            kernel.do_mremap(mm, start, length, random.randint(1, 4) * PAGE_SIZE, maymove=False)
        case "exit" if len(kernel.processes) > 1:
            process.exit()
        case "fork" if len(kernel.processes) < 4:
            process.fork()


@pytest.mark.parametrize("series", ["v6.0", "v6.12", "v6.18", "v6.18+8", "v7.0"])
@pytest.mark.parametrize("seed", range(25))
def test_every_invariant_holds_whatever_is_moved_and_whatever_fails(series, seed):
    random = Random(seed)
    kernel = monitored(SERIES[series])()
    kernel.spawn()
    for _ in range(80):
        if random.random() < 0.3:
            kernel.slab.plan(random.randint(1, 5), kind=random.choice(KINDS))
        process = random.choice(list(kernel.processes.values()))
        call = random.choice(CALLS)
        try:
            make(call, kernel, process, random)
        except OSError:
            assert call == "fork"
        kernel.slab.disarm()
        assert violations(kernel) == []
    for process in list(kernel.processes.values()):
        process.exit()
    assert violations(kernel) == []
    assert not kernel.live_anon_vmas
