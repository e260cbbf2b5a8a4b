# SPDX-License-Identifier: GPL-2.0-only
"""What the recorder writes down: events of calls, and samples of anonymous pages."""

import os
from collections.abc import Callable

from rmaplab.workload.calls import call_event, heap_start, new_range, old_range
from rmaplab.workload.pagemap import Run, anonymous_runs, read_areas
from rmaplab.workload.tasks import Call, Space, Task

__all__ = ["Emit", "Journal"]

_PAGE = os.sysconf("SC_PAGESIZE")
_RUNS = 4096  # runs an anon event holds at most
_PROTECT = ("mprotect", "pkey_mprotect")
_UNTOLD = ("process_madvise", "remap_file_pages", "shmat", "shmdt")  # ranges we do not decode

Emit = Callable[[list[object]], None]


class Journal:
    """Gives the events of recorded tasks to ``emit``, each page of a sample only once.

    Until ``begin`` was called (the command's exec) nothing is written.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._begun = False

    def begin(self) -> None:
        """Start writing."""
        self._begun = True

    def mute(self) -> None:
        """Write nothing any more."""
        self._emit = lambda _event: None

    def write(self, task: Task, kind: str, *fields: object) -> None:
        """Write an event of a task, unless the task is not recorded."""
        if self._begun and task.number is not None:
            self._emit([kind, task.number, *fields])

    def sample(self, task: Task, within: Run | None = None) -> None:
        """Report the anonymous pages of a task's address space that are not reported yet."""
        if not self._begun:
            return
        reported = task.space.reported
        try:
            runs = anonymous_runs(task.pid, within)
        except OSError:  # killed meanwhile, or a program that may not be read
            return
        new = [part for run in runs for part in reported.missing(*run)]
        for run in new:
            reported.add(*run)
        for place in range(0, len(new), _RUNS):
            self.write(task, "anon", [[start, (end - start) // _PAGE] for start, end in new[place : place + _RUNS]])

    def before(self, task: Task, call: Call) -> None:
        """Sample what a call is about to copy, move, drop, cut or merge."""
        if call.is_exec:
            # What a vfork child leaves behind lives on in its parent.
            if all(other.group == task.group for other in task.space.tasks):
                self.sample(task)
        elif call.sharing not in ("", "thread"):
            self.sample(task)
        elif (within := old_range(call.name, call.arguments)) is not None:
            self.sample(task, within)
            self._sample_beside(task, within)
        elif call.name == "brk":
            self._before_brk(task, call.arguments[0])

    def after(self, task: Task, call: Call, result: int) -> None:
        """Write the event of a call that succeeded, and forget the pages it took away."""
        if call.sharing:
            if not call.done:
                self.write(task, "other", "clone-untraced")
            return
        old_brk = task.space.brk
        fields = call_event(task, call.name, call.arguments, result)
        if fields is None:
            return
        if (place := new_range(call.name, call.arguments, result)) is not None:
            self._sample_beside(task, place)
        kind, *rest = fields
        self.write(task, str(kind), *rest)
        if call.name == "brk" and old_brk is not None:
            _forget(task.space, (_page_up(result), _page_up(old_brk)))
        else:
            _forget_call(task.space, call, result)

    def _sample_beside(self, task: Task, place: Run) -> None:
        """Sample what the areas that reach into a range or touch it have outside of it.

        Whether they have had a page decides what is cut with them and what
        merges.  An area with a reported page is known to.
        """
        try:
            areas = read_areas(task.pid)
        except OSError:  # as in sample
            return
        start, end = place
        for area in areas:
            if area.end < start or end < area.start or area.protection[3] != "p":
                continue
            for run in ((area.start, min(area.end, start)), (max(area.start, end), area.end)):
                if run[0] < run[1] and task.space.reported.missing(*run) == [run]:
                    self.sample(task, run)

    def _before_brk(self, task: Task, new_end: int) -> None:
        if task.space.brk is None:
            task.space.brk = heap_start(task.pid)
        start, end = _page_up(new_end), _page_up(task.space.brk or 0)
        if 0 < start < end:
            self.sample(task, (start, end))


def _forget_call(space: Space, call: Call, result: int) -> None:
    if call.name in _UNTOLD:
        space.reported.clear()
    within = old_range(call.name, call.arguments)
    if within is not None and call.name not in _PROTECT:
        _forget(space, within)
    if call.name == "mremap" and (place := new_range(call.name, call.arguments, result)) is not None:
        _forget(space, place)


def _forget(space: Space, run: Run) -> None:
    """Pages that are gone may be written anew, and are then reported again."""
    if run[0] < run[1]:
        space.reported.remove(*run)


def _page_up(address: int) -> int:
    return (address + _PAGE - 1) & ~(_PAGE - 1)
