# SPDX-License-Identifier: GPL-2.0-only
"""The events of a trace: their fields, and the check a reader gives each one.

The meaning of every event and field is in docs/trace-format.md. A check is
cheap on purpose (it runs for every line): kinds, arity, types, ranges,
alignment and the life of tasks, but not whether an address space really has
an area where a call names one; that is the replay's knowledge.
"""

from collections.abc import Callable
from typing import Any, TypeGuard

__all__ = ["ADDRESS_LIMIT", "KINDS", "MARK", "SHARINGS", "Event", "EventChecker", "EventError"]

Event = list[Any]
"""One event as JSON gives it: its kind, then its fields."""

ADDRESS_LIMIT = 1 << 57  # bytes; user space ends below it with five-level page tables
SHARINGS = ("thread", "vfork", "vm")
MARK = "mark"
"""The call of an ``other`` event that the recorder leaves when somebody asks for it (SIGUSR1)."""

_WORD_LIMIT = 1 << 64
_LETTERS = ("r-", "w-", "x-", "ps")
_Check = Callable[["EventChecker", object], bool]


class EventError(ValueError):
    """An event that no recorder writes; the text says which field and why."""


def _is_count(value: object, limit: int) -> TypeGuard[int]:
    # "type is int" and not isinstance: JSON's true is an int to isinstance.
    return type(value) is int and 0 <= value < limit


def _alive(checker: "EventChecker", value: object) -> bool:
    return type(value) is int and value in checker.alive


def _new_task(checker: "EventChecker", value: object) -> bool:
    return type(value) is int and value == checker.created


def _word(_checker: "EventChecker", value: object) -> bool:
    return _is_count(value, _WORD_LIMIT)


def _byte_address(_checker: "EventChecker", value: object) -> bool:
    return _is_count(value, ADDRESS_LIMIT)


def _aligned(checker: "EventChecker", value: object) -> bool:
    return _is_count(value, ADDRESS_LIMIT) and not value % checker.page_size


def _offset(checker: "EventChecker", value: object) -> bool:
    return _is_count(value, _WORD_LIMIT) and not value % checker.page_size


def _text(_checker: "EventChecker", value: object) -> bool:
    return type(value) is str


def _name(_checker: "EventChecker", value: object) -> bool:
    return value is None or type(value) is str


def _sharing(_checker: "EventChecker", value: object) -> bool:
    return type(value) is str and value in SHARINGS


def _protection(value: object) -> bool:
    return type(value) is str and len(value) == 4 and all(c in pair for c, pair in zip(value, _LETTERS, strict=True))


def _areas(checker: "EventChecker", value: object) -> bool:
    if type(value) is not list:
        return False
    floor = 0
    for area in value:
        if type(area) is not list or len(area) != 5:
            return False
        start, end, protection, offset, name = area
        if not (_aligned(checker, start) and _aligned(checker, end) and floor <= start < end):
            return False
        if not (_protection(protection) and _offset(checker, offset) and type(name) is str):
            return False
        floor = end
    return True


def _runs(checker: "EventChecker", value: object) -> bool:
    if type(value) is not list or not value:
        return False
    floor = 0
    for run in value:
        if type(run) is not list or len(run) != 2:
            return False
        address, pages = run
        if not (_aligned(checker, address) and _is_count(pages, ADDRESS_LIMIT) and pages and floor <= address):
            return False
        floor = address + pages * checker.page_size
    return floor <= ADDRESS_LIMIT


_TASK = ("task", _alive)
_RANGE = (("address", _aligned), ("length", _aligned))
_FIELDS: dict[str, tuple[tuple[str, _Check], ...]] = {
    "exec": (_TASK, ("path", _text), ("areas", _areas)),
    "fork": (("parent", _alive), ("child", _new_task)),
    "share": (("parent", _alive), ("child", _new_task), ("sharing", _sharing)),
    "exit": (_TASK,),
    "mmap": (_TASK, *_RANGE, ("prot", _word), ("flags", _word), ("offset", _offset), ("name", _name)),
    "munmap": (_TASK, *_RANGE),
    "mprotect": (_TASK, *_RANGE, ("prot", _word)),
    "mremap": (
        _TASK,
        ("old_address", _aligned),
        ("old_length", _aligned),
        ("new_length", _aligned),
        ("flags", _word),
        ("result", _aligned),
    ),
    "brk": (_TASK, ("old_end", _byte_address), ("new_end", _byte_address)),
    "madvise": (_TASK, *_RANGE, ("advice", _word)),
    "other": (_TASK, ("call", _text)),
    "anon": (_TASK, ("runs", _runs)),
}

KINDS = tuple(_FIELDS)
"""Every kind of event of this version of the format."""

_REASONS: dict[_Check, str] = {
    _alive: "names no living task",
    _new_task: "is not the next task number",
    _word: "is not a number from 0 to 2**64 - 1",
    _byte_address: "is not an address below 2**57",
    _aligned: "is not a page-aligned number of bytes below 2**57",
    _offset: "is not a page-aligned number of bytes",
    _text: "is not a string",
    _name: "is neither a string nor null",
    _sharing: f"is none of {', '.join(SHARINGS)}",
    _areas: "is not an ascending list of [start, end, protection, offset, name]",
    _runs: "is not an ascending list of [address, pages]",
}


class EventChecker:
    """Checks a trace's events one after another, following the life of tasks.

    ``page_size`` is in bytes; ``created`` counts the tasks so far (task 0
    exists from the start) and ``alive`` holds those that have not exited.
    """

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.created = 1
        self.alive = {0}
        self._begun = False

    def check(self, event: object) -> Event:
        """Return ``event``, which must be the trace's next, or raise EventError."""
        if type(event) is not list or not event or type(event[0]) is not str:
            raise EventError("an event must be an array that starts with its kind")
        kind: str = event[0]
        fields = _FIELDS.get(kind)
        if fields is None:
            raise EventError(f"unknown event kind {_shown(kind)}; known are {', '.join(KINDS)}")
        if len(event) != len(fields) + 1:
            raise EventError(f"{kind}: {len(event) - 1} fields where {len(fields)} are due")
        for (name, holds), value in zip(fields, event[1:], strict=True):
            if not holds(self, value):
                raise EventError(f"{kind}: {name} {_shown(value)} {_REASONS[holds]}")
        self._live(kind, event)
        return event

    def _live(self, kind: str, event: Event) -> None:
        if not self._begun:
            if kind != "exec":
                raise EventError(f"{kind}: the first event must be the exec of task 0")
            self._begun = True
        elif kind in ("fork", "share"):
            self.alive.add(event[2])
            self.created += 1
        elif kind == "exit":
            self.alive.remove(event[1])


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."
