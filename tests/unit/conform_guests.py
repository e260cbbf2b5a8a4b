# SPDX-License-Identifier: GPL-2.0-only
"""A guest without a kernel: commands are obeyed by the specification, and its state is read as kernel memory."""

import errno
import importlib.resources
from collections import deque
from pathlib import Path

from rmaplab.kernel.area import Area
from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.realkernel.conform.lowering import (
    ADVICE,
    MAP_ANONYMOUS,
    MAP_SHARED,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    PROT,
)
from rmaplab.realkernel.guest.wire import Guest
from rmaplab.realkernel.image import FIRST_PID, write_image
from rmaplab.realkernel.layout import Layout
from rmaplab.series import find

LAYOUT = Layout.of_file(Path(str(importlib.resources.files("rmaplab") / "data/layouts/x86_64-7.3.json")))
NAMES = {number: name for name, number in ADVICE.items()}
HUGE = frozenset({"hugepage", "nohugepage"})
"""What guests without huge pages lack."""
FAMILY = "P0 mmap A 2 at=0x10000000\nP0 write A\nP0 fork P1\nP1 write A[0]\nP1 fork P2\n"
POPULATE = {22: False, 23: True}


class TwinGuest(Guest):
    """Obeys the wire's commands, all of them, on a model of its own."""

    def __init__(self, series, *, spoil=None):
        super().__init__()
        self.release, self.series, self.spoil = "7.3.0-twin", find(series), spoil
        self.restarts, self.closed = 0, False
        self._boot()

    def _boot(self):
        self.kernel = self.series()
        self.kernel.events.listeners.append(self.failed)
        self.once = False
        self.answers, self.order, self.slots, self.started, self.left = deque(), {}, {}, 0, 0

    # --- as a guest ---------------------------------------------------------------------------

    channel = (-1, -1)

    @property
    def pids(self):
        """As :func:`write_image` numbers processes."""
        numbers = {name: FIRST_PID + at for at, name in enumerate(self.kernel.processes)}
        return {slot: numbers[name] for slot, name in self.slots.items()}

    @pids.setter
    def pids(self, noted):
        pass

    def _send(self, line):
        self.told.append(line)
        self.answers.append(self.obey(line))

    def _line(self, patience):
        return self.answers.popleft()

    def target(self):
        image = write_image(self.kernel, LAYOUT)
        image.memory.read_places = lambda places: None
        return image.target()

    def restart(self):
        self.restarts += 1
        self._boot()

    def close(self):
        self.closed = True

    def arm(self, slot, n, *, both=True, kind="rmap"):
        self.order[slot] = (n, both, kind)

    def disarm(self):
        left, self.left = self.left, 0
        return left

    # --- what commands do ---------------------------------------------------------------------

    def obey(self, line):
        if self.spoil is not None:
            self.spoil(self, line)
        words = line.split()
        if words == ["reset"]:
            for name in self.slots.values():
                self.kernel.processes[name].exit()
            self.slots = {}
            return "ok 0"
        if words[0] == "spawn":
            return f"ok {self.begin(int(words[1]), self.kernel.spawn(self.name()))}"
        slot, call, *values = words
        process = self.kernel.processes[self.slots[int(slot)]]
        n, both, kind = self.order.pop(int(slot), (0, True, "rmap"))
        self.once = not both
        self.kernel.slab.plan(n, kind=kind)
        try:
            value = getattr(self, call)(int(slot), process, *values) or 0
        except OSError as error:
            return f"err {error.errno}"
        finally:
            if n and not self.kernel.slab.failed:
                self.left += 1
            self.kernel.slab.disarm()
        return f"ok {value}"

    def failed(self, event):
        """The retry of what has failed serves, unless both are to fail."""
        if event.verb == "fail" and self.once:
            self.kernel.slab.disarm()

    def name(self):
        self.started += 1
        return f"T{self.started}"

    def begin(self, slot, process):
        self.slots[slot] = process.name
        return self.started

    def fork(self, slot, process, into):
        return self.begin(int(into), process.fork(self.name()))

    def exit(self, slot, process):
        process.exit()
        del self.slots[slot]

    def heap(self, slot, process, at):
        process.mm.start_brk = process.mm.brk = int(at, 16)

    def mmap(self, slot, process, at, length, prot, flags, file=None):
        assert bool(int(flags) & MAP_ANONYMOUS) == (file is None)
        process.mmap(area(at, length).pages, int(at, 16), rights(prot), file, bool(int(flags) & MAP_SHARED))

    def munmap(self, slot, process, at, length):
        process.munmap(area(at, length))

    def mprotect(self, slot, process, at, length, prot):
        process.mprotect(area(at, length), rights(prot))

    def mlock(self, slot, process, at, length):
        process.mlock(area(at, length))

    def munlock(self, slot, process, at, length):
        process.munlock(area(at, length))

    def madvise(self, slot, process, at, length, advice):
        if int(advice) not in POPULATE:
            return process.madvise(area(at, length), NAMES[int(advice)])
        try:
            touch = process.write if POPULATE[int(advice)] else process.read
            return touch(area(at, length))
        except OSError as error:
            raise OSError(errno.EINVAL if error.errno == errno.EFAULT else error.errno, "populate") from None

    def read(self, slot, process, at):
        process.read(area(at, "0x1000"))

    def write(self, slot, process, at):
        process.write(area(at, "0x1000"))

    def brk(self, slot, process, end):
        process.brk((int(end, 16) - process.mm.brk) >> PAGE_SHIFT)

    def mremap(self, slot, process, old, length, new_length, flags, new):
        to = int(new, 16) if int(flags) & MREMAP_FIXED else None
        pages = int(new_length, 16) >> PAGE_SHIFT
        dontunmap = bool(int(flags) & MREMAP_DONTUNMAP)
        process.mremap(area(old, length), pages, to, dontunmap, move=to is not None)


def area(at, length):
    return Area(int(at, 16), int(length, 16) >> PAGE_SHIFT)


def rights(prot):
    return "".join(letter for letter, bit in PROT.items() if int(prot) & bit) or "none"
