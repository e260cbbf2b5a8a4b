# SPDX-License-Identifier: GPL-2.0-only
"""Answers of :func:`rmaplab.check.explain.explain`: immutable, and ready for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Answer", "ChainLink", "Hold", "MergeVerdict", "Reuse", "WalkStep"]


@dataclass(frozen=True, slots=True)
class WalkStep:
    """A VMA that a walk visits: the address (bytes) it looks at, whether the folio is mapped there, and why."""

    vma: str
    process: str
    address: int
    maps: bool
    why: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Who keeps an anon_vma alive, by how many references; negative for references that are lacking."""

    what: str
    refs: int


@dataclass(frozen=True, slots=True)
class Reuse:
    """Whether a fork would adopt an anon_vma now, by whom, or why not."""

    may: bool
    why: str


@dataclass(frozen=True, slots=True)
class ChainLink:
    """An anon_vma in a VMA's chain: whether new pages name it, and why the VMA is linked to it."""

    anon_vma: str
    own: bool
    why: str


@dataclass(frozen=True, slots=True)
class MergeVerdict:
    """Whether a touching VMA may absorb this one as both are now, and what speaks for or against it.

    ``side`` is ``before`` or ``after``, where the neighbour lies.
    """

    neighbour: str
    side: str
    allowed: bool
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What there is to say of one object: a title, sentences, and lists that depend on its kind (None: not of it)."""

    title: str
    lines: tuple[str, ...]
    walk: tuple[WalkStep, ...] | None = None
    holds: tuple[Hold, ...] | None = None
    reuse: Reuse | None = None
    chain: tuple[ChainLink, ...] | None = None
    merge: tuple[MergeVerdict, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON-ready dictionaries; what is not of its kind is left out."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
