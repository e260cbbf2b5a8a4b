# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel's memory, a thousand addresses a system call: a BPF program copies them into a shared map."""

from __future__ import annotations

import mmap
import os
import struct
from itertools import accumulate
from typing import TYPE_CHECKING

from rmaplab.realkernel import bpf
from rmaplab.realkernel.memory import FaultError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BpfMemory"]

BATCH = 1024  # addresses of a run; the verifier follows the loop to its end
LARGEST = 4096  # bytes of each
_COUNT, _ADDRESSES = 0, 64
_PLACES = _ADDRESSES + 8 * BATCH  # of each: where its bytes go, and how many they are
_SIZE_BITS = 13
_DATA = -(-(_PLACES + 8 * BATCH) // mmap.PAGESIZE) * mmap.PAGESIZE
_ROOM = BATCH * LARGEST
_PROG_TYPE_SYSCALL, _SLEEPABLE = 31, 1 << 4


class BpfMemory:
    """Needs root; :class:`rmaplab.errors.InputError` says what else is missing."""

    def __init__(self) -> None:
        self.map = bpf.create_array(_DATA + _ROOM)
        try:
            self.program = bpf.load(_PROG_TYPE_SYSCALL, _reader(self.map), name=b"rmaplab_read", flags=_SLEEPABLE)
        except BaseException:
            os.close(self.map)
            raise
        self.shared = mmap.mmap(self.map, _DATA + _ROOM)
        self.places: dict[int, bytes] = {}  # of a batch of each size

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
        places = self.places.get(size)
        if places is None:
            described = [at * size << _SIZE_BITS | size for at in range(BATCH)]
            places = self.places[size] = struct.pack(f"<{BATCH}Q", *described)
        for first in range(0, len(addresses), BATCH):
            part = addresses[first : first + BATCH]
            count = len(part)
            shared[_PLACES : _PLACES + 8 * count] = places[: 8 * count]
            failed = self._run(part)
            data = shared[_DATA : _DATA + count * size]
            pieces: list[bytes | None] = [data[at : at + size] for at in range(0, count * size, size)]
            if failed:
                for number, (code,) in enumerate(struct.iter_unpack("<q", failed)):
                    if code:
                        pieces[number] = None
            found += pieces
        return found

    def read_places(self, places: Sequence[tuple[int, int]]) -> bytes | None:
        """The bytes of several places, given as address and size, one behind the other; None if one cannot be read.

        So many as fit into one run: at most 1024, of 4 MiB in all.
        """
        ends = list(accumulate([size for _, size in places], initial=0))
        at = ends.pop()
        if len(places) > BATCH or at > _ROOM:
            return None
        described = [start << _SIZE_BITS | size for start, (_, size) in zip(ends, places, strict=True)]
        struct.pack_into(f"<{len(places)}Q", self.shared, _PLACES, *described)
        return None if self._run([address for address, _ in places]) else self.shared[_DATA : _DATA + at]

    def _run(self, addresses: Sequence[int]) -> bytes:
        """Fetch what the places in the map are for; the codes of failure, empty if there is none."""
        count = len(addresses)
        struct.pack_into("<Q", self.shared, _COUNT, count)
        try:
            struct.pack_into(f"<{count}Q", self.shared, _ADDRESSES, *addresses)
        except struct.error:  # what garbage points to is not readable, whatever it is
            struct.pack_into(f"<{count}Q", self.shared, _ADDRESSES, *[address % (1 << 64) for address in addresses])
        bpf.run(self.program)
        codes = self.shared[_ADDRESSES : _ADDRESSES + 8 * count]
        return codes if codes.strip(b"\0") else b""


def _reader(map_fd: int) -> bpf.Code:
    """For each address: copy there, and put the result of that where the address was."""
    code = bpf.Code()
    code.map_value(6, map_fd)
    code.load64(8, 6, _COUNT)
    code.set(7, 0)
    code.label("next")
    code.jump(bpf.IF_NOT_LESS, 7, "out", imm=BATCH)
    code.jump(bpf.IF_REACHED, 7, "out", src=8)
    _entry(code, 9)
    code.load64(3, 9, _ADDRESSES)
    code.load64(1, 9, _PLACES)
    code.move(2, 1)
    code.op(0x57, 2, imm=(1 << _SIZE_BITS) - 1)  # r2 &= the bits of the size
    code.jump(bpf.IF_GREATER, 2, "out", imm=LARGEST)
    code.op(0x77, 1, imm=_SIZE_BITS)  # r1 >>= the bits of the size
    code.jump(bpf.IF_GREATER, 1, "out", imm=_ROOM - LARGEST)
    code.op(0x0F, 1, 6)  # r1 += the value
    code.add(1, _DATA)
    code.call(bpf.PROBE_READ_KERNEL)
    code.store64(9, 0, _ADDRESSES)
    code.add(7, 1)
    code.jump(bpf.ALWAYS, 0, "next")
    code.label("out")
    code.set(0, 0)
    code.exit()
    return code


def _entry(code: bpf.Code, register: int) -> None:
    """The register becomes the address of entry r7 of the value."""
    code.move(register, 7)
    code.op(0x67, register, imm=3)
    code.op(0x0F, register, 6)
