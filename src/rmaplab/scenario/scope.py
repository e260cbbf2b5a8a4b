# SPDX-License-Identifier: GPL-2.0-only
"""What is known at a line of a scenario from the text above it alone.

Which processes there are, which areas each of them can name and how many pages
an area has, which snapshots were taken, which calls were made, and whether a
`fail` still waits for its call. What the kernel answers is not known here: a
fork that fails at run time has still named its child.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rmaplab.scenario.base import Pages
from rmaplab.scenario.calls import HEAP, STACK, Brk, Call, Exec, Exit, Fork, Mmap, Mremap, StackGrow
from rmaplab.scenario.tokens import Line, Token, quote, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EXEC_STACK_PAGES", "Scope"]

EXEC_STACK_PAGES = 33  # one page of arguments, and the 128 KiB by which fs/exec.c expands the stack

_LISTED = 12  # names listed in a message


def _listing(names: Iterable[str]) -> str:
    known = list(names)
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return ", ".join(known[:_LISTED]) + more


@dataclass(slots=True)
class _Process:
    since: int  # line of the fork that named it; 0: there from the start
    areas: dict[str, int] = field(default_factory=dict)  # pages by name
    heap: int = 0  # pages below the break
    stack: int = 0  # pages of the stack
    calls: set[str] = field(default_factory=set)
    exited: bool = False

    def bind(self, area: str, pages: int) -> None:
        """Let `area` name so many pages, whatever it named before; nothing if there are none."""
        self.areas.pop(area, None)
        if pages > 0:
            self.areas[area] = pages


class Scope:
    """Names in force at the current line; the text starts with the process ``P0``."""

    def __init__(self) -> None:
        self._processes = {"P0": _Process(since=0)}
        self._snapshots: dict[str, int] = {}
        self._fail: tuple[Line, Token] | None = None

    def branch(self) -> Scope:
        """Return a scope of its own for a branch of a `par`, which knows what this one knows now."""
        scope = Scope()
        scope._processes = {
            name: replace(process, areas=dict(process.areas), calls=set(process.calls))
            for name, process in self._processes.items()
        }
        return scope

    def is_process(self, name: str) -> bool:
        """Tell whether `name` was ever a process in the text above."""
        return name in self._processes

    def process_names(self) -> tuple[str, ...]:
        """Return all names of processes so far, in order of appearance."""
        return tuple(self._processes)

    def process(self, line: Line) -> str:
        """Read the name of a process that the text above knows."""
        token = line.peek()
        if token.text not in self._processes:
            line.identifier("a process name")
            wrong = f"no process {quote(token.text)} here{suggest(token.text, self._processes)}"
            raise line.error(token, wrong, f"forked so far: {_listing(self._processes)}")
        return line.take().text

    def new_process(self, line: Line, child: Token) -> None:
        """Hold that the name `child` is free for a process."""
        old = self._processes.get(child.text)
        if old and not old.exited:
            since = f"line {old.since}" if old.since else "the start"
            wrong = f"{child.text} already runs since {since}"
            raise line.error(child, wrong, "expected a new name, or one whose process has exited above")

    def area(self, line: Line, process: str) -> tuple[str, int]:
        """Read the name of an area of `process`; return it and its number of pages."""
        areas = self._processes[process].areas
        token = line.identifier("an area name")
        if token.text not in areas:
            known = f"areas of {process}: {_listing(areas)}" if areas else f"map one: `{process} mmap A 4`"
            wrong = f"{process} has no area {quote(token.text)}{suggest(token.text, areas)}"
            raise line.error(token, wrong, known)
        return token.text, areas[token.text]

    def allows(self, call: Call) -> bool:
        """Tell whether the text above knows every name in `call`, and its pages."""
        process = self._processes.get(call.process)
        if process is None or (isinstance(call, Fork) and call.child in self._processes):
            return False
        if isinstance(call, Brk) and process.heap + call.pages < 0:
            return False
        ranges = (getattr(call, name, None) for name in ("range", "target", "fixed"))
        return all(pages.last < process.areas.get(pages.area, 0) for pages in ranges if isinstance(pages, Pages))

    def heap(self, process: str) -> int:
        """Return the pages of heap that `process` has if no `brk` above fails."""
        return self._processes[process].heap

    def snapshot(self, line: Line, name: Token) -> None:
        """Take `name` for a snapshot."""
        if name.text in self._snapshots:
            wrong = f"snapshot {quote(name.text)} was taken on line {self._snapshots[name.text]}"
            raise line.error(name, wrong, "expected a new name")
        self._snapshots[name.text] = line.number

    def called(self, line: Line, call: Call) -> None:
        """Note a call and the names that it binds or frees; a waiting `fail` has found what it applies to."""
        process = self._processes[call.process]
        match call:
            case Mmap(area=area, pages=pages):
                process.bind(area, pages)
            case Mremap(area=area, pages=pages, range=source):
                process.bind(area, source.count if pages is None else pages)
            case Brk(pages=pages):
                process.heap = max(0, process.heap + pages)
                process.bind(HEAP, process.heap)
            case StackGrow(pages=pages):
                process.stack = (process.stack or 1) + pages
                process.bind(STACK, process.stack)
            case Exec():
                process.heap, process.stack = 0, EXEC_STACK_PAGES
                process.areas = {STACK: process.stack}
            case Fork(child=child):
                self._fork(line, process, child)
            case Exit():
                process.exited = True
        process.calls.add(call.call)
        self._fail = None

    def _fork(self, line: Line, process: _Process, child: str) -> None:
        old = self._processes.get(child)
        calls = old.calls if old else set()
        self._processes[child] = replace(
            process, since=line.number, areas=dict(process.areas), calls=calls, exited=False
        )

    def has_called(self, process: str, call: str) -> bool:
        """Tell whether a process of that name made the call `call` in the text above."""
        return call in self._processes[process].calls

    def arm(self, line: Line, fail: Token) -> None:
        """Let the `fail` at token `fail` wait for the next call."""
        if self._fail:
            wrong = f"the `fail` on line {self._fail[0].number} still waits for its call"
            raise line.error(fail, wrong, "expected a call such as `P0 fork P1` between two `fail` lines")
        self._fail = (line, fail)

    def refuse_fail(self, line: Line, par: Token) -> None:
        """Hold that no `fail` waits at the token `par`."""
        if self._fail:
            wrong = f"the `fail` on line {self._fail[0].number} applies to a call, not to a `par`"
            raise line.error(par, wrong, "expected a call such as `P0 fork P1` below that `fail`")

    def finish(self) -> None:
        """Hold that no `fail` is left waiting at the end of the text."""
        if self._fail:
            line, fail = self._fail
            wrong = "no call follows this `fail`"
            raise line.error(fail, wrong, "expected a call such as `P0 fork P1` below it")
