# SPDX-License-Identifier: GPL-2.0-only
"""Runs one program on the model and on a guest, call by call, and shortens one that parts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.execute import NO_PLAN, Plan
from rmaplab.realkernel.conform.compare import differences, files
from rmaplab.realkernel.conform.lowering import is_told_where
from rmaplab.realkernel.conform.performers import GuestSide, ModelSide, Step
from rmaplab.realkernel.guest.wire import GuestDiedError, GuestHangsError
from rmaplab.scenario import Fail, format_statement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rmaplab.kernel import Kernel
    from rmaplab.realkernel.guest.wire import Guest
    from rmaplab.scenario import Call
    from rmaplab.snapshot import Snapshot

__all__ = ["Conformance", "Drawing", "Mismatch", "Pair", "Program", "shrink"]

_WARNED = "panic_on_warn"  # how guests with assertions die of one

Program = tuple["Call | Fail", ...]
"""Calls, each perhaps after the order that one of its allocations fail."""
Drawing = Callable[[ModelSide], "Iterator[Call | Fail]"]
"""A program that is made up while it runs on a model."""


class Mismatch(NamedTuple):
    """Where a program parts the model from a kernel: after its last call.

    ``what`` says how; the snapshots are those after that call, if it got so far.
    """

    program: Program
    what: tuple[str, ...]
    model: Snapshot | None = None
    kernel: Snapshot | None = None
    seed: int | None = None

    def scenario(self) -> str:
        """The program as a scenario file."""
        return "\n".join(map(format_statement, self.program)) + "\n"


@dataclass(slots=True)
class Conformance:
    """What was done.

    ``skipped``: calls that made no sense any longer; ``incomplete``: snapshots
    with remarks; ``asserted``: programs that ended with a debug assertion of
    the kernel, where the model says that it fires; ``masked``: how often what
    :data:`rmaplab.realkernel.conform.compare.MASKED` names was not compared as it is.
    """

    kernel: str
    series: str
    programs: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    snapshots: int = 0
    failures: int = 0
    skipped: int = 0
    incomplete: int = 0
    asserted: int = 0
    masked: Counter[str] = field(default_factory=Counter)
    deaths: list[str] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)
    interrupted: bool = False

    def add(self, other: Conformance) -> None:
        """Add what another run on the same kernel did."""
        self.programs += other.programs
        self.calls += other.calls
        self.snapshots += other.snapshots
        self.failures += other.failures
        self.skipped += other.skipped
        self.incomplete += other.incomplete
        self.asserted += other.asserted
        self.masked += other.masked
        self.deaths += other.deaths
        self.mismatches += other.mismatches


class Pair:
    """The two that perform, and the tally of what they did."""

    def __init__(self, series: type[Kernel], guest: Guest) -> None:
        self.guest = GuestSide(guest)
        self.series = self.guest.observed(series)
        self.is_user_mode = guest.target().machine.arch == "um"
        self.tally = Conformance(guest.release, series.name)

    def run(self, program: Sequence[Call | Fail] | Drawing, seed: int | None = None) -> Mismatch | None:
        """One program from the beginning; a guest that dies of it is started again, and that is a mismatch too."""
        self.tally.programs += 1
        done: list[Call | Fail] = []
        try:
            self.guest.start()
            found = self._run(program, done)
        except (GuestDiedError, GuestHangsError) as error:
            self.guest.guest.restart()
            self.tally.deaths.append(str(error))
            found = Mismatch(tuple(done), (f"the guest is gone: {error}",))
        return None if found is None else found._replace(seed=seed)

    def _run(self, program: Sequence[Call | Fail] | Drawing, done: list[Call | Fail]) -> Mismatch | None:
        model, plan = ModelSide(self.series, heap_is_executable=self.is_user_mode), NO_PLAN
        for statement in program(model) if callable(program) else program:
            done.append(statement)
            if isinstance(statement, Fail):
                plan = Plan(statement.n, statement.nowait, statement.kind)
                continue
            slot = model.slots.get(statement.process)
            step = model.perform(statement, plan)
            if step is None or not step.commands:
                self.tally.skipped += 1
                done.pop()
                plan = NO_PLAN
                continue
            try:
                errno, left = self._perform(slot or 0, step, plan)
            except GuestDiedError as error:
                if not step.asserted or _WARNED not in str(error):
                    raise
                self.tally.asserted += 1
                self.guest.guest.restart()
                return None
            plan = NO_PLAN
            self.tally.calls[f"{statement.call} {step.errno or 'ok'}"] += 1
            self.tally.masked["placement"] += is_told_where(statement, step.commands[0])
            if left:
                what = f"{format_statement(statement)}: the kernel makes {left} allocations less than the model"
                return Mismatch(tuple(done), (what,))
            if errno != step.errno:
                what = f"{format_statement(statement)}: model {step.errno or 'ok'}, kernel {errno or 'ok'}"
                return Mismatch(tuple(done), (what,))
            found = self._compare(model, done)
            if found is not None:
                return found
        return None

    def _perform(self, slot: int, step: Step, plan: Plan) -> tuple[str | None, int]:
        """On the guest; a plan that came to nothing on the model comes to nothing."""
        if not step.failed:
            return self.guest.perform(step), 0
        self.tally.failures += 1
        return self.guest.perform_failing(slot, step, plan)

    def _compare(self, model: ModelSide, done: list[Call | Fail]) -> Mismatch | None:
        order = list(model.kernel.processes)
        if not order:
            return None
        ours, theirs = model.snapshot(), self.guest.snapshot(model.slots, order)
        self.tally.snapshots += 1
        self.tally.masked["slab"] += 1
        self.tally.masked["file"] += files(ours)
        if self.guest.remarks:
            self.tally.incomplete += 1
            return Mismatch(tuple(done), tuple(self.guest.remarks), ours, theirs)
        if ours == theirs:
            return None
        return Mismatch(tuple(done), tuple(differences(ours, theirs)), ours, theirs)


def shrink(found: Mismatch, again: Callable[[Program], Mismatch | None]) -> Mismatch:
    """Drop halves, quarters and so on down to single statements for as long as some mismatch remains."""
    size = max(1, len(found.program) // 2)
    while True:
        at, shorter = 0, False
        while at < len(found.program):
            fewer = again(found.program[:at] + found.program[at + size :])
            if fewer is not None and len(fewer.program) < len(found.program):
                found, shorter = fewer._replace(seed=found.seed), True
            else:
                at += size
        if size == 1 and not shorter:
            return found
        size = max(1, size // 2)
