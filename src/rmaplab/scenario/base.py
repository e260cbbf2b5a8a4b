# SPDX-License-Identifier: GPL-2.0-only
"""What the statements of the scenario language have in common."""

from dataclasses import dataclass, field
from typing import ClassVar

__all__ = ["Caller", "Located", "OnPages", "Pages"]


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages `first` to `last` of an area, both inclusive, counted from 0.

    Always concrete: ``A`` alone has become ``A[0..size-1]`` and ``A[2]`` has
    become ``A[2..2]``.
    """

    area: str
    first: int
    last: int

    @property
    def count(self) -> int:
        """Number of pages in the range, at least 1."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a statement stands: its line (from 1; 0 if made by hand) and its text without comment."""

    line: int = field(default=0, compare=False, repr=False)
    text: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Caller(Located):
    """A call by `process`; `call` is what a scenario calls it."""

    call: ClassVar[str]

    process: str


@dataclass(frozen=True, slots=True)
class OnPages(Caller):
    """A call on a `range` of pages, lowest first."""

    range: Pages
