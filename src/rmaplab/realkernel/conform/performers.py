# SPDX-License-Identifier: GPL-2.0-only
"""Who performs programs: the model, which tells what it did, and a guest, which is told to do the same."""

from __future__ import annotations

import copy
from errno import errorcode
from typing import TYPE_CHECKING, NamedTuple, cast

from rmaplab.check.execute import NO_PLAN, Plan, execute
from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PAGE_SHIFT, VM_EXEC
from rmaplab.realkernel.conform.compare import normal
from rmaplab.realkernel.conform.lowering import (
    ADVICE,
    ARENA,
    ARENA_END,
    HEAP_AT,
    HINT,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    lower,
)
from rmaplab.realkernel.prefetch import Prefetch
from rmaplab.realkernel.reader import GraphReader
from rmaplab.scenario import Fork, Mmap, Mremap
from rmaplab.series.mremap_rules import DontunmapAlone, DontunmapApart

if TYPE_CHECKING:
    from rmaplab.check.monitor import Monitor
    from rmaplab.kernel import Process
    from rmaplab.realkernel.guest.wire import Guest
    from rmaplab.realkernel.prefetch import PlacesMemory
    from rmaplab.scenario import Call
    from rmaplab.snapshot import Snapshot, VmaView

__all__ = ["MOST_SLOTS", "GuestSide", "ModelSide", "Step"]

MOST_SLOTS = 64
_NOT_POPULATED = ("EINVAL", "ENOMEM")  # of pages that may not be accessed so, or are not mapped


class Step(NamedTuple):
    """What a call came to on the model, and what the guest is told for it.

    ``failed``: how many attempts to allocate failed; ``asserted``: whether a
    debug assertion of the kernel fired.
    """

    errno: str | None
    commands: list[str]
    failed: int = 0
    asserted: bool = False


class ModelSide:
    """The specification, with heaps and areas where a guest's processes have room for them."""

    def __init__(self, series: type[Kernel], *, heap_is_executable: bool = False) -> None:
        self.kernel = series()
        if heap_is_executable:
            self.kernel.data_default_flags |= VM_EXEC
        first = self.kernel.spawn("P0")
        first.mm.start_brk = first.mm.brk = HEAP_AT
        first.mmap_hint = HINT
        self.slots = {"P0": 0}
        self.files: dict[str, int] = {}

    def perform(self, call: Call, plan: Plan = NO_PLAN) -> Step | None:
        """Make a call; None if its process does not live, or the name of a child is taken."""
        process = self.kernel.processes.get(call.process)
        if process is None:
            return None
        if isinstance(call, Fork):
            if call.child in self.kernel.processes:
                return None
            taken = set(self.slots.values())
            self.slots[call.child] = next(slot for slot in range(MOST_SLOTS) if slot not in taken)
        before, place = process.areas, self.place(process, call)
        file = 0
        if isinstance(call, Mmap) and call.file is not None:
            file = self.files.setdefault(call.file, len(self.files))
        errno, _, reports = execute(cast("Monitor", self.kernel), call, plan, check=False)
        asserted = any(report.id == "AV-039" for report in reports)
        failed = self.kernel.slab.failed
        commands = lower(
            call, self.slots, before, process.areas, place=place, file=file, errno=errno, failing=failed > 0
        )
        self.slots = {name: slot for name, slot in self.slots.items() if name in self.kernel.processes}
        return Step(errno, commands, failed, asserted)

    def place(self, process: Process, call: Call) -> int:
        """Where a call would put an area that it does not place, in bytes."""
        if not isinstance(call, Mmap | Mremap):
            return 0
        pages = call.pages or (call.range.count if isinstance(call, Mremap) else 0)
        hint = process.mmap_hint
        free = process.free_address(pages)
        process.mmap_hint = hint
        return free

    def snapshot(self) -> Snapshot:
        """The state, made normal."""
        return normal(self.kernel.snapshot())


class GuestSide:
    """A guest's processes by the model's names."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.remarks: list[str] = []
        self.target = self.reading = guest.target()
        self.reader = GraphReader(self.reading)
        self.last: tuple[list[tuple[int, str]], Snapshot] | None = None

    def start(self) -> None:
        """End the last family and begin another."""
        for answer in self.guest.batch(["reset", "spawn 0", f"0 heap {HEAP_AT:#x}"]):
            if not answer.ok:
                raise OSError(answer.value, f"the guest cannot begin: {errorcode.get(answer.value, answer.value)}")

    def observed(self, series: type[Kernel]) -> type[Kernel]:
        """A series with what this kernel's stable release took over from later ones, as far as trials show it.

        That is VM_MAYBE_GUARD, a flag of VMAs with guards (v6.19; 6.18.44 has
        it), and that what MREMAP_DONTUNMAP leaves takes the offset of its
        address (v7.2; 6.1.192 has it, and does not merge beside it).
        """
        taken: dict[str, object] = {}
        bases: tuple[type[Kernel], ...] = (series,)
        flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS
        (vma,) = self._tried(
            f"mmap {ARENA:#x} 0x1000 3 {flags}", f"madvise {ARENA:#x} 0x1000 {ADVICE['guard-install']}"
        )
        if "gu" in vma.flags.split() and series.prepare_guards is not Kernel.prepare_guards:
            taken["prepare_guards"] = Kernel.prepare_guards
        there, back = ARENA + 0x10000, ARENA + 0x20000
        vmas = self._tried(
            f"mmap {ARENA:#x} 0x1000 3 {flags}",
            f"write {ARENA:#x}",
            f"mremap {ARENA:#x} 0x1000 0x1000 3 {there:#x}",
            f"mremap {there:#x} 0x1000 0x1000 7 {back:#x}",
        )
        if vmas[0].start == there and vmas[0].pgoff == there >> PAGE_SHIFT and not issubclass(series, DontunmapApart):
            beside = self._tried(
                f"mmap {ARENA:#x} 0x3000 3 {flags}", f"mremap {ARENA:#x} 0x1000 0x1000 7 {ARENA + 0x1000:#x}"
            )
            bases = (DontunmapAlone if len(beside) == 3 else DontunmapApart, series)
        return type(series.__name__, bases, taken) if taken or len(bases) > 1 else series

    def _tried(self, *commands: str) -> tuple[VmaView, ...]:
        """The VMAs of a new process after some commands."""
        self.start()
        self.guest.batch([f"0 {command}" for command in commands])
        return self.snapshot({"P0": 0}, ["P0"]).processes[0].vmas

    def perform(self, step: Step) -> str | None:
        """Carry out commands up to the first that fails, if one does on the model; the name of its errno."""
        parts = [step.commands] if step.errno is None else [[command] for command in step.commands]
        for commands in parts:
            for answer in self.guest.batch(commands):
                if not answer.ok:
                    return errorcode.get(answer.value, str(answer.value))
        return None

    def perform_failing(self, slot: int, step: Step, plan: Plan) -> tuple[str | None, int]:
        """Carry out one command while an allocation, and its retry if the model's failed too, fails.

        The name of its errno, and how many failures the kernel had no use for.
        """
        (command,) = step.commands
        self.guest.arm(slot, plan.n, both=step.failed > 1, kind=plan.kind)
        answer = self.guest.command(command)
        left = self.guest.disarm() + (answer.left or 0)
        errno = None if answer.ok else errorcode.get(answer.value, str(answer.value))
        if step.errno == "EFAULT" and errno in _NOT_POPULATED:
            errno = "EFAULT"
        return errno, left

    def snapshot(self, slots: dict[str, int], order: list[str]) -> Snapshot:
        """The state of the processes, in the model's order, made normal; ``remarks`` is what could not be read."""
        pids = {self.guest.pids[slots[name]]: name for name in order}
        target = self.guest.target()
        if self.target is not target or self.reading is target:
            self.target, self.reading = target, copy.copy(target)
            self.reading.memory = Prefetch(cast("PlacesMemory", target.memory))
            self.reader = GraphReader(self.reading, ARENA, ARENA_END)
            self.last = None
        memory, who = cast("Prefetch", self.reading.memory), list(pids.items())
        if memory.again() and self.last is not None and self.last[0] == who:
            return self.last[1]
        remarks: list[str] = []
        graph = self.reader.anew().read(target.remembered(list(pids), remarks))
        self.remarks = remarks + graph.remarks
        self.last = who, normal(graph.snapshot(pids))
        return self.last[1]
