# SPDX-License-Identifier: GPL-2.0-only
"""The register of invariants; :mod:`rmaplab.check.invariants` fills it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rmaplab.check.state import State

    Check = Callable[[State], Iterator[str]]

__all__ = ["CHECKS", "INVARIANTS", "Invariant", "InvariantViolation", "holds", "watched"]


@dataclass(frozen=True, slots=True)
class Invariant:
    """An invariant: its id, the sentence, where it comes from, and its check if it is one of states."""

    id: str
    statement: str
    source: str
    check: Check | None = None


class InvariantViolation(AssertionError):  # noqa: N818 (the contract's name)
    """An invariant does not hold: ``id`` and ``where``."""

    def __init__(self, ident: str, where: str) -> None:
        super().__init__(f"{ident}: {INVARIANTS[ident].statement}: {where}")
        self.id = ident
        self.where = where


INVARIANTS: dict[str, Invariant] = {}
CHECKS: list[tuple[str, Check]] = []
"""Those that are checked on a state, in the order of their definition."""


def holds(ident: str, statement: str, source: str) -> Callable[[Check], Check]:
    """Register a check of states: it yields a line for each violation."""

    def register(check: Check) -> Check:
        INVARIANTS[ident] = Invariant(ident, statement, source, check)
        CHECKS.append((ident, check))
        return check

    return register


def watched(ident: str, statement: str, source: str) -> None:
    """Register an invariant that the services or a monitor watch while calls run."""
    INVARIANTS[ident] = Invariant(ident, statement, source)
