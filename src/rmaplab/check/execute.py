# SPDX-License-Identifier: GPL-2.0-only
"""Carries out statements on a kernel, one at a time."""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.invariants import violations
from rmaplab.kernel.events import KernelBug, Report
from rmaplab.scenario import (
    HEAP,
    STACK,
    Brk,
    Exec,
    Exit,
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
    Pin,
    Read,
    SplitFolio,
    StackGrow,
    Swapin,
    Swapout,
    UffdMove,
    Unpin,
    Walk,
    Write,
)
from rmaplab.series import is_foreign

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmaplab.check.monitor import Monitor
    from rmaplab.kernel import Area, Process
    from rmaplab.kernel.folio import Visit
    from rmaplab.scenario import Call, Pages

__all__ = ["NO_PLAN", "Outcome", "Plan", "execute"]


class Plan(NamedTuple):
    """The failure plan of one call: which allocation of a kind fails (0: none), and whether its first attempt only.

    The kinds are :data:`rmaplab.kernel.slab.KINDS`.
    """

    n: int = 0
    nowait: bool = False
    kind: str = "rmap"


class Outcome(NamedTuple):
    """How a call ended: errno name or None, what a walk visited, and the invariants it broke."""

    errno: str | None
    visits: list[Visit] | None
    violations: list[Report]

    @property
    def violated(self) -> dict[str, str]:
        """The invariants by id in the order of the reports, each with the circumstances of its first."""
        found: dict[str, str] = {}
        for report in self.violations:
            found.setdefault(report.id, report.detail)
        return found


NO_PLAN = Plan()


def execute(kernel: Monitor, call: Call | Walk | Ksmd, plan: Plan = NO_PLAN, *, check: bool = True) -> Outcome:
    """Make one call, with at most one allocation failing; check every invariant afterwards.

    A crash of the modelled kernel is the violation AV-045.
    """
    kernel.slab.plan(plan.n, nowait_only=plan.nowait, kind=plan.kind)
    name, visits, crash = None, None, None
    try:
        visits = _make(kernel, call)
    except OSError as error:
        name = errno.errorcode[error.errno or 0]
    except KernelBug as bug:
        crash = _crash(kernel, str(bug))
    except Exception as error:
        if not kernel.foreign:
            raise
        crash = _crash(kernel, f"{type(error).__name__}: {error}{_place(error, type(kernel))}")
    kernel.slab.disarm()
    if crash is not None:
        return Outcome(name, None, [crash])
    found = violations(kernel) if check or kernel.events.reports or kernel.locks.held else []
    return Outcome(name, visits, found)


def _make(kernel: Monitor, call: Call | Walk | Ksmd) -> list[Visit] | None:
    if isinstance(call, Ksmd):
        kernel.ksmd()
        return None
    process = kernel.processes.get(call.process)
    if process is None:
        raise OSError(errno.ESRCH, f"{call.process} does not run")
    return _CALLS[type(call)](process, call)


def _place(error: Exception, design: type[Monitor]) -> str:
    """Where in a design's own file an exception came from."""
    foreign = {
        getattr(sys.modules.get(base.__module__), "__file__", None) for base in design.__mro__ if is_foreign(base)
    }
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in foreign]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno}, in {own[-1].name})" if own else ""


def _crash(kernel: Monitor, detail: str) -> Report:
    kernel.locks.forget()
    return Report("AV-045", detail)


def _area(process: Process, pages: Pages) -> Area:
    area = process.areas.get(pages.area)
    if area is None or pages.last >= area.pages:  # the call that should have mapped it was refused
        raise OSError(errno.EFAULT, f"{pages.area} is not mapped")
    return area.part(pages.first, pages.last)


def _bind(process: Process, name: str, area: Area | None) -> None:
    """Let ``name`` mean ``area``, and nothing if there is none or it has no pages."""
    areas = dict(process.areas)
    if area is not None and area.pages:
        areas[name] = area
    else:
        areas.pop(name, None)
    process.areas = areas


def _mmap(process: Process, call: Mmap) -> None:
    try:
        area = process.mmap(call.pages, call.at, call.prot, call.file, call.shared)
    except OSError:
        _bind(process, call.area, None)
        raise
    _bind(process, call.area, area)


def _mremap(process: Process, call: Mremap) -> None:
    """Under another name it moves; under its own it is resized, where it is if that is possible."""
    move = call.area != call.range.area
    try:
        source = _area(process, call.range)
        at = call.at if call.fixed is None else _area(process, call.fixed).start
        area = process.mremap(source, pages=call.pages, at=at, dontunmap=call.dontunmap, move=move)
    except OSError:
        if move:
            _bind(process, call.area, None)
        raise
    _bind(process, call.area, area)


def _exec(process: Process, call: Exec) -> None:
    process.areas = {STACK: process.exec()}


def _fork(process: Process, call: Fork) -> None:
    if call.child in process.kernel.processes:
        raise OSError(errno.EEXIST, "the name is taken")
    process.fork(call.child)


_CALLS: dict[type, Callable[..., list[Visit] | None]] = {
    Brk: lambda process, call: _bind(process, HEAP, process.brk(call.pages)),
    Exec: _exec,
    Exit: lambda process, call: process.exit(),
    Fork: _fork,
    Ksm: lambda process, call: process.ksm_merge(_area(process, call.range), call.content),
    Madvise: lambda process, call: process.madvise(_area(process, call.range), call.advice),
    Migrate: lambda process, call: process.migrate(_area(process, call.range)),
    Mlock: lambda process, call: process.mlock(_area(process, call.range)),
    Mmap: _mmap,
    Mprotect: lambda process, call: process.mprotect(_area(process, call.range), call.prot),
    Mremap: _mremap,
    Munlock: lambda process, call: process.munlock(_area(process, call.range)),
    Munmap: lambda process, call: process.munmap(_area(process, call.range)),
    Pin: lambda process, call: process.pin(_area(process, call.range), write=call.write),
    Read: lambda process, call: process.read(_area(process, call.range)),
    SplitFolio: lambda process, call: process.split_folio(_area(process, call.range)),
    StackGrow: lambda process, call: _bind(process, STACK, process.stack_grow(call.pages)),
    Swapin: lambda process, call: process.swapin(_area(process, call.range)),
    Swapout: lambda process, call: process.swapout(_area(process, call.range), cached=call.cached),
    UffdMove: lambda process, call: process.uffd_move(_area(process, call.range), _area(process, call.target)),
    Unpin: lambda process, call: process.unpin(_area(process, call.range)),
    Walk: lambda process, call: process.walk(_area(process, call.range), 0, call.by),
    Write: lambda process, call: process.write(_area(process, call.range)),
}
