# SPDX-License-Identifier: GPL-2.0-only
"""What histories on the fast engine begin with, and what the specification says of a violation that it finds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from rmaplab.check.expand import Expander, Expansion
from rmaplab.check.fast_steps import area_name, area_start
from rmaplab.check.registry import INVARIANTS
from rmaplab.check.steps import Step, text_of
from rmaplab.engine.choice import UnsupportedError
from rmaplab.engine.layout import MACHINE
from rmaplab.engine.machine import Machine
from rmaplab.engine.search import steps as alphabet
from rmaplab.engine.search.judge import HAS_ROOT_LOCK
from rmaplab.scenario import STACK
from rmaplab.series import find

if TYPE_CHECKING:
    from rmaplab.check.histories import Bounds
    from rmaplab.kernel import Area
    from rmaplab.kernel.events import Report

__all__ = ["idents_of", "machine_at_start", "packed_bounds", "told"]

IDS = {ident: int(ident[3:]) for ident in INVARIANTS}
"""Invariants by number: bit n of what is violated is AV-n."""


def machine_at_start(expander: Expander, room: int) -> Machine:
    """A machine with room for so many objects, at the start of all histories.

    :class:`rmaplab.engine.choice.UnsupportedError` where the engine has no way to say what that is.
    """
    machine = Machine(find(expander.question.series), room, 2 * room, keeps=True, watched=True)
    kernel, latest = expander.kernel, expander.created - 1
    if latest + expander.bounds.calls > alphabet.MAX_PROCESS:
        raise UnsupportedError(f"a process that was called P{latest}")
    machine.load(kernel)
    process = machine.m[MACHINE]["first_process"]
    for name, own in kernel.processes.items():
        if not re.fullmatch(r"P\d{1,4}", name):
            raise UnsupportedError(f"a process that is called {name}")
        machine.m[process]["id"] = int(name[1:])
        for area, place in own.areas.items():
            number = _number_of(area, place, expander.bounds)
            if number is not None:
                machine.m[process]["area_pages"][number] = place.pages
        process = machine.m[process]["later"]
    return machine


def _number_of(name: str, area: Area, bounds: Bounds) -> int | None:
    """By what number the engine knows an area; None for one that no call is made on."""
    numbers = {area_name(number): number for number in range(bounds.areas)} | {"Away": alphabet.AWAY}
    if name in numbers and area.start == area_start(numbers[name], bounds):
        if area.pages > alphabet.MAX_AREA_PAGES:
            raise UnsupportedError(f"an area {name} of {area.pages} pages")
        return numbers[name]
    if name == STACK:
        return None
    raise UnsupportedError(f"an area {name} at {area.start:#x}")


def packed_bounds(expander: Expander, *, stop_at_first: bool) -> Any:  # noqa: ANN401 (numpy tells no shapes)
    """The bounds and the invariants that count, as the engine takes them."""
    question, bounds, series = expander.question, expander.bounds, expander.series
    allowed = sum(1 << IDS[ident] for ident, one in INVARIANTS.items() if one.holds_for(series))
    if question.only:
        allowed &= sum(1 << IDS[ident] for ident in question.only)
    return np.array(
        [
            bounds.processes,
            bounds.areas,
            bounds.pages,
            bounds.fail_alloc,
            sum(alphabet.HAS[name] for name in bounds.operations),
            question.only_fork_fails,
            sum((name in series.unknown_advice) << at for at, name in enumerate(alphabet.ADVICE)),
            allowed,
            HAS_ROOT_LOCK if series.has_root_lock else 0,
            stop_at_first,
        ],
        np.int64,
    )


def idents_of(violated: int) -> list[str]:
    """The invariants that are bits."""
    return [ident for ident, number in IDS.items() if violated >> number & 1]


def told(expander: Expander, history: list[Step], last: Step, violated: int) -> list[Report]:
    """The same step on the specification: what it violates, in its words.  AssertionError if that is not the same."""
    expander.result, expander.seen = Expansion(), {}
    expander.path.go(history)
    expander.take(0, last, 0)
    expander.path.back()
    reports = expander.result.violations[0][2] if expander.result.violations else []
    found = {report.id for report in reports}
    if found != set(idents_of(violated)):
        raise AssertionError(
            f"the engine finds {idents_of(violated)}, the specification {sorted(found)} in: "
            + text_of([*history, last]).replace("\n", " / ")
        )
    return reports
