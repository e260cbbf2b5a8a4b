# SPDX-License-Identifier: GPL-2.0-only
"""Whether an exploration can run on the fast engine, and the way to it; the engine is loaded when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from rmaplab.check.expand import Expander
from rmaplab.check.registry import INVARIANTS
from rmaplab.engine.choice import OPERATIONS, UnsupportedError, why_not
from rmaplab.series import find

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmaplab.check.expand import Question
    from rmaplab.check.exploration import Exploration, Limits, Progress

R = TypeVar("R")

__all__ = ["explore_fast", "why_not_fast", "with_room"]

JUDGED = 53
"""The invariants AV-001 to AV-053 are those that the engine judges by."""
MOST_ROOM = 1 << 16
"""Objects a machine, beyond which it is not given four times as many."""


def why_not_fast(question: Question, *, kept: bool) -> str:
    """Why an exploration cannot run on the engine; empty if it can.  ``kept``: by others, or in a file."""
    series, bounds = find(question.series), question.bounds
    if reason := why_not(series):
        return reason
    if kept:
        return "what is saved, or done on a cluster, runs on the specification"
    if unknown := [name for name in bounds.operations if name not in OPERATIONS]:
        return f"the fast engine has no {', '.join(unknown)}"
    if bounds.areas > 7 or bounds.pages > 16 or bounds.processes > 60 or bounds.calls > 100:
        return "the fast engine has no room for such bounds"
    if added := [ident for ident in INVARIANTS if int(ident[3:]) > JUDGED]:
        return f"the fast engine does not know {', '.join(added)}"
    return ""


def explore_fast(
    question: Question,
    *,
    stop_at_first: bool,
    limits: Limits | None,
    progress: Callable[[Progress], None] | None,
    jobs: int = 1,
    digest: bool = True,
) -> Exploration:
    """Explore on the engine; see :func:`rmaplab.check.explore.explore`.

    :class:`rmaplab.engine.choice.UnsupportedError` for a state, or a call, that it has no room for.
    """
    from rmaplab.check.fast_explore import ROOM, FastSearch

    expander = Expander(question)

    def search(room: int) -> Exploration:
        return FastSearch(expander, room=room, jobs=jobs, digest=digest).run(
            stop_at_first=stop_at_first, limits=limits, progress=progress
        )

    try:
        return with_room(search, ROOM)
    except OverflowError:
        raise UnsupportedError("a call that makes thousands of allocations, each of which may fail") from None


def with_room(attempt: Callable[[int], R], room: int) -> R:
    """What comes of an attempt with room for so many objects a machine, or with more if that takes it.

    :class:`rmaplab.engine.choice.UnsupportedError` if it takes too much.
    """
    while True:
        try:
            return attempt(room)
        except MemoryError:
            if room > MOST_ROOM:
                raise UnsupportedError(f"a state of more than {room:,} objects, or with as many ways on") from None
            room *= 4
