# SPDX-License-Identifier: GPL-2.0-only
"""VMAs and chains of the running kernel, by a BPF iterator (kernel/bpf/task_iter.c, since v5.12).

The kernel holds the mmap_lock of a process while the program is at one of its
VMAs, so a VMA and its chain fit together.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.errors import InputError
from rmaplab.realkernel import bpf

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from rmaplab.realkernel.btf import Btf

__all__ = ["LINK_WORDS", "ChainEnd", "ChainLinks", "MappedVma", "Record", "VmaIterator"]

MOST = 256  # links of a VMA; what is beyond is told to go on (the kernel's buffer holds 32 KiB of a VMA)
_PROG_TYPE_TRACING, _TRACE_ITER = 26, 28
_LINK_CREATE, _ITER_CREATE = 28, 33
_VMA, _LINK, _ON, _ASIDE = 1, 2, 3, 4
_COMM = 16
_TAG, _PID, _MM, _TASK, _ADDRESS, _NAME, _HEAD = 0, 8, 16, 24, 32, 40, 56  # a record of a VMA, before its bytes
_OF, _NODE, _SHORT = 8, 16, 24  # a record of a link, before the bytes of the AVC
LINK_WORDS = _SHORT // 8
"""Words of a link in :attr:`ChainLinks.raw` before its AVC."""
_LO, _HI, _LEVEL, _SHARED = 0, 8, 16, 24  # what the program is told
_PIDTYPE_TGID = 8  # signal_struct.pids[1]
_KEPT, _SCRATCH = -8, -16  # in the frame: the VMA's address, and room for a word
_BUFFER = 1 << 16
_ALL = (1 << 64) - 1


class MappedVma(NamedTuple):
    """A VMA of a process: ids, addresses in the kernel, and its bytes; empty if it is out of the bounds."""

    pid: int
    mm: int
    task: int
    address: int
    comm: str
    raw: bytes


class ChainLinks(NamedTuple):
    """Links on the chain of a VMA, one behind the other.

    ``raw``: of each a word that says nothing, the address of the VMA, that of
    the link (an AVC's ``same_vma``), and the bytes of the AVC.
    """

    vma: int
    raw: bytes


class ChainEnd(NamedTuple):
    """The chain of a VMA goes on at a link."""

    vma: int
    link: int


Record = MappedVma | ChainLinks | ChainEnd


class VmaIterator:
    """The program, loaded; :class:`InputError` says what is missing.

    ``vma_bytes``: so many of each VMA are wanted; ``most``: links that are
    followed with the lock held.
    """

    def __init__(self, btf: Btf, vma_bytes: int, most: int = MOST) -> None:
        self.vma_bytes, self.avc_bytes = -(-vma_bytes // 8) * 8, -(-btf.size("anon_vma_chain") // 8) * 8
        try:
            attach_to = btf.function("bpf_iter_task_vma")
        except KeyError:
            raise InputError("the running kernel has no BPF iterator over VMAs: 5.12 and later have") from None
        self.map = bpf.create_array(_SHARED)
        try:
            code = _Program(btf, self.map, self.vma_bytes, self.avc_bytes, most).whole()
            self.program = bpf.load(
                _PROG_TYPE_TRACING, code, name=b"rmaplab_vmas", attach_type=_TRACE_ITER, attach_to=attach_to
            )
        except BaseException:
            os.close(self.map)
            raise
        self.shared = mmap.mmap(self.map, _SHARED)

    def close(self) -> None:
        """Take it out of the kernel."""
        self.shared.close()
        os.close(self.program)
        os.close(self.map)

    def number_by(self, level: int) -> None:
        """Processes get their ids in the pid namespace so many levels below the first (pid.h: struct pid)."""
        struct.pack_into("<Q", self.shared, _LEVEL, level)

    def records(self, pid: int | None = None, lo: int = 0, hi: int = 1 << 64) -> Iterator[Record]:
        """Of one process, or (None) of all: each VMA, and if it begins in [lo, hi), its chain from the head on."""
        struct.pack_into("<QQ", self.shared, _LO, max(lo, 0), max(min(hi, _ALL), 0))
        about = ctypes.create_string_buffer(struct.pack("<III", 0, pid or 0, 0), 12)
        size = 12 if pid else 0
        pointer = ctypes.addressof(about) if size else 0
        data = b""
        try:
            link = bpf.call_bpf(_LINK_CREATE, struct.pack("<IIIIQI", self.program, 0, _TRACE_ITER, 0, pointer, size))
            try:
                fd = bpf.call_bpf(_ITER_CREATE, struct.pack("<II", link, 0))
            finally:
                os.close(link)
            try:
                while part := os.read(fd, _BUFFER):
                    data = yield from self._whole(data + part)
            finally:
                os.close(fd)
        except OSError as error:
            whose = f"of process {pid}" if pid else "of all processes"
            raise InputError(f"the running kernel does not tell the VMAs {whose}: {error.strerror}") from error

    def _whole(self, data: bytes) -> Generator[Record, None, bytes]:
        """The records that are complete; the rest is returned."""
        sizes = {_VMA: _HEAD + self.vma_bytes, _ASIDE: _HEAD, _LINK: _SHORT + self.avc_bytes, _ON: _SHORT}
        unpack, unpack_head = struct.Struct("<QQQ").unpack_from, struct.Struct("<QQ16s").unpack_from
        at, length = 0, len(data)
        while length - at >= _SHORT:
            tag, first, second = unpack(data, at)
            end = at + sizes[tag]
            if end > length:
                break
            if tag == _LINK:
                size = end - at
                while (
                    end + size <= length
                    and data[end] == _LINK
                    and data[end + _OF : end + _NODE] == data[at + _OF : at + _NODE]
                ):
                    end += size
                yield ChainLinks(first, data[at:end])
            elif tag == _ON:
                yield ChainEnd(first, second)
            else:
                task, address, comm = unpack_head(data, at + _TASK)
                name = comm.split(b"\0")[0].decode("utf-8", "replace")
                yield MappedVma(first, second, task, address, name, data[at + _HEAD : end])
            at = end
        return data[at:]


class _Program:
    """Writes out one VMA and its chain.

    r6 is the context, r7 the VMA and then the number of links, r8 the task
    and then the link, r9 what the program is told and then the head of the list.
    """

    def __init__(self, btf: Btf, shared: int, vma_bytes: int, avc_bytes: int, most: int) -> None:
        self.btf, self.shared, self.most = btf, shared, most
        self.vma_bytes, self.avc_bytes = vma_bytes, avc_bytes
        self.code = bpf.Code()

    def whole(self) -> bpf.Code:
        """All of it."""
        code, offset = self.code, self.btf.offset
        code.move(6, 1)
        code.load64(7, 6, 16)
        code.jump(bpf.IF_EQUAL, 7, "out")
        code.load64(8, 6, 8)
        code.jump(bpf.IF_EQUAL, 8, "out")
        code.map_value(9, self.shared)
        record = _SCRATCH - _HEAD - self.vma_bytes
        self.head(record)
        code.load64(1, 7, offset("vm_area_struct.vm_start"))
        code.load64(2, 9, _LO)
        code.jump(bpf.IF_BELOW, 1, "aside", src=2)
        code.load64(2, 9, _HI)
        code.jump(bpf.IF_REACHED, 1, "aside", src=2)
        code.store_value(10, _VMA, record + _TAG)
        code.move(3, 7)
        bpf.probe_read(code, record + _HEAD, self.vma_bytes)
        self.write(record, _HEAD + self.vma_bytes)
        self.chain()
        code.label("aside")
        code.store_value(10, _ASIDE, record + _TAG)
        self.write(record, _HEAD)
        code.label("out")
        code.set(0, 0)
        code.exit()
        return code

    def head(self, record: int) -> None:
        """Whose VMA it is."""
        code, offset = self.code, self.btf.offset
        self.pid(record + _PID)
        code.load64(1, 7, offset("vm_area_struct.vm_mm"))
        code.store64(10, 1, record + _MM)
        code.store64(10, 8, record + _TASK)
        code.store64(10, 7, record + _ADDRESS)
        code.store64(10, 7, _KEPT)
        code.move(3, 8)
        code.add(3, offset("task_struct.comm"))
        bpf.probe_read(code, record + _NAME, _COMM)

    def pid(self, at: int) -> None:
        """The id of its process: in the first namespace, or task->signal->pids[PIDTYPE_TGID]->numbers[level].nr."""
        code, offset = self.code, self.btf.offset
        code.load32(1, 8, offset("task_struct.tgid"))
        code.store64(10, 1, at)
        code.load64(1, 9, _LEVEL)
        code.jump(bpf.IF_EQUAL, 1, "numbered")
        code.move(3, 8)
        code.add(3, offset("task_struct.signal"))
        for step in (offset("signal_struct.pids") + _PIDTYPE_TGID, offset("pid.numbers") + offset("upid.nr")):
            bpf.probe_read(code, _SCRATCH, 8)
            code.load64(3, 10, _SCRATCH)
            code.add(3, step)
        code.load64(1, 9, _LEVEL)
        code.multiply(1, self.btf.size("upid"))
        code.add_register(3, 1)
        code.store_value(10, 0, at)
        bpf.probe_read(code, at, 4)
        code.label("numbered")

    def chain(self) -> None:
        """Its links, and where they go on if there are more."""
        code, offset = self.code, self.btf.offset
        head, same_vma = offset("vm_area_struct.anon_vma_chain"), offset("anon_vma_chain.same_vma")
        code.move(9, 7)
        code.add(9, head)
        code.move(3, 9)
        bpf.probe_read(code, _SCRATCH, 8)
        code.load64(8, 10, _SCRATCH)
        code.set(7, 0)
        record = _SCRATCH - _SHORT - self.avc_bytes
        code.label("next")
        code.jump(bpf.IF_SAME, 8, "out", src=9)
        code.load64(1, 10, _KEPT)
        code.store64(10, 1, record + _OF)
        code.store64(10, 8, record + _NODE)
        code.jump(bpf.IF_NOT_LESS, 7, "on", imm=self.most)
        code.store_value(10, _LINK, record + _TAG)
        code.move(3, 8)
        code.add(3, -same_vma)
        bpf.probe_read(code, record + _SHORT, self.avc_bytes)
        self.write(record, _SHORT + self.avc_bytes)
        code.load64(8, 10, record + _SHORT + same_vma)
        code.add(7, 1)
        code.jump(bpf.ALWAYS, 0, "next")
        code.label("on")
        code.store_value(10, _ON, record + _TAG)
        self.write(record, _SHORT)
        code.jump(bpf.ALWAYS, 0, "out")

    def write(self, frame: int, size: int) -> None:
        """Put ``size`` bytes of the frame into the iterator's output."""
        code = self.code
        code.load64(1, 6, 0)
        code.load64(1, 1, 0)  # bpf_iter_meta.seq
        code.move(2, 10)
        code.add(2, frame)
        code.set(3, size)
        code.call(bpf.SEQ_WRITE)
