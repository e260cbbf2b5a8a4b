# SPDX-License-Identifier: GPL-2.0-only
"""Process: the calls a scenario or a trace makes.

Calls raise :class:`OSError` with the errno the kernel would return.
"""

from __future__ import annotations

import os
from errno import EFAULT, EINVAL, ESRCH
from typing import TYPE_CHECKING

from rmaplab.kernel.area import Area
from rmaplab.kernel.exec import STACK_FLAGS, STACK_TOP
from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, VM_SHARED, prot_flags
from rmaplab.kernel.objects import Mm
from rmaplab.kernel.pagetable import SwapPte

if TYPE_CHECKING:
    from rmaplab.kernel.folio import Visit
    from rmaplab.kernel.kernel import Kernel

__all__ = ["MMAP_BASE", "Area", "Process"]

MMAP_BASE = 0x7F00_0000_0000
MMAP_GAP = 16 * PAGE_SIZE  # between areas placed by default: they never touch


class Process:
    """A process: a name, an address space, and the calls it can make.

    ``areas`` are names for ranges, inherited by fork; the dictionary is replaced, never changed.
    """

    __slots__ = ("areas", "kernel", "mm", "mmap_hint", "name")

    def __init__(self, kernel: Kernel, name: str, mm: Mm) -> None:
        self.kernel = kernel
        self.name = name
        self.mm = mm
        self.mmap_hint = MMAP_BASE
        self.areas: dict[str, Area] = {}

    def __repr__(self) -> str:
        return self.name

    def _check(self, rc: int) -> None:
        if rc != 0:
            raise OSError(-rc, os.strerror(-rc))

    def _alive(self) -> None:
        if self.kernel.processes.get(self.name) is not self:
            self._check(-ESRCH)

    def mmap(
        self,
        pages: int,
        at: int | None = None,
        prot: str = "rw",
        file: str | None = None,
        shared: bool = False,
    ) -> Area:
        """Map ``pages`` pages: at an address (bytes), replacing what is there, or apart from everything else."""
        self._alive()
        if pages <= 0 or (at is not None and at % PAGE_SIZE):
            self._check(-EINVAL)
        area = Area(self.free_address(pages) if at is None else at, pages)
        flags = prot_flags(prot) | (VM_SHARED if shared else 0)
        pgoff = None if file is None else 0
        self._check(self.kernel.do_mmap(self.mm, area.start, area.end, flags, file, pgoff))
        return area

    def free_address(self, pages: int) -> int:
        """Where an area goes that nobody places, in bytes: apart from everything else, and from the next one."""
        start = self.mmap_hint
        while True:
            at = self.mm.find(start - MMAP_GAP)
            if at == len(self.mm.vmas) or self.mm.vmas[at].vm_start >= start + (pages << PAGE_SHIFT) + MMAP_GAP:
                break
            start = self.mm.vmas[at].vm_end + MMAP_GAP
        self.mmap_hint = start + (pages << PAGE_SHIFT) + MMAP_GAP
        return start

    def munmap(self, area: Area) -> None:
        """Unmap the area."""
        self._alive()
        self._check(self.kernel.do_munmap(self.mm, area.start, area.end))

    def mprotect(self, area: Area, prot: str) -> None:
        """Change the area's access rights."""
        self._alive()
        self._check(self.kernel.do_mprotect(self.mm, area.start, area.end, prot_flags(prot)))

    def mremap(
        self, area: Area, pages: int | None = None, at: int | None = None, dontunmap: bool = False, move: bool = True
    ) -> Area:
        """Move an area and resize it to ``pages``: to an address (bytes), replacing what is there, or somewhere free.

        ``dontunmap`` leaves the old mapping there, empty.  Without ``move``
        and ``at`` it is resized where it is if there is room, else moved.
        """
        self._alive()
        pages = area.pages if pages is None else pages
        hint = self.mmap_hint
        free = self.free_address(pages)
        if at is None and move:
            at = free
        new = self.kernel.do_mremap(
            self.mm,
            area.start,
            area.pages << PAGE_SHIFT,
            pages << PAGE_SHIFT,
            new_addr=at,
            dontunmap=dontunmap,
            unmapped_area=free,
        )
        if new != free:
            self.mmap_hint = hint
        self._check(min(new, 0))
        return Area(new, pages)

    def read(self, area: Area, page: int | None = None) -> None:
        """Read from one page, or from each; EFAULT stands for SIGSEGV."""
        self._touch(area, page, write=False)

    def write(self, area: Area, page: int | None = None) -> None:
        """Write to one page, or to each."""
        self._touch(area, page, write=True)

    def _touch(self, area: Area, page: int | None, *, write: bool) -> None:
        self._alive()
        for index in range(area.pages) if page is None else (page,):
            self._check(self.kernel.do_user_addr_fault(self.mm, area.page(index), write))

    def madvise(self, area: Area, advice: str) -> None:
        """Give advice on the area, such as ``dontfork``; EINVAL if it does not suit, ENOMEM for a hole, EAGAIN."""
        self._alive()
        self._check(self.kernel.do_madvise(self.mm, area.start, area.end, advice))

    def mlock(self, area: Area) -> None:
        """Lock the area in memory, and fault it in; ENOMEM for a hole, EAGAIN if memory runs out."""
        self._alive()
        self._check(self.kernel.do_mlock(self.mm, area.start, area.end))

    def munlock(self, area: Area) -> None:
        """Unlock the area."""
        self._alive()
        self._check(self.kernel.do_munlock(self.mm, area.start, area.end))

    def brk(self, pages: int) -> Area:
        """Let the heap grow by so many pages, or shrink; the whole of it."""
        self._alive()
        heap = self.mm.start_brk
        end = self.mm.brk or heap
        new_end = end + (pages << PAGE_SHIFT)
        if new_end < heap:
            self._check(-EINVAL)
        self._check(self.kernel.do_brk(self.mm, end, new_end))
        return Area(heap, (new_end - heap) >> PAGE_SHIFT)

    def stack_grow(self, pages: int) -> Area:
        """Write so many pages below the stack's lowest, which makes it grow; the whole of it.

        A process without a stack gets one of one page first.  EFAULT (SIGSEGV): it cannot grow.
        """
        self._alive()
        area = self._stack()
        lowest = area.start - (pages << PAGE_SHIFT)
        self._check(self.kernel.do_user_addr_fault(self.mm, lowest, True))
        return Area(lowest, area.pages + pages)

    def _stack(self) -> Area:
        """The area below the top of the stack, as it is called or, without a name, as it is."""
        area = self.areas.get("stack")
        if area is not None and area.end == STACK_TOP:
            return area
        vma = self.mm.lookup(STACK_TOP - PAGE_SIZE)
        if vma is None:
            self._check(self.kernel.do_mmap(self.mm, STACK_TOP - PAGE_SIZE, STACK_TOP, STACK_FLAGS))
        start = STACK_TOP - PAGE_SIZE if vma is None else vma.vm_start
        return Area(start, (STACK_TOP - start) >> PAGE_SHIFT)

    def fork(self, name: str | None = None) -> Process:
        """A child with a copy of the address space; named after the next free number by default."""
        self._alive()
        kernel = self.kernel
        if name is None:
            name = next(f"P{n}" for n in range(1, len(kernel.processes) + 2) if f"P{n}" not in kernel.processes)
        elif name in kernel.processes:
            raise ValueError(f"process {name} already runs")
        mm = kernel.dup_mm(self.mm)
        if isinstance(mm, int):
            self._check(mm)
        assert isinstance(mm, Mm)
        child = kernel.add_process(name, mm)
        child.mmap_hint = self.mmap_hint
        child.areas = self.areas
        return child

    def share(self, name: str) -> Process:
        """A task in the same address space (vfork, or a thread)."""
        self._alive()
        task = self.kernel.add_process(name, self.mm)
        self.mm.users += 1
        return task

    def exec(self) -> Area:
        """Run a new program: a new address space with nothing but a stack, whose top page has the arguments.

        A failure up to there leaves the process as it was (ENOMEM, E2BIG); a
        later one, which the kernel answers with SIGKILL, ends it.
        """
        self._alive()
        mm = self.kernel.bprm_mm_init()
        if isinstance(mm, int):
            self._check(mm)
        assert isinstance(mm, Mm)
        self.begin_new_exec(mm)
        rc = self.kernel.setup_arg_pages(mm)
        if rc != 0:
            self.exit()
        self._check(rc)
        stack = mm.vmas[-1]
        area = Area(stack.vm_start, (stack.vm_end - stack.vm_start) >> PAGE_SHIFT)
        self.areas = {"stack": area}
        return area

    def begin_new_exec(self, mm: Mm | None = None) -> None:
        """Leave the address space for another, by default an empty one."""
        old, self.mm = self.mm, Mm(self.kernel.new_ident(Mm)) if mm is None else mm
        self.mmap_hint = MMAP_BASE
        self.areas = {}
        self._mmput(old)

    def exit(self) -> None:
        """End; the last task of an address space takes it down."""
        self._alive()
        del self.kernel.processes[self.name]
        self._mmput(self.mm)

    def _mmput(self, mm: Mm) -> None:
        mm.users -= 1
        if mm.users == 0:
            self.kernel.unpin_all(mm)
            self.kernel.exit_mmap(mm)

    def split_folio(self, area: Area) -> None:
        """Split the large folios mapped in the area into pages; EAGAIN if one is pinned."""
        self._alive()
        self._check(self.kernel.split_huge_pages(self.mm, area.start, area.end))

    def uffd_move(self, src: Area, dst: Area) -> None:
        """Move the pages of ``src`` to ``dst`` (UFFDIO_MOVE), both of one length; EBUSY for a page that is shared."""
        self._alive()
        if src.pages != dst.pages:
            self._check(-EINVAL)
        self._check(self.kernel.userfaultfd_move(self.mm, dst.start, src.start, src.pages << PAGE_SHIFT))

    def swapout(self, area: Area, cached: bool = False) -> None:
        """Swap each page out wherever it is mapped; ``cached``: it stays in memory, in the swap cache.

        EFAULT: nothing is there; EINVAL: not an anonymous page; EBUSY: pinned, or locked in memory.
        """
        self._alive()
        for index in range(area.pages):
            self._check(self.kernel.reclaim_page(self.mm, area.page(index), cached=cached))

    def swapin(self, area: Area) -> None:
        """Read each page, which must be swapped out (EINVAL)."""
        self._alive()
        for index in range(area.pages):
            if not isinstance(self.mm.page_table.get(area.page(index)), SwapPte):
                self._check(-EINVAL)
            self._check(self.kernel.handle_mm_fault(self.mm, area.page(index), False))

    def migrate(self, area: Area) -> None:
        """Move each page to another place in memory; EAGAIN: pinned; EFAULT and EINVAL as for :meth:`swapout`."""
        self._alive()
        self._check(self.kernel.migrate_pages(self.mm, area.start, area.end))

    def pin(self, area: Area, write: bool = True) -> None:
        """Pin each page for long-term access; EFAULT where that access is not allowed."""
        self._alive()
        for index in range(area.pages):
            self._check(self.kernel.pin_user_page(self.mm, area.page(index), write=write))

    def unpin(self, area: Area) -> None:
        """Drop one pin of each page; EINVAL for one that is not pinned."""
        self._alive()
        for index in range(area.pages):
            self._check(self.kernel.unpin_user_page(self.mm, area.page(index)))

    def ksm_merge(self, area: Area, content: str) -> None:
        """Let KSM merge the pages with all others of this content; EINVAL: not mergeable; EBUSY: pinned."""
        self._alive()
        self._check(self.kernel.ksm_merge_range(self.mm, area.start, area.end, content))

    def walk(self, area: Area, page: int, by: str | None = None) -> list[Visit]:
        """Reverse-map walk of the folio mapped at a page; EFAULT if there is none.

        ``by`` is for KSM's pages: which part of a tree is looked at, ``whole``, ``offset`` or ``address``.
        """
        self._alive()
        pte = self.mm.page_table.present(area.page(page))
        if pte is None:
            self._check(-EFAULT)
        assert pte is not None
        if pte.folio.stable_node is not None:
            return self.kernel.rmap_walk_ksm(pte.folio, by=by)
        return self.kernel.rmap_walk_anon(pte.folio)
