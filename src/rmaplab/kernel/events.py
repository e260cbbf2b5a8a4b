# SPDX-License-Identifier: GPL-2.0-only
"""The event service: what happened, and what the kernel itself complained about.

Slab and locking report here; the specification reports only its warnings.
Whoever wants to see a call step by step adds a listener.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Event", "Events", "KernelBug", "Report"]


class KernelBug(Exception):  # noqa: N818 (the kernel's word)
    """The modelled kernel cannot go on (BUG_ON, an oops): the graph is corrupt."""


class Event(NamedTuple):
    """One step: a verb such as ``alloc`` or ``lock``, its object and a detail."""

    verb: str
    object: str
    detail: str


class Report(NamedTuple):
    """A complaint: the invariant it breaks (``AV-026``) and the circumstances."""

    id: str
    detail: str


class Events:
    """Listeners to single steps, and the complaints not yet collected."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Event], None]] = []
        self.reports: list[Report] = []

    def emit(self, verb: str, obj: object, detail: str = "") -> None:
        """Tell the listeners of one step."""
        event = Event(verb, str(obj), detail)
        for listener in self.listeners:
            listener(event)

    def report(self, ident: str, detail: str) -> None:
        """File a complaint against an invariant."""
        self.reports.append(Report(ident, detail))
        if self.listeners:
            self.emit("report", ident, detail)

    def take_reports(self) -> list[Report]:
        """The complaints since the last call, oldest first."""
        reports, self.reports = self.reports, []
        return reports
