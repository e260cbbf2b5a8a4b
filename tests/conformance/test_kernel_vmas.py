# SPDX-License-Identifier: GPL-2.0-only
"""Which VMAs of the running kernel merge: the cases that tell the rules apart, each on both."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from calls import Call
from differential import HERE
from model import Model
from programs import run
from running import release

if TYPE_CHECKING:
    from running import RunningKernel

SINCE_6_16 = release() >= (6, 16)


class Case(NamedTuple):
    """What leads to it, the call, and the VMAs of the caller before and after."""

    before: tuple[Call, ...]
    change: Call
    vmas: int
    left: int


def mark(process: str = "P0", advice: str = "dontdump") -> Call:
    """A flag of the second VMA alone, which leaves VM_ACCOUNT as it is."""
    return Call(process, "madvise", 1, 1, advice=advice)


FORK = Call("P0", "fork", child="P1")
PAIR = (Call("P0", "mmap", 0, 2, "rw"), mark())
FIRST, SECOND = Call("P0", "write", 0), Call("P0", "write", 1)
SPLIT = (Call("P0", "mmap", 0, 2, "rw"), FIRST, SECOND, mark())
HEAP = (Call("P0", "brk", 3), Call("P0", "write", 2))
GROW = Call("P0", "brk", 4)


def of_child(call: Call) -> Call:
    """The same by the child."""
    return call._replace(process="P1")


CASES = {
    "previous unfaulted, modified faulted": Case((*PAIR, SECOND), mark(advice="dodump"), 2, 1 if SINCE_6_16 else 2),
    "previous faulted, modified unfaulted": Case((*PAIR, FIRST), mark(advice="dodump"), 2, 1),
    "previous unfaulted, in a child": Case((*PAIR, SECOND, FORK), mark("P1", "dodump"), 2, 2),
    "previous faulted, in a child": Case((*PAIR, FIRST, FORK), mark("P1", "dodump"), 2, 2),
    "previous unfaulted, in a parent": Case((*PAIR, SECOND, FORK), mark(advice="dodump"), 2, 1 if SINCE_6_16 else 2),
    "previous faulted, in a parent": Case((*PAIR, FIRST, FORK), mark(advice="dodump"), 2, 1),
    "split pair, in a parent": Case((*SPLIT, FORK), mark(advice="dodump"), 2, 1),
    "split pair, in a child": Case((*SPLIT, FORK), mark("P1", "dodump"), 2, 2),
    "heap without fork": Case(HEAP, GROW, 1, 1),
    "heap in a child": Case((*HEAP, FORK), of_child(GROW), 1, 2),
    "heap in a parent": Case((*HEAP, FORK), GROW, 1, 1),
    "heap never written to, in a child": Case((HEAP[0], FORK), of_child(GROW), 1, 1),
    "new mapping behind a child's": Case((*SPLIT[:3], FORK), Call("P1", "mmap", 2, 1, "rw"), 1, 2),
    "growing a child's VMA": Case((*SPLIT[:3], FORK), Call("P1", "mremap", 0, 2, size=3), 1, 1),
    "an empty VMA moved onto itself": Case(
        (Call("P0", "mmap", 0, 2, "rw"),), Call("P0", "mremap", 0, 1, to=2, size=1, dontunmap=True), 1, 1
    ),
    "pages moved behind their VMA": Case(SPLIT[:3], Call("P0", "mremap", 0, 1, to=2, size=1, dontunmap=True), 1, 2),
    "guards beside a faulted VMA": Case(
        (*PAIR, FIRST, Call("P0", "madvise", 1, 1, advice="guard-install")), mark(advice="dodump"), 2, 2
    ),
    "wiped on fork": Case(
        (*PAIR, SECOND, Call("P0", "madvise", 1, 1, advice="wipeonfork"), FORK, of_child(mark(advice="dodump"))),
        Call("P1", "madvise", 1, 1, advice="keeponfork"),
        2,
        1,
    ),
    "lock of a part of a child's VMA, and unlock": Case(
        (*SPLIT[:3], FORK, Call("P1", "mlock", 0, 1)), Call("P1", "munlock", 0, 1), 2, 1
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_as_many_vmas_before_and_after(kernel: RunningKernel, case: Case) -> None:
    program = [*case.before, case.change]
    if not kernel.has_heap and any(call.name == "brk" for call in program):
        pytest.skip("the heap could not be put elsewhere: a kernel without CONFIG_CHECKPOINT_RESTORE")
    if release() < (6, 13) and any(call.advice == "guard-install" for call in program):
        pytest.skip("guards came with 6.13")
    counts = []
    for calls in (case.before, program):
        difference = run(calls, Model(HERE), kernel.start())[1]
        assert difference is None, str(difference)
        counts.append(len(kernel.view(case.change.process).vmas))
    assert counts == [case.vmas, case.left]
