# SPDX-License-Identifier: GPL-2.0-only
"""The register of invariants; :mod:`rmaplab.check.invariants` fills it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rmaplab.check.state import State
    from rmaplab.kernel import Kernel

    Check = Callable[[State], Iterator[str]]

__all__ = ["CHECKS", "INVARIANTS", "Invariant", "InvariantViolation", "checks_for", "holds", "watched"]


@dataclass(frozen=True, slots=True)
class Invariant:
    """An invariant: its id, the sentence, where it comes from, and its check if it is one of states.

    It holds for every series, or for those that have the attribute ``needs``, or that lack ``unless``.
    """

    id: str
    statement: str
    source: str
    check: Check | None = None
    needs: str = ""
    unless: str = ""

    def holds_for(self, series: type[Kernel]) -> bool:
        """Whether the series promises it."""
        return (not self.needs or getattr(series, self.needs)) and not (self.unless and getattr(series, self.unless))


class InvariantViolation(AssertionError):  # noqa: N818 (the contract's name)
    """An invariant does not hold: ``id`` and ``where``."""

    def __init__(self, ident: str, where: str) -> None:
        super().__init__(f"{ident}: {INVARIANTS[ident].statement}: {where}")
        self.id = ident
        self.where = where


INVARIANTS: dict[str, Invariant] = {}
CHECKS: list[tuple[str, Check]] = []
"""Those that are checked on a state, in the order of their definition."""


def holds(ident: str, statement: str, source: str, *, needs: str = "", unless: str = "") -> Callable[[Check], Check]:
    """Register a check of states: it yields a line for each violation.

    ``needs`` and ``unless`` name an attribute of series that must be true or false for it to hold.
    """

    def register(check: Check) -> Check:
        _enter(Invariant(ident, statement, source, check, needs, unless))
        CHECKS.append((ident, check))
        return check

    return register


def watched(ident: str, statement: str, source: str, *, needs: str = "", unless: str = "") -> None:
    """Register an invariant that the services or a monitor watch while calls run."""
    _enter(Invariant(ident, statement, source, None, needs, unless))


def _enter(invariant: Invariant) -> None:
    if invariant.id in INVARIANTS:
        raise ValueError(f"{invariant.id} is taken: {INVARIANTS[invariant.id].statement}")
    INVARIANTS[invariant.id] = invariant


def checks_for(series: type[Kernel]) -> tuple[tuple[str, Check], ...]:
    """The checks of states that hold for a series, in the order of their definition."""
    if series not in _checks:
        _checks[series] = tuple((ident, check) for ident, check in CHECKS if INVARIANTS[ident].holds_for(series))
    return _checks[series]


_checks: dict[type[Kernel], tuple[tuple[str, Check], ...]] = {}
