# SPDX-License-Identifier: GPL-2.0-only
"""Allocations that fail in a kernel without failslab: QEMU stops it where it allocates and sends it back with NULL.

QEMU speaks the remote serial protocol of GDB ("GDB Remote Serial Protocol",
appendix E of its manual): ``$`` text ``#`` checksum, each answered by ``+``.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import TYPE_CHECKING

from rmaplab.realkernel.guest.wire import GuestDiedError, GuestError, GuestHangsError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

__all__ = ["Allocations", "Gdb"]

_PATIENCE = 20.0  # seconds until QEMU answers
_CHUNK = 1 << 16
_INTERRUPT = b"\x03"
# The order of registers in a `g` packet (QEMU's gdb-xml/i386-64bit.xml): 8 bytes each, up to rip.
_RAX, _RDI, _RSP, _RIP, _COUNT = 0, 5, 7, 16, 17
_REGISTERS = struct.Struct(f"<{_COUNT}Q")


class Gdb:
    """A connection to QEMU's gdb stub; the guest stands still from now until :meth:`go`."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(_PATIENCE)
        self.buffer = b""
        try:
            self.socket.connect(str(path))
        except OSError as error:
            self.socket.close()
            raise GuestError(f"{path}: QEMU's gdb stub does not listen: {error.strerror or error}") from error
        self.ask("qAttached")

    def close(self) -> None:
        """Hang up; the guest goes on."""
        self.socket.close()

    def fileno(self) -> int:
        """The connection, to wait for a stop of the guest."""
        return self.socket.fileno()

    def ask(self, text: str) -> str:
        """What a packet is answered; :class:`GuestError` for a refusal.

        Whether QEMU 7.2 and 9 tell of the stop that a connection makes differs:
        stops that nobody waits for are dropped.
        """
        self._send(text)
        while (answer := self._receive()).startswith("T"):
            pass
        if answer[:1] == "E" and len(answer) == 3:
            raise GuestError(f"QEMU's gdb stub refuses {text!r}: {answer}")
        return answer

    def go(self) -> None:
        """Let the guest run until it comes to a breakpoint or is stopped."""
        self._send("c")

    def stop(self) -> None:
        """Stop the guest where it is."""
        self._write(_INTERRUPT)
        self.stopped()

    def stopped(self) -> None:
        """Wait until the guest stands still."""
        while not self._receive().startswith("T"):
            pass

    def step(self) -> None:
        """One instruction, past a breakpoint on it."""
        self._send("s")
        self.stopped()

    def breakpoint(self, address: int, *, on: bool) -> None:
        """Set or clear a hardware breakpoint: nothing is written into the guest's memory."""
        self.ask(f"{'Z' if on else 'z'}1,{address:x},1")

    def registers(self) -> list[int]:
        """From rax to r15, and rip."""
        return list(_REGISTERS.unpack_from(bytes.fromhex(self.ask("g"))))

    def set_registers(self, values: Sequence[int]) -> None:
        """As :meth:`registers` has them; the registers behind rip stay."""
        self.ask("G" + _REGISTERS.pack(*values).hex())

    def number(self, address: int) -> int:
        """Eight bytes of the guest's memory."""
        return int.from_bytes(bytes.fromhex(self.ask(f"m{address:x},8")), "little")

    def has_stopped(self) -> bool:
        """Whether what can be read now says that the guest stands still; not more than an acknowledgement may."""
        self._fill()
        return (self._packet() or "").startswith("T")

    def _receive(self) -> str:
        while (packet := self._packet()) is None:
            self._fill()
        return packet

    def _packet(self) -> str | None:
        start, end = self.buffer.find(b"$"), self.buffer.find(b"#")
        if not 0 <= start < end or len(self.buffer) < end + 3:
            return None
        text, self.buffer = self.buffer[start + 1 : end], self.buffer[end + 3 :]
        self._write(b"+")
        return text.decode("ascii", "replace")

    def _fill(self) -> None:
        try:
            part = self.socket.recv(_CHUNK)
        except TimeoutError as error:
            raise GuestHangsError(f"QEMU's gdb stub did not answer for {_PATIENCE:.0f} s") from error
        except OSError as error:
            raise GuestDiedError(f"QEMU's gdb stub has hung up: {error}") from error
        if not part:
            raise GuestDiedError("QEMU's gdb stub has hung up")
        self.buffer += part

    def _send(self, text: str) -> None:
        data = text.encode()
        self._write(b"$" + data + b"#%02x" % (sum(data) & 0xFF))

    def _write(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise GuestDiedError(f"QEMU's gdb stub has hung up: {error}") from error


class Allocations:
    """Counts the allocations from some slab caches, and fails one, or one and the next.

    ``function`` is kmem_cache_alloc or kmem_cache_alloc_noprof (slub.c): its
    first argument is the cache, NULL its result when there is no memory.
    """

    def __init__(self, gdb: Gdb, function: int) -> None:
        self.gdb = gdb
        self.function = function
        self.caches: Collection[int] = ()
        self.first, self.last, self.seen = 1, 0, 0
        gdb.go()

    def arm(self, caches: Collection[int], n: int, *, both: bool) -> None:
        """Fail the n-th from now on, and with ``both`` the one after it."""
        self.caches = caches
        self.first, self.last, self.seen = n, n + both, 0
        self.gdb.stop()
        self.gdb.breakpoint(self.function, on=True)
        self.gdb.go()

    def disarm(self) -> int:
        """Let all succeed again; how many failures nobody has met."""
        given = max(0, min(self.seen, self.last) - self.first + 1)
        left = self.last - self.first + 1 - given
        self.gdb.stop()
        self.gdb.breakpoint(self.function, on=False)
        self.gdb.go()
        self.first, self.last = 1, 0
        return left

    @property
    def armed(self) -> bool:
        """Whether the guest stops at allocations."""
        return self.last >= self.first

    def attend(self, descriptor: int, patience: float) -> None:
        """Serve the guest's stops until ``descriptor`` can be read; whoever reads notices if it never can."""
        ends = time.monotonic() + patience
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self.gdb.fileno(), select.POLLIN)
        while (left := ends - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(left * 1000)}
            if self.gdb.fileno() in ready:
                if self.gdb.has_stopped():
                    self._at_function()
            elif descriptor in ready:
                return

    def _at_function(self) -> None:
        """The guest is at the beginning of the function: it returns at once, or goes on."""
        registers = self.gdb.registers()
        if registers[_RIP] == self.function:
            mine = registers[_RDI] in self.caches
            self.seen += mine
            if mine and self.first <= self.seen <= self.last:
                registers[_RAX] = 0
                registers[_RIP] = self.gdb.number(registers[_RSP])
                registers[_RSP] += 8
                self.gdb.set_registers(registers)
            else:
                self.gdb.step()
        self.gdb.go()
