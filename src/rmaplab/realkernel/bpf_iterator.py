# SPDX-License-Identifier: GPL-2.0-only
"""VMAs and chains of the running kernel, by a BPF iterator (kernel/bpf/task_iter.c, since v5.12).

The kernel holds the mmap_lock of a process while the program is at one of its
VMAs, so a VMA and its chain fit together.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.errors import InputError
from rmaplab.realkernel import bpf

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from rmaplab.realkernel.btf import Btf

__all__ = ["ChainEnd", "ChainLink", "MappedVma", "Record", "VmaIterator"]

MOST = 256  # links of a VMA; what is beyond is told to go on (the kernel's buffer holds 32 KiB of a VMA)
_PROG_TYPE_TRACING, _TRACE_ITER = 26, 28
_LINK_CREATE, _ITER_CREATE = 28, 33
_VMA, _LINK, _ON = 1, 2, 3
_COMM = 16
_HEAD, _SHORT = 48, 24  # bytes before a raw VMA; before a raw AVC
_KEPT = -8  # frame offset of the VMA's address
_BUFFER = 1 << 16


class MappedVma(NamedTuple):
    """A VMA of a process: ids, addresses in the kernel, and its bytes."""

    pid: int
    mm: int
    comm: str
    address: int
    raw: bytes


class ChainLink(NamedTuple):
    """A link (the address of its ``same_vma``) on the chain of a VMA, and the bytes of its AVC."""

    vma: int
    link: int
    raw: bytes


class ChainEnd(NamedTuple):
    """The chain of a VMA goes on at a link."""

    vma: int
    link: int


Record = MappedVma | ChainLink | ChainEnd


class VmaIterator:
    """The program, loaded; :class:`InputError` says what is missing."""

    def __init__(self, btf: Btf) -> None:
        self.vma_size, self.avc_size = btf.size("vm_area_struct"), btf.size("anon_vma_chain")
        try:
            attach_to = btf.function("bpf_iter_task_vma")
        except KeyError:
            raise InputError("the running kernel has no BPF iterator over VMAs: 5.12 and later have") from None
        self.program = bpf.load(
            _PROG_TYPE_TRACING,
            _program(btf, self.vma_size, self.avc_size),
            name=b"rmaplab_vmas",
            attach_type=_TRACE_ITER,
            attach_to=attach_to,
        )

    def close(self) -> None:
        """Take it out of the kernel."""
        os.close(self.program)

    def records(self, pid: int | None = None) -> Iterator[Record]:
        """Of one process, or (None) of all: each VMA, and then its chain from the head on."""
        about = ctypes.create_string_buffer(struct.pack("<III", 0, pid or 0, 0), 12)
        size = 12 if pid else 0
        data = b""
        try:
            pointer = ctypes.addressof(about) if size else 0
            link = bpf.call_bpf(_LINK_CREATE, struct.pack("<IIIIQI", self.program, 0, _TRACE_ITER, 0, pointer, size))
        except OSError as error:
            raise InputError(f"process {pid}: the running kernel iterates over it not: {error.strerror}") from error
        try:
            fd = bpf.call_bpf(_ITER_CREATE, struct.pack("<II", link, 0))
        finally:
            os.close(link)
        try:
            while part := os.read(fd, _BUFFER):
                data = yield from self._whole(data + part)
        finally:
            os.close(fd)

    def _whole(self, data: bytes) -> Generator[Record, None, bytes]:
        """The records that are complete; the rest is returned."""
        sizes = {_VMA: _HEAD + self.vma_size, _LINK: _SHORT + self.avc_size, _ON: _SHORT}
        at = 0
        while len(data) - at >= _SHORT:
            tag, first, second = struct.unpack_from("<QQQ", data, at)
            end = at + sizes[tag]
            if end > len(data):
                break
            if tag == _VMA:
                (address,) = struct.unpack_from("<Q", data, at + _SHORT)
                comm = data[at + _HEAD - _COMM : at + _HEAD].split(b"\0")[0].decode("utf-8", "replace")
                yield MappedVma(first, second, comm, address, data[at + _HEAD : end])
            elif tag == _LINK:
                yield ChainLink(first, second, data[at + _SHORT : end])
            else:
                yield ChainEnd(first, second)
            at = end
        return data[at:]


def _program(btf: Btf, vma_size: int, avc_size: int) -> bpf.Code:
    """Write out one VMA and its chain.

    r6 is the context, r7 the VMA and then the number of links, r8 the task
    and then the link, r9 the head of the list.
    """
    chain, same_vma = btf.offset("vm_area_struct.anon_vma_chain"), btf.offset("anon_vma_chain.same_vma")
    code = bpf.Code()
    code.move(6, 1)
    code.load64(7, 6, 16)
    code.jump(bpf.IF_EQUAL, 7, "out")
    code.load64(8, 6, 8)
    code.jump(bpf.IF_EQUAL, 8, "out")
    record = _KEPT - _HEAD - vma_size
    code.store_value(10, _VMA, record)
    code.load32(1, 8, btf.offset("task_struct.tgid"))
    code.store64(10, 1, record + 8)
    code.load64(1, 8, btf.offset("task_struct.mm"))
    code.store64(10, 1, record + 16)
    code.store64(10, 7, record + 24)
    code.store64(10, 7, _KEPT)
    code.move(3, 8)
    code.add(3, btf.offset("task_struct.comm"))
    bpf.probe_read(code, record + _HEAD - _COMM, _COMM)
    code.move(3, 7)
    bpf.probe_read(code, record + _HEAD, vma_size)
    code.load64(8, 10, record + _HEAD + chain)
    _write(code, record, _HEAD + vma_size)
    code.move(9, 7)
    code.add(9, chain)
    code.set(7, 0)
    record = _KEPT - _SHORT - avc_size
    code.label("next")
    code.jump(bpf.IF_SAME, 8, "out", src=9)
    code.store64(10, 8, record + 16)
    code.load64(1, 10, _KEPT)
    code.store64(10, 1, record + 8)
    code.jump(bpf.IF_NOT_LESS, 7, "on", imm=MOST)
    code.store_value(10, _LINK, record)
    code.move(3, 8)
    code.add(3, -same_vma)
    bpf.probe_read(code, record + _SHORT, avc_size)
    _write(code, record, _SHORT + avc_size)
    code.load64(8, 10, record + _SHORT + same_vma)
    code.add(7, 1)
    code.jump(bpf.ALWAYS, 0, "next")
    code.label("on")
    code.store_value(10, _ON, record)
    _write(code, record, _SHORT)
    code.label("out")
    code.set(0, 0)
    code.exit()
    return code


def _write(code: bpf.Code, frame: int, size: int) -> None:
    """Put ``size`` bytes of the frame into the iterator's output."""
    code.load64(1, 6, 0)
    code.load64(1, 1, 0)  # bpf_iter_meta.seq
    code.move(2, 10)
    code.add(2, frame)
    code.set(3, size)
    code.call(bpf.SEQ_WRITE)
