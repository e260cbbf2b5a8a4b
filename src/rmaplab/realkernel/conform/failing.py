# SPDX-License-Identifier: GPL-2.0-only
"""Programs whose last call runs out of memory: every call that allocates, each of its allocations failing once.

Where a kernel tries GFP_NOWAIT first (v6.18 and before) there are two programs
for an allocation: in one the GFP_KERNEL retry serves, in the other it fails too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.execute import NO_PLAN, Plan
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.realkernel.conform.lowering import ARENA
from rmaplab.realkernel.conform.performers import ModelSide
from rmaplab.realkernel.guest.failslab import CACHES
from rmaplab.scenario import Fail, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel import Kernel
    from rmaplab.kernel.slab import Slab
    from rmaplab.realkernel.conform.run import Program

__all__ = ["CHAINS", "FailingCall", "failing_calls", "failing_programs"]

CHAINS = (1, 2, 3, 4)
"""Lengths of the chains that are copied."""

_PAGES = 6

# The last line is the call; {P} is the process whose chain has the length asked for.
_CALLS = {
    "fork": "{P} fork Q",
    "fork after the parent wrote": "{P} write A[1]\n{P} fork Q",
    "first write": "{P} mmap B 1 at={far:#x}\n{P} write B[0]",
    "munmap splits": "{P} munmap A[2..3]",
    "munmap cuts the end": "{P} munmap A[4..5]",
    "mprotect splits": "{P} mprotect A[2..3] r",
    "madvise splits": "{P} madvise A[1..2] dontfork",
    "mprotect merges both": "{P} mprotect A[2..3] r\n{P} mprotect A[2..3] rw",
    "mmap merges both": "{P} munmap A[2..3]\n{P} mmap B 2 at={middle:#x}",
    "an unfaulted VMA takes the links of one below": ("{P} mmap B 2 at={behind:#x} prot=r\n{P} mprotect B rw"),
    "mremap moves": "{P} mremap A B at={far:#x}",
    "mremap moves the middle": "{P} mremap A[2..3] B at={far:#x}",
    "mremap moves the middle, dontunmap": "{P} mremap A[2..3] B at={far:#x} dontunmap",
    "mremap moves, dontunmap": "{P} mremap A B at={far:#x} dontunmap",
    "mremap back beside": "{P} mremap A[2..3] B at={far:#x}\n{P} mremap B C at={middle:#x}",
    "mremap grows": "{P} mremap A A pages=8",
    "brk grows": "{P} brk +1\n{P} write heap[0]\n{P} brk +1",
}


_PLACES = {"middle": ARENA + 2 * PAGE_SIZE, "behind": ARENA + _PAGES * PAGE_SIZE, "far": ARENA + (1 << 24)}


class FailingCall(NamedTuple):
    """A call with a chain of some length behind it."""

    what: str
    chain: int
    program: Program


def failing_calls() -> Iterator[FailingCall]:
    """Every call with every length of chain."""
    for what, text in _CALLS.items():
        for chain in CHAINS:
            lines = [f"P0 mmap A {_PAGES} at={ARENA:#x}", "P0 write A"]
            for child in range(1, chain):  # the child's own page makes an anon_vma of its own worth while
                lines += [f"P{child - 1} fork P{child}", f"P{child} write A[0]"]
            lines += text.format(P=f"P{chain - 1}", **_PLACES).split("\n")
            statements = parse("\n".join(lines) + "\n", name=what).statements
            yield FailingCall(what, chain, tuple(statements))  # type: ignore[arg-type]


def failing_programs(series: type[Kernel]) -> Iterator[tuple[FailingCall, Fail, Program]]:
    """Each call with each of its allocations failing, as far as the model says that there are any."""
    for case in failing_calls():
        slab = _performed(series, case, NO_PLAN)
        for kind in CACHES:
            for number in range(1, (slab.count if kind == "rmap" else slab.counts[kind]) + 1):
                for nowait in (False, True) if kind == "rmap" else (False,):
                    if _performed(series, case, Plan(number, nowait, kind)).failed:
                        fail = Fail(number, nowait, kind)
                        yield case, fail, (*case.program[:-1], fail, case.program[-1])


def _performed(series: type[Kernel], case: FailingCall, plan: Plan) -> Slab:
    """The model's allocator after the last call, which was made with a plan."""
    side = ModelSide(series)
    for statement in case.program:
        side.perform(statement, plan if statement is case.program[-1] else NO_PLAN)  # type: ignore[arg-type]
    return side.kernel.slab
