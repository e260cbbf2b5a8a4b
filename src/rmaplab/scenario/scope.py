# SPDX-License-Identifier: GPL-2.0-only
"""What is known at a line of a scenario from the text above it alone.

Which processes there are, which areas each of them can name and how many pages
an area has, which snapshots were taken, which calls were made, and whether a
`fail` still waits for its call. What the kernel answers is not known here: a
fork that fails at run time has still named its child.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rmaplab.scenario.tokens import Line, Token, quote, suggest

__all__ = ["Scope"]

_LISTED = 12  # names listed in a message


def _listing(names: Iterable[str]) -> str:
    known = list(names)
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return ", ".join(known[:_LISTED]) + more


@dataclass(slots=True)
class _Process:
    since: int  # line of the fork that named it; 0: there from the start
    areas: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> pages, line of its mmap
    calls: set[str] = field(default_factory=set)
    exited: bool = False


class Scope:
    """Names in force at the current line; the text starts with the process ``P0``."""

    def __init__(self) -> None:
        self._processes = {"P0": _Process(since=0)}
        self._snapshots: dict[str, int] = {}
        self._fail: tuple[Line, Token] | None = None

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

    def fork(self, line: Line, process: str, child: Token) -> None:
        """Let `child` run from this line on, with the areas of `process`."""
        old = self._processes.get(child.text)
        if old and not old.exited:
            since = f"line {old.since}" if old.since else "the start"
            wrong = f"{child.text} already runs since {since}"
            raise line.error(child, wrong, "expected a new name, or one whose process has exited above")
        areas = dict(self._processes[process].areas)
        self._processes[child.text] = _Process(line.number, areas, old.calls if old else set())

    def exit(self, process: str) -> None:
        """Free the name `process` for a later fork."""
        self._processes[process].exited = True

    def bind(self, line: Line, process: str, area: str, pages: int) -> None:
        """Let `area` name `pages` pages of `process`, whatever it named before."""
        self._processes[process].areas[area] = (pages, line.number)

    def area(self, line: Line, process: str) -> tuple[str, int]:
        """Read the name of an area of `process`; return it and its number of pages."""
        areas = self._processes[process].areas
        token = line.identifier("an area name")
        if token.text not in areas:
            known = f"areas of {process}: {_listing(areas)}" if areas else f"map one: `{process} mmap A 4`"
            wrong = f"{process} has no area {quote(token.text)}{suggest(token.text, areas)}"
            raise line.error(token, wrong, known)
        return token.text, areas[token.text][0]

    def snapshot(self, line: Line, name: Token) -> None:
        """Take `name` for a snapshot."""
        if name.text in self._snapshots:
            wrong = f"snapshot {quote(name.text)} was taken on line {self._snapshots[name.text]}"
            raise line.error(name, wrong, "expected a new name")
        self._snapshots[name.text] = line.number

    def called(self, process: str, call: str) -> None:
        """Note a call of `process`; a waiting `fail` has found what it applies to."""
        self._processes[process].calls.add(call)
        self._fail = None

    def has_called(self, process: str, call: str) -> bool:
        """Tell whether a process of that name made the call `call` in the text above."""
        return call in self._processes[process].calls

    def arm(self, line: Line, fail: Token) -> None:
        """Let the `fail` at token `fail` wait for the next call."""
        if self._fail:
            wrong = f"the `fail` on line {self._fail[0].number} still waits for its call"
            raise line.error(fail, wrong, "expected a call such as `P0 fork P1` between two `fail` lines")
        self._fail = (line, fail)

    def finish(self) -> None:
        """Hold that no `fail` is left waiting at the end of the text."""
        if self._fail:
            line, fail = self._fail
            wrong = "no call follows this `fail`"
            raise line.error(fail, wrong, "expected a call such as `P0 fork P1` below it")
