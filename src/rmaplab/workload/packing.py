# SPDX-License-Identifier: GPL-2.0-only
"""Packs the events of a trace into rows for the engine (:mod:`rmaplab.engine.replay`).

What an event means is what :mod:`rmaplab.workload.machine` does with it.
"""

from __future__ import annotations

from errno import EINVAL
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from rmaplab.engine.calls import BRK, EXEC, EXIT, FORK, MADVISE, MMAP, MPROTECT, MREMAP, MUNMAP, SHARE, SPAWN
from rmaplab.engine.mmap import (
    DONTNEED,
    GUARD_INSTALL,
    GUARD_REMOVE,
    PRIVATE_ANONYMOUS_FLAGS,
    PRIVATE_FLAGS,
    SET_FLAGS,
)
from rmaplab.engine.replay import ANON, AREA, BEGINS, ENDS, MARK, NAMED, NOTHING, REFUSED, WIDTH
from rmaplab.kernel.flags import (
    PAGE_SHIFT,
    PAGE_SIZE,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_SHARED,
    VM_WIPEONFORK,
    prot_flags,
)
from rmaplab.workload.machine import (
    ADVICES,
    MAP_ANONYMOUS,
    MAP_GROWSDOWN,
    MAP_NORESERVE,
    MAP_SHARED,
    MREMAP_DONTUNMAP,
    WITHOUT_EFFECT,
)
from rmaplab.workload.trace_events import MARK as MARK_CALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rmaplab.kernel import Kernel
    from rmaplab.workload.trace import Event

__all__ = ["Packer"]

BLOCK = 4096  # events
ONE = BEGINS | ENDS
ONE_RUN = ANON | ENDS
_KINDS = {  # advice: what kind it is, flags set, flags cleared
    "dontneed": (DONTNEED, 0, 0),
    "guard-install": (GUARD_INSTALL, 0, 0),
    "guard-remove": (GUARD_REMOVE, 0, 0),
    "dontfork": (SET_FLAGS, VM_DONTCOPY, 0),
    "dofork": (SET_FLAGS, 0, VM_DONTCOPY),
    "wipeonfork": (PRIVATE_ANONYMOUS_FLAGS, VM_WIPEONFORK, 0),
    "keeponfork": (SET_FLAGS, 0, VM_WIPEONFORK),
    "dontdump": (SET_FLAGS, VM_DONTDUMP, 0),
    "dodump": (SET_FLAGS, 0, VM_DONTDUMP),
    "hugepage": (SET_FLAGS, VM_HUGEPAGE, VM_NOHUGEPAGE),
    "nohugepage": (SET_FLAGS, VM_NOHUGEPAGE, VM_HUGEPAGE),
    "mergeable": (PRIVATE_FLAGS, VM_MERGEABLE, 0),
    "unmergeable": (PRIVATE_FLAGS, 0, VM_MERGEABLE),
}


class Packer:
    """Packs events for a series; ``file`` gives files their numbers.

    ``names`` are what is only counted, by number: ``unmodelled`` or
    ``approximated``, and its name.  ``tasks`` is the number of tasks so far.
    """

    def __init__(self, series: type[Kernel], file: Callable[[str | None], int]) -> None:
        self.unknown_advice = series.unknown_advice
        self.file = file
        self.names: dict[tuple[str, str], int] = {}
        self.tasks = 0
        self.rows: list[int] = []
        self.rights: dict[str, int] = {}

    def blocks(self, events: Iterable[Event]) -> Iterator[Any]:
        """The rows of some thousand events at a time (int64, n x 7); an error comes behind those before it."""
        rest = iter(events)
        self.tasks = 0
        failure: Exception | None = None
        while failure is None:
            rows = self.rows = []
            try:
                for event in islice(rest, BLOCK):
                    if event[0] == "anon" and len(event[2]) == 1:  # most are
                        rows += (ONE_RUN, event[1], *event[2][0], 0, 0, 0)
                    else:
                        _HANDLERS[event[0]](self, event)
            except Exception as error:  # told when what was before it is played
                failure = error
            if self.rows:
                yield np.array(self.rows, np.int64).reshape(-1, WIDTH)
            elif failure is None:
                return
        raise failure

    def _name(self, counter: str, name: str) -> int:
        return self.names.setdefault((counter, name), len(self.names))

    # --- processes ---------------------------------------------------------------------------

    def _exec(self, event: Event) -> None:
        _, task, _, areas = event
        begin = EXEC
        if not self.tasks:
            begin, self.tasks = SPAWN, 1
        heap = (0, 0, 0)
        for start, end, _, _, name in areas:
            if name == "[heap]":
                heap = (1, start, end)
        rows = self.rows
        rows += (begin | BEGINS, task, *heap, 0, 0)
        for start, end, access, offset, name in areas:
            flags = self.rights.get(access)
            if flags is None:
                flags = prot_flags(access[:3].replace("-", "")) | (VM_SHARED if access[3] == "s" else 0)
                self.rights[access] = flags
            if name == "[stack]":
                flags |= VM_GROWSDOWN
            if not name or name in ("[heap]", "[stack]") or name.startswith("[anon"):
                rows += (AREA, task, start, end, flags, 0, -1)
            else:
                rows += (AREA, task, start, end, flags, self.file(name), offset >> PAGE_SHIFT)
        rows[-WIDTH] |= ENDS

    def _fork(self, event: Event) -> None:
        _, task, child = event
        self.tasks = child + 1
        self.rows += (FORK | ONE, task, child, 0, 0, 0, 0)

    def _share(self, event: Event) -> None:
        _, task, child, _ = event
        self.tasks = child + 1
        self.rows += (SHARE | ONE, task, child, 0, 0, 0, 0)

    def _exit(self, event: Event) -> None:
        self.rows += (EXIT | ONE, event[1], 0, 0, 0, 0, 0)

    # --- address space --------------------------------------------------------------------------

    def _mmap(self, event: Event) -> None:
        _, task, address, length, prot, flags, offset, name = event
        vm_flags = prot & 7
        if flags & (MAP_SHARED | MAP_GROWSDOWN | MAP_NORESERVE):
            vm_flags |= VM_SHARED if flags & MAP_SHARED else 0
            vm_flags |= VM_GROWSDOWN if flags & MAP_GROWSDOWN else 0
            vm_flags |= VM_NORESERVE if flags & MAP_NORESERVE else 0
        if name is None or flags & MAP_ANONYMOUS:
            self.rows += (MMAP | ONE, task, address, address + length, vm_flags, 0, -1)
        else:
            file = self.file(name)
            self.rows += (MMAP | ONE, task, address, address + length, vm_flags, file, offset >> PAGE_SHIFT)

    def _munmap(self, event: Event) -> None:
        _, task, address, length = event
        self.rows += (MUNMAP | ONE, task, address, address + length, 0, 0, 0)

    def _mprotect(self, event: Event) -> None:
        _, task, address, length, prot = event
        self.rows += (MPROTECT | ONE if length else NOTHING | ONE, task, address, address + length, prot & 7, 0, 0)

    def _mremap(self, event: Event) -> None:
        _, task, old, old_length, new_length, flags, result = event
        how = bool(flags & MREMAP_DONTUNMAP) | (0 if result == old else 2)
        place = -1 if result == old else result
        self.rows += (MREMAP | ONE, task, old, old_length, new_length, place, how)

    def _brk(self, event: Event) -> None:
        _, task, old, new = event
        self.rows += (BRK | ONE, task, _page_align(old), _page_align(new), 1, 0, 0)

    def _madvise(self, event: Event) -> None:
        _, task, address, length, number = event
        advice = ADVICES.get(number)
        if advice is None:
            self.rows += (NAMED | ONE, task, self._name("unmodelled", f"madvise {number}"), 0, 0, 0, 0)
            return
        begins = BEGINS
        if advice in WITHOUT_EFFECT:
            name = self._name("approximated", WITHOUT_EFFECT[advice])
            self.rows += (NAMED | BEGINS, task, name, 0, 0, 0, 0)
            begins = 0
        if advice in self.unknown_advice:
            self.rows += (REFUSED | begins | ENDS, task, MADVISE, EINVAL, 0, 0, 0)
            return
        self.rows += (MADVISE | begins | ENDS, task, address, address + length, *_KINDS[advice])

    def _other(self, event: Event) -> None:
        _, task, name = event
        if name == MARK_CALL:
            self.rows += (MARK | ONE, task, 0, 0, 0, 0, 0)
        else:
            self.rows += (NAMED | ONE, task, self._name("unmodelled", name), 0, 0, 0, 0)

    def _anon(self, event: Event) -> None:
        _, task, runs = event
        for start, pages in runs:
            self.rows += (ANON, task, start, pages, 0, 0, 0)
        self.rows[-WIDTH] |= ENDS


_HANDLERS: dict[str, Callable[[Packer, Event], None]] = {
    "exec": Packer._exec,
    "fork": Packer._fork,
    "share": Packer._share,
    "exit": Packer._exit,
    "mmap": Packer._mmap,
    "munmap": Packer._munmap,
    "mprotect": Packer._mprotect,
    "mremap": Packer._mremap,
    "brk": Packer._brk,
    "madvise": Packer._madvise,
    "other": Packer._other,
    "anon": Packer._anon,
}


def _page_align(address: int) -> int:
    return (address + PAGE_SIZE - 1) & -PAGE_SIZE
