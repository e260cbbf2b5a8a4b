# SPDX-License-Identifier: GPL-2.0-only
"""Carries out statements on a kernel, one at a time."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.invariants import violations
from rmaplab.kernel.events import KernelBug, Report
from rmaplab.scenario import Exit, Fork, Mmap, Mprotect, Munmap, Read, Walk, Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmaplab.check.monitor import Monitor
    from rmaplab.kernel import Area, Process
    from rmaplab.kernel.folio import Visit
    from rmaplab.scenario import Call, Pages

__all__ = ["NO_PLAN", "Outcome", "Plan", "execute"]


class Plan(NamedTuple):
    """The failure plan of one call: which allocation fails (0: none), and whether its first attempt only."""

    n: int = 0
    nowait: bool = False


class Outcome(NamedTuple):
    """How a call ended: errno name or None, what a walk visited, and the invariants it broke."""

    errno: str | None
    visits: list[Visit] | None
    violations: list[Report]


NO_PLAN = Plan()


def execute(kernel: Monitor, call: Call | Walk, plan: Plan = NO_PLAN, *, check: bool = True) -> Outcome:
    """Make one call, with at most one allocation failing; check every invariant afterwards.

    A crash of the modelled kernel is the violation AV-045.
    """
    kernel.slab.plan(plan.n, nowait_only=plan.nowait)
    name, visits, crash = None, None, None
    process = kernel.processes.get(call.process)
    if process is None:
        name = errno.errorcode[errno.ESRCH]
    else:
        try:
            visits = _CALLS[type(call)](process, call)
        except OSError as error:
            name = errno.errorcode[error.errno or 0]
        except KernelBug as bug:
            crash = _crash(kernel, str(bug))
        except Exception as error:
            if not kernel.foreign:
                raise
            crash = _crash(kernel, f"{type(error).__name__}: {error}")
    kernel.slab.disarm()
    if crash is not None:
        return Outcome(name, None, [crash])
    found = violations(kernel) if check or kernel.events.reports or kernel.locks.held else []
    return Outcome(name, visits, found)


def _crash(kernel: Monitor, detail: str) -> Report:
    kernel.locks.forget()
    return Report("AV-045", detail)


def _area(process: Process, pages: Pages) -> Area:
    area = process.areas.get(pages.area)
    if area is None:  # its mmap was refused: nothing is there
        raise OSError(errno.EFAULT, f"{pages.area} is not mapped")
    return area.part(pages.first, pages.last)


def _mmap(process: Process, call: Mmap) -> None:
    area = process.mmap(call.pages, call.at, call.prot, call.file, call.shared)
    process.areas = {**process.areas, call.area: area}


def _fork(process: Process, call: Fork) -> None:
    if call.child in process.kernel.processes:
        raise OSError(errno.EEXIST, "the name is taken")
    process.fork(call.child)


_CALLS: dict[type, Callable[..., list[Visit] | None]] = {
    Mmap: _mmap,
    Read: lambda process, call: process.read(_area(process, call.range)),
    Write: lambda process, call: process.write(_area(process, call.range)),
    Munmap: lambda process, call: process.munmap(_area(process, call.range)),
    Mprotect: lambda process, call: process.mprotect(_area(process, call.range), call.prot),
    Fork: _fork,
    Exit: lambda process, call: process.exit(),
    Walk: lambda process, call: process.walk(_area(process, call.range), 0),
}
