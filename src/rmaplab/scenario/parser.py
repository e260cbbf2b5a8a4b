# SPDX-License-Identifier: GPL-2.0-only
"""From the text of a scenario to its statements: one function a statement, found by its first words.

The parser checks all that the text alone decides (`rmaplab.scenario.scope`);
what a kernel would refuse is left to the run, which prints the errno.
"""

import errno
import os
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from rmaplab.errors import InputError
from rmaplab.scenario.operands import MAX_PAGES, address, invariant_id, pages, protection
from rmaplab.scenario.scope import Scope
from rmaplab.scenario.statements import (
    COUNTS,
    PROCESS_COUNTS,
    Call,
    Exit,
    Expect,
    ExpectCount,
    ExpectInvariants,
    ExpectProcessCount,
    ExpectResult,
    ExpectViolates,
    Fail,
    Fork,
    Mmap,
    Mprotect,
    Munmap,
    Read,
    Scenario,
    Snapshot,
    Statement,
    Walk,
    Write,
)
from rmaplab.scenario.tokens import Line, complaint, decode, quote, suggest

__all__ = ["load", "parse"]

MAX_BYTES = 16 << 20  # size of a scenario file
MAX_FAIL = 10**6
MAX_COUNT = (1 << 63) - 1

_UNMODELLED = frozenset(
    ("mremap", "madvise", "brk", "stack-grow", "exec", "swapout", "swapin", "pin", "unpin", "migrate", "par")
)
_ERRNOS = frozenset(errno.errorcode.values())


_OPTIONS: dict[str, Callable[[Line], Any]] = {
    "at": address,
    "file": lambda line: line.identifier("a file name").text,
    "prot": protection,
    "shared": lambda line: True,
}


def _mmap(line: Line, scope: Scope, process: str) -> Mmap:
    area = line.identifier("an area name").text
    size = line.integer("the number of pages", 1, MAX_PAGES)
    options: dict[str, Any] = {}
    while line.peek().text:
        name = _option_name(line, options)
        options[name] = _OPTIONS[name](line)
    scope.bind(line, process, area, size)
    return Mmap(process, area, size, **options)


def _option_name(line: Line, given: Collection[str]) -> str:
    token = line.peek()
    if token.text in given:
        raise line.error(token, f"option `{token.text}` is given twice", "expected it once")
    if token.text not in _OPTIONS:
        choice = "an option (at=ADDRESS, file=NAME, prot=PROT, shared) or the end of the line"
        raise line.unexpected(f"{choice} (one statement a line)", _OPTIONS)
    line.take()
    if token.text != "shared":
        line.mark("=", f"and a value after `{token.text}`")
    return token.text


def _mprotect(line: Line, scope: Scope, process: str) -> Mprotect:
    return Mprotect(process, pages(line, scope, process), protection(line))


def _fork(line: Line, scope: Scope, process: str) -> Fork:
    child = line.identifier("a name for the new process")
    if child.text in _RESERVED:
        wrong = f"{quote(child.text)} is a word of the language"
        raise line.error(child, wrong, "expected another name for the process")
    scope.fork(line, process, child)
    return Fork(process, child.text)


def _exit(line: Line, scope: Scope, process: str) -> Exit:
    scope.exit(process)
    return Exit(process)


_CALLS: dict[str, Callable[[Line, Scope, str], Call]] = {
    "exit": _exit,
    "fork": _fork,
    "mmap": _mmap,
    "mprotect": _mprotect,
    "munmap": lambda line, scope, process: Munmap(process, pages(line, scope, process)),
    "read": lambda line, scope, process: Read(process, pages(line, scope, process)),
    "write": lambda line, scope, process: Write(process, pages(line, scope, process)),
}


def _call(line: Line, scope: Scope) -> Call:
    process = scope.process(line)
    _refuse_unmodelled(line)
    call = line.one_of(_CALLS, "a call")
    statement = _CALLS[call](line, scope, process)
    scope.called(process, call)
    return statement


def _refuse_unmodelled(line: Line) -> None:
    token = line.peek()
    if token.text in _UNMODELLED:
        wrong = f"`{token.text}` is part of the language but not modelled yet in this version"
        raise line.error(token, wrong, f"modelled: {', '.join(sorted((*_CALLS, *_STATEMENTS)))}")


def _fail(line: Line, scope: Scope) -> Fail:
    scope.arm(line, line.take())
    return Fail(line.integer("the number of the failing allocation", 1, MAX_FAIL), line.skip("nowait"))


def _walk(line: Line, scope: Scope) -> Walk:
    line.take()
    process = scope.process(line)
    start = line.peek()
    folio = pages(line, scope, process)
    if folio.count != 1:
        wrong = f"a walk starts from one page, not from {folio.count}"
        raise line.error(start, wrong, f"expected `{folio.area}[{folio.first}]`")
    return Walk(process, folio)


def _snapshot(line: Line, scope: Scope) -> Snapshot:
    line.take()
    name = line.identifier("a snapshot name")
    scope.snapshot(line, name)
    return Snapshot(name.text)


def _expect(line: Line, scope: Scope) -> Expect:
    line.take()
    what, follower = line.peek().text, line.peek(1).text
    if what in COUNTS:
        return ExpectCount(line.take().text, line.integer("a count", 0, MAX_COUNT))
    if line.skip("invariants"):
        line.one_of(("hold",), "the word")
        return ExpectInvariants()
    if line.skip("violates"):
        return ExpectViolates(invariant_id(line))
    if scope.is_process(what) or follower in _CALLS or follower in PROCESS_COUNTS:
        return _expect_process(line, scope)
    known = (*COUNTS, "invariants", "violates")
    raise line.unexpected(f"one of {', '.join(known)} or a process name", (*known, *scope.process_names()))


def _expect_process(line: Line, scope: Scope) -> ExpectProcessCount | ExpectResult:
    process = scope.process(line)
    token = line.peek()
    what = line.one_of((*PROCESS_COUNTS, *_CALLS), "a count or a call")
    if what in PROCESS_COUNTS:
        return ExpectProcessCount(process, what, line.integer("a count", 0, MAX_COUNT))
    if not scope.has_called(process, what):
        raise line.error(
            token, f"{process} makes no {what} call above", f"expected a line `{process} {what} …` first"
        )
    if line.peek().text not in {*_ERRNOS, "ok"}:
        raise line.unexpected("`ok` or the name of an errno such as ENOMEM", {*_ERRNOS, "ok"})
    return ExpectResult(process, what, line.take().text)


_STATEMENTS: dict[str, Callable[[Line, Scope], Statement]] = {
    "expect": _expect,
    "fail": _fail,
    "snapshot": _snapshot,
    "walk": _walk,
}
_RESERVED = frozenset((*_STATEMENTS, *COUNTS, "invariants", "par", "violates"))


def _statement(line: Line, scope: Scope) -> Statement:
    word, follower = line.peek().text, line.peek(1).text
    if not scope.is_process(word):
        _refuse_unmodelled(line)
    if word in _STATEMENTS:
        statement = _STATEMENTS[word](line, scope)
    elif scope.is_process(word) or follower in _CALLS or follower in _UNMODELLED:
        statement = _call(line, scope)
    else:
        raise _no_statement(line, scope)
    line.finish()
    return replace(statement, line=line.number, text=line.text)


def _no_statement(line: Line, scope: Scope) -> InputError:
    token = line.peek()
    known = (*scope.process_names(), *_STATEMENTS)
    if token.text in _CALLS:
        return line.error(token, f"no process named before `{token.text}`", f"expected `P0 {token.text} …`")
    wrong = f"{quote(token.text)} starts no statement{suggest(token.text, known)}"
    return line.error(token, wrong, f"expected a process name or one of {', '.join(_STATEMENTS)}")


def parse(text: str | bytes, name: str = "-") -> Scenario:
    """Read a scenario from `text`, at most 16 MiB; `name` is the file to blame in errors.

    Raises `InputError`, its message starting with ``FILE:LINE:COLUMN: ``, both
    counted from 1 and the column in characters.
    """
    if len(text) > MAX_BYTES:
        wrong = f"the scenario is longer than {MAX_BYTES >> 20} MiB"
        raise complaint((name, 1, 1), wrong, "expected a scenario; a recorded trace goes to `rmaplab replay`")
    decoded = decode(text, name) if isinstance(text, bytes) else text
    scope = Scope()
    statements = []
    for number, source in enumerate(decoded.removeprefix("\ufeff").split("\n"), 1):
        line = Line(name, number, source.removesuffix("\r"))
        if line.text:
            statements.append(_statement(line, scope))
    if not statements:
        wrong = f"no statement in {name}"
        raise complaint((name, 1, 1), wrong, "expected at least one, such as `P0 mmap A 4`")
    scope.finish()
    return Scenario(tuple(statements), name)


def load(path: str | os.PathLike[str]) -> Scenario:
    """Read the scenario in the file `path`, or on stdin if `path` is ``-``.

    Raises `InputError` if it cannot be opened or is not a scenario.
    """
    name = os.fspath(path)
    try:
        if name == "-" and sys.stdin is None:
            raise ValueError("standard input is closed")
        if name == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(name, "rb") as stream:
                data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: cannot read: {reason}; expected a scenario file or - for stdin") from error
    return parse(data, name)
