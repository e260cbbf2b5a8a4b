# SPDX-License-Identifier: GPL-2.0-only
"""The model as a performer of random programs."""

from __future__ import annotations

from collections import Counter
from errno import EINVAL, ENOMEM
from typing import TYPE_CHECKING

from calls import HEAP, PAGES, WINDOW
from views import Area, View

from rmaplab.kernel.flags import PAGE_SHIFT, PAGE_SIZE, VM_GROWSDOWN, VM_LOCKED, VM_MERGEABLE, flags_name, prot_flags
from rmaplab.kernel.objects import FILE_PAGE
from rmaplab.kernel.pagetable import GuardMarker, Pte, SwapPte
from rmaplab.kernel.process import Area as PageRange

if TYPE_CHECKING:
    from calls import Call

    from rmaplab.kernel import Kernel, Process
    from rmaplab.kernel.objects import Folio, Mm
    from rmaplab.kernel.pagetable import Entry

__all__ = ["Model"]

VM_UFFD_MISSING = 0x200
CONTENT = "one"  # of every page that a puppet has written to


class Model:
    """The specification as a performer."""

    def __init__(self, series: type[Kernel]) -> None:
        self.kernel = series()
        mm = self.kernel.spawn("P0").mm
        mm.start_brk = mm.brk = WINDOW + (HEAP << PAGE_SHIFT)

    def call(self, call: Call, *, allowed: bool = True) -> int:
        """Perform a call on the model."""
        process = self.kernel.processes[call.process]
        area = PageRange(call.start, call.pages)
        try:
            match call.name:
                case "mmap" if call.stack:
                    flags = prot_flags(call.prot) | VM_GROWSDOWN
                    return -self.kernel.do_mmap(process.mm, area.start, area.end, flags)
                case "mmap":
                    process.mmap(call.pages, at=call.start, prot=call.prot, file=call.file, shared=call.shared)
                case "mprotect":
                    process.mprotect(area, call.prot)
                case "madvise":
                    process.madvise(area, call.advice)
                case "fork":
                    process.fork(call.child)
                case "exit":
                    process.exit()
                case "brk":
                    return ENOMEM if self.kernel.do_brk(process.mm, process.mm.brk, call.start) else 0
                case "swapout":
                    return self.pageout(process, area)
                case "uffd_move":
                    return self.uffd_move(process, call)
                case "ksmd":
                    self.merge_all()
                case "mremap":
                    return self.mremap(process, call)
                case "read" | "write":
                    return -self.kernel.do_user_addr_fault(process.mm, call.start, call.name == "write")
                case _:
                    getattr(process, call.name)(area)
        except OSError as error:
            return error.errno or -1
        return 0

    def pageout(self, process: Process, area: PageRange) -> int:
        """MADV_PAGEOUT: it leaves alone what others map as well; EINVAL at locked memory, ENOMEM for a hole."""
        mm, rc = process.mm, 0
        for address in range(area.start, area.end, PAGE_SIZE):
            vma, pte = mm.lookup(address), mm.page_table.present(address)
            if vma is None:
                rc = ENOMEM
            elif vma.vm_flags & VM_LOCKED:
                return EINVAL
            elif pte is not None and pte.folio.anon and pte.folio.mapcount == 1:
                process.swapout(PageRange(address, 1))
        return rc

    def uffd_move(self, process: Process, call: Call) -> int:
        """Register the whole window, move, and unregister it: every VMA gets a flag and loses it."""
        mm = process.mm
        if not mm.vmas:
            return EINVAL
        self.flip(mm)
        code = self.kernel.userfaultfd_move(mm, call.target or 0, call.start, call.pages << PAGE_SHIFT)
        self.flip(mm)
        return -code

    def flip(self, mm: Mm) -> None:
        """Give every VMA the flag, or take it away; they merge where they can by now."""
        address = WINDOW
        while (at := mm.find(address)) < len(mm.vmas):
            vma = mm.vmas[at]
            address = vma.vm_end
            self.kernel.madvise_update_vma(vma, vma.vm_start, address, vma.vm_flags ^ VM_UFFD_MISSING)

    def mergeable(self) -> list[tuple[Process, int, Folio]]:
        """The pages that ksmd looks at, by process and address."""
        return [
            (process, address, entry.folio)
            for process in self.kernel.processes.values()
            for address, entry in process.mm.page_table
            if isinstance(entry, Pte)
            and entry.folio.anon
            and (vma := process.mm.lookup(address)) is not None
            and vma.vm_flags & VM_MERGEABLE
        ]

    def merge_all(self) -> None:
        """ksmd has seen all pages, which are equal: two are needed to begin with, or one and a merged one."""
        self.kernel.ksmd()
        places = self.mergeable()
        if len({folio for _, _, folio in places}) > 1 or self.kernel.stable_tree_search(CONTENT) is not None:
            for process, address, _ in places:
                process.ksm_merge(PageRange(address, 1), CONTENT)

    def can_tell(self, call: Call) -> bool:
        """Not which of two pages ksmd keeps, if one of them is mapped where ksmd does not look as well."""
        if call.name != "ksmd" or self.kernel.stable_tree_search(CONTENT) is not None:
            return True
        seen = Counter(folio for _, _, folio in self.mergeable())
        return len(seen) < 2 or all(folio.mapcount == places for folio, places in seen.items())

    def mremap(self, process: Process, call: Call) -> int:
        """Move to the named place, or resize without leave to move."""
        new = self.kernel.do_mremap(
            process.mm,
            call.start,
            call.pages << PAGE_SHIFT,
            call.size << PAGE_SHIFT,
            new_addr=call.target,
            dontunmap=call.dontunmap,
            maymove=call.to is not None,
        )
        return max(-new, 0)

    def alive(self) -> list[str]:
        """Names of the modelled processes."""
        return sorted(self.kernel.processes)

    def entries(self, process: str) -> list[Entry | None]:
        """The page table of the window."""
        table = self.kernel.processes[process].mm.page_table
        return [table.get(WINDOW + (page << PAGE_SHIFT)) for page in range(PAGES)]

    def view(self, process: str) -> View:
        """The window as the model has it."""
        mm = self.kernel.processes[process].mm
        vmas = []
        for vma in mm.vmas:
            entries = mm.page_table.range(vma.vm_start, vma.vm_end)
            anonymous = sum(isinstance(entry, Pte) and entry.folio.anon for _, entry in entries)
            first, end = ((address - WINDOW) >> PAGE_SHIFT for address in (vma.vm_start, vma.vm_end))
            vmas.append(Area(first, end, flags_name(vma.vm_flags), anonymous))
        return View(tuple(vmas), "".join(map(_letter, self.entries(process))))

    def folios(self, process: str) -> tuple[Folio | None, ...]:
        """The folios themselves; they are one page each."""
        return tuple(
            entry.folio if isinstance(entry, Pte) and entry.folio is not FILE_PAGE else None
            for entry in self.entries(process)
        )


def _letter(entry: Entry | None) -> str:
    if isinstance(entry, GuardMarker):
        return "g"
    if isinstance(entry, SwapPte):
        return "w"
    if not isinstance(entry, Pte) or entry.folio is FILE_PAGE:
        return "."
    return "x" if entry.folio.anon and entry.folio.mapcount == 1 else "s"
