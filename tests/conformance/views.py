# SPDX-License-Identifier: GPL-2.0-only
"""What can be seen of a process from outside, and who performs calls: the model, or the running kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from calls import Call

__all__ = ["Area", "Folios", "Performer", "View"]


class Area(NamedTuple):
    """A VMA: its first page, the page behind its last, flags as in smaps, and how many anonymous pages it maps."""

    first: int
    end: int
    flags: str
    anonymous: int

    def __str__(self) -> str:
        """In one word or two."""
        return f"W[{self.first}..{self.end - 1}] {self.flags or '-'} ({self.anonymous} anonymous)"


class View(NamedTuple):
    """What can be seen of a process: its VMAs, and a letter for each page of the window.

    ``x`` is an anonymous page that this process alone maps, ``s`` an anonymous page mapped by others
    as well or the zero page (the VMA's count tells them apart), ``g`` a guard, ``w`` a page in swap,
    ``.`` anything else: absent, or a file's.
    """

    vmas: tuple[Area, ...]
    pages: str

    def __str__(self) -> str:
        """Pages, then VMAs."""
        return f"|{self.pages}|  {'  '.join(map(str, self.vmas)) or 'nothing mapped'}"


class Performer(Protocol):
    """One who performs calls: the model, or the running kernel."""

    def call(self, call: Call, *, allowed: bool) -> int:
        """Perform a call of a living process; its errno, or 0.

        ``allowed`` tells that an access is expected to succeed.
        """

    def can_tell(self, call: Call) -> bool:
        """Whether only one outcome of a call is right."""

    def alive(self) -> list[str]:
        """Names of the living processes, sorted."""

    def view(self, process: str) -> View:
        """The window of a living process."""

    def folios(self, process: str) -> tuple[Hashable | None, ...]:
        """What the pages of the window are, each by a name of its own; None for a file's, or if it is a secret."""


class Folios:
    """Which page of the one performer is which page of the other.

    A page keeps its name for as long as it is mapped: a copy, a page kept, a
    page moved or shared are told from each other.  Unless ``kept``: then the
    other performer may copy a page that it could have kept, as the kernel
    does while it has a reference, for one in the batches of mlock and munlock.
    """

    def __init__(self, *, kept: bool = True) -> None:
        self.names: dict[Hashable, Hashable] = {}
        self.back: dict[Hashable, Hashable] = {}
        self.kept = kept

    def part(self, ours: Performer, theirs: Performer, processes: Iterable[str]) -> tuple[str, int] | None:
        """A process and a page of its window that is one page here and another there, or None."""
        names: dict[Hashable, Hashable] = {}
        back: dict[Hashable, Hashable] = {}
        for process in processes:
            pairs = zip(ours.folios(process), theirs.folios(process), strict=True)
            for page, (our, their) in enumerate(pairs):
                if our is None or their is None:
                    continue
                now = names.setdefault(our, their), back.setdefault(their, our)
                before = self.names.get(our, their), self.back.get(their, our)
                if now != (their, our) or before != (their, our):
                    return process, page
        if self.kept:
            self.names, self.back = names, back
        return None
