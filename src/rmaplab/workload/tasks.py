# SPDX-License-Identifier: GPL-2.0-only
"""What the recorder knows of the tasks and address spaces it follows."""

from collections import deque
from dataclasses import dataclass, field

from rmaplab.workload.runs import RunSet

__all__ = ["Call", "Space", "Task"]


@dataclass(slots=True)
class Call:
    """A system call under way: its name, its arguments, and for a new task how it shares.

    ``sharing`` is "fork" for an address space of its own, else "thread",
    "vfork" or "vm"; empty for a call that makes no task. ``done`` says that
    the new task was seen.
    """

    name: str
    arguments: tuple[int, ...]
    sharing: str = ""
    done: bool = False

    @property
    def is_exec(self) -> bool:
        """Whether the call replaces the address space."""
        return self.name in ("execve", "execveat")

    @property
    def alone(self) -> bool:
        """Whether no other call may change or copy the address space meanwhile."""
        return self.sharing in ("", "fork") and not self.is_exec


@dataclass(slots=True, eq=False)
class Space:
    """An address space.

    ``holder`` is the task whose call is changing it; the calls of others wait
    in ``queue``, so that the order of events is the order of effects.
    ``reported`` holds the pages the trace has named as anonymous, ``brk`` the
    end of the heap in bytes once it is known.
    """

    tasks: set["Task"] = field(default_factory=set)
    reported: RunSet = field(default_factory=RunSet)
    brk: int | None = None
    holder: "Task | None" = None
    queue: "deque[tuple[Task, Call]]" = field(default_factory=deque)
    foreign: bool = False


@dataclass(slots=True, eq=False)
class Task:
    """One task: its number in the trace (None: not recorded), ids, and call under way.

    ``making`` says that the event of a new task may still come from it.
    """

    number: int | None
    pid: int
    group: int
    space: Space
    call: Call | None = None
    making: bool = False
    exited: bool = False

    def __post_init__(self) -> None:
        self.space.tasks.add(self)
