# SPDX-License-Identifier: GPL-2.0-only
"""From statements back to the text of a scenario, in its one canonical form.

Canonical: a whole-page range is always spelt ``A[0..3]`` or ``A[2]``, options
stand in the order at, prot, file, shared and only where they differ from the
default, addresses are in hex, numbers in decimal, and comments are gone.
"""

from collections.abc import Callable
from typing import Any

from rmaplab.scenario.statements import (
    Exit,
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
    Pages,
    Read,
    Scenario,
    Snapshot,
    Statement,
    Walk,
    Write,
)

__all__ = ["format_scenario", "format_statement"]


def _pages(pages: Pages) -> str:
    last = f"..{pages.last}" if pages.last != pages.first else ""
    return f"{pages.area}[{pages.first}{last}]"


def _mmap(s: Mmap) -> str:
    options = (
        f" at={s.at:#x}" if s.at is not None else "",
        f" prot={s.prot}" if s.prot != "rw" else "",
        f" file={s.file}" if s.file is not None else "",
        " shared" if s.shared else "",
    )
    return f"{s.process} mmap {s.area} {s.pages}{''.join(options)}"


_FORMATS: dict[type, Callable[[Any], str]] = {
    Exit: lambda s: f"{s.process} exit",
    ExpectCount: lambda s: f"expect {s.what} {s.count}",
    ExpectInvariants: lambda s: "expect invariants hold",
    ExpectProcessCount: lambda s: f"expect {s.process} {s.what} {s.count}",
    ExpectResult: lambda s: f"expect {s.process} {s.call} {s.result}",
    ExpectViolates: lambda s: f"expect violates {s.id}",
    Fail: lambda s: f"fail {s.n}{' nowait' if s.nowait else ''}",
    Fork: lambda s: f"{s.process} fork {s.child}",
    Mmap: _mmap,
    Mprotect: lambda s: f"{s.process} mprotect {_pages(s.range)} {s.prot}",
    Munmap: lambda s: f"{s.process} munmap {_pages(s.range)}",
    Read: lambda s: f"{s.process} read {_pages(s.range)}",
    Snapshot: lambda s: f"snapshot {s.name}",
    Walk: lambda s: f"walk {s.process} {_pages(s.range)}",
    Write: lambda s: f"{s.process} write {_pages(s.range)}",
}


def format_statement(statement: Statement) -> str:
    """Return the line for `statement`, from its fields alone (not from its `text`)."""
    return _FORMATS[type(statement)](statement)


def format_scenario(scenario: Scenario) -> str:
    """Return the whole text of `scenario`, one line a statement, each ended by a newline."""
    return "".join(f"{format_statement(statement)}\n" for statement in scenario.statements)
