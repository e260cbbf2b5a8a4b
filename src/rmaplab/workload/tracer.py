# SPDX-License-Identifier: GPL-2.0-only
"""The recorder's loop: waits for the stops of a process tree and turns them into events.

With the seccomp filter a task runs freely between the calls that matter;
without it, it stops at every call. A task whose call changes or copies its
address space holds that space until the call is over, so that the events of
threads come in the order of their effects. Stops: ptrace(2).
"""

import os
import signal
from contextlib import suppress

from rmaplab.workload.calls import sharing_of
from rmaplab.workload.journal import Emit, Journal
from rmaplab.workload.pagemap import read_areas
from rmaplab.workload.syscalls import Abi
from rmaplab.workload.tasks import Call, Space, Task
from rmaplab.workload.trace_events import MARK
from rmaplab.workload.tracee import Launch, Stop, event_message, listen, resume, stop_info

__all__ = ["Tracer"]

_WALL = 0x40000000  # __WALL: children of any kind
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_FORK, _VFORK, _CLONE, _EXEC, _EXIT, _SECCOMP, _STOP = 1, 2, 3, 4, 6, 7, 128  # PTRACE_EVENT_*
_JOB_CONTROL = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class Tracer:
    """Follows a launched command and all its descendants until the last one ends.

    ``emit`` gets the events. ``status`` is the command's exit status (128 + N
    for signal N) once it ended by itself, ``started`` whether it was ever
    run, ``stopping`` whether ``kill`` was called, and ``numbered`` how many
    tasks the trace knows.
    """

    def __init__(self, abi: Abi, emit: Emit) -> None:
        self.status: int | None = None
        self.started = False
        self.stopping = False
        self.numbered = 1
        self._abi = abi
        self._journal = Journal(emit)
        self._launch: Launch | None = None
        self._stop_at_calls = False
        self._tasks: dict[int, Task] = {}
        self._early: dict[int, int] = {}
        self._waiting = False
        self._mark_wanted = False
        self._last = 0  # the task whose stop was handled last

    def run(self, launch: Launch) -> None:
        """Record until no task is left; after an exception none is left either."""
        self._launch = launch
        self._tasks[launch.pid] = Task(0, launch.pid, launch.pid, Space())
        if self.stopping:
            self.kill()
        try:
            self._loop()
        except BaseException:
            self._journal.mute()
            self.kill()
            resume(self._last, False)  # one that stops at its end does not notice that it is killed
            self._loop()
            raise

    def kill(self) -> None:
        """Kill every task; safe in a signal handler, and ``run`` then comes to its end."""
        self.stopping = True
        for pid in [*self._tasks, *self._early]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def mark(self) -> None:
        """Sample every task, and leave a mark in the trace; safe in a signal handler."""
        self._mark_wanted = True
        if self._waiting:  # else in the middle of an event, and the loop comes to it
            self._mark()

    def _mark(self) -> None:
        self._mark_wanted = False
        running = [task for task in self._tasks.values() if task.number is not None and not task.exited]
        for space in {id(task.space): task for task in reversed(running)}.values():
            self._journal.sample(space)
        if running:
            self._journal.write(running[0], "other", MARK)

    def _loop(self) -> None:
        while self._tasks or self._adopt_lost():
            if self._mark_wanted:
                self._mark()
            try:
                self._waiting = True
                pid, status = os.waitpid(-1, _WALL)
                self._waiting = False
            except ChildProcessError:  # SIGCHLD is ignored: nobody hears of an end
                self._waiting = False
                for task in [*self._tasks.values()]:
                    self._exit(task, alive=False)
                self._tasks.clear()
            else:
                self._handle(pid, status)

    # Stops

    def _handle(self, pid: int, status: int) -> None:
        self._last = pid
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
        task.making = False
        if not self.started:
            resume(task.pid, False)
        elif stop.entry:
            self._enter(task, stop)
        else:
            self._leave(task, stop)

    def _enter(self, task: Task, stop: Stop) -> None:
        name = self._abi.calls.get(stop.number)
        if stop.audit != self._abi.audit or stop.number >= 1 << 30:
            self._foreign(task)
        elif name is not None:
            self._begin(task, Call(name, stop.arguments, sharing_of(task.pid, stop, name)))
            return
        self._resume(task)

    def _foreign(self, task: Task) -> None:
        task.making = True  # for all we know
        if not task.space.foreign:
            task.space.foreign = True
            self._journal.write(task, "other", "foreign-abi")

    def _begin(self, task: Task, call: Call) -> None:
        """Let a call happen, at once or when its address space is free."""
        space = task.space
        if call.alone:
            if space.holder not in (None, task):
                space.queue.append((task, call))
                return
            space.holder = task
        self._journal.before(task, call)
        task.making = bool(call.sharing)
        if not call.is_exec and call.sharing != "thread":
            task.call = call
        self._resume(task)

    def _leave(self, task: Task, stop: Stop) -> None:
        call, task.call = task.call, None
        if call is not None and not stop.failed:
            self._journal.after(task, call, stop.result)
        self._release(task)
        self._resume(task)

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
        task.making = False
        if task.call:
            task.call.done = True
        child = self._add(task, pid, sharing)
        if sharing == "fork":
            self._journal.write(task, "fork", child.number)
        else:
            self._journal.write(task, "share", child.number, sharing)
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
            self._journal.begin()
            self._stop_at_calls = self._launch is not None and not self._launch.filtered()
        task = self._survivor(task, former)
        task.call = None
        self._release(task)
        task.space.tasks.discard(task)
        task.space = Space(tasks={task})
        self._journal.write(task, "exec", *_image(task.pid))
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
            self._journal.sample(task)
        task.exited = True
        self._journal.write(task, "exit")
        task.space.tasks.discard(task)
        self._release(task)

    def _gone(self, task: Task, status: int) -> None:
        self._exit(task, alive=False)
        del self._tasks[task.pid]
        if self._launch is not None and task.pid == self._launch.pid and not self.stopping:
            code = os.waitstatus_to_exitcode(status)
            self.status = code if code >= 0 else 128 - code
        self._adopt_unclaimed()

    # Tasks that show up before, or without, their parent's event

    def _handle_early(self, pid: int, status: int) -> None:
        if self.stopping and os.WIFSTOPPED(status):
            self._kill_stopped(pid)
        else:
            self._early[pid] = status
            self._adopt_unclaimed()

    def _adopt_unclaimed(self) -> None:
        """Once no event can come for them any more, let early tasks go on."""
        if self._early and not any(task.making for task in self._tasks.values()):
            for pid in [pid for pid, status in self._early.items() if os.WIFSTOPPED(status)]:
                self._adopt(pid)

    def _adopt_lost(self) -> bool:
        """Look, when no task is left, for lost ones; say whether there are any."""
        for pid in _tracees():
            self._adopt(pid)
        if self.stopping:
            self.kill()
        return bool(self._tasks)

    def _adopt(self, pid: int) -> None:
        """Follow, unrecorded, a task whose parent was killed before its event."""
        self._tasks[pid] = Task(None, pid, pid, Space())
        if pid in self._early:
            self._handle(pid, self._early.pop(pid))


def _image(pid: int) -> tuple[str, list[list[object]]]:
    """Return a new program's path and areas; empty for what is killed already or may not be read."""
    path = ""
    areas: list[list[object]] = []
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
