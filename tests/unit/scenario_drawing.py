# SPDX-License-Identifier: GPL-2.0-only
"""Draws valid scenarios over the whole language, with a book of names of its own, apart from the parser's."""

from copy import deepcopy
from dataclasses import dataclass, field
from math import factorial, prod

from hypothesis import assume
from hypothesis import strategies as st

from rmaplab.scenario import (
    ADVICE,
    COUNTS,
    FAIL_KINDS,
    PROCESS_COUNTS,
    PROTECTIONS,
    WALK_ORDERS,
    Brk,
    Exec,
    Exit,
    ExpectCount,
    ExpectInvariants,
    ExpectProcessCount,
    ExpectResult,
    ExpectViolates,
    Fail,
    Fork,
    Ksm,
    Ksmd,
    Madvise,
    Migrate,
    Mlock,
    Mmap,
    Mprotect,
    Mremap,
    Munlock,
    Munmap,
    Pages,
    Par,
    Pin,
    Read,
    Scenario,
    Snapshot,
    SplitFolio,
    StackGrow,
    Swapin,
    Swapout,
    UffdMove,
    Unpin,
    Walk,
    Write,
)

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
RESERVED = {*COUNTS, "expect", "fail", "invariants", "ksmd", "par", "snapshot", "violates", "walk"}
SIZES = st.integers(1, 2**35)
ADDRESSES = st.none() | st.integers(0, 2**35 - 1).map(lambda page: page << 12)

ON_PAGES = (Migrate, Mlock, Munlock, Munmap, Read, SplitFolio, Swapin, Unpin, Write)
ON_AREAS = (*ON_PAGES, Ksm, Madvise, Mprotect, Mremap, Pin, Swapout, UffdMove)
ANYWHERE = (Brk, Exec, Exit, Fork, Mmap, Mmap, Mmap, StackGrow)
OTHERS = (ExpectCount, ExpectInvariants, ExpectProcessCount, ExpectViolates, Fail, Ksmd, Par, Snapshot)


@dataclass
class Names:
    """What a process can name."""

    areas: dict[str, int] = field(default_factory=dict)
    heap: int = 0
    stack: int = 0


@dataclass
class Book:
    """What the statements drawn so far have made known."""

    processes: dict[str, Names] = field(default_factory=lambda: {"P0": Names()})
    exited: set[str] = field(default_factory=set)
    called: list[tuple[str, str]] = field(default_factory=list)
    snapshots: set[str] = field(default_factory=set)
    armed: bool = False

    def enter(self, call):
        """Note a call."""
        names = self.processes[call.process]
        match call:
            case Mmap():
                names.areas[call.area] = call.pages
            case Mremap():
                names.areas[call.area] = call.pages or call.range.count
            case Brk():
                names.heap = max(0, names.heap + call.pages)
                names.areas["heap"] = names.heap
                if names.heap == 0:
                    del names.areas["heap"]
            case StackGrow():
                names.stack = names.areas["stack"] = call.pages + (names.stack or 1)
            case Exec():
                self.processes[call.process] = Names({"stack": 33}, stack=33)
            case Exit():
                self.exited.add(call.process)
            case Fork():
                self.processes[call.child] = deepcopy(names)
                self.exited.discard(call.child)
        self.called.append((call.process, call.call))
        self.armed = False


def pages_of(draw, names, count=None):
    """A range within an area of so many pages; None if no area is as long."""
    areas = [area for area, size in sorted(names.areas.items()) if size >= (count or 1)]
    if not areas:
        return None
    area = draw(st.sampled_from(areas))
    first = draw(st.integers(0, names.areas[area] - (count or 1)))
    last = first + count - 1 if count else draw(st.integers(first, names.areas[area] - 1))
    return Pages(area, first, last)


def drawn_call(draw, book, children):
    """A call that is valid where the book stands, or None; the children it may fork are given."""
    process = draw(st.sampled_from(sorted(book.processes)))
    names = book.processes[process]
    kind = draw(st.sampled_from(ANYWHERE + ON_AREAS * bool(names.areas)))
    if kind is Mmap:
        name, file = draw(NAMES), draw(st.none() | NAMES)
        prot, shared = draw(st.sampled_from(PROTECTIONS)), draw(st.booleans())
        return Mmap(process, name, draw(SIZES), draw(ADDRESSES), prot, file, shared)
    if kind is Fork:
        child = draw(children)
        taken = child in book.processes and child not in book.exited
        return None if taken or child in RESERVED else Fork(process, child)
    if kind is Brk:
        pages = draw(st.integers(-names.heap, 9))
        return Brk(process, pages) if pages else None
    if kind is StackGrow:
        return StackGrow(process, draw(st.integers(1, 9)))
    if kind in (Exec, Exit):
        return kind(process)
    return drawn_call_on_pages(draw, process, names, kind)


def drawn_call_on_pages(draw, process, names, kind):
    """A call with a range."""
    pages = pages_of(draw, names)
    if kind is Mremap:
        at = draw(ADDRESSES)
        fixed = None if at is not None else draw(st.none() | st.just(pages_of(draw, names, 1)))
        area = draw(NAMES | st.just(pages.area))
        return Mremap(process, pages, area, draw(st.none() | SIZES), at, fixed, draw(st.booleans()))
    if kind is UffdMove:
        return UffdMove(process, pages, pages_of(draw, names, pages.count))
    if kind in (Pin, Swapout):
        return kind(process, pages, draw(st.booleans()))
    if kind in ON_PAGES:
        return kind(process, pages)
    operand = {Ksm: NAMES, Madvise: st.sampled_from(ADVICE), Mprotect: st.sampled_from(PROTECTIONS)}[kind]
    return kind(process, pages, draw(operand))


def drawn_par(draw, book):
    """A par of two to four branches, or None if a branch came out empty."""
    branches = []
    for number in range(draw(st.integers(2, 4))):
        own = deepcopy(book)
        calls = []
        for _ in range(draw(st.integers(1, 3))):
            if call := drawn_call(draw, own, st.just(f"child{number}")):
                own.enter(call)
                calls.append(call)
        branches.append(tuple(calls))
    lengths = [len(branch) for branch in branches]
    if not all(lengths) or factorial(sum(lengths)) // prod(map(factorial, lengths)) > 1000:
        return None
    return Par(tuple(branches))


def drawn_statement(draw, book):
    """A statement that is no call, valid where the book stands, or None."""
    process = draw(st.sampled_from(sorted(book.processes)))
    kind = draw(st.sampled_from((*OTHERS, Walk, ExpectResult)))
    if kind is Walk and book.processes[process].areas:
        page = pages_of(draw, book.processes[process], 1)
        return Walk(process, page, draw(st.none() | st.sampled_from(WALK_ORDERS)))
    if kind is ExpectResult and book.called:
        return ExpectResult(*draw(st.sampled_from(book.called)), draw(st.sampled_from(["ok", "ENOMEM", "EFAULT"])))
    if kind is Fail and not book.armed:
        book.armed = True
        n = draw(st.integers(1, 10**6))
        return draw(st.sampled_from([Fail(n), Fail(n, nowait=True), *(Fail(n, kind=k) for k in FAIL_KINDS)]))
    if kind is Snapshot and (name := draw(NAMES)) not in book.snapshots:
        book.snapshots.add(name)
        return Snapshot(name)
    if kind is ExpectCount:
        return ExpectCount(draw(st.sampled_from(COUNTS)), draw(st.integers(0, 2**63 - 1)))
    if kind is ExpectProcessCount:
        return ExpectProcessCount(process, draw(st.sampled_from(PROCESS_COUNTS)), draw(st.integers(0, 99)))
    if kind is ExpectViolates:
        return ExpectViolates(draw(st.from_regex(r"[A-Z]{1,3}-[0-9]{3}", fullmatch=True)))
    if kind is Par and not book.armed:
        return drawn_par(draw, book)
    return kind() if kind in (ExpectInvariants, Ksmd) else None


@st.composite
def scenarios(draw):
    """A valid scenario of up to some 25 statements."""
    book, statements = Book(), []
    for _ in range(draw(st.integers(1, 25))):
        made = drawn_call(draw, book, NAMES) if draw(st.booleans()) else drawn_statement(draw, book)
        if made is None:
            continue
        for call in made.calls if isinstance(made, Par) else [made] if hasattr(made, "process") else []:
            if not isinstance(call, (Walk, ExpectProcessCount, ExpectResult)):
                book.enter(call)
        statements.append(made)
    if book.armed:
        statements.append(Exit("P0"))
    assume(statements)
    return Scenario(tuple(statements))
