# SPDX-License-Identifier: GPL-2.0-only
"""From statements back to the text of a scenario, in its one canonical form.

Canonical: a whole-page range is always spelt ``A[0..3]`` or ``A[2]``, options
stand in the order of the statement's fields and only where they differ from
the default, addresses are in hex, numbers in decimal, and comments are gone.
"""

from collections.abc import Callable
from typing import Any

from rmaplab.scenario.base import Caller, OnPages, Pages
from rmaplab.scenario.calls import (
    Brk,
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
from rmaplab.scenario.statements import (
    ExpectCount,
    ExpectInvariants,
    ExpectProcessCount,
    ExpectResult,
    ExpectViolates,
    Fail,
    Ksmd,
    Par,
    Scenario,
    Snapshot,
    Statement,
    Walk,
)

__all__ = ["format_scenario", "format_statement"]


def _pages(pages: Pages) -> str:
    last = f"..{pages.last}" if pages.last != pages.first else ""
    return f"{pages.area}[{pages.first}{last}]"


def _plain(s: Caller) -> str:
    return f"{s.process} {s.call}"


def _on_pages(s: OnPages) -> str:
    return f"{s.process} {s.call} {_pages(s.range)}"


def _mmap(s: Mmap) -> str:
    options = (
        f" at={s.at:#x}" if s.at is not None else "",
        f" prot={s.prot}" if s.prot != "rw" else "",
        f" file={s.file}" if s.file is not None else "",
        " shared" if s.shared else "",
    )
    return f"{s.process} mmap {s.area} {s.pages}{''.join(options)}"


def _mremap(s: Mremap) -> str:
    options = (
        f" pages={s.pages}" if s.pages is not None else "",
        f" at={s.at:#x}" if s.at is not None else "",
        f" fixed={_pages(s.fixed)}" if s.fixed is not None else "",
        " dontunmap" if s.dontunmap else "",
    )
    return f"{_on_pages(s)} {s.area}{''.join(options)}"


def _par(s: Par) -> str:
    branches = (" ; ".join(map(format_statement, branch)) for branch in s.branches)
    return f"par {{ {' || '.join(branches)} }}"


_FORMATS: dict[type, Callable[[Any], str]] = {
    Brk: lambda s: f"{_plain(s)} {s.pages:+}",
    Exec: _plain,
    Exit: _plain,
    ExpectCount: lambda s: f"expect {s.what} {s.count}",
    ExpectInvariants: lambda s: "expect invariants hold",
    ExpectProcessCount: lambda s: f"expect {s.process} {s.what} {s.count}",
    ExpectResult: lambda s: f"expect {s.process} {s.call} {s.result}",
    ExpectViolates: lambda s: f"expect violates {s.id}",
    Fail: lambda s: f"fail {s.n}{' nowait' if s.nowait else ''}{f' {s.kind}' if s.kind != 'rmap' else ''}",
    Fork: lambda s: f"{_plain(s)} {s.child}",
    Ksm: lambda s: f"{_on_pages(s)} {s.content}",
    Ksmd: lambda s: "ksmd",
    Madvise: lambda s: f"{_on_pages(s)} {s.advice}",
    Migrate: _on_pages,
    Mlock: _on_pages,
    Mmap: _mmap,
    Mprotect: lambda s: f"{_on_pages(s)} {s.prot}",
    Mremap: _mremap,
    Munlock: _on_pages,
    Munmap: _on_pages,
    Par: _par,
    Pin: lambda s: f"{_on_pages(s)}{'' if s.write else ' r'}",
    Read: _on_pages,
    Snapshot: lambda s: f"snapshot {s.name}",
    SplitFolio: _on_pages,
    StackGrow: lambda s: f"{_plain(s)} {s.pages}",
    Swapin: _on_pages,
    Swapout: lambda s: f"{_on_pages(s)}{' cached' if s.cached else ''}",
    UffdMove: lambda s: f"{_on_pages(s)} {_pages(s.target)}",
    Unpin: _on_pages,
    Walk: lambda s: f"walk {s.process} {_pages(s.range)}{f' by={s.by}' if s.by else ''}",
    Write: _on_pages,
}


def format_statement(statement: Statement) -> str:
    """Return the line for `statement`, from its fields alone (not from its `text`)."""
    return _FORMATS[type(statement)](statement)


def format_scenario(scenario: Scenario) -> str:
    """Return the whole text of `scenario`, one line a statement, each ended by a newline."""
    return "".join(f"{format_statement(statement)}\n" for statement in scenario.statements)
