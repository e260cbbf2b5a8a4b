# SPDX-License-Identifier: GPL-2.0-only
"""From the text of a scenario to its statements: one function a statement, found by its first words.

The parser checks all that the text alone decides (`rmaplab.scenario.scope`);
what a kernel would refuse is left to the run, which prints the errno.
"""

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import replace

from rmaplab.errors import InputError
from rmaplab.scenario.call_parser import CALLS, STATEMENT_WORDS, parse_call
from rmaplab.scenario.operands import invariant_id, one_page
from rmaplab.scenario.par_parser import parse_par
from rmaplab.scenario.scope import Scope
from rmaplab.scenario.statements import (
    COUNTS,
    FAIL_KINDS,
    PROCESS_COUNTS,
    WALK_ORDERS,
    Expect,
    ExpectCount,
    ExpectInvariants,
    ExpectProcessCount,
    ExpectResult,
    ExpectViolates,
    Fail,
    Ksmd,
    Scenario,
    Snapshot,
    Statement,
    Walk,
)
from rmaplab.scenario.tokens import Line, complaint, decode, quote, suggest

__all__ = ["load", "parse"]

MAX_BYTES = 16 << 20  # size of a scenario file
MAX_FAIL = 10**6
MAX_COUNT = (1 << 63) - 1

_ERRNOS = frozenset(errno.errorcode.values())


def _fail(line: Line, scope: Scope) -> Fail:
    scope.arm(line, line.take())
    n = line.integer("the number of the failing allocation", 1, MAX_FAIL)
    word = line.optional(("nowait", *FAIL_KINDS), f"`nowait`, a kind of allocation ({', '.join(FAIL_KINDS)})")
    return Fail(n, nowait=True) if word == "nowait" else Fail(n, kind=word or "rmap")


def _walk(line: Line, scope: Scope) -> Walk:
    line.take()
    process = scope.process(line)
    folio = one_page(line, scope, process, "a walk starts from one page, not from")
    if not line.optional(("by",), f"`by=` with {', '.join(WALK_ORDERS)}"):
        return Walk(process, folio)
    line.mark("=", "and a value after `by`")
    return Walk(process, folio, line.one_of(WALK_ORDERS, "what a walk goes by"))


def _ksmd(line: Line, scope: Scope) -> Ksmd:
    line.take()
    return Ksmd()


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
    if scope.is_process(what) or follower in CALLS or follower in PROCESS_COUNTS:
        return _expect_process(line, scope)
    known = (*COUNTS, "invariants", "violates")
    raise line.unexpected(f"one of {', '.join(known)} or a process name", (*known, *scope.process_names()))


def _expect_process(line: Line, scope: Scope) -> ExpectProcessCount | ExpectResult:
    process = scope.process(line)
    token = line.peek()
    what = line.one_of((*PROCESS_COUNTS, *CALLS), "a count or a call")
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
    "ksmd": _ksmd,
    "par": parse_par,
    "snapshot": _snapshot,
    "walk": _walk,
}


def _statement(line: Line, scope: Scope) -> Statement:
    word, follower = line.peek().text, line.peek(1).text
    if word in STATEMENT_WORDS:
        statement = _STATEMENTS[word](line, scope)
    elif scope.is_process(word) or follower in CALLS:
        statement = parse_call(line, scope)
    else:
        raise _no_statement(line, scope)
    line.finish()
    return replace(statement, line=line.number, text=line.text)


def _no_statement(line: Line, scope: Scope) -> InputError:
    token = line.peek()
    known = (*scope.process_names(), *STATEMENT_WORDS)
    if token.text in CALLS:
        return line.error(token, f"no process named before `{token.text}`", f"expected `P0 {token.text} …`")
    wrong = f"{quote(token.text)} starts no statement{suggest(token.text, known)}"
    return line.error(token, wrong, f"expected a process name or one of {', '.join(STATEMENT_WORDS)}")


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
    return parse(read(name), name)


def read(name: str) -> bytes:
    """The bytes of the file, or of stdin for ``-``, up to a little more than :func:`parse` takes."""
    try:
        if name == "-" and sys.stdin is None:
            raise ValueError("standard input is closed")
        if name == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with open(name, "rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: cannot read: {reason}; expected a scenario file or - for stdin") from error
