# SPDX-License-Identifier: GPL-2.0-only
"""Statements of the scenario language: what a line of a ``*.rmap`` file says.

Every statement is an immutable value. Two statements are equal when they say
the same thing, wherever they stand: ``line`` and ``text`` tell where a
statement came from and take no part in comparison. The calls, which are
statements too, are in `rmaplab.scenario.calls`.
"""

from dataclasses import dataclass, field
from math import comb
from typing import ClassVar

from rmaplab.scenario.base import Located, Pages
from rmaplab.scenario.calls import Call

__all__ = [
    "COUNTS",
    "FAIL_KINDS",
    "PROCESS_COUNTS",
    "WALK_ORDERS",
    "Expect",
    "ExpectCount",
    "ExpectInvariants",
    "ExpectProcessCount",
    "ExpectResult",
    "ExpectViolates",
    "Fail",
    "Ksmd",
    "Par",
    "Scenario",
    "Snapshot",
    "Statement",
    "Walk",
]

COUNTS = ("anon_vma_chains", "anon_vmas", "bytes", "folios", "processes", "swap_slots", "vmas")
"""What `ExpectCount.what` can count, over the whole machine; `bytes` is slab memory."""

PROCESS_COUNTS = ("anon_vma_chains", "folios", "vmas")
"""What `ExpectProcessCount.what` can count within one process."""

FAIL_KINDS = ("page", "table", "tree", "vma")
"""Values of `Fail.kind` that are spelt out; the one that is not, ``rmap``, is anon_vmas and anon_vma_chains."""

WALK_ORDERS = ("address", "offset", "whole")
"""Values of `Walk.by`: how much of its trees a walk from a KSM page asks for."""


@dataclass(frozen=True, slots=True)
class Walk(Located):
    """``walk P0 A[0]``: reverse-map walk of the folio that `process` maps at `range`, one page exactly.

    `by` (one of `WALK_ORDERS`, or None for the series' own way) matters for KSM pages only.
    """

    call: ClassVar[str] = "walk"

    process: str
    range: Pages
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Ksmd(Located):
    """``ksmd``: ksmd's next full scan, which drops what no longer holds and notes what forks have added."""

    call: ClassVar[str] = "ksmd"


@dataclass(frozen=True, slots=True)
class Par(Located):
    """``par { P0 write A[0] || P0 munmap A }``: every interleaving of the calls of the `branches`."""

    branches: tuple[tuple[Call, ...], ...]

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls in left-to-right order, the one from which a run goes on."""
        return tuple(call for branch in self.branches for call in branch)

    @property
    def interleavings(self) -> int:
        """The number of orders in which the calls can come."""
        count, calls = 1, 0
        for branch in self.branches:
            calls += len(branch)
            count *= comb(calls, len(branch))
        return count


@dataclass(frozen=True, slots=True)
class Fail(Located):
    """``fail 3``: the `n`-th allocation of the next call fails, counting those of one `kind`.

    The kind ``rmap`` is the anon_vmas and anon_vma_chains; the others are
    `FAIL_KINDS`. A GFP_NOWAIT attempt and its GFP_KERNEL retry count as one
    allocation. With `nowait` the first attempt alone fails and the retry succeeds.
    """

    n: int
    nowait: bool = False
    kind: str = "rmap"


@dataclass(frozen=True, slots=True)
class Snapshot(Located):
    """``snapshot NAME``: keep the whole state under `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class ExpectCount(Located):
    """``expect anon_vmas 3``: the machine holds `count` of `what` (one of `COUNTS`)."""

    what: str
    count: int


@dataclass(frozen=True, slots=True)
class ExpectProcessCount(Located):
    """``expect P1 vmas 2``: `process` holds `count` of `what` (one of `PROCESS_COUNTS`)."""

    process: str
    what: str
    count: int


@dataclass(frozen=True, slots=True)
class ExpectInvariants(Located):
    """``expect invariants hold``: no invariant is violated here."""


@dataclass(frozen=True, slots=True)
class ExpectViolates(Located):
    """``expect violates AV-007``: the invariant `id` is violated here."""

    id: str


@dataclass(frozen=True, slots=True)
class ExpectResult(Located):
    """``expect P1 fork ENOMEM``: how the latest `call` of `process` ended.

    `call` is one of `CALL_NAMES`; `result` is an errno name, or ``ok``.
    """

    process: str
    call: str
    result: str


Expect = ExpectCount | ExpectProcessCount | ExpectInvariants | ExpectViolates | ExpectResult
"""A statement that is judged true or false."""

Statement = Call | Walk | Ksmd | Par | Fail | Snapshot | Expect
"""Any line of a scenario."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """The statements of one scenario in order; `name` is the file it came from, ``-`` if none."""

    statements: tuple[Statement, ...]
    name: str = field(default="-", compare=False)
