# SPDX-License-Identifier: GPL-2.0-only
"""The modelled kernel that a trace drives: an event is a call of the process that made it.

Page faults are taken from the trace's samples of anonymous pages, so every
page counts as one event, at the latest moment it can have been written.  What
no call of the trace did is not replayed: huge pages, KSM, swap, migration.
"""

from __future__ import annotations

from errno import EFAULT, errorcode
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, VM_GROWSDOWN, VM_NORESERVE, VM_SHARED, prot_flags
from rmaplab.workload.metering import objects
from rmaplab.workload.trace_events import MARK

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmaplab.kernel import Kernel, Process
    from rmaplab.workload.reclaim import Reclaim
    from rmaplab.workload.result import ReplayResult
    from rmaplab.workload.trace import Event

__all__ = ["ADVICES", "Machine"]

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


class Machine:
    """A kernel, the tasks of a trace by number, and the ``prefix`` of their names."""

    def __init__(self, kernel: Kernel, result: ReplayResult, reclaim: Reclaim) -> None:
        self.kernel = kernel
        self.result = result
        self.reclaim = reclaim
        self.tasks: dict[int, Process] = {}
        self.prefix = ""
        self.handlers: dict[str, Callable[..., None]] = {
            "exec": self._exec,
            "fork": self._fork,
            "share": self._share,
            "exit": self._exit,
            "mmap": self._mmap,
            "munmap": self._munmap,
            "mprotect": self._mprotect,
            "mremap": self._mremap,
            "brk": self._brk,
            "madvise": self._madvise,
            "other": self._other,
            "anon": self._anon,
        }

    def play(self, event: Event) -> None:
        """One event of the trace."""
        self.result.events += event[0] != "anon"
        self.handlers[event[0]](*event[1:])

    def check(self, call: str, rc: int) -> None:
        """Note a call that the model refuses."""
        if rc != 0:
            self.result.refused[f"{call} {errorcode[-rc]}"] += 1

    # --- processes ---------------------------------------------------------------------------

    def _exec(self, task: int, path: str, areas: list[tuple[int, int, str, int, str]]) -> None:
        """A new address space, with the areas that the kernel and the loader's first steps made."""
        if task in self.tasks:
            self.reclaim.ends(self.tasks[task])
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

    def _fork(self, parent: int, child: int) -> None:
        self.result.forks += 1
        self.tasks[child] = self.tasks[parent].fork(f"{self.prefix}{child}")

    def _share(self, parent: int, child: int, how: str) -> None:
        self.tasks[child] = self.tasks[parent].share(f"{self.prefix}{child}")

    def _exit(self, task: int) -> None:
        process = self.tasks.pop(task)
        if process.mm.users == 1:
            self.reclaim.ends(process)
        process.exit()

    # --- address space --------------------------------------------------------------------------

    def _mmap(
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

    def _munmap(self, task: int, address: int, length: int) -> None:
        self.check("munmap", self.kernel.do_munmap(self.tasks[task].mm, address, _page_align(address + length)))

    def _mprotect(self, task: int, address: int, length: int, prot: int) -> None:
        end = _page_align(address + length)
        if end > address:
            self.check("mprotect", self.kernel.do_mprotect(self.tasks[task].mm, address, end, prot & 7))

    def _mremap(self, task: int, old: int, old_length: int, new_length: int, flags: int, result: int) -> None:
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

    def _brk(self, task: int, old_end: int, new_end: int) -> None:
        mm = self.tasks[task].mm
        if mm.brk == 0:
            mm.start_brk = _page_align(old_end)
        self.check("brk", self.kernel.do_brk(mm, _page_align(old_end), _page_align(new_end)))

    def _madvise(self, task: int, address: int, length: int, number: int) -> None:
        advice = ADVICES.get(number)
        if advice is None:
            self.result.unmodelled[f"madvise {number}"] += 1
            return
        if advice in WITHOUT_EFFECT:
            self.result.approximated[WITHOUT_EFFECT[advice]] += 1
        end = _page_align(address + length)
        self.check("madvise", self.kernel.do_madvise(self.tasks[task].mm, address, end, advice))

    def _other(self, task: int, name: str) -> None:
        if name == MARK:
            self.result.marks.append(objects(self.kernel))
            return
        self.result.unmodelled[name] += 1

    def _anon(self, task: int, runs: list[tuple[int, int]]) -> None:
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
