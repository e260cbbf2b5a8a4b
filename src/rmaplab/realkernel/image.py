# SPDX-License-Identifier: GPL-2.0-only
"""The twin of a machine without a kernel: the specification's state as the memory of a kernel that has it.

The objects stand in a made-up direct map with the members, trees and page
tables of the kernel whose layout is given, and can be read like those of any
other.  What no reader can find is left out: swap slots' counts, pages that
are in the swap cache only, KSM's notes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.kernel.interval_tree import vma_last_pgoff
from rmaplab.kernel.pagetable import Pte
from rmaplab.realkernel.image_memory import PAGE_OFFSET, VMEMMAP, ImageMemory, Slabs
from rmaplab.realkernel.image_pages import PageWriter
from rmaplab.realkernel.image_trees import write_maple_tree, write_rb_tree
from rmaplab.realkernel.target import Machine, Target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmaplab.kernel import Kernel
    from rmaplab.kernel.objects import AnonVma, AnonVmaChain, Mm, Vma
    from rmaplab.realkernel.layout import Layout

__all__ = ["FIRST_PID", "Image", "write_image"]

FIRST_PID = 100  # of the processes; below are the first task and a kernel thread


class Image:
    """A memory, and where things are in it: processes by id, file names by the address of their struct file."""

    def __init__(self, memory: ImageMemory, layout: Layout, init_task: int) -> None:
        self.memory = memory
        self.layout = layout
        self.init_task = init_task
        self.pids: dict[int, str] = {}
        self.files: dict[str, int] = {}

    def target(self) -> Target:
        """To be read with :func:`rmaplab.realkernel.reader.read_graph`."""
        machine = Machine("x86_64", 4, PAGE_OFFSET, VMEMMAP)
        return Target(self.memory, self.layout, machine, self.init_task, "twin")


def write_image(kernel: Kernel, layout: Layout, *, fill: int = 16) -> Image:
    """The memory of a machine in this state; leaves of maple trees have up to ``fill`` of their 16 slots in use.

    Corrupt states are written as they are; an object that was freed is on a
    page that faults, unless a link still leads to it.
    """
    return _Writer(kernel, layout, fill).write()


class _Writer:
    def __init__(self, kernel: Kernel, layout: Layout, fill: int) -> None:
        self.kernel = kernel
        self.layout = layout
        self.fill = fill
        self.slabs = Slabs(ImageMemory(), layout)
        self.image = Image(self.slabs.memory, layout, self.slabs.new("task_struct"))
        self.mms: list[Mm] = list(dict.fromkeys(process.mm for process in kernel.processes.values()))
        self.vmas: dict[Vma, int] = {}
        self.avcs: dict[AnonVmaChain, int] = {}
        self.anon_vmas: dict[AnonVma, int] = {}

    def write(self) -> Image:
        self.place()
        pages = PageWriter(self.slabs, self.anon_vmas)
        mms = {mm: self.write_mm(mm, pages) for mm in self.mms}
        for vma, address in self.vmas.items():
            self.write_vma(vma, address)
        for anon_vma, address in self.anon_vmas.items():
            if not anon_vma.freed:
                self.write_anon_vma(anon_vma, address)
        self.write_tasks(mms)
        return self.image

    def place(self) -> None:
        """Give every object an address before any is written: they point at each other in circles."""
        live = list(self.kernel.live_anon_vmas.values())
        vmas = [vma for mm in self.mms for vma in mm.vmas]
        avcs = [avc for vma in vmas for avc in vma.anon_vma_chain]
        avcs += [avc for anon_vma in live for avc in anon_vma.rb_root]
        folios = [entry.folio for mm in self.mms for entry in mm.page_table.pmds.values()]
        folios += [entry.folio for mm in self.mms for _, entry in mm.page_table if isinstance(entry, Pte)]
        self.avcs = {avc: self.slabs.new("anon_vma_chain") for avc in dict.fromkeys(avcs)}
        self.vmas = {vma: self.slabs.new("vm_area_struct") for vma in dict.fromkeys([*vmas, *_vmas_of(avcs)])}
        named = [vma.anon_vma for vma in vmas] + [avc.anon_vma for avc in avcs] + [folio.mapping for folio in folios]
        for anon_vma in (*live, *named):
            self.place_anon_vma(anon_vma)

    def place_anon_vma(self, anon_vma: AnonVma | None) -> None:
        """With its root and parent."""
        while anon_vma is not None and anon_vma not in self.anon_vmas:
            freed = anon_vma.freed
            self.anon_vmas[anon_vma] = self.slabs.unmapped() if freed else self.slabs.new("anon_vma")
            self.place_anon_vma(anon_vma.root)
            anon_vma = anon_vma.parent

    # --- processes and VMAs ------------------------------------------------------------------

    def write_tasks(self, mms: dict[Mm, int]) -> None:
        """The circle of tasks, from the first one, which has no mm, as the kernel threads have none."""
        self.image.pids = {FIRST_PID + at: name for at, name in enumerate(self.kernel.processes)}
        tasks = [(self.image.init_task, 0, "swapper/0", 0), (self.slabs.new("task_struct"), 2, "kthreadd", 0)]
        for pid, name in self.image.pids.items():
            mm = mms[self.kernel.processes[name].mm]
            tasks.append((self.slabs.new("task_struct"), pid, name, mm))
        put, links = self.slabs.put, [address + self.layout.offset("task_struct.tasks") for address, *_ in tasks]
        for at, (address, pid, name, mm) in enumerate(tasks):
            put(address, "task_struct.pid", pid, "i")
            put(address, "task_struct.tgid", pid, "i")
            put(address, "task_struct.comm", name.encode()[:15].ljust(16, b"\0"))
            put(address, "task_struct.mm", mm)
            put(address, "task_struct.tasks", links[(at + 1) % len(links)])
            put(address, "task_struct.tasks", links[at - 1], extra=8)

    def write_mm(self, mm: Mm, pages: PageWriter) -> int:
        """An mm with its maple tree and its page tables; its address."""
        address = self.slabs.new("mm_struct")
        tree = address + self.layout.offset("mm_struct.mm_mt.ma_root") - 8  # ma_root stands behind lock and flags
        entries = [(vma.vm_start, vma.vm_end - 1, self.vmas[vma]) for vma in mm.vmas]
        self.slabs.put(address, "mm_struct.mm_mt.ma_root", write_maple_tree(self.slabs, tree, entries, self.fill))
        self.slabs.put(address, "mm_struct.pgd", pages.write_tables(mm))
        return address

    def write_vma(self, vma: Vma, address: int) -> None:
        """A VMA and the circle of its links."""
        put = self.slabs.put
        put(address, "vm_area_struct.vm_start", vma.vm_start)
        put(address, "vm_area_struct.vm_end", vma.vm_end)
        put(address, "vm_area_struct.vm_flags", vma.vm_flags)
        put(address, "vm_area_struct.vm_pgoff", vma.vm_pgoff)
        put(address, "vm_area_struct.__vm_anon_pgoff_lo", vma.anon_pgoff & 0xFFFF_FFFF, "I")
        put(address, "vm_area_struct.__vm_anon_pgoff_hi", vma.anon_pgoff >> 32, "I")
        put(address, "vm_area_struct.vm_file", self.file(vma.file))
        put(address, "vm_area_struct.anon_vma", 0 if vma.anon_vma is None else self.anon_vmas[vma.anon_vma])
        avcs = [self.avcs[avc] for avc in vma.anon_vma_chain]
        for avc in vma.anon_vma_chain:
            put(self.avcs[avc], "anon_vma_chain.vma", self.vmas[avc.vma])
            put(self.avcs[avc], "anon_vma_chain.anon_vma", self.anon_vmas[avc.anon_vma])
        head = address + self.layout.offset("vm_area_struct.anon_vma_chain")
        links = [head, *(avc + self.layout.offset("anon_vma_chain.same_vma") for avc in avcs)]
        for at, owner in enumerate((address, *avcs)):
            member = "anon_vma_chain.same_vma" if at else "vm_area_struct.anon_vma_chain"
            put(owner, member, links[(at + 1) % len(links)])
            put(owner, member, links[at - 1], extra=8)

    def file(self, name: str | None) -> int:
        """The address of a struct file, which nobody reads; one for a name."""
        if name is None:
            return 0
        if name not in self.image.files:
            self.image.files[name] = self.slabs.unmapped()
        return self.image.files[name]

    # --- anon_vmas -----------------------------------------------------------------------------

    def write_anon_vma(self, anon_vma: AnonVma, address: int) -> None:
        """An anon_vma and its tree."""
        put, entries = self.slabs.put, list(anon_vma.rb_root)
        put(address, "anon_vma.root", self.anon_vmas[anon_vma.root])
        put(address, "anon_vma.parent", self.anon_vmas[anon_vma.parent])
        put(address, "anon_vma.refcount", anon_vma.refcount, "i")
        put(address, "anon_vma.num_children", anon_vma.num_children)
        put(address, "anon_vma.num_active_vmas", anon_vma.num_active_vmas)
        put(address, "anon_vma.degree", anon_vma.degree, "I")
        for avc in entries:
            put(self.avcs[avc], "anon_vma_chain.vma", self.vmas[avc.vma])
            put(self.avcs[avc], "anon_vma_chain.anon_vma", self.anon_vmas[avc.anon_vma])
        rb = self.layout.offset("anon_vma_chain.rb")
        nodes = [self.avcs[avc] + rb for avc in entries]
        root = write_rb_tree(self.slabs, nodes, lambda at: vma_last_pgoff(entries[at].vma))
        put(address, "anon_vma.rb_root", root)
        put(address, "anon_vma.rb_root", nodes[0] if nodes else 0, extra=8)  # rb_leftmost


def _vmas_of(avcs: Iterable[AnonVmaChain]) -> list[Vma]:
    return [avc.vma for avc in avcs]
