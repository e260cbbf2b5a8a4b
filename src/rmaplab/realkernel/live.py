# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel as a kernel to be read: BTF tells its types, BPF programs fetch its memory.

Nothing has to be installed, and nothing of it is symbols: tasks, VMAs and
chains come from an iterator, which the kernel runs with each process's
mmap_lock held; trees and pages are read without any lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import struct
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.realkernel.bpf import BTF
from rmaplab.realkernel.bpf_iterator import LINK_WORDS, ChainEnd, ChainLinks, MappedVma, VmaIterator
from rmaplab.realkernel.bpf_memory import BpfMemory
from rmaplab.realkernel.btf import Btf
from rmaplab.realkernel.graph import RawAvc
from rmaplab.realkernel.kernel_map import find_machine
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.memory import FaultError
from rmaplab.realkernel.target import Machine, Target, Task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rmaplab.realkernel.bpf_iterator import Record
    from rmaplab.realkernel.graph import RawVma
    from rmaplab.realkernel.reader import GraphReader

__all__ = ["LiveTarget"]


class LiveTarget(Target):
    """Loads its programs when it is made; :class:`InputError` says what is missing."""

    def __init__(self) -> None:
        if not BTF.exists():
            raise InputError(f"{BTF} is not there: the running kernel was built without CONFIG_DEBUG_INFO_BTF")
        btf = Btf.of_file(BTF)
        layout = Layout.of_btf(btf)
        members = [at for name, at in layout.offsets.items() if name.startswith("vm_area_struct.")]
        self.iterator = VmaIterator(btf, max(members) + 8)
        try:
            memory = BpfMemory()
        except BaseException:
            self.iterator.close()
            raise
        self.bpf_memory = memory
        super().__init__(memory, layout, Machine(), release=platform.release())
        try:
            self.iterator.number_by(self._namespace(btf))
            self.machine = self._find_machine()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take the programs out of the kernel."""
        self.bpf_memory.close()
        self.iterator.close()

    def _namespace(self, btf: Btf) -> int:
        """How many pid namespaces ours is in: task->signal->pids[PIDTYPE_TGID]->level."""
        own = next(iter(self.iterator.records(os.getpid(), 0, 0)), None)
        if not isinstance(own, MappedVma):
            raise InputError("the running kernel does not tell the VMAs of our own process")
        at = own.task + btf.offset("task_struct.signal")
        with contextlib.suppress(FaultError):
            at = self._number(at, 8) + btf.offset("signal_struct.pids") + 8
            return self._number(self._number(at, 8) + btf.offset("pid.level"), 4)
        return 0

    def _number(self, address: int, size: int) -> int:
        return int.from_bytes(self.memory.read(address, size), "little")

    def _find_machine(self) -> Machine:
        """By a page of our own; what cannot be found is left out, and so are pages then."""
        if platform.machine() != "x86_64":
            return Machine()
        fields = self.layout.fields("vm_area_struct", ("vm_start", "Q"), ("vm_end", "Q"), ("anon_vma", "Q"))
        with mmap.mmap(-1, 2 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE) as pages:
            with contextlib.suppress(OSError):  # a kernel without huge pages needs not be told
                pages.madvise(mmap.MADV_NOHUGEPAGE)
            pages[0] = 1
            address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
            for record in self.iterator.records(os.getpid()):
                if isinstance(record, MappedVma):
                    start, end, anon_vma = fields.unpack(record.raw[fields.start :])
                    if start <= address < end:
                        pgd = self._number(record.mm + self.layout.offset("mm_struct.pgd"), 8)
                        return find_machine(self.memory, self.layout, pgd, address, anon_vma)
        return Machine()

    def _records(self, pids: Collection[int] | None, lo: int, hi: int) -> Iterator[Record]:
        for pid in [None] if pids is None else sorted(set(pids)):
            yield from self.iterator.records(pid, lo, hi)

    def tasks(self, pids: Collection[int] | None = None, remarks: list[str] | None = None) -> list[Task]:
        """The processes that have VMAs; those of them that are asked for, as far as they live."""
        found: dict[int, Task] = {}
        for record in self._records(pids, 0, 0):
            if isinstance(record, MappedVma):
                found.setdefault(record.pid, Task(record.pid, record.comm, record.mm))
        return [found[pid] for pid in sorted(found)]

    def begin(self, reader: GraphReader, pids: Collection[int] | None) -> None:
        """Give a reader the processes that are asked for, their VMAs and chains, as the kernel runs over them."""
        _Stream(reader, self.iterator.avc_bytes).take(self._records(pids, reader.lo, reader.hi))


class _Stream:
    """Takes what the iterator tells; a process that changes meanwhile is a remark."""

    def __init__(self, reader: GraphReader, avc_bytes: int) -> None:
        self.reader = reader
        self.tasks: dict[int, Task] = {}
        self.first: dict[int, tuple[int, int]] = {}  # of each mm: the first task that has it, and its number
        self.owners: dict[int, int] = {}  # of each VMA: its mm
        self.changed: dict[int, None] = {}  # processes
        offset = reader.target.layout.offset
        places = [offset(f"anon_vma_chain.{name}") for name in ("vma", "anon_vma", "same_vma", "rb", "rb")]
        picks = [LINK_WORDS + (at + extra) // 8 for at, extra in zip(places, (0, 0, 0, 16, 8), strict=True)]
        self.words = struct.Struct(f"<{LINK_WORDS + avc_bytes // 8}Q").iter_unpack
        self.members = itemgetter(*picks)  # in the order of RawAvc; rb_node is parent, right, left
        self.avc = partial(tuple.__new__, RawAvc)

    def take(self, records: Iterator[Record]) -> None:
        """All of them."""
        reader = self.reader
        vma: RawVma | None = None
        cut = []
        for record in records:
            if isinstance(record, MappedVma):
                vma = self.vma(record)
            elif vma is not None and isinstance(record, ChainLinks):
                vma = vma if self.links(vma, record.raw) else None
            elif vma is not None and isinstance(record, ChainEnd):
                cut.append((vma, record.link))
        reader.graph.tasks = list(self.tasks.values())
        for pid in self.changed:
            reader.remark(f"process {pid}: its VMAs changed while they were read")
        reader.read_mms(list(self.first))
        reader.read_chains(cut)

    def links(self, vma: RawVma, raw: bytes) -> bool:
        """Some of a chain, at once if none of them is known; False if one is."""
        same_vma, avcs = self.reader.same_vma, self.reader.graph.avcs
        links = list(self.words(raw))
        addresses = [link[LINK_WORDS - 1] - same_vma for link in links]
        found = map(self.avc, map(self.members, links))
        if avcs.keys().isdisjoint(addresses) and len(set(addresses)) == len(addresses):
            avcs.update(zip(addresses, found, strict=True))
            vma.chain.extend(addresses)
            return True
        return all(self.reader.add_link(vma, address, avc) for address, avc in zip(addresses, found, strict=True))

    def vma(self, record: MappedVma) -> RawVma | None:
        """One of a process, unless it is out of bounds or known by another process with the same mm."""
        pid, mm = record.pid, record.mm
        if pid not in self.tasks:
            self.first.setdefault(mm, (pid, len(self.tasks)))
            self.tasks[pid] = Task(pid, record.comm, mm)
        first, number = self.first.get(mm, (pid, 0))
        if not record.raw or first != pid:
            return None
        if self.tasks[pid].mm != mm or record.address in self.owners:
            self.changed[pid] = None
            return None
        self.owners[record.address] = mm
        return self.reader.add_vma(number, record.address, record.raw)
