# SPDX-License-Identifier: GPL-2.0-only
"""Which series the running kernel follows: by its release, and by what anybody can see it do."""

from __future__ import annotations

import mmap
import os
import platform
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from rmaplab.kernel import Kernel
from rmaplab.realkernel.guests import series_of_release
from rmaplab.realkernel.slabinfo import objects, source
from rmaplab.series import find

__all__ = ["HostSeries", "anon_vmas_of_the_history", "guards_are_flagged", "host_series"]

_VMAS = 4000  # processors keep some hundred objects for themselves
_NEAR = 0.3
_TRIES = 4  # others make objects, too
# Who forks whom, and who exits: the smallest history at whose end the order of cloning is seen in numbers.
_HISTORY = (*((parent, parent + 1) for parent in range(5)), (1, None), (3, None), (5, 6), (2, 7))
_SLOTS = 8
_ORDERS = {7: "as before patch 8", 6: "as since patch 8"}
_GUARD_INSTALL, _DONTDUMP = 102, 16


class HostSeries(NamedTuple):
    """The series, the evidence line by line, and whether the evidence agrees with the release."""

    name: str
    evidence: tuple[str, ...]
    agrees: bool


def guards_are_flagged() -> bool:
    """Whether a VMA with guards has VM_MAYBE_GUARD: since v6.19, and where a stable release took it over."""
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE) as memory:
        try:
            memory.madvise(_GUARD_INSTALL)
        except OSError:
            return False
        return b" gu " in Path("/proc/self/smaps").read_bytes()


def anon_vmas_of_the_history() -> float | None:
    """How many anon_vmas a faulted VMA has after nine forks and exits, by the slab counters; None if nobody tells.

    Seven if a fork clones the newest anon_vma last and so finds the oldest
    that can be used again first, six the other way (patch 8, v7.0).
    """
    if source() is None or sys.platform != "linux":
        return None
    count = 0.0
    for _ in range(_TRIES):
        few, many = _after_history(0), _after_history(_VMAS)
        if few is None or many is None:
            return None
        count = (many - few) / _VMAS
        if abs(count - round(count)) <= _NEAR and round(count) in _ORDERS:
            break
    return count


def anon_vmas_of_the_model(series: type[Kernel]) -> int:
    """The same on a model."""
    kernel = series()
    members = {0: kernel.spawn("P0")}
    members[0].write(members[0].mmap(1))
    for slot, child in _HISTORY:
        if child is None:
            members[slot].exit()
        else:
            members[child] = members[slot].fork(f"P{child}")
    return len(kernel.slab.anon_vma.live)


def host_series() -> HostSeries:
    """By the release, and what else can be seen."""
    release = platform.release()
    series = find(series_of_release(release))
    evidence, agrees = [f"release {release}: {series.summary}"], True
    if guards_are_flagged() and series.prepare_guards is not Kernel.prepare_guards:
        evidence.append("guards: VMAs are flagged (v6.19), which a stable release took over")
    count, where = anon_vmas_of_the_history(), source()
    if count is None:
        evidence.append("order of cloning: not seen, no slab counter can be read (root can)")
    elif abs(count - round(count)) > _NEAR or round(count) not in _ORDERS:
        evidence.append(f"order of cloning: {where} cannot tell: {count:.2f} anon_vmas a VMA")
    else:
        agrees = round(count) == anon_vmas_of_the_model(series)
        evidence.append(
            f"order of cloning: {_ORDERS[round(count)]}; {count:.2f} anon_vmas a VMA "
            f"after F0 F1 F2 F3 F4 X1 X3 F5 F2 ({where})"
        )
    return HostSeries(series.name, tuple(evidence), agrees)


# --- a family of processes -----------------------------------------------------------------------------


def _after_history(vmas: int) -> int | None:
    """Objects more than before, at the end of the history of a process with so many faulted VMAs."""
    before = objects("anon_vma")
    orders = [os.pipe() for _ in range(_SLOTS)]
    done_read, done = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(done_read)
        for _, end in orders:
            os.close(end)  # so that all end when the parent closes its own
        _member(0, [read for read, _ in orders], done, vmas)
    try:
        pids = {0: int.from_bytes(os.read(done_read, 8), "little")}
        for slot, child in _HISTORY:
            os.write(orders[slot][1], bytes([255 if child is None else child]))
            pid = int.from_bytes(os.read(done_read, 8), "little")
            if child is None:
                _gone(pids.pop(slot))
            else:
                pids[child] = pid
        after = objects("anon_vma")
    finally:
        for ends in (*orders, (done_read, done)):
            for fd in ends:
                os.close(fd)  # which ends those who wait
        os.waitpid(first, 0)
    return None if before is None or after is None else after - before


def _gone(pid: int) -> None:
    """Wait until a process that is not ours to wait for has no address space any more."""
    path = Path(f"/proc/{pid}/statm")
    while True:
        try:
            if path.read_text(encoding="ascii").startswith("0 "):
                return
        except OSError:
            return


def _member(slot: int, orders: list[int], done: int, vmas: int) -> None:
    """A process of the family: does what it is told, and never returns."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if vmas:
            memory = mmap.mmap(-1, vmas * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE)
            for page in range(0, vmas, 2):  # neighbours that differ in a flag stay apart
                memory.madvise(_DONTDUMP, page * mmap.PAGESIZE, mmap.PAGESIZE)
            for page in range(vmas):
                memory[page * mmap.PAGESIZE] = 1
        os.write(done, os.getpid().to_bytes(8, "little"))
        while True:
            order = os.read(orders[slot], 1)
            if not order:
                break
            if order[0] == 255:
                os.write(done, os.getpid().to_bytes(8, "little"))
                break
            if os.fork() == 0:
                slot = order[0]
                os.write(done, os.getpid().to_bytes(8, "little"))
    finally:
        os._exit(0)
