# SPDX-License-Identifier: GPL-2.0-only
"""What could stand in place of a history and be simpler: the moves of the shrinker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rmaplab.check.steps import Step, text_of
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.kernel.process import MMAP_BASE
from rmaplab.scenario import Exit, Fork, Madvise, Mmap, Mprotect, Mremap, Pages, Swapout, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Steps = tuple[Step, ...]

__all__ = ["rewritings", "weight"]


def weight(steps: Steps) -> tuple[int, ...]:
    """Smaller is simpler: calls, failures, processes, pages and options, then the text."""
    text = text_of(steps)
    failing = sum(bool(step.plan.n) + step.plan.nowait + (step.plan.kind != "rmap") for step in steps)
    names = len({step.call.process for step in steps if hasattr(step.call, "process")})
    pages = sum(_size(step.call) for step in steps)
    return len(steps), failing, names, pages, len(text), sum(step.plan.n for step in steps), *text.encode()


def _size(call: Any) -> int:  # noqa: ANN401 (any call)
    size: int = getattr(call, "pages", None) or 0
    span: Pages | None = getattr(call, "range", None)
    return abs(size) + (span.last + 1 if span is not None else 0)


def rewritings(steps: Steps) -> Iterator[Steps]:
    """What could stand in place of the steps."""
    yield from _all_areas(steps)
    yield from _names(steps)
    yield from _area_names(steps)
    yield from _joined(steps)
    yield from _without_advice(steps)
    for at, step in enumerate(steps):
        if isinstance(step.call, Fork):  # one process does what two did
            yield _renamed((*steps[:at], *steps[at + 1 :]), step.call.child, step.call.process)
        for simpler in _simpler(step):
            yield (*steps[:at], simpler, *steps[at + 1 :])
        for later in range(at + 1, len(steps)):
            yield from _pairs(steps, at, later)


def _simpler(step: Step) -> Iterator[Step]:
    """One call made simpler."""
    call, plan = step
    if plan.n:
        yield Step(call)
        yield Step(call, plan._replace(nowait=False))
        yield Step(call, plan._replace(kind="rmap", n=1))
        for n in range(1, plan.n):
            yield Step(call, plan._replace(n=n))
    span: Pages | None = getattr(call, "range", None)
    if span is not None:
        for first in range(span.first, span.last + 1):
            yield Step(_with(call, range=Pages(span.area, first, first)), plan)
        if span.first:
            yield Step(_with(call, range=Pages(span.area, 0, span.last)), plan)
            yield Step(_with(call, range=Pages(span.area, span.first - 1, span.last - 1)), plan)
    match call:
        case Mmap():
            for changes in (
                {"pages": 1},
                {"at": None},
                {"file": None},
                {"shared": False},
                {"prot": "rw"},
                {"prot": "rwx"},
            ):
                yield Step(_with(call, **changes), plan)
            if call.at is None or (call.pages > 1):
                yield Step(_with(call, pages=call.pages - 1 or 1), plan)
        case Mremap():
            for changes in ({"pages": None}, {"dontunmap": False}, {"at": None}):
                yield Step(_with(call, **changes), plan)
        case Mprotect():
            yield Step(_with(call, prot="r"), plan)
            yield Step(_with(call, prot="rw"), plan)
        case Swapout(cached=True):
            yield Step(_with(call, cached=False), plan)


def _pairs(steps: Steps, at: int, later: int) -> Iterator[Steps]:
    """Two calls that one could do: a mapping with its rights changed later, a child that does what its parent did."""
    first, second = steps[at].call, steps[later].call
    middle, rest = steps[at + 1 : later], steps[later + 1 :]
    if isinstance(first, Mmap) and isinstance(second, Mprotect) and second.range.area == first.area:
        for prot in (second.prot, "rwx"):
            yield (*steps[:at], Step(_with(first, prot=prot), steps[at].plan), *middle, *rest)
    if isinstance(first, Fork) and isinstance(second, Exit) and second.process == first.process:
        # The parent ends: it can do itself what its child does.
        yield _renamed((*steps[:at], *middle, *rest), first.child, first.process)
    if isinstance(first, Fork) and isinstance(second, Exit) and second.process == first.child:
        yield _renamed((*steps[:at], *middle, *rest), first.child, first.process)
    if isinstance(first, Mmap) and isinstance(second, Mmap) and first.at is not None and second.at is not None:
        yield (*steps[:at], steps[later], *middle, steps[at], *rest)
    if isinstance(second, Madvise | Mprotect | Write | Mmap) and later == at + 1:
        yield (*steps[:at], steps[later], steps[at], *rest)


def _renamed(steps: Steps, old: str, new: str) -> Steps:
    """The steps with one process's name for another's."""
    changed = []
    for call, plan in steps:
        if getattr(call, "process", None) == old:
            call = _with(call, process=new)
        if isinstance(call, Fork) and call.child == old:
            call = _with(call, child=new)
        changed.append(Step(call, plan))
    return tuple(changed)


def _names(steps: Steps) -> Iterator[Steps]:
    """Processes numbered in order of creation."""
    children = [step.call.child for step in steps if isinstance(step.call, Fork)]
    wanted = [f"P{number}" for number in range(1, len(children) + 1)]
    if children != wanted and len(set(children)) == len(children):
        for number, child in enumerate(children):
            steps = _renamed(steps, child, f"?{number}")
        for number, name in enumerate(wanted):
            steps = _renamed(steps, f"?{number}", name)
        yield steps


def _without_advice(steps: Steps) -> Iterator[Steps]:
    """Rights taken away instead of advice given, everywhere: what splits and merges VMAs by one does by the other."""
    changed = tuple(
        Step(Mprotect(process=call.process, range=call.range, prot="r"), plan) if isinstance(call, Madvise) else step
        for step in steps
        for call, plan in (step,)
    )
    if changed != steps:
        yield changed


def _joined(steps: Steps) -> Iterator[Steps]:
    """Two areas that touch mapped as one."""
    maps = [(at, step.call) for at, step in enumerate(steps) if isinstance(step.call, Mmap)]
    for _, low in maps:
        for at, high in maps:
            start = MMAP_BASE if low.at is None else low.at
            if low.area != high.area and high.at == start + low.pages * PAGE_SIZE and low.prot == high.prot:
                changed = []
                for step in (*steps[:at], *steps[at + 1 :]):
                    call = step.call
                    if call is low:
                        call = _with(call, pages=low.pages + high.pages)
                    span: Pages | None = getattr(call, "range", None)
                    if span is not None and span.area == high.area:
                        moved = Pages(low.area, span.first + low.pages, span.last + low.pages)
                        call = _with(call, range=moved)
                    changed.append(Step(call, step.plan))
                yield tuple(changed)


def _area_names(steps: Steps) -> Iterator[Steps]:
    """Areas named in order of appearance."""
    names = list(dict.fromkeys(step.call.area for step in steps if isinstance(step.call, Mmap)))
    wanted = dict(zip(names, "ABCDEFGH", strict=False))
    if len(wanted) == len(names) and any(old != new for old, new in wanted.items()):
        yield tuple(Step(_with_names(call, wanted), plan) for call, plan in steps)


def _with_names(call: Any, wanted: dict[str, str]) -> Any:  # noqa: ANN401 (any call)
    changes: dict[str, Any] = {}
    if isinstance(call, Mmap | Mremap):
        changes["area"] = wanted.get(call.area, call.area)
    for name in ("range", "target", "fixed"):
        span = getattr(call, name, None)
        if isinstance(span, Pages):
            changes[name] = _with(span, area=wanted.get(span.area, span.area))
    return _with(call, **changes) if changes else call


def _all_areas(steps: Steps) -> Iterator[Steps]:
    """All areas one page shorter at the end or at the start, moved up to each other, or to the usual place."""
    maps = [step.call for step in steps if isinstance(step.call, Mmap) and step.call.at is not None]
    if not maps:
        return
    low = min(call.at for call in maps if call.at is not None)
    if low != MMAP_BASE:
        yield _moved(steps, lambda at: at - low + MMAP_BASE)
    for pages in {call.pages for call in maps}:
        if pages > 1:
            yield _thinner(steps, low, pages)
    for hole in sorted({call.at for call in maps if call.at is not None}):

        def closer(at: int, hole: int = hole) -> int:
            return at - PAGE_SIZE if at > hole else at

        yield _moved(steps, closer)


def _moved(steps: Steps, to: Callable[[int], int]) -> Steps:
    return tuple(
        Step(_with(call, at=to(call.at)), plan) if isinstance(call, Mmap | Mremap) and call.at is not None else step
        for step in steps
        for call, plan in (step,)
    )


def _thinner(steps: Steps, low: int, pages: int) -> Steps:
    """Every area of so many pages with one less, the areas behind moved up; ranges cut to fit."""
    changed = []
    for call, plan in steps:
        if isinstance(call, Mmap) and call.pages == pages and call.at is not None:
            slot = (call.at - low) // (pages * PAGE_SIZE)
            call = _with(call, pages=pages - 1, at=call.at - slot * PAGE_SIZE)
        elif isinstance(call, Mremap) and call.at is not None:
            slot = (call.at - low) // (pages * PAGE_SIZE)
            call = _with(call, at=call.at - slot * PAGE_SIZE)
        span: Pages | None = getattr(call, "range", None)
        if span is not None and span.last >= pages - 1:
            last = pages - 2
            call = _with(call, range=Pages(span.area, min(span.first, last), last))
        changed.append(Step(call, plan))
    return tuple(changed)


def _with(call: Any, **changes: Any) -> Any:  # noqa: ANN401 (any call, and its own fields)
    """The call with some fields changed."""
    return replace(call, **changes)
