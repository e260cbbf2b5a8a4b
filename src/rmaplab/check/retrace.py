# SPDX-License-Identifier: GPL-2.0-only
"""A counterexample step by step: what each call changed, and which invariants held after it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from rmaplab.check.execute import execute
from rmaplab.check.monitor import monitored
from rmaplab.check.steps import plan_text, steps_of
from rmaplab.scenario import format_statement
from rmaplab.snapshot import GuardView, KsmView

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rmaplab.kernel import Kernel
    from rmaplab.scenario import Scenario
    from rmaplab.snapshot import Snapshot

__all__ = ["Moment", "changes", "retrace"]

_ORDER = ("processes", "anon_vmas", "folios", "swap", "ksm", "guards")


@dataclass(frozen=True, slots=True)
class Moment:
    """One call: how it ended, which allocation failed in it, what it changed, and what does not hold after it.

    ``violated`` maps ids of invariants to the circumstances, ``state`` is what it left.
    """

    text: str
    failed: str
    errno: str | None
    changed: tuple[str, ...]
    violated: dict[str, str]
    state: Snapshot


def retrace(series: type[Kernel], scenario: Scenario) -> list[Moment]:
    """Every call of the scenario; a crash of the modelled kernel is the last moment."""
    kernel = monitored(series)()
    kernel.foreign = True  # a state that is broken may break what looks at it
    kernel.spawn("P0")
    moments = []
    before = kernel.snapshot(canonical=False)
    for call, plan in steps_of(scenario):
        outcome = execute(kernel, call, plan)
        after = kernel.snapshot(canonical=False)
        violated = outcome.violated
        changed = tuple(changes(before, after))
        moments.append(Moment(format_statement(call), plan_text(plan), outcome.errno, changed, violated, after))
        if "AV-045" in violated:
            break
        before = after
    return moments


def changes(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """What differs between two states of one machine, a line each; ids must be the machine's own."""
    for kind in _ORDER:
        old, new = _by_id(getattr(before, kind)), _by_id(getattr(after, kind))
        for ident in old:
            if ident not in new:
                yield f"{ident} is gone"
        for ident, view in new.items():
            if ident not in old:
                yield f"{ident} is new: {_told(view)}"
            else:
                yield from _changed(ident, old[ident], view)


def _by_id(views: Sequence[Any]) -> dict[str, Any]:
    """Views by what names them; the VMAs of processes stand with them."""
    found: dict[str, Any] = {}
    for view in views:
        vmas = getattr(view, "vmas", None)
        if vmas is not None:
            found[view.name] = None
            found.update((f"{view.name} {vma.id}", vma) for vma in vmas)
        else:
            found[_name(view)] = view
    return found


def _name(view: Any) -> str:  # noqa: ANN401 (any view)
    match view:
        case KsmView(content=content):
            return f"KSM page {content}"
        case GuardView(mm=mm, address=address):
            return f"guard page {mm}@{address:#x}"
    return str(view.id)


def _changed(ident: str, old: Any, new: Any) -> Iterator[str]:  # noqa: ANN401 (any view)
    if old is None or new is None:
        return
    parts = [
        f"{field.name} {_value(getattr(old, field.name))} -> {_value(getattr(new, field.name))}"
        for field in fields(new)
        if getattr(old, field.name) != getattr(new, field.name)
    ]
    if parts:
        yield f"{ident}: {', '.join(parts)}"


def _told(view: Any) -> str:  # noqa: ANN401 (any view)
    if view is None:
        return "a process"
    shown = ((field.name, getattr(view, field.name)) for field in fields(view) if field.name != "id")
    return ", ".join(f"{name} {_value(value)}" for name, value in shown if value not in (None, (), 0, False))


def _value(value: Any) -> str:  # noqa: ANN401 (any value of a view)
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, int) and not isinstance(value, bool) and value > 0xFFFF:
        return f"{value:#x}"
    if hasattr(value, "mm") and hasattr(value, "address"):
        return f"{value.mm}@{value.address:#x}{'' if getattr(value, 'writable', True) else ' read-only'}"
    return "none" if value is None else str(value)
