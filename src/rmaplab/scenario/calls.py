# SPDX-License-Identifier: GPL-2.0-only
"""Calls of the scenario language: what a process asks the kernel for.

Every call is an immutable value. Two are equal when they say the same thing,
wherever they stand: ``line`` and ``text`` take no part in comparison. Page
numbers count from the start of an area; ``at`` is a virtual address in bytes.
"""

from dataclasses import dataclass
from typing import ClassVar, get_args

from rmaplab.scenario.base import Caller, OnPages, Pages

__all__ = [
    "ADVICE",
    "CALL_NAMES",
    "HEAP",
    "PROTECTIONS",
    "STACK",
    "Brk",
    "Call",
    "Exec",
    "Exit",
    "Fork",
    "Ksm",
    "Madvise",
    "Migrate",
    "Mlock",
    "Mmap",
    "Mprotect",
    "Mremap",
    "Munlock",
    "Munmap",
    "Pin",
    "Read",
    "SplitFolio",
    "StackGrow",
    "Swapin",
    "Swapout",
    "UffdMove",
    "Unpin",
    "Write",
]

PROTECTIONS = ("none", "r", "rw", "rwx", "rx", "w", "wx", "x")
"""Every value of a `prot` field."""

ADVICE = (
    "collapse",
    "dodump",
    "dofork",
    "dontdump",
    "dontfork",
    "dontneed",
    "guard-install",
    "guard-remove",
    "hugepage",
    "keeponfork",
    "mergeable",
    "nohugepage",
    "unmergeable",
    "wipeonfork",
)
"""Every value of `Madvise.advice`: the MADV_ constants in small letters."""

HEAP = "heap"
"""The area that `Brk` binds."""

STACK = "stack"
"""The area that `StackGrow` and `Exec` bind; its page 0 is the lowest."""


@dataclass(frozen=True, slots=True)
class Mmap(Caller):
    """``P0 mmap A 4``: map `pages` fresh pages and call them `area`.

    `at` is the start address in bytes (replacing what is there, as MAP_FIXED
    does) or None for a place apart from all other areas; `file` names the file
    that is mapped, None for anonymous memory; `shared` is MAP_SHARED.
    """

    call: ClassVar[str] = "mmap"

    area: str
    pages: int
    at: int | None = None
    prot: str = "rw"
    file: str | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Read(OnPages):
    """``P0 read A[1]``: read each page of `range`, lowest first."""

    call: ClassVar[str] = "read"


@dataclass(frozen=True, slots=True)
class Write(OnPages):
    """``P0 write A[0..3]``: write to each page of `range`, lowest first."""

    call: ClassVar[str] = "write"


@dataclass(frozen=True, slots=True)
class Munmap(OnPages):
    """``P0 munmap A[1..2]``: unmap `range`; the area keeps its name and page numbers."""

    call: ClassVar[str] = "munmap"


@dataclass(frozen=True, slots=True)
class Mprotect(OnPages):
    """``P0 mprotect A[0..1] r``: give `range` the protection `prot` (one of `PROTECTIONS`)."""

    call: ClassVar[str] = "mprotect"

    prot: str


@dataclass(frozen=True, slots=True)
class Mremap(OnPages):
    """``P0 mremap A B``: move `range` and call it `area`, or resize it if it is the source's own name.

    `pages` is the new length, None for that of `range`. `at` (bytes) or `fixed`
    (one page of an area) says where it goes, replacing what is there; without
    them that is a place apart from all other areas. With `dontunmap` the
    source stays mapped, empty (MREMAP_DONTUNMAP).
    """

    call: ClassVar[str] = "mremap"

    area: str
    pages: int | None = None
    at: int | None = None
    fixed: Pages | None = None
    dontunmap: bool = False


@dataclass(frozen=True, slots=True)
class Madvise(OnPages):
    """``P0 madvise A dontfork``: give the `advice` (one of `ADVICE`) about `range`."""

    call: ClassVar[str] = "madvise"

    advice: str


@dataclass(frozen=True, slots=True)
class Mlock(OnPages):
    """``P0 mlock A``: lock `range` in memory."""

    call: ClassVar[str] = "mlock"


@dataclass(frozen=True, slots=True)
class Munlock(OnPages):
    """``P0 munlock A``: unlock `range`."""

    call: ClassVar[str] = "munlock"


@dataclass(frozen=True, slots=True)
class Brk(Caller):
    """``P0 brk +2``: move the end of the heap by `pages`, up or (negative) down, and call the heap `HEAP`."""

    call: ClassVar[str] = "brk"

    pages: int


@dataclass(frozen=True, slots=True)
class StackGrow(Caller):
    """``P0 stack-grow 1``: let the stack grow downwards by `pages`, from a first page if there is none."""

    call: ClassVar[str] = "stack-grow"

    pages: int


@dataclass(frozen=True, slots=True)
class Exec(Caller):
    """``P0 exec``: run a new program, of which only the stack is mapped; all names of areas but `STACK` go."""

    call: ClassVar[str] = "exec"


@dataclass(frozen=True, slots=True)
class Fork(Caller):
    """``P0 fork P1``: fork `process`; the new process is called `child`."""

    call: ClassVar[str] = "fork"

    child: str


@dataclass(frozen=True, slots=True)
class Exit(Caller):
    """``P1 exit``: the process ends and its address space goes."""

    call: ClassVar[str] = "exit"


@dataclass(frozen=True, slots=True)
class Swapout(OnPages):
    """``P0 swapout A[0]``: reclaim swaps `range` out; with `cached` the folios stay in the swap cache."""

    call: ClassVar[str] = "swapout"

    cached: bool = False


@dataclass(frozen=True, slots=True)
class Swapin(OnPages):
    """``P0 swapin A[0]``: read each swapped page of `range`, which brings it in."""

    call: ClassVar[str] = "swapin"


@dataclass(frozen=True, slots=True)
class Pin(OnPages):
    """``P0 pin A[0]``: take a long-term pin on each page of `range`, to `write` or to read through it."""

    call: ClassVar[str] = "pin"

    write: bool = True


@dataclass(frozen=True, slots=True)
class Unpin(OnPages):
    """``P0 unpin A[0]``: drop a pin of each page of `range`."""

    call: ClassVar[str] = "unpin"


@dataclass(frozen=True, slots=True)
class Migrate(OnPages):
    """``P0 migrate A[0]``: migrate the folios mapped at `range` to other memory."""

    call: ClassVar[str] = "migrate"


@dataclass(frozen=True, slots=True)
class UffdMove(OnPages):
    """``P0 uffd-move A[0] B[0]``: UFFDIO_MOVE of the pages at `range` to `target`, which is as long."""

    call: ClassVar[str] = "uffd-move"

    target: Pages


@dataclass(frozen=True, slots=True)
class Ksm(OnPages):
    """``P0 ksm A[0..1] NAME``: ksmd finds the pages of `range` equal to the content `content` and merges them."""

    call: ClassVar[str] = "ksm"

    content: str


@dataclass(frozen=True, slots=True)
class SplitFolio(OnPages):
    """``P0 split-folio A[0]``: split the large folio mapped at each page of `range` into small ones."""

    call: ClassVar[str] = "split-folio"


Call = (
    Mmap
    | Read
    | Write
    | Munmap
    | Mprotect
    | Mremap
    | Madvise
    | Mlock
    | Munlock
    | Brk
    | StackGrow
    | Exec
    | Fork
    | Exit
    | Swapout
    | Swapin
    | Pin
    | Unpin
    | Migrate
    | UffdMove
    | Ksm
    | SplitFolio
)
"""A statement in which a process asks the kernel for something; what `Fail` applies to."""

CALL_NAMES: tuple[str, ...] = tuple(sorted(kind.call for kind in get_args(Call)))
"""Calls a process can make, as a scenario spells them and `ExpectResult.call` names them."""
