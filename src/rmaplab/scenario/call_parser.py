# SPDX-License-Identifier: GPL-2.0-only
"""From the text of a call to its value: one function a call, found by the word after the process."""

from collections.abc import Callable, Mapping
from typing import Any

from rmaplab.scenario.base import Pages
from rmaplab.scenario.calls import (
    ADVICE,
    Brk,
    Call,
    Exec,
    Exit,
    Fork,
    Ksm,
    Madvise,
    Migrate,
    Mlock,
    Mmap,
    Mprotect,
    Mremap,
    Munlock,
    Munmap,
    Pin,
    Read,
    SplitFolio,
    StackGrow,
    Swapin,
    Swapout,
    UffdMove,
    Unpin,
    Write,
)
from rmaplab.scenario.operands import MAX_PAGES, address, one_page, page_count, pages, protection
from rmaplab.scenario.scope import Scope
from rmaplab.scenario.statements import COUNTS
from rmaplab.scenario.tokens import Line, quote

__all__ = ["CALLS", "RESERVED", "STATEMENT_WORDS", "parse_call"]

STATEMENT_WORDS = ("expect", "fail", "ksmd", "par", "snapshot", "walk")
"""The words that start a statement which is no call."""

RESERVED = frozenset((*STATEMENT_WORDS, *COUNTS, "invariants", "violates"))
"""The words that name no process."""

Options = Mapping[str, Callable[[], Any]]

_ONLY_ONCE = (("at", "fixed"),)  # options that answer the same question
_VALUES = {"at": "ADDRESS", "file": "NAME", "fixed": "AREA[PAGE]", "pages": "N", "prot": "PROT"}


def _options(line: Line, known: Options) -> dict[str, Any]:
    """Read ``name=value`` and flags (a name without a value) up to the end of the statement."""
    given: dict[str, Any] = {}
    while not line.ended:
        name = _option_name(line, known, given)
        given[name] = known[name]()
    return given


def _option_name(line: Line, known: Options, given: Mapping[str, Any]) -> str:
    token = line.peek()
    if token.text in given:
        raise line.error(token, f"option `{token.text}` is given twice", "expected it once")
    if token.text not in known:
        spelt = ", ".join(f"{name}={_VALUES[name]}" if name in _VALUES else name for name in known)
        raise line.unexpected(f"an option ({spelt}) or {line.ending}", known)
    for rivals in _ONLY_ONCE:
        if token.text in rivals and any(name in given for name in rivals):
            wrong = f"`{rivals[0]}` and `{rivals[1]}` both say where the area goes"
            raise line.error(token, wrong, "expected one of them")
    line.take()
    if token.text in _VALUES:
        line.mark("=", f"and a value after `{token.text}`")
    return token.text


def _mmap(line: Line, scope: Scope, process: str) -> Mmap:
    area = line.identifier("an area name").text
    size = page_count(line)
    options: Options = {
        "at": lambda: address(line),
        "file": lambda: line.identifier("a file name").text,
        "prot": lambda: protection(line),
        "shared": lambda: True,
    }
    return Mmap(process, area, size, **_options(line, options))


def _mremap(line: Line, scope: Scope, process: str) -> Mremap:
    source = pages(line, scope, process)
    area = line.identifier("a name for the moved area").text
    options: Options = {
        "at": lambda: address(line),
        "dontunmap": lambda: True,
        "fixed": lambda: one_page(line, scope, process, "an area goes to one page, not to"),
        "pages": lambda: page_count(line),
    }
    return Mremap(process, source, area, **_options(line, options))


def _brk(line: Line, scope: Scope, process: str) -> Brk:
    start = line.peek()
    if start.text not in ("+", "-"):
        raise line.unexpected("`+` or `-` and a number of pages, as in `brk +2`")
    sign = line.take().text
    count = page_count(line)
    heap = scope.heap(process)
    if sign == "-" and count > heap:
        has = f"the heap of {process} has {heap} page{'s' * (heap > 1)}" if heap else f"{process} has no heap"
        least = f"at most `-{heap}`, or " if heap else ""
        raise line.error(start, f"{has}, it cannot shrink by {count}", f"expected {least}`+` to grow")
    return Brk(process, count if sign == "+" else -count)


def _stack_grow(line: Line, scope: Scope, process: str) -> StackGrow:
    return StackGrow(process, line.integer("the number of pages to grow by", 1, MAX_PAGES))


def _fork(line: Line, scope: Scope, process: str) -> Fork:
    child = line.identifier("a name for the new process")
    if child.text in RESERVED:
        wrong = f"{quote(child.text)} is a word of the language"
        raise line.error(child, wrong, "expected another name for the process")
    scope.new_process(line, child)
    return Fork(process, child.text)


def _madvise(line: Line, scope: Scope, process: str) -> Madvise:
    return Madvise(process, pages(line, scope, process), line.one_of(ADVICE, "an advice"))


def _swapout(line: Line, scope: Scope, process: str) -> Swapout:
    return Swapout(process, pages(line, scope, process), bool(line.optional(("cached",))))


def _pin(line: Line, scope: Scope, process: str) -> Pin:
    return Pin(process, pages(line, scope, process), not line.optional(("r",)))


def _uffd_move(line: Line, scope: Scope, process: str) -> UffdMove:
    source, start = pages(line, scope, process), line.peek()
    target = pages(line, scope, process)
    if target.count != source.count:
        wrong = f"{source.count} page{'s' * (source.count > 1)} cannot move to {target.count}"
        raise line.error(start, wrong, "expected ranges of equal length")
    return UffdMove(process, source, target)


def _ksm(line: Line, scope: Scope, process: str) -> Ksm:
    return Ksm(process, pages(line, scope, process), line.identifier("a name for the pages' content").text)


def _on_pages(make: Callable[[str, Pages], Call]) -> Callable[[Line, Scope, str], Call]:
    return lambda line, scope, process: make(process, pages(line, scope, process))


CALLS: dict[str, Callable[[Line, Scope, str], Call]] = {
    "brk": _brk,
    "exec": lambda line, scope, process: Exec(process),
    "exit": lambda line, scope, process: Exit(process),
    "fork": _fork,
    "ksm": _ksm,
    "madvise": _madvise,
    "migrate": _on_pages(Migrate),
    "mlock": _on_pages(Mlock),
    "mmap": _mmap,
    "mprotect": lambda line, scope, process: Mprotect(process, pages(line, scope, process), protection(line)),
    "mremap": _mremap,
    "munlock": _on_pages(Munlock),
    "munmap": _on_pages(Munmap),
    "pin": _pin,
    "read": _on_pages(Read),
    "split-folio": _on_pages(SplitFolio),
    "stack-grow": _stack_grow,
    "swapin": _on_pages(Swapin),
    "swapout": _swapout,
    "uffd-move": _uffd_move,
    "unpin": _on_pages(Unpin),
    "write": _on_pages(Write),
}
"""How to read what follows the name of a call."""


def parse_call(line: Line, scope: Scope) -> Call:
    """Read ``P0 fork P1`` and tell `scope` of it."""
    process = scope.process(line)
    call = line.one_of(CALLS, "a call")
    statement = CALLS[call](line, scope, process)
    scope.called(line, statement)
    return statement
