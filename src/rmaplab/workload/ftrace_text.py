# SPDX-License-Identifier: GPL-2.0-only
"""Reads what ``perf script`` and tracefs write of these events, in the order of their times.

syscalls:sys_enter_* and sys_exit_* of mmap, munmap, mprotect, mremap, brk,
madvise and clone, sched:sched_process_fork, _exec and _exit, and
exceptions:page_fault_user, which says what no list of calls does: which pages
were written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.workload.strace_names import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rmaplab.workload.importing import Step

__all__ = ["EVENTS", "ftrace_steps", "is_ftrace"]

EVENTS = (
    *(
        f"syscalls:sys_{edge}_{call}"
        for call in ("mmap", "munmap", "mprotect", "mremap", "brk", "madvise", "clone")
        for edge in ("enter", "exit")
    ),
    "sched:sched_process_fork",
    "sched:sched_process_exec",
    "sched:sched_process_exit",
    "exceptions:page_fault_user",
)
"""The events to record."""

_PERF = re.compile(
    r"\s*\S.*?\s(?:\d+/)?(?P<tid>\d+)\s+(?:\[\d+\]\s+)?\d+\.\d+:\s+(?:\w+:)?(?P<event>\w+):\s*(?P<rest>.*)"
)
_FTRACE = re.compile(
    r"\s*\S.*?-(?P<tid>\d+)\s+(?:\([^)]*\)\s+)?\[\d+\]\s+\S+\s+\d+\.\d+:\s+(?P<event>\w+)(?P<rest>(?:\(|:| ->).*)"
)
_FIELD = re.compile(r"(\w+)\s*[:=]\s*([^\s,)]+)")
_WRITE = 2  # of a page fault's error code


def is_ftrace(line: str) -> bool:
    """Whether a line looks like one of perf script's or of tracefs's."""
    return _match(line) is not None


def ftrace_steps(lines: Iterable[str]) -> Iterator[Step]:
    """The steps of all tasks; :class:`InputError` names the line that cannot be understood."""
    entered: dict[int, tuple[str, dict[str, str]]] = {}
    flags: dict[int, int] = {}  # of the clone that a task is in
    for number, line in enumerate(lines, 1):
        match = _match(line)
        if match is None:
            continue
        tid, event, rest = int(match["tid"]), match["event"], match["rest"]
        values = dict(_FIELD.findall(rest))
        try:
            if event == "sched_process_fork":
                yield (
                    int(values["pid"]),
                    "fork",
                    (int(values["child_pid"]), _sharing(flags.get(int(values["pid"]), 0))),
                )
            elif event == "sched_process_exec":
                yield int(values["pid"]), "exec", (values["filename"],)
            elif event == "sched_process_exit":
                yield int(values["pid"]), "exit", ()
            elif event == "page_fault_user":
                if int(values["error_code"], 16) & _WRITE:
                    yield tid, "write", (int(values["address"], 16),)
            elif call := re.fullmatch(r"sys_(?:(enter|exit)_)?(\w+)", event):
                edge = call[1] or ("exit" if rest.startswith(" ->") else "enter")
                if edge == "enter":
                    entered[tid] = call[2], values
                    if call[2] in ("clone", "clone3", "vfork", "fork"):
                        flags[tid] = _clone_flags(call[2], values)
                elif tid in entered:
                    name, values = entered.pop(tid)
                    flags.pop(tid, None)
                    yield from _call(tid, name, values, int(rest.replace("->", "").strip(" :"), 16))
        except (KeyError, ValueError) as error:
            raise InputError(f"line {number}: {event}: not as perf or tracefs write it: {error}") from error


def _match(line: str) -> re.Match[str] | None:
    return _PERF.fullmatch(line.rstrip("\n")) or _FTRACE.fullmatch(line.rstrip("\n"))


def _clone_flags(name: str, values: dict[str, str]) -> int:
    """clone3 keeps its flags in memory: what libc makes with it are threads, and children that exec at once."""
    if name == "clone":
        return int(values["clone_flags"], 16)
    vm, vfork, thread = (NUMBERS[flag] for flag in ("CLONE_VM", "CLONE_VFORK", "CLONE_THREAD"))
    return {"clone3": vm | thread, "vfork": vm | vfork}.get(name, 0)


def _sharing(flags: int) -> str:
    if flags & NUMBERS["CLONE_THREAD"]:
        return "thread"
    if not flags & NUMBERS["CLONE_VM"]:
        return "fork"
    return "vfork" if flags & NUMBERS["CLONE_VFORK"] else "vm"


_ARGUMENTS = {
    "munmap": ("addr", "len"),
    "mprotect": ("start", "len", "prot"),
    "madvise": ("start", "len_in", "behavior"),
    "mremap": ("addr", "old_len", "new_len", "flags"),
}


def _call(tid: int, name: str, values: dict[str, str], result: int) -> Iterator[Step]:
    """A call that returned; a result within a page of 2**64 is an error."""
    if result >= (1 << 64) - 4096 or result < 0:
        return
    numbers = {key: int(value, 16) for key, value in values.items() if re.fullmatch(r"(0x)?[0-9a-f]+", value)}
    if name == "brk":
        yield tid, "brk", (result,)
    elif name == "mmap":
        file = f"fd {numbers['fd']}"
        yield tid, "mmap", (result, numbers["len"], numbers["prot"], numbers["flags"], numbers["off"], file)
    elif name in _ARGUMENTS:
        arguments = [numbers[key] for key in _ARGUMENTS[name]]
        if name in ("munmap", "mremap") or arguments[1]:
            yield tid, name, (*arguments, result) if name == "mremap" else tuple(arguments)
