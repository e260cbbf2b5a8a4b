# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel's memory, a thousand addresses a system call: a BPF program copies them into a shared map."""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING

from rmaplab.realkernel import bpf
from rmaplab.realkernel.memory import FaultError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BpfMemory"]

BATCH = 1024  # addresses of a run; the verifier follows the loop to its end
LARGEST = 4096  # bytes of each
_COUNT, _SIZE, _ADDRESSES = 0, 8, 64
_DATA = -(-(_ADDRESSES + 8 * BATCH) // mmap.PAGESIZE) * mmap.PAGESIZE
_BYTES = _DATA + BATCH * LARGEST
_PROG_TYPE_SYSCALL, _SLEEPABLE = 31, 1 << 4


class BpfMemory:
    """Needs root; :class:`rmaplab.errors.InputError` says what else is missing."""

    def __init__(self) -> None:
        self.map = bpf.create_array(_BYTES)
        try:
            self.program = bpf.load(_PROG_TYPE_SYSCALL, _reader(self.map), name=b"rmaplab_read", flags=_SLEEPABLE)
        except BaseException:
            os.close(self.map)
            raise
        self.shared = mmap.mmap(self.map, _BYTES)

    def close(self) -> None:
        """Take program and map out of the kernel."""
        self.shared.close()
        os.close(self.program)
        os.close(self.map)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the kernel; :class:`FaultError`."""
        pieces = range(address, address + size, LARGEST)
        if len(pieces) > 1:
            return b"".join([self.read(at, min(LARGEST, address + size - at)) for at in pieces])
        (data,) = self.read_many((address,), size)
        if data is None:
            raise FaultError(address)
        return data

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        """``size`` bytes, at most 4096, at each address; None where they cannot be read."""
        if size > LARGEST:
            raise ValueError(f"{size} bytes are more than {LARGEST}")
        found: list[bytes | None] = []
        shared = self.shared
        for first in range(0, len(addresses), BATCH):
            part = addresses[first : first + BATCH]
            count = len(part)
            struct.pack_into("<QQ", shared, _COUNT, count, size)
            struct.pack_into(f"<{count}Q", shared, _ADDRESSES, *[address & (1 << 64) - 1 for address in part])
            bpf.run(self.program)
            data = shared[_DATA : _DATA + count * size]
            failed = shared[_ADDRESSES : _ADDRESSES + 8 * count]
            pieces: list[bytes | None] = [data[at : at + size] for at in range(0, count * size, size)]
            if failed.strip(b"\0"):
                for number, (code,) in enumerate(struct.iter_unpack("<q", failed)):
                    if code:
                        pieces[number] = None
            found += pieces
        return found


def _reader(map_fd: int) -> bpf.Code:
    """For each address: copy there, and put the result of that where the address was."""
    code = bpf.Code()
    code.map_value(6, map_fd)
    code.load64(8, 6, _COUNT)
    code.load64(9, 6, _SIZE)
    code.jump(bpf.IF_GREATER, 9, "out", imm=LARGEST)
    code.set(7, 0)
    code.label("next")
    code.jump(bpf.IF_NOT_LESS, 7, "out", imm=BATCH)
    code.jump(bpf.IF_REACHED, 7, "out", src=8)
    code.move(1, 7)
    code.op(0x2F, 1, 9)  # r1 = r7 * r9
    code.op(0x0F, 1, 6)  # + the value
    code.add(1, _DATA)
    code.move(2, 9)
    _place(code)
    code.load64(3, 4, _ADDRESSES)
    code.call(bpf.PROBE_READ_KERNEL)
    _place(code)
    code.store64(4, 0, _ADDRESSES)
    code.add(7, 1)
    code.jump(bpf.ALWAYS, 0, "next")
    code.label("out")
    code.set(0, 0)
    code.exit()
    return code


def _place(code: bpf.Code) -> None:
    """r4 = the value + 8 * r7."""
    code.move(4, 7)
    code.op(0x67, 4, imm=3)
    code.op(0x0F, 4, 6)
