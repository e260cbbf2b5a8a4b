# SPDX-License-Identifier: GPL-2.0-only
"""What all parts of a monitor need: counts, and the graph before a call that may fail."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rmaplab.check.invariants import InvariantViolation, violations
from rmaplab.check.state import graph
from rmaplab.kernel import Kernel

if TYPE_CHECKING:
    from typing import Self

    from rmaplab.kernel.objects import Vma

__all__ = ["Watch"]


class Watch(Kernel):
    """A kernel that counts what it reached and reports what went wrong on the way.

    ``foreign`` marks logic from a user's file, and a state that may be broken already: an exception is a crash.
    """

    foreign: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.reached: Counter[str] = Counter()
        self.origins: dict[Vma, int] = {}

    def copy(self) -> Self:
        """An independent state; what was reached is counted together."""
        new = super().copy()
        new.reached = self.reached
        return new

    def check(self) -> None:
        """Raise :class:`InvariantViolation` for the first invariant that does not hold."""
        for ident, detail in violations(self):
            raise InvariantViolation(ident, detail)

    def graph_if_failing(self) -> dict[int, tuple[int, ...]] | None:
        """The graph now, if an allocation is to fail."""
        return graph(self) if self.slab.failing else None

    def unchanged(self, before: dict[int, tuple[int, ...]] | None, function: str) -> None:
        """I33: a function that failed left the graph as it was."""
        if before is not None and graph(self) != before:
            self.events.report("AV-033", f"{function} failed and left the graph changed")
