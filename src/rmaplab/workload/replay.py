# SPDX-License-Identifier: GPL-2.0-only
"""Replays a recorded trace on the modelled kernel and adds up what it costs.

Page faults are taken from the trace's samples of anonymous pages, so every
page counts as one event, at the latest moment it can have been written.  What
no call of the trace did is not replayed: huge pages, KSM, swap, migration.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from errno import EFAULT, errorcode
from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.gcpause import paused_gc
from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, VM_GROWSDOWN, VM_NORESERVE, VM_SHARED, prot_flags
from rmaplab.kernel.locking import Lock
from rmaplab.kernel.pagetable import Pte
from rmaplab.notebook import HtmlTable
from rmaplab.series import is_foreign
from rmaplab.workload.trace import TraceReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rmaplab.kernel import Kernel, Process
    from rmaplab.kernel.objects import Mm, Vma

__all__ = ["ADVICES", "Objects", "ReplayResult", "replay"]

MAP_SHARED, MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_NORESERVE = 0x01, 0x20, 0x100, 0x4000
MREMAP_DONTUNMAP = 4
ADVICES = {
    4: "dontneed",
    10: "dontfork",
    11: "dofork",
    12: "mergeable",
    13: "unmergeable",
    14: "hugepage",
    15: "nohugepage",
    16: "dontdump",
    17: "dodump",
    18: "wipeonfork",
    19: "keeponfork",
    102: "guard-install",
    103: "guard-remove",
}
"""The advice that is replayed, by the kernel's numbers (MADV_*)."""

WITHOUT_EFFECT = {  # a trace does not tell what became of these
    "mergeable": "mergeable memory that KSM leaves alone",
    "hugepage": "memory for huge pages that stays in small ones",
}
PROGRESS_EVERY = 1000  # trace events


@dataclass(frozen=True, slots=True)
class Objects:
    """Numbers of live objects and the bytes they take in their slabs."""

    anon_vma: int
    anon_vma_chain: int
    bytes: int


@dataclass(slots=True)
class ReplayResult(HtmlTable):
    """What one series did with the traces.

    ``events`` are calls and page faults.  ``vma_forks`` counts VMAs that fork
    attached to the reverse map, ``reuses`` those that adopted an ancestor's
    anon_vma.  ``wasted_allocations`` were freed without ever being linked.
    ``chain_length`` is a histogram over the VMAs made by fork,
    ``walk_visits`` over one walk for each VMA with anonymous pages when its
    address space ends.  ``unmodelled`` calls were left out, ``approximated``
    ones done in another way, ``refused`` ones failed here though the real
    kernel did them.
    """

    series: str
    events: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    forks: int = 0
    vma_forks: int = 0
    reuses: int = 0
    page_faults: int = 0
    peak: Objects = field(default_factory=lambda: Objects(0, 0, 0))
    final: Objects = field(default_factory=lambda: Objects(0, 0, 0))
    allocations: int = 0
    wasted_allocations: int = 0
    lock_acquisitions: dict[str, int] = field(default_factory=dict)
    allocations_under_lock: int = 0
    tree_operations_under_lock: int = 0
    chain_length: Counter[int] = field(default_factory=Counter)
    walk_visits: Counter[int] = field(default_factory=Counter)
    unmodelled: Counter[str] = field(default_factory=Counter)
    approximated: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


def replay(
    traces: Sequence[Path], series: type[Kernel], *, progress: Callable[[int], None] | None = None
) -> ReplayResult:
    """Replay traces one after the other on one machine; ``progress`` is told the events so far.

    Raises :class:`InputError` for a trace that cannot be read.  Ctrl-C ends
    it early: the result says so.
    """
    machine = _Machine(series)
    began = time.perf_counter()
    with paused_gc():
        try:
            for number, path in enumerate(traces):
                machine.play(path, f"{number}/" if len(traces) > 1 else "", progress)
        except KeyboardInterrupt:
            machine.result.interrupted = True
    machine.result.seconds = time.perf_counter() - began
    return machine.finish()


def _counting(series: type[Kernel], result: ReplayResult) -> Kernel:
    """A kernel of the series that counts its forks."""

    class Counting(series):  # type: ignore[valid-type, misc]
        anon_orders = ()  # samples tell of pages, not of folios

        def anon_vma_fork(self, vma: Vma, pvma: Vma) -> int:
            rc: int = super().anon_vma_fork(vma, pvma)
            if rc == 0 and vma.anon_vma is not None:
                result.vma_forks += 1
                length = len(vma.anon_vma_chain)
                result.chain_length[length] += 1
                result.reuses += series.reuses and length == len(pvma.anon_vma_chain)
            return rc

    kernel: Kernel = Counting()
    return kernel


class _Machine:
    """A kernel, and the tasks of the trace by number."""

    def __init__(self, series: type[Kernel]) -> None:
        self.result = ReplayResult(series.name)
        self.foreign = is_foreign(series)
        self.kernel = _counting(series, self.result)
        self.tasks: dict[int, Process] = {}
        self.prefix = ""
        self.handlers: dict[str, Callable[..., None]] = {
            "exec": self.exec,
            "fork": self.fork,
            "share": self.share,
            "exit": self.exit,
            "mmap": self.mmap,
            "munmap": self.munmap,
            "mprotect": self.mprotect,
            "mremap": self.mremap,
            "brk": self.brk,
            "madvise": self.madvise,
            "other": self.other,
            "anon": self.anon,
        }

    def play(self, path: Path, prefix: str, progress: Callable[[int], None] | None) -> None:
        """Replay one trace; what runs at its end stays."""
        self.tasks, self.prefix = {}, prefix
        with TraceReader(path) as reader:
            if reader.header.page_size != PAGE_SIZE:
                raise InputError(
                    f"{path}: recorded with pages of {reader.header.page_size} bytes; the model's have {PAGE_SIZE}: "
                    "record it on a machine with such pages"
                )
            for count, event in enumerate(reader, 1):
                self.result.events += event[0] != "anon"
                try:
                    self.handlers[event[0]](*event[1:])
                except Exception as crash:
                    if not (self.foreign or isinstance(crash, KernelBug)):
                        raise
                    raise InputError(f"{path}: event {count}: {self.result.series} crashed here: {crash}") from crash
                if progress is not None and count % PROGRESS_EVERY == 0:
                    progress(self.result.events)

    def finish(self) -> ReplayResult:
        """The result with the services' counts."""
        result, slab, locks = self.result, self.kernel.slab, self.kernel.locks
        caches = (slab.anon_vma, slab.anon_vma_chain)
        result.peak = Objects(slab.anon_vma.peak, slab.anon_vma_chain.peak, slab.peak_bytes)
        result.final = Objects(slab.anon_vma.in_use, slab.anon_vma_chain.in_use, slab.bytes)
        result.allocations = sum(cache.allocations for cache in caches)
        result.wasted_allocations = sum(cache.wasted for cache in caches)
        result.lock_acquisitions = {lock.name.lower(): locks.acquisitions[lock] for lock in Lock}
        result.allocations_under_lock = locks.allocations_under_lock
        result.tree_operations_under_lock = locks.tree_operations
        return result

    def check(self, call: str, rc: int) -> None:
        """Note a call that the model refuses."""
        if rc != 0:
            self.result.refused[f"{call} {errorcode[-rc]}"] += 1

    # --- processes ---------------------------------------------------------------------------

    def exec(self, task: int, path: str, areas: list[tuple[int, int, str, int, str]]) -> None:
        """A new address space, with the areas that the kernel and the loader's first steps made."""
        if task in self.tasks:
            self.walk_all(self.tasks[task].mm)
            self.tasks[task].begin_new_exec()
        else:
            self.tasks[task] = self.kernel.spawn(f"{self.prefix}{task}")
        mm = self.tasks[task].mm
        for start, end, access, offset, name in areas:
            flags = prot_flags(access[:3].replace("-", "")) | (VM_SHARED if access[3] == "s" else 0)
            if name == "[heap]":
                mm.start_brk, mm.brk = start, end
            elif name == "[stack]":
                flags |= VM_GROWSDOWN
            anonymous = not name or name in ("[heap]", "[stack]") or name.startswith("[anon")
            file = None if anonymous else name  # [vdso] and its like are special mappings, never anonymous
            rc = self.kernel.do_mmap(mm, start, end, flags, file, offset >> PAGE_SHIFT if file else None)
            self.check("exec", rc)

    def fork(self, parent: int, child: int) -> None:
        self.result.forks += 1
        self.tasks[child] = self.tasks[parent].fork(f"{self.prefix}{child}")

    def share(self, parent: int, child: int, how: str) -> None:
        self.tasks[child] = self.tasks[parent].share(f"{self.prefix}{child}")

    def exit(self, task: int) -> None:
        process = self.tasks.pop(task)
        if process.mm.users == 1:
            self.walk_all(process.mm)
        process.exit()

    def walk_all(self, mm: Mm) -> None:
        """Walk one folio of each VMA that has anonymous pages."""
        for vma in mm.vmas:
            if vma.anon_vma is None:
                continue
            for _, pte in mm.page_table.range(vma.vm_start, vma.vm_end):
                if isinstance(pte, Pte) and pte.folio.mapping is not None:
                    self.result.walk_visits[len(self.kernel.rmap_walk_anon(pte.folio))] += 1
                    break

    # --- address space --------------------------------------------------------------------------

    def mmap(
        self, task: int, address: int, length: int, prot: int, flags: int, offset: int, name: str | None
    ) -> None:
        vm_flags = prot & 7  # PROT_READ/WRITE/EXEC have the values of VM_READ/WRITE/EXEC
        vm_flags |= VM_SHARED if flags & MAP_SHARED else 0
        vm_flags |= VM_GROWSDOWN if flags & MAP_GROWSDOWN else 0
        vm_flags |= VM_NORESERVE if flags & MAP_NORESERVE else 0
        file = None if flags & MAP_ANONYMOUS else name
        pgoff = None if file is None else offset >> PAGE_SHIFT
        end = _page_align(address + length)
        self.check("mmap", self.kernel.do_mmap(self.tasks[task].mm, address, end, vm_flags, file, pgoff))

    def munmap(self, task: int, address: int, length: int) -> None:
        self.check("munmap", self.kernel.do_munmap(self.tasks[task].mm, address, _page_align(address + length)))

    def mprotect(self, task: int, address: int, length: int, prot: int) -> None:
        end = _page_align(address + length)
        if end > address:
            self.check("mprotect", self.kernel.do_mprotect(self.tasks[task].mm, address, end, prot & 7))

    def mremap(self, task: int, old: int, old_length: int, new_length: int, flags: int, result: int) -> None:
        """Where it moved by itself it is told the place that the real kernel chose."""
        moved = result != old
        rc = self.kernel.do_mremap(
            self.tasks[task].mm,
            old,
            _page_align(old_length),
            _page_align(new_length),
            new_addr=result if moved else None,
            dontunmap=bool(flags & MREMAP_DONTUNMAP),
            maymove=moved,
        )
        self.check("mremap", min(rc, 0))

    def brk(self, task: int, old_end: int, new_end: int) -> None:
        mm = self.tasks[task].mm
        if mm.brk == 0:
            mm.start_brk = _page_align(old_end)
        self.check("brk", self.kernel.do_brk(mm, _page_align(old_end), _page_align(new_end)))

    def madvise(self, task: int, address: int, length: int, number: int) -> None:
        advice = ADVICES.get(number)
        if advice is None:
            self.result.unmodelled[f"madvise {number}"] += 1
            return
        if advice in WITHOUT_EFFECT:
            self.result.approximated[WITHOUT_EFFECT[advice]] += 1
        end = _page_align(address + length)
        self.check("madvise", self.kernel.do_madvise(self.tasks[task].mm, address, end, advice))

    def other(self, task: int, name: str) -> None:
        self.result.unmodelled[name] += 1

    def anon(self, task: int, runs: list[tuple[int, int]]) -> None:
        """Write to every page of the runs, whatever the access rights are by now; below a stack it grows first."""
        mm, fault = self.tasks[task].mm, self.kernel.handle_mm_fault
        for start, pages in runs:
            self.result.events += pages
            self.result.page_faults += pages
            for address in range(start, start + pages * PAGE_SIZE, PAGE_SIZE):
                rc = fault(mm, address, True, force=True)
                if rc == -EFAULT:
                    rc = self.kernel.do_user_addr_fault(mm, address, True, force=True)
                if rc != 0:
                    self.check("page fault", rc)


def _page_align(address: int) -> int:
    return (address + PAGE_SIZE - 1) & -PAGE_SIZE
