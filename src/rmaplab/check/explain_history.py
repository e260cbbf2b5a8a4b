# SPDX-License-Identifier: GPL-2.0-only
"""Runs a scenario up to a point, and notes on the way which forks adopted an anon_vma."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rmaplab.check.execute import execute
from rmaplab.check.explain_facts import counted
from rmaplab.check.monitor import monitored
from rmaplab.check.steps import steps_of
from rmaplab.scenario import Fork, Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rmaplab.check.monitor import Monitor
    from rmaplab.kernel import Kernel
    from rmaplab.kernel.events import Report
    from rmaplab.kernel.objects import AnonVma
    from rmaplab.scenario import Call, Ksmd, Statement, Walk

__all__ = ["Adoption", "Followed", "Follower", "follow"]


@dataclass(frozen=True, slots=True)
class Adoption:
    """A fork that adopted an anon_vma for a child's VMA; ids are the machine's own, the line is the scenario's.

    ``line`` is 0 for a call that stands in no file.
    """

    line: int
    text: str
    process: str
    mm: str
    vma: str
    anon_vma: str
    why: str

    def where(self) -> str:
        """The call in a sentence."""
        return f" at line {self.line} (`{self.text}`)" if self.line else f" by `{self.text}`"

    def sentence(self, names: Mapping[str, str]) -> str:
        """All of it; ``names`` are the ids to show."""
        vma, anon_vma = names.get(self.vma, self.vma), names.get(self.anon_vma, self.anon_vma)
        return f"{anon_vma} was reused{self.where()}: {vma} of {self.process} adopted it, {self.why}."

    def as_dict(self) -> dict[str, Any]:
        """The adoption as a JSON-ready dictionary."""
        return asdict(self)


@dataclass(slots=True)
class Followed:
    """A machine in the middle of a scenario: what it adopted, what is broken now, and whether it crashed."""

    kernel: Monitor
    adoptions: list[Adoption] = field(default_factory=list)
    broken: list[Report] = field(default_factory=list)
    crashed: bool = False


class Follower:
    """Notes the adoptions of one call: made before it, asked after it."""

    def __init__(self, kernel: Kernel, call: Call | Walk | Ksmd) -> None:
        self.kernel = kernel
        self.call = call
        self.before: dict[AnonVma, str] = {}
        if isinstance(call, Fork) and kernel.reuses and call.child not in kernel.processes:
            self.before = {anon_vma: self._counts(anon_vma) for anon_vma in kernel.live_anon_vmas.values()}

    def adoptions(self, text: str = "") -> list[Adoption]:
        """What the call's child has now that was there before; ``text`` is how the call is written."""
        call = self.call
        child = self.kernel.processes.get(call.child) if isinstance(call, Fork) else None
        if child is None or not self.before:
            return []
        return [
            Adoption(call.line, text or call.text, child.name, str(child.mm), str(vma), str(own), self.before[own])
            for vma in child.mm.vmas
            if (own := vma.anon_vma) is not None and own in self.before
        ]

    def _counts(self, anon_vma: AnonVma) -> str:
        """What speaks for its adoption, or against it, by its counters."""
        if self.kernel.counts_together:
            degree = anon_vma.degree
            return f"as its degree was {degree}, below 2" if degree < 2 else f"though its degree was {degree}"
        word = "though" if anon_vma.num_active_vmas else "as"
        owners = f"{counted(anon_vma.num_active_vmas, 'VMA')} owned it"
        return f"{word} {owners} and it had {counted(anon_vma.num_children, 'child', 'children')}"


def follow(series: type[Kernel], statements: Sequence[Statement]) -> Followed:
    """Make the calls of the statements, of a ``par`` in left-to-right order; a crash ends it."""
    kernel = monitored(series)()
    kernel.foreign = True  # a state that is broken may break what looks at it
    kernel.spawn("P0")
    followed = Followed(kernel)
    for call, plan in steps_of(Scenario(tuple(statements))):
        follower = Follower(kernel, call)
        outcome = execute(kernel, call, plan)
        followed.adoptions += follower.adoptions()
        followed.broken = outcome.violations
        followed.crashed = "AV-045" in outcome.violated
        if followed.crashed:
            break
    return followed
