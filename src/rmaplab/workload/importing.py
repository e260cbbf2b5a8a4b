# SPDX-License-Identifier: GPL-2.0-only
"""Traces from what other tools have written down: the events of the format from calls as they were seen.

Other tools see less than the recorder does.  What was mapped before they
looked, or by exec, is made known when a call names it (an anonymous private
mapping of that range).  Which pages were written they may not say at all:
then it can be assumed that the first page of each new private writable
mapping is, before its address space next forks, changes or ends.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rmaplab.errors import InputError
from rmaplab.workload.runs import RunSet
from rmaplab.workload.strace_names import MAP_ANONYMOUS, MAP_FIXED, MAP_SHARED, PROT_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rmaplab.workload.trace import Event

__all__ = ["Importer", "Step"]

PAGE = 4096
LIMIT = 1 << 47
STACK = (0x7FFF_FFFD_E000, 0x7FFF_FFFF_F000)
HELD_BACK = 10_000  # steps of tasks whose making was not seen yet

Step = tuple[int, str, tuple[Any, ...]]
"""Who (a process or thread id), what (a method of :class:`Importer`, without its underscore), with which values."""


@dataclass(slots=True, eq=False)
class _Space:
    """What is known of an address space: mappings, those of them that are shared, untouched ones, the heap's end."""

    known: RunSet = field(default_factory=RunSet)
    shared: RunSet = field(default_factory=RunSet)
    fresh: dict[int, None] = field(default_factory=dict)
    brk: int | None = None


@dataclass(slots=True, eq=False)
class _Task:
    number: int
    space: _Space


class Importer:
    """Gives ``emit`` the events of a trace; ``assumed`` counts what was not seen but assumed.

    ``touch``: assume that new mappings are written to (else ``write`` steps say so).
    """

    def __init__(self, emit: Callable[[Event], None], *, touch: bool) -> None:
        self.emit = emit
        self.touch = touch
        self.tasks: dict[int, _Task] = {}
        self.early: dict[int, list[Step]] = {}
        self.created = 0
        self.assumed: Counter[str] = Counter()

    def run(self, steps: Iterable[Step]) -> None:
        """All of them; :class:`InputError` if there is none."""
        for step in steps:
            self.step(step)
        if not self.created:
            raise InputError("no call on memory and no exec in it")
        if self.early:
            self.assumed["steps of tasks whose making was not seen, left out"] = sum(map(len, self.early.values()))

    def step(self, step: Step) -> None:
        """One of them; those of a task that is not known yet wait for its parent's."""
        pid, kind, values = step
        if not self.created:
            self.tasks[pid] = self._new_task(_Space())
            self._exec(self.tasks[pid], values[0] if kind == "exec" else "")
            if kind == "exec":
                return
            self.assumed["an exec before the first call"] += 1
        task = self.tasks.get(pid)
        if task is not None:
            getattr(self, f"_{kind}")(task, *values)
        else:
            waiting = self.early.setdefault(pid, [])
            if len(waiting) < HELD_BACK:
                waiting.append(step)

    def _new_task(self, space: _Space) -> _Task:
        self.created += 1
        return _Task(self.created - 1, space)

    # --- tasks -----------------------------------------------------------------------------

    def _exec(self, task: _Task, path: str) -> None:
        if self._alone(task):  # else the memory stays with the others, as a vfork child's with its parent
            self._settle(task)
        task.space = _Space()
        areas: list[list[object]] = []
        if self.touch:  # otherwise the faults tell where the stack is
            areas = [[*STACK, "rw-p", 0, "[stack]"]]
            task.space.known.add(*STACK)
            task.space.fresh[STACK[1] - PAGE] = None
        self.emit(["exec", task.number, path, areas])

    def _fork(self, task: _Task, child: int, how: str) -> None:
        self._settle(task)
        space = task.space
        if how == "fork":
            space = _Space(space.known.copy(), space.shared.copy(), {}, space.brk)
        made = self.tasks[child] = self._new_task(space)
        self.emit(["fork", task.number, made.number] if how == "fork" else ["share", task.number, made.number, how])
        for step in self.early.pop(child, ()):
            self.step(step)

    def _exit(self, task: _Task) -> None:
        if self._alone(task):
            self._settle(task)
        self.emit(["exit", task.number])
        self.tasks = {pid: other for pid, other in self.tasks.items() if other is not task}

    def _alone(self, task: _Task) -> bool:
        return all(other is task or other.space is not task.space for other in self.tasks.values())

    # --- memory ----------------------------------------------------------------------------

    def _mmap(self, task: _Task, address: int, length: int, prot: int, flags: int, offset: int, name: str) -> None:
        start, end = self._range(address, length)
        if flags & MAP_FIXED:
            self._settle(task)
        anonymous = bool(flags & MAP_ANONYMOUS)
        space = task.space
        space.known.add(start, end)
        (space.shared.add if flags & MAP_SHARED else space.shared.remove)(start, end)
        self._forget(space, start, end)
        if prot & PROT_WRITE and not flags & MAP_SHARED:
            space.fresh[start] = None
        file = None if anonymous else name or "file"
        self.emit(["mmap", task.number, start, end - start, prot, flags, 0 if anonymous else offset & -PAGE, file])

    def _munmap(self, task: _Task, address: int, length: int) -> None:
        start, end = self._range(address, length)
        self._settle(task)
        if task.space.known.missing(start, end) == [(start, end)]:
            return  # nothing that is known
        task.space.known.remove(start, end)
        task.space.shared.remove(start, end)
        self.emit(["munmap", task.number, start, end - start])

    def _mprotect(self, task: _Task, address: int, length: int, prot: int) -> None:
        start, end = self._range(address, length)
        self._settle(task)
        self._expose(task, start, end)
        if prot & PROT_WRITE and task.space.shared.missing(start, end):
            task.space.fresh[start] = None
        self.emit(["mprotect", task.number, start, end - start, prot])

    def _madvise(self, task: _Task, address: int, length: int, advice: int) -> None:
        start, end = self._range(address, length)
        self._settle(task)
        self._expose(task, start, end)
        self.emit(["madvise", task.number, start, end - start, advice])

    def _mremap(self, task: _Task, old: int, old_length: int, new_length: int, flags: int, result: int) -> None:
        start, end = self._range(old, old_length)
        self._settle(task)
        self._expose(task, start, end)
        to, to_end = self._range(result, new_length)
        shared = not task.space.shared.missing(start, end)
        task.space.known.remove(start, end)
        task.space.shared.remove(start, end)
        task.space.known.add(to, to_end)
        if shared:
            task.space.shared.add(to, to_end)
        self.emit(["mremap", task.number, start, end - start, to_end - to, flags, to])

    def _brk(self, task: _Task, end: int) -> None:
        space = task.space
        before, space.brk = space.brk, end
        if before is None or before == end or not 0 < end < LIMIT:
            return
        self._settle(task)
        low, high = sorted((-(-before // PAGE) * PAGE, -(-end // PAGE) * PAGE))
        if end > before:
            space.known.add(low, high)
            if low < high:
                space.fresh[low] = None
        else:
            space.known.remove(low, high)
        self.emit(["brk", task.number, before, end])

    def _write(self, task: _Task, address: int) -> None:
        """A write fault that was seen."""
        page = address & -PAGE
        if not 0 <= page < LIMIT or not task.space.shared.missing(page, page + PAGE):
            return
        self._expose(task, page, page + PAGE)
        self.emit(["anon", task.number, [[page, 1]]])

    def _other(self, task: _Task, name: str) -> None:
        self.emit(["other", task.number, name])

    # --- what was not seen -------------------------------------------------------------------

    def _range(self, address: int, length: int) -> tuple[int, int]:
        """Whole pages; :class:`InputError` for what no kernel would have taken."""
        end = -(-(address + length) // PAGE) * PAGE
        if address % PAGE or not 0 <= address < end <= LIMIT:
            raise InputError(f"no range of memory: address {address:#x}, length {length}")
        return address, end

    def _expose(self, task: _Task, start: int, end: int) -> None:
        """Map what a call names and nobody is known to have mapped."""
        for low, high in task.space.known.missing(start, end):
            self.assumed["mappings that were there before they were seen"] += 1
            task.space.known.add(low, high)
            flags = 0x02 | MAP_FIXED | MAP_ANONYMOUS
            self.emit(["mmap", task.number, low, high - low, 3, flags, 0, None])
            task.space.fresh[low] = None

    def _settle(self, task: _Task) -> None:
        """Write to what is fresh, if that is assumed."""
        space = task.space
        pages = [page for page in sorted(space.fresh) if not space.known.missing(page, page + PAGE)]
        space.fresh.clear()
        if self.touch and pages:
            self.assumed["pages written, one for each new mapping"] += len(pages)
            self.emit(["anon", task.number, [[page, 1] for page in pages]])

    def _forget(self, space: _Space, start: int, end: int) -> None:
        space.fresh = {page: None for page in space.fresh if not start <= page < end}
