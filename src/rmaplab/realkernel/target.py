# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that can be read: its memory, its types, how it numbers pages, and its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.errors import InputError
from rmaplab.realkernel.closing import Closing
from rmaplab.realkernel.memory import FaultError

if TYPE_CHECKING:
    from collections.abc import Collection

    from rmaplab.realkernel.layout import Layout
    from rmaplab.realkernel.memory import Memory
    from rmaplab.realkernel.reader import GraphReader

__all__ = ["Machine", "Target", "Task"]

MOST_TASKS = 1 << 22  # PID_MAX_LIMIT of 64-bit kernels (threads.h)


@dataclass(frozen=True, slots=True)
class Machine:
    """How addresses, pages and page tables hang together.

    ``levels`` of page tables; ``page_offset``: where the kernel sees physical
    address 0; ``vmemmap``: where the struct page of page frame 0 is or would
    be.  0 stands for what is not known: pages are not read then.
    """

    arch: str = "x86_64"
    levels: int = 4
    page_offset: int = 0
    vmemmap: int = 0

    @property
    def knows_pages(self) -> bool:
        """Whether page tables can be followed to pages."""
        return self.page_offset != 0 and self.vmemmap != 0


class Task(NamedTuple):
    """A process: its id, its name, and the address of its mm_struct."""

    pid: int
    comm: str
    mm: int


class Target(Closing):
    """A kernel at a moment; ``init_task`` is the address of the first task, 0 if tasks come from elsewhere."""

    def __init__(
        self, memory: Memory, layout: Layout, machine: Machine, init_task: int = 0, release: str = ""
    ) -> None:
        self.memory = memory
        self.layout = layout
        self.machine = machine
        self.init_task = init_task
        self.release = release
        self._task = layout.fields(
            "task_struct",
            *(("tasks", "Q"), ("tasks+8", "Q"), ("pid", "i"), ("tgid", "i"), ("comm", "16s"), ("mm", "Q")),
        )
        self._known: dict[int, Task] = {}

    def tasks(self, pids: Collection[int] | None = None, remarks: list[str] | None = None) -> list[Task]:
        """The processes that have an address space, by id, or those of them that are asked for.

        The kernel's list of tasks is followed from its end, where new ones are
        (``fork.c``: list_add_tail_rcu).  A list that breaks off is a remark;
        :class:`InputError` if not even its head can be read.
        """
        remarks = [] if remarks is None else remarks
        found, wanted = {}, None if pids is None else set(pids)
        head = self.init_task + self.layout.offset("task_struct.tasks")
        try:
            node = self._read_task(self.init_task)[1]
        except FaultError as error:
            raise InputError(
                f"init_task at {error.address:#x} cannot be read: not the kernel these types are of?"
            ) from error
        seen: set[int] = set()
        while node != head and wanted != set():
            if node in seen or len(seen) == MOST_TASKS:
                remarks.append("the list of tasks does not end")
                break
            seen.add(node)
            try:
                _, node, _, tgid, comm, mm = self._read_task(node - self.layout.offset("task_struct.tasks"))
            except FaultError as error:
                remarks.append(f"the list of tasks breaks off: {error}")
                break
            if mm and tgid not in found and (wanted is None or tgid in wanted):
                found[tgid] = Task(tgid, comm.split(b"\0")[0].decode("utf-8", "replace"), mm)
                if wanted is not None:
                    wanted.discard(tgid)
        return [found[pid] for pid in sorted(found)]

    def _read_task(self, address: int) -> tuple[int, int, int, int, bytes, int]:
        data = self.memory.read(address + self._task.start, self._task.size)
        following, preceding, pid, tgid, comm, mm = self._task.unpack(data)
        return following, preceding, pid, tgid, comm, mm

    def begin(self, reader: GraphReader, pids: Collection[int] | None) -> None:
        """Give a reader the processes that are asked for (None: all), their VMAs and chains.

        :class:`InputError` if the kernel cannot be read at all.
        """
        reader.graph.tasks = self.tasks(pids, reader.graph.remarks)
        reader.read_vmas(reader.find_vmas())
        reader.read_chains()

    def remembered(self, pids: Collection[int], remarks: list[str] | None = None) -> list[Task]:
        """:meth:`tasks`, asking only for those not seen before: for processes that never exec."""
        self._known = {pid: task for pid, task in self._known.items() if pid in pids}
        missing = [pid for pid in pids if pid not in self._known]
        if missing:
            self._known |= {task.pid: task for task in self.tasks(missing, remarks)}
        return [self._known[pid] for pid in pids if pid in self._known]
