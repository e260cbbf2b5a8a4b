# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel as a performer: puppets make the calls, /proc shows what came of them."""

from __future__ import annotations

import os
import platform
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from errno import EFAULT, EINVAL
from pathlib import Path
from typing import TYPE_CHECKING, Self

import puppet
from calls import HEAP, PAGES, WINDOW, Call
from programs import MAX_PROCESSES
from views import Area, View

from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE
from rmaplab.realkernel.guests import series_of_release
from rmaplab.realkernel.hostseries import guards_are_flagged
from rmaplab.series import find

if TYPE_CHECKING:
    from types import TracebackType

    from machine import Ksmd

__all__ = ["PuppetDiedError", "RunningKernel", "release", "series_here", "unusable"]

_ATTEMPTS = 25
PATIENCE = 20_000  # milliseconds to wait for a puppet

_RECORD = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) [^\n]*\n"
    rb"(?:[A-Z][^\n]*\n)*?Anonymous: +(\d+) kB\n"
    rb"(?:[A-Z][^\n]*\n)*?VmFlags:([^\n]*)\n",
    re.MULTILINE,
)
_CODES = set(b"rd wr ex sh gd gu lo dc ac nr wf dd hg nh mg".split())  # those that the model knows
_PRESENT, _SWAPPED, _FILE, _GUARD, _EXCLUSIVE = 1 << 63, 1 << 62, 1 << 61, 1 << 58, 1 << 56
_VERBS = {
    **{"mmap": puppet.MMAP, "munmap": puppet.MUNMAP, "mprotect": puppet.MPROTECT, "brk": puppet.BRK},
    **{"mlock": puppet.MLOCK, "pin": puppet.PIN, "munlock": puppet.MUNLOCK},
}
_PFN = (1 << 55) - 1  # 0 for who may not know


def release() -> tuple[int, int]:
    """The running kernel's release: (6, 18)."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def series_here() -> type[Kernel]:
    """The series of the running kernel, with what its stable release took over from later ones."""
    series = find(series_of_release(platform.release()))
    if release() >= (6, 19) or not guards_are_flagged():
        return series
    return type(series.__name__, (series,), {"prepare_guards": Kernel.prepare_guards})


def unusable() -> str | None:
    """Why this machine cannot be compared with the model, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the model is of Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    if release() < (6, 12):
        return f"kernel {platform.release()} is older than 6.12, the oldest series modelled"
    if os.sysconf("SC_PAGE_SIZE") != PAGE_SIZE:
        return f"pages of {os.sysconf('SC_PAGE_SIZE')} bytes"
    try:
        if b"VmFlags:" not in Path("/proc/self/smaps").read_bytes():
            return "/proc/self/smaps has no VmFlags"
        with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
            pagemap.read(8)
        os.close(os.pidfd_open(os.getpid()))
        if int(Path("/proc/sys/vm/mmap_min_addr").read_text()) > WINDOW - PAGE_SIZE:
            return f"vm.mmap_min_addr forbids mappings at {WINDOW:#x}"
    except OSError as error:
        return f"{error.filename or 'pidfd_open'}: {error.strerror}"
    return None


@dataclass(slots=True)
class _Task:
    """A living puppet: its slot, and descriptors of its process and its files in /proc."""

    slot: int
    pid: int
    pidfd: int
    smaps: int
    pagemap: int

    @classmethod
    def of(cls, slot: int, pid: int) -> Self:
        """Open what is needed of a process that waits for requests."""
        smaps, pagemap = (os.open(f"/proc/{pid}/{name}", os.O_RDONLY) for name in ("smaps", "pagemap"))
        return cls(slot, pid, os.pidfd_open(pid), smaps, pagemap)

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.pidfd, self.smaps, self.pagemap):
            os.close(fd)


class PuppetDiedError(OSError):
    """A puppet ended without an answer: killed by a signal, most likely by SIGSEGV."""


class RunningKernel:
    """Families of puppets, one after the other; each starts with one process ``P0`` and an empty window.

    The first puppet never maps anything.  It forks the first process of each
    family, and reaps.  Slot 0 is its own channel.  ``processes`` may live at
    a time, on one ``cpu`` if it is given.
    """

    def __init__(self, processes: int = MAX_PROCESSES, cpu: int | None = None) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(processes + 1)]
        self.channels = [ours for ours, _ in pairs]
        theirs = [their.fileno() for _, their in pairs]
        command = [sys.executable, "-I", "-S", str(Path(puppet.__file__)), *map(str, theirs)]
        self.master = subprocess.Popen(command, pass_fds=theirs)
        if cpu is not None:
            os.sched_setaffinity(self.master.pid, {cpu})
        for _, their in pairs:
            their.close()
        self.tasks: dict[str, _Task] = {}
        self.ksmd: Ksmd | None = None
        self.master_pidfd = os.pidfd_open(self.master.pid)
        heap = WINDOW + (HEAP << PAGE_SHIFT)
        self.has_heap = self._ask(0, self.master_pidfd, puppet.HEAP, start=heap)[0] == 0
        """Whether the heap could be put into the window: CONFIG_CHECKPOINT_RESTORE."""
        nowhere = puppet.MOVE, PAGE_SIZE, WINDOW, WINDOW, WINDOW | PAGES
        self.has_uffdio_move = self._ask(0, self.master_pidfd, *nowhere)[0] == EINVAL
        """Whether UFFDIO_MOVE exists, and is allowed: v6.8, CONFIG_USERFAULTFD."""
        unmapped = self._ask(0, self.master_pidfd, puppet.PIN, start=WINDOW, length=PAGE_SIZE)
        self.has_pins = unmapped[0] == EFAULT
        """Whether io_uring may be used, which pins its buffers."""

    def __enter__(self) -> Self:
        """Nothing more to prepare."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every puppet."""
        self._dismiss()
        for channel in self.channels:
            channel.close()
        os.close(self.master_pidfd)
        self.master.wait()

    def start(self) -> Self:
        """End the last family and begin another."""
        self._dismiss()
        code, pid = self._ask(0, self.master_pidfd, puppet.FORK, 1)
        if code:
            raise OSError(code, os.strerror(code))
        self.tasks["P0"] = _Task.of(1, pid)
        return self

    def _dismiss(self) -> None:
        for name in list(self.tasks):
            self._exit(name)

    # --- requests ------------------------------------------------------------------------

    def _ask(
        self,
        slot: int,
        pidfd: int,
        verb: bytes,
        argument: int = 0,
        what: int = 0,
        start: int = 0,
        length: int = 0,
    ) -> tuple[int, int]:
        """Have one request performed; its errno and child."""
        channel = self.channels[slot]
        channel.send(puppet.REQUEST.pack(verb, argument, what, start, length))
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(PATIENCE)]
        if not ready:
            raise TimeoutError(f"a puppet does not answer {verb!r}")
        if channel.fileno() not in ready:
            raise PuppetDiedError(f"a puppet died of {verb!r}")
        code, child = puppet.ANSWER.unpack(channel.recv(puppet.ANSWER.size))
        return code, child

    def _exit(self, name: str) -> None:
        """End a process; its address space is gone when this returns."""
        task = self.tasks.pop(name)
        try:
            self.channels[task.slot].send(puppet.REQUEST.pack(puppet.EXIT, 0, 0, 0, 0))
            poll = select.poll()
            poll.register(task.pidfd, select.POLLIN)
            if not poll.poll(PATIENCE):
                signal.pidfd_send_signal(task.pidfd, signal.SIGKILL)
                raise TimeoutError(f"{name} does not exit")
        finally:
            task.close()

    def call(self, call: Call, *, allowed: bool = False) -> int:
        """Perform a call; its errno, or 0.

        An access that is ``allowed`` is an ordinary one; if it kills the
        process, that is EFAULT, and the process lives no more.
        """
        task = self.tasks[call.process]
        length = call.pages << PAGE_SHIFT
        if call.name == "exit":
            self._exit(call.process)
            return 0
        if call.name == "fork":
            slot = min(set(range(1, len(self.channels))) - {task.slot for task in self.tasks.values()})
            code, pid = self._ask(task.slot, task.pidfd, puppet.FORK, slot)
            if code == 0:
                self.tasks[call.child] = _Task.of(slot, pid)
            return code
        if call.name in {"read", "write"}:
            verbs = (puppet.READ, puppet.WRITE) if allowed else (puppet.TRY_READ, puppet.TRY_WRITE)
            try:
                return self._ask(task.slot, task.pidfd, verbs[call.name == "write"], start=call.start)[0]
            except PuppetDiedError:
                self.tasks.pop(call.process).close()
                return EFAULT
        if call.name == "mremap":
            old = length | (puppet.DONTUNMAP if call.dontunmap else 0)
            size, target = call.size << PAGE_SHIFT, call.target or 0
            return self._ask(task.slot, task.pidfd, puppet.MREMAP, size, target, call.start, old)[0]
        if call.name == "ksmd":
            assert self.ksmd is not None
            self.ksmd.scan()
            return 0
        if call.name == "uffd_move":
            ask = puppet.MOVE, length, call.target or 0, call.start, WINDOW | PAGES
            return self._ask(task.slot, task.pidfd, *ask)[0]
        if call.name == "swapout":
            return self._page_out(task, call)
        if call.name == "madvise":
            advice = puppet.ADVICE[call.advice]
            return self._ask(task.slot, task.pidfd, puppet.MADVISE, advice, 0, call.start, length)[0]
        prot = sum(bit for letter, bit in puppet.PROT.items() if letter in call.prot)
        what = (puppet.FILE if call.file else 0) | (puppet.SHARED if call.shared else 0)
        what |= puppet.STACK if call.stack else 0
        return self._ask(task.slot, task.pidfd, _VERBS[call.name], prot, what, call.start, length)[0]

    def _page_out(self, task: _Task, call: Call) -> int:
        """MADV_PAGEOUT, again while a page stays that nobody else maps: it was still being written out, perhaps."""
        ask, code = (puppet.MADVISE, puppet.ADVICE["pageout"], 0, call.start, call.pages << PAGE_SHIFT), 0
        for _ in range(_ATTEMPTS):
            code = self._ask(task.slot, task.pidfd, *ask)[0]
            entries = self._entries(task.pagemap)[call.first : call.first + call.pages]
            if not any(_letter(entry) == "x" for entry in entries):
                break
            time.sleep(0.002)
        return code

    # --- views -----------------------------------------------------------------------------

    def can_tell(self, call: Call) -> bool:
        """The kernel does what it does."""
        return True

    def alive(self) -> list[str]:
        """Names of the living processes."""
        return sorted(self.tasks)

    def view(self, process: str) -> View:
        """The window as /proc shows it."""
        task = self.tasks[process]
        return View(self._vmas(task.smaps), "".join(map(_letter, self._entries(task.pagemap))))

    def _vmas(self, fd: int) -> tuple[Area, ...]:
        text, found = b"", []
        while part := os.pread(fd, 1 << 16, len(text)):
            text += part
            found = [_area(record) for record in _RECORD.finditer(text)]
            if found and found[-1].first >= PAGES:
                break  # the first one behind the window; more are the puppet's own
        return tuple(area for area in found if area.end > 0 and area.first < PAGES)

    def folios(self, process: str) -> tuple[int | None, ...]:
        """Page frame numbers, if this process may know them."""
        entries = self._entries(self.tasks[process].pagemap)
        anonymous = (entry & _PRESENT and not entry & _FILE for entry in entries)
        return tuple(entry & _PFN or None if shown else None for entry, shown in zip(entries, anonymous, strict=True))

    def _entries(self, fd: int) -> tuple[int, ...]:
        return struct.unpack(f"<{PAGES}Q", os.pread(fd, 8 * PAGES, (WINDOW >> PAGE_SHIFT) * 8))


def _area(record: re.Match[bytes]) -> Area:
    """One VMA's record in smaps."""
    first, end = ((int(record[n], 16) - WINDOW) >> PAGE_SHIFT for n in (1, 2))
    flags = b" ".join(code for code in record[4].split() if code in _CODES)
    return Area(first, end, flags.decode(), int(record[3]) * 1024 >> PAGE_SHIFT)


def _letter(entry: int) -> str:
    """A pagemap entry as a letter of :class:`View`."""
    if entry & _GUARD:
        return "g"
    if entry & _SWAPPED:
        return "w"
    if not entry & _PRESENT or entry & _FILE:
        return "."
    return "x" if entry & _EXCLUSIVE else "s"
