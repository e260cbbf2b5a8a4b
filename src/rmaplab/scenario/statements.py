# SPDX-License-Identifier: GPL-2.0-only
"""Statements of the scenario language: what a line of a ``*.rmap`` file says.

Every statement is an immutable value. Two statements are equal when they say
the same thing, wherever they stand: ``line`` and ``text`` tell where a
statement came from and take no part in comparison. Page numbers count from the
start of an area; ``at`` is a virtual address in bytes.
"""

from dataclasses import dataclass, field

__all__ = [
    "CALL_NAMES",
    "COUNTS",
    "PROCESS_COUNTS",
    "PROTECTIONS",
    "Call",
    "Exit",
    "Expect",
    "ExpectCount",
    "ExpectInvariants",
    "ExpectProcessCount",
    "ExpectResult",
    "ExpectViolates",
    "Fail",
    "Fork",
    "Mmap",
    "Mprotect",
    "Munmap",
    "Pages",
    "Read",
    "Scenario",
    "Snapshot",
    "Statement",
    "Walk",
    "Write",
]

CALL_NAMES = ("exit", "fork", "mmap", "mprotect", "munmap", "read", "write")
"""Calls a process can make, as `ExpectResult.call` spells them."""

COUNTS = ("anon_vma_chains", "anon_vmas", "bytes", "folios", "processes", "vmas")
"""What `ExpectCount.what` can count, over the whole machine; `bytes` is slab memory."""

PROCESS_COUNTS = ("anon_vma_chains", "folios", "vmas")
"""What `ExpectProcessCount.what` can count within one process."""

PROTECTIONS = ("none", "r", "rw", "rwx", "rx", "w", "wx", "x")
"""Every value of a `prot` field."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages `first` to `last` of an area, both inclusive, counted from 0.

    Always concrete: ``A`` alone has become ``A[0..size-1]`` and ``A[2]`` has
    become ``A[2..2]``.
    """

    area: str
    first: int
    last: int

    @property
    def count(self) -> int:
        """Number of pages in the range, at least 1."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Located:
    """Where a statement stands: its line (from 1; 0 if made by hand) and its text without comment."""

    line: int = field(default=0, compare=False, repr=False)
    text: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Mmap(_Located):
    """``P0 mmap A 4``: map `pages` fresh pages and call them `area`.

    `at` is the start address in bytes (replacing what is there, as MAP_FIXED
    does) or None for a place apart from all other areas; `file` names the file
    that is mapped, None for anonymous memory; `shared` is MAP_SHARED.
    """

    process: str
    area: str
    pages: int
    at: int | None = None
    prot: str = "rw"
    file: str | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Read(_Located):
    """``P0 read A[1]``: read each page of `range`, lowest first."""

    process: str
    range: Pages


@dataclass(frozen=True, slots=True)
class Write(_Located):
    """``P0 write A[0..3]``: write to each page of `range`, lowest first."""

    process: str
    range: Pages


@dataclass(frozen=True, slots=True)
class Munmap(_Located):
    """``P0 munmap A[1..2]``: unmap `range`; the area keeps its name and page numbers."""

    process: str
    range: Pages


@dataclass(frozen=True, slots=True)
class Mprotect(_Located):
    """``P0 mprotect A[0..1] r``: give `range` the protection `prot` (one of `PROTECTIONS`)."""

    process: str
    range: Pages
    prot: str


@dataclass(frozen=True, slots=True)
class Fork(_Located):
    """``P0 fork P1``: fork `process`; the new process is called `child`."""

    process: str
    child: str


@dataclass(frozen=True, slots=True)
class Exit(_Located):
    """``P1 exit``: the process ends and its address space goes."""

    process: str


@dataclass(frozen=True, slots=True)
class Walk(_Located):
    """``walk P0 A[0]``: reverse-map walk of the folio that `process` maps at `range`, one page exactly."""

    process: str
    range: Pages


@dataclass(frozen=True, slots=True)
class Fail(_Located):
    """``fail 3``: the `n`-th anon_vma or anon_vma_chain allocation of the next call fails.

    A GFP_NOWAIT attempt and its GFP_KERNEL retry count as one allocation. With
    `nowait` the first attempt alone fails and the retry succeeds.
    """

    n: int
    nowait: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot(_Located):
    """``snapshot NAME``: keep the whole state under `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class ExpectCount(_Located):
    """``expect anon_vmas 3``: the machine holds `count` of `what` (one of `COUNTS`)."""

    what: str
    count: int


@dataclass(frozen=True, slots=True)
class ExpectProcessCount(_Located):
    """``expect P1 vmas 2``: `process` holds `count` of `what` (one of `PROCESS_COUNTS`)."""

    process: str
    what: str
    count: int


@dataclass(frozen=True, slots=True)
class ExpectInvariants(_Located):
    """``expect invariants hold``: no invariant is violated here."""


@dataclass(frozen=True, slots=True)
class ExpectViolates(_Located):
    """``expect violates AV-007``: the invariant `id` is violated here."""

    id: str


@dataclass(frozen=True, slots=True)
class ExpectResult(_Located):
    """``expect P1 fork ENOMEM``: how the latest `call` of `process` ended.

    `call` is one of `CALL_NAMES`; `result` is an errno name, or ``ok``.
    """

    process: str
    call: str
    result: str


Call = Mmap | Read | Write | Munmap | Mprotect | Fork | Exit
"""A statement in which a process asks the kernel for something; what `Fail` applies to."""

Expect = ExpectCount | ExpectProcessCount | ExpectInvariants | ExpectViolates | ExpectResult
"""A statement that is judged true or false."""

Statement = Call | Walk | Fail | Snapshot | Expect
"""Any line of a scenario."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """The statements of one scenario in order; `name` is the file it came from, ``-`` if none."""

    statements: tuple[Statement, ...]
    name: str = field(default="-", compare=False)
