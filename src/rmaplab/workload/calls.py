# SPDX-License-Identifier: GPL-2.0-only
"""From a system call's arguments and result to the event of a trace.

Lengths are rounded up to whole pages, as the kernel does, and the tag bits
that some processors keep above an address are taken off.
"""

import os

from rmaplab.workload.pagemap import Run
from rmaplab.workload.tasks import Task
from rmaplab.workload.tracee import Stop, read_word

__all__ = ["call_event", "heap_start", "new_range", "old_range", "sharing_of"]

_PAGE = os.sysconf("SC_PAGESIZE")
_ADDRESS_MASK = (1 << 56) - 1
_WORD_MASK = (1 << 64) - 1

_CLONE_VM, _CLONE_VFORK, _CLONE_THREAD = 0x100, 0x4000, 0x10000
_MAP_FIXED, _MAP_ANONYMOUS = 0x10, 0x20
_PR_SET_VMA = 0x53564D41

Fields = list[object]


def sharing_of(pid: int, stop: Stop, name: str) -> str:
    """Return how the task that a call would make shares; empty when the call makes none."""
    if name in ("fork", "vfork"):
        return name
    if name == "clone":
        flags = stop.arguments[0]
    elif name == "clone3":
        try:
            flags = read_word(pid, stop.arguments[0])  # struct clone_args begins with the flags
        except OSError:
            flags = 0  # and the call fails
    else:
        return ""
    if flags & _CLONE_THREAD:
        return "thread"
    if not flags & _CLONE_VM:
        return "fork"
    return "vfork" if flags & _CLONE_VFORK else "vm"


def old_range(name: str, arguments: tuple[int, ...]) -> Run | None:
    """Return the range whose old content a call may move or drop; None when it has none."""
    if name == "mmap" and not arguments[3] & _MAP_FIXED:
        return None
    if name not in ("mmap", "munmap", "mremap", "mprotect", "pkey_mprotect", "madvise"):
        return None
    start = _address(arguments[0])
    end = min(start + _length(arguments[1]), _ADDRESS_MASK + 1)
    return (start, end) if start % _PAGE == 0 and start < end else None


def new_range(name: str, arguments: tuple[int, ...], result: int) -> Run | None:
    """Return the range that a call mapped; None when it mapped none."""
    if name not in ("mmap", "mremap"):
        return None
    length = _length(arguments[1 if name == "mmap" else 2])
    return (result, result + length) if length else None


def call_event(task: Task, name: str, arguments: tuple[int, ...], result: int) -> Fields | None:
    """Return the event of a call that succeeded, without its task; None when it changed no area.

    For brk, ``task.space.brk`` must hold the old end; it is moved on.
    """
    if name == "brk":
        return _brk(task, result)
    address, length = _address(arguments[0]), _length(arguments[1])
    if name == "mmap":
        prot, flags, fd, offset = arguments[2:6]
        path = None if flags & _MAP_ANONYMOUS else _path(task.pid, fd)
        return ["mmap", result, length, prot, flags & 0xFFFFFFFF, offset, path]
    if name == "munmap":
        return ["munmap", address, length]
    if name in ("mprotect", "pkey_mprotect"):
        return ["mprotect", address, length, arguments[2]]
    if name == "mremap":
        return ["mremap", address, length, _length(arguments[2]), arguments[3], result]
    if name == "madvise":
        return ["madvise", address, length, arguments[2] & 0xFFFFFFFF]
    if name == "prctl" and arguments[0] != _PR_SET_VMA:
        return None
    return ["other", name]


def heap_start(pid: int) -> int | None:
    """Return where the heap begins, in bytes: start_brk of /proc/PID/stat; None when it is closed to us."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[44]) or None
    except (OSError, IndexError):
        return None


def _brk(task: Task, result: int) -> Fields | None:
    old, task.space.brk = task.space.brk, result
    return None if old is None or old == result else ["brk", old, result]


def _path(pid: int, fd: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd & 0xFFFFFFFF}")
    except OSError:
        return None


def _address(word: int) -> int:
    return word & _ADDRESS_MASK


def _length(word: int) -> int:
    return (word + _PAGE - 1) & ~(_PAGE - 1) & _WORD_MASK
