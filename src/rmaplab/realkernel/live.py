# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel as a kernel to be read: BTF tells its types, BPF programs fetch its memory.

Nothing has to be installed, and nothing of it is symbols: tasks, VMAs and
chains come from an iterator, which the kernel runs with each process's
mmap_lock held; trees and pages are read without any lock.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rmaplab.errors import InputError
from rmaplab.realkernel.bpf_iterator import ChainEnd, ChainLink, MappedVma, VmaIterator
from rmaplab.realkernel.bpf_memory import BpfMemory
from rmaplab.realkernel.btf import Btf
from rmaplab.realkernel.graph import RawAvc
from rmaplab.realkernel.kernel_map import find_machine
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.target import Machine, Target, Task

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from rmaplab.realkernel.bpf_iterator import Record
    from rmaplab.realkernel.reader import GraphReader

__all__ = ["BTF", "LiveTarget"]

BTF = Path("/sys/kernel/btf/vmlinux")


class LiveTarget(Target):
    """Loads its programs when it is made; :class:`InputError` says what is missing."""

    def __init__(self) -> None:
        if not BTF.exists():
            raise InputError(f"{BTF} is not there: the running kernel was built without CONFIG_DEBUG_INFO_BTF")
        btf = Btf.of_file(BTF)
        layout = Layout.of_btf(btf)
        self.iterator = VmaIterator(btf)
        try:
            memory = BpfMemory()
        except BaseException:
            self.iterator.close()
            raise
        self.bpf_memory = memory
        self.records: list[Record] = []
        super().__init__(memory, layout, Machine(), release=platform.release())
        self.machine = self._find_machine()

    def __enter__(self) -> Self:
        """It is open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the programs out of the kernel."""
        self.close()

    def close(self) -> None:
        """Take the programs out of the kernel."""
        self.bpf_memory.close()
        self.iterator.close()

    def _find_machine(self) -> Machine:
        """By a page of our own; what cannot be found is left out, and so are pages then."""
        if platform.machine() != "x86_64":
            return Machine()
        with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE) as page:
            page[0] = 1
            address = ctypes.addressof(ctypes.c_char.from_buffer(page))
            fields = self.layout.fields("vm_area_struct", ("vm_start", "Q"), ("vm_end", "Q"), ("anon_vma", "Q"))
            (mm,) = self.tasks([os.getpid()])
            pgd = int.from_bytes(self.memory.read(mm.mm + self.layout.offset("mm_struct.pgd"), 8), "little")
            for record in self.records:
                if isinstance(record, MappedVma):
                    start, end, anon_vma = fields.unpack(record.raw[fields.start :])
                    if start <= address < end:
                        return find_machine(self.memory, self.layout, pgd, address, anon_vma)
        return Machine()

    def tasks(self, pids: Collection[int] | None = None, remarks: list[str] | None = None) -> list[Task]:
        """The processes that have VMAs; those of them that are asked for, as far as they live."""
        self.records = []
        for pid in [None] if pids is None else sorted(pids):
            self.records += self.iterator.records(pid)
        found: dict[int, Task] = {}
        for record in self.records:
            if isinstance(record, MappedVma) and record.mm:
                found.setdefault(record.pid, Task(record.pid, record.comm, record.mm))
        return [found[pid] for pid in sorted(found)]

    def read_vmas(self, reader: GraphReader) -> None:
        """Give a reader what the iterator saw of the tasks that :meth:`tasks` told last."""
        mms = {task.mm: number for number, task in reversed(list(enumerate(reader.graph.tasks)))}
        reader.read_mms(list(mms))
        fields = reader.fields["anon_vma_chain"]
        vma, seen, cut = None, set(), []
        for record in self.records:
            if isinstance(record, MappedVma):
                vma = None
                if record.mm in mms and record.address not in seen:
                    seen.add(record.address)
                    vma = reader.add_vma(mms[record.mm], record.address, record.raw)
            elif vma is None:
                continue
            elif isinstance(record, ChainLink):
                avc = RawAvc(*fields.unpack(record.raw[fields.start :]))
                reader.add_link(vma, record.link - reader.same_vma, avc)
            elif isinstance(record, ChainEnd):
                cut.append((vma, record.link))
        reader.read_chains(cut)
        self.records = []
