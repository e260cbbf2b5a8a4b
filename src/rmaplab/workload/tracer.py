# SPDX-License-Identifier: GPL-2.0-only
"""The recorder's loop: waits for the stops of a process tree and turns them into events.

With the seccomp filter a task runs freely between the calls that matter;
without it, it stops at every call. A task whose call changes or copies its
address space holds that space until the call is over, so that the events of
threads come in the order of their effects. Stops: ptrace(2).
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from rmaplab.workload.calls import call_event, heap_start, old_range, sharing_of
from rmaplab.workload.pagemap import Run, anonymous_runs, read_areas
from rmaplab.workload.syscalls import Abi
from rmaplab.workload.tasks import Call, Space, Task
from rmaplab.workload.tracee import Launch, Stop, event_message, listen, resume, stop_info

__all__ = ["Tracer"]

_WALL = 0x40000000  # __WALL: children of any kind
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_FORK, _VFORK, _CLONE, _EXEC, _EXIT, _SECCOMP, _STOP = 1, 2, 3, 4, 6, 7, 128  # PTRACE_EVENT_*
_JOB_CONTROL = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_PAGE = os.sysconf("SC_PAGESIZE")
_RUNS = 4096  # runs an anon event holds at most

Emit = Callable[[list[object]], None]


class Tracer:
    """Follows a launched command and all its descendants until the last one ends.

    ``emit`` gets the events. ``status`` is the command's exit status (128 + N
    for signal N) once it ended, ``started`` whether it was ever run, and
    ``numbered`` how many tasks there were.
    """

    def __init__(self, launch: Launch, abi: Abi, emit: Emit) -> None:
        self.launch = launch
        self.status: int | None = None
        self.started = False
        self.stopping = False
        self.numbered = 1
        self._abi = abi
        self._emit = emit
        self._stop_at_calls = False
        self._tasks = {launch.pid: Task(0, launch.pid, launch.pid, Space())}
        self._early: dict[int, int] = {}

    def run(self) -> None:
        """Record until no task is left."""
        while self._tasks or self._adopt_lost():
            pid, status = os.waitpid(-1, _WALL)
            self._handle(pid, status)

    def kill(self) -> None:
        """Kill every task; safe in a signal handler, and ``run`` then comes to its end."""
        self.stopping = True
        for pid in [*self._tasks, *self._early]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # Stops

    def _handle(self, pid: int, status: int) -> None:
        task = self._tasks.get(pid)
        if task is None:
            self._handle_early(pid, status)
        elif not os.WIFSTOPPED(status):
            self._gone(task, status)
        elif self.stopping and status >> 16 != _EXIT:
            self._kill_stopped(pid)
        else:
            self._stopped(task, os.WSTOPSIG(status), status >> 16)

    def _stopped(self, task: Task, sig: int, event: int) -> None:
        if event == _SECCOMP or sig == _SYSCALL_STOP:
            self._call_stop(task)
        elif event in (_FORK, _VFORK, _CLONE):
            self._new_task(task, event)
        elif event == _EXEC:
            self._exec(task)
        elif event == _EXIT:
            self._exit(task, alive=True)
            self._resume(task)
        elif event == _STOP:
            if sig in _JOB_CONTROL:
                listen(task.pid)
            else:
                self._resume(task)
        else:
            self._resume(task, sig)

    def _resume(self, task: Task, sig: int = 0) -> None:
        resume(task.pid, self._stop_at_calls or task.call is not None, sig)

    def _kill_stopped(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        resume(pid, False)

    # System calls

    def _call_stop(self, task: Task) -> None:
        stop = stop_info(task.pid)
        if stop is None:
            return
        if not self.started:
            resume(task.pid, False)
        elif stop.entry:
            self._entry(task, stop)
        else:
            self._leave(task, stop)

    def _entry(self, task: Task, stop: Stop) -> None:
        name = self._abi.calls.get(stop.number)
        if stop.audit != self._abi.audit or stop.number >= 1 << 30:
            self._foreign(task)
        elif name is not None:
            self._begin(task, Call(name, stop.arguments, sharing_of(task.pid, stop, name)))
            return
        self._resume(task)

    def _foreign(self, task: Task) -> None:
        if not task.space.foreign:
            task.space.foreign = True
            self._write(task, ["other", "foreign-abi"])

    def _begin(self, task: Task, call: Call) -> None:
        """Let a call happen, at once or when its address space is free."""
        space = task.space
        if call.alone:
            if space.holder not in (None, task):
                space.queue.append((task, call))
                return
            space.holder = task
        self._sample_before(task, call)
        if call.name not in ("execve", "execveat") and call.sharing != "thread":
            task.call = call
        self._resume(task)

    def _sample_before(self, task: Task, call: Call) -> None:
        space = task.space
        if call.name in ("execve", "execveat"):
            if all(other.group == task.group for other in space.tasks):
                self._sample(task)
        elif call.sharing not in ("", "thread"):
            self._sample(task)
        elif (within := old_range(call.name, call.arguments)) is not None:
            self._sample(task, within)
        elif call.name == "brk":
            if space.brk is None:
                space.brk = heap_start(task.pid)
            self._sample_shrink(task, call.arguments[0])

    def _sample_shrink(self, task: Task, new_end: int) -> None:
        start, end = _page_up(new_end), _page_up(task.space.brk or 0)
        if 0 < start < end:
            self._sample(task, (start, end))

    def _leave(self, task: Task, stop: Stop) -> None:
        call, task.call = task.call, None
        if call is not None and not stop.failed:
            self._finish(task, call, stop.result)
        self._release(task)
        self._resume(task)

    def _finish(self, task: Task, call: Call, result: int) -> None:
        if call.sharing:
            if not call.done:
                self._write(task, ["other", "clone-untraced"])
            return
        old_brk = task.space.brk
        fields = call_event(task, call.name, call.arguments, result)
        if fields is None:
            return
        self._write(task, fields)
        self._forget(task.space, call, result, old_brk)

    def _forget(self, space: Space, call: Call, result: int, old_brk: int | None) -> None:
        """Pages that a call took away may be written anew, and are then reported again."""
        within = old_range(call.name, call.arguments)
        if call.name == "brk" and old_brk is not None and _page_up(result) < _page_up(old_brk):
            within = _page_up(result), _page_up(old_brk)
        if within is not None and call.name not in ("mprotect", "pkey_mprotect"):
            space.reported.remove(*within)
        if call.name == "mremap" and (end := _page_up(result + call.arguments[2])) > result:
            space.reported.remove(result, end)
        elif call.name in ("process_madvise", "remap_file_pages", "shmdt", "shmat"):
            space.reported.clear()

    def _release(self, task: Task) -> None:
        """Give the address space to the next call that waits for it."""
        space = task.space
        if space.holder is not task:
            return
        space.holder = None
        while space.queue and space.holder is None:
            waiting, call = space.queue.popleft()
            if not waiting.exited:
                self._begin(waiting, call)

    # Life of tasks

    def _new_task(self, task: Task, event: int) -> None:
        pid = event_message(task.pid)
        if pid is None:
            return
        sharing = task.call.sharing if task.call else _guess_sharing(event, task, pid)
        if task.call:
            task.call.done = True
        child = self._add(task, pid, sharing)
        if child.number is not None:
            how: list[object] = ["fork"] if sharing == "fork" else ["share"]
            self._emit([*how, task.number, child.number, *([] if sharing == "fork" else [sharing])])
        self._release(task)
        self._resume(task)
        if pid in self._early:
            self._handle(pid, self._early.pop(pid))

    def _add(self, parent: Task, pid: int, sharing: str) -> Task:
        number = None if parent.number is None else self.numbered
        self.numbered += number is not None
        space = parent.space
        if sharing == "fork":
            space.reported.clear()  # from now on its pages are shared
            space = Space(brk=space.brk, foreign=space.foreign)
        group = parent.group if sharing == "thread" else pid
        self._tasks[pid] = Task(number, pid, group, space)
        return self._tasks[pid]

    def _exec(self, task: Task) -> None:
        former = event_message(task.pid)
        if former is None:
            return
        if not self.started:
            self.started = True
            self._stop_at_calls = not self.launch.filtered()
        task = self._survivor(task, former)
        task.call = None
        self._release(task)
        task.space.tasks.discard(task)
        task.space = Space(tasks={task})
        self._write(task, ["exec", *_image(task.pid)])
        self._resume(task)

    def _survivor(self, leader: Task, former: int) -> Task:
        """End the other threads of an exec; the one that called it takes the leader's id."""
        task = self._tasks.pop(former, leader) if former != leader.pid else leader
        for other in [t for t in self._tasks.values() if t.group == leader.group and t is not task]:
            self._exit(other, alive=False)
        task.pid = leader.pid
        self._tasks[task.pid] = task
        return task

    def _exit(self, task: Task, *, alive: bool) -> None:
        """Record the end of a task, once; ``alive``: its memory can still be looked at."""
        if task.exited:
            return
        if alive and task.space.tasks == {task}:
            self._sample(task)
        task.exited = True
        self._write(task, ["exit"])
        task.space.tasks.discard(task)
        self._release(task)

    def _gone(self, task: Task, status: int) -> None:
        self._exit(task, alive=False)
        if self._tasks.get(task.pid) is task:
            del self._tasks[task.pid]
        if task.pid == self.launch.pid:
            code = os.waitstatus_to_exitcode(status)
            self.status = code if code >= 0 else 128 - code

    # Tasks that show up before, or without, their parent's event

    def _handle_early(self, pid: int, status: int) -> None:
        if self.stopping and os.WIFSTOPPED(status):
            self._kill_stopped(pid)
        elif os.WIFSTOPPED(status) or pid not in self._early:
            self._early[pid] = status

    def _adopt_lost(self) -> bool:
        """Follow, unrecorded, the tasks whose parent was killed before its event; say whether there are any."""
        for pid in _tracees() | {pid for pid, status in self._early.items() if os.WIFSTOPPED(status)}:
            self._tasks[pid] = Task(None, pid, pid, Space())
            if self.stopping:
                self.kill()
            if pid in self._early:
                self._handle(pid, self._early.pop(pid))
        return bool(self._tasks)

    # Events

    def _write(self, task: Task, fields: list[object]) -> None:
        if task.number is not None and self.started:
            kind, *rest = fields
            self._emit([kind, task.number, *rest])

    def _sample(self, task: Task, within: Run | None = None) -> None:
        """Report the anonymous pages of a task's address space that are not reported yet."""
        reported = task.space.reported
        try:
            runs = anonymous_runs(task.pid, within)
        except OSError:  # killed meanwhile, or a program that may not be read
            return
        new = [part for run in runs for part in reported.missing(*run)]
        for run in new:
            reported.add(*run)
        for place in range(0, len(new), _RUNS):
            pieces = [[start, (end - start) // _PAGE] for start, end in new[place : place + _RUNS]]
            self._write(task, ["anon", pieces])


def _page_up(address: int) -> int:
    return (address + _PAGE - 1) & ~(_PAGE - 1)


def _image(pid: int) -> tuple[str, list[object]]:
    """Return a new program's path and areas; empty for what is killed already or may not be read."""
    path, areas = "", []
    with suppress(OSError):
        path = os.readlink(f"/proc/{pid}/exe")
        areas = [list(area) for area in read_areas(pid)]
    return path, areas


def _guess_sharing(event: int, task: Task, pid: int) -> str:
    """Return how a new task shares when its parent's call was not seen (a foreign ABI)."""
    if event != _CLONE:
        return "fork" if event == _FORK else "vfork"
    return "thread" if os.path.exists(f"/proc/{task.group}/task/{pid}") else "vm"


def _tracees() -> set[int]:
    """Return the processes that this one traces, by TracerPid of /proc/PID/status."""
    mark = b"\nTracerPid:\t%d\n" % os.getpid()
    found = set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/status", "rb") as file:
            if mark in file.read():
                found.add(int(name))
    return found
