# SPDX-License-Identifier: GPL-2.0-only
"""madvise and mlock (mm/madvise.c and mm/mlock.c, v7.0).

Advice that sets or clears a flag merges or splits VMAs like mprotect, but
leaves VM_ACCOUNT alone.
"""

from __future__ import annotations

from errno import EAGAIN, EINVAL, ENOMEM
from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.flags import (
    PAGE_SIZE,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_MAYBE_GUARD,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_SHARED,
    VM_STICKY,
    VM_WIPEONFORK,
)
from rmaplab.kernel.locking import MMAP_LOCK, READ, WRITE
from rmaplab.kernel.mremap import Mremap
from rmaplab.kernel.pagetable import GuardMarker

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Mm, Vma

__all__ = ["ADVICE", "SINCE", "Madvise"]

_FLAGS = {  # advice: flags set, flags cleared
    "dontfork": (VM_DONTCOPY, 0),
    "dofork": (0, VM_DONTCOPY),
    "wipeonfork": (VM_WIPEONFORK, 0),
    "keeponfork": (0, VM_WIPEONFORK),
    "dontdump": (VM_DONTDUMP, 0),
    "dodump": (0, VM_DONTDUMP),
    "hugepage": (VM_HUGEPAGE, VM_NOHUGEPAGE),
    "nohugepage": (VM_NOHUGEPAGE, VM_HUGEPAGE),
    "mergeable": (VM_MERGEABLE, 0),
    "unmergeable": (0, VM_MERGEABLE),
}
_RANGES = ("dontneed", "guard-install", "guard-remove")

ADVICE = (*_FLAGS, *_RANGES, "collapse")
"""What :meth:`Madvise.do_madvise` knows."""

SINCE = {
    "v2.6.38": frozenset({"hugepage", "nohugepage"}),
    "v3.4": frozenset({"dontdump", "dodump"}),
    "v4.14": frozenset({"wipeonfork", "keeponfork"}),
    "v6.1": frozenset({"collapse"}),
    "v6.13": frozenset({"guard-install", "guard-remove"}),
}
"""The release that brought an advice, where it is younger than v2.6.32."""


class Madvise(Mremap):
    """madvise, mlock and munlock."""

    unknown_advice: ClassVar[frozenset[str]] = frozenset()  # of :data:`SINCE`, what this series does not know

    # --- madvise -----------------------------------------------------------------------------

    def do_madvise(self, mm: Mm, start: int, end: int, advice: str) -> int:
        """Give advice on [start, end) (bytes), VMA by VMA: 0, -EINVAL, -EAGAIN or -ENOMEM.

        A hole is -ENOMEM, but does not end it: what is mapped behind is
        advised all the same.  -EAGAIN: no memory for a VMA with other flags.
        """
        if advice not in ADVICE or advice in self.unknown_advice:
            return -EINVAL
        if advice == "collapse":
            return self.madvise_collapse(mm, start, end)
        self.locks.acquire(MMAP_LOCK, mm, READ if advice in _RANGES else WRITE)
        rc, hole, address = 0, 0, start
        while address < end and rc == 0:
            at = mm.find(address)
            if at == len(mm.vmas) or mm.vmas[at].vm_start >= end:
                hole = -ENOMEM
                break
            vma = mm.vmas[at]
            if vma.vm_start > address:
                hole, address = -ENOMEM, vma.vm_start
            upto = min(end, vma.vm_end)
            rc = self.madvise_vma_behavior(vma, address, upto, advice)
            address = upto
        self.locks.release(MMAP_LOCK, mm)
        return rc or hole

    def madvise_vma_behavior(self, vma: Vma, start: int, end: int, advice: str) -> int:
        """One VMA's part of the advice."""
        match advice:
            case "dontneed":
                return self.madvise_dontneed(vma, start, end)
            case "guard-install":
                return self.madvise_guard_install(vma, start, end)
            case "guard-remove":
                return self.madvise_guard_remove(vma, start, end)
            case "wipeonfork" if vma.file is not None or vma.vm_flags & VM_SHARED:
                return -EINVAL
            case "mergeable" | "unmergeable" if vma.vm_flags & VM_SHARED:
                return 0  # KSM ignores what it cannot merge
            case "unmergeable":
                if self.unmerge_ksm_pages(vma, start, end) != 0:
                    return -EAGAIN
        added, removed = _FLAGS[advice]
        rc = self.madvise_update_vma(vma, start, end, vma.vm_flags & ~removed | added)
        return -EAGAIN if rc == -ENOMEM else rc

    def madvise_update_vma(self, vma: Vma, start: int, end: int, flags: int) -> int:
        """Give [start, end) of a VMA new flags; 0 or -ENOMEM."""
        if flags == vma.vm_flags:
            return 0
        modified = self.vma_modify_flags(vma, start, end, flags)
        if isinstance(modified, int):
            return modified
        modified.vm_flags = flags | modified.vm_flags & VM_STICKY
        return 0

    def madvise_dontneed(self, vma: Vma, start: int, end: int) -> int:
        """Zap the pages, but not the guards among them; -EINVAL for locked memory."""
        if vma.vm_flags & VM_LOCKED:
            return -EINVAL
        self.zap_page_range(vma, start, end, keep_guards=True)
        return 0

    def is_valid_guard_vma(self, vma: Vma) -> bool:
        """Whether guards may be put into a VMA (away they may go anywhere): what is locked is not zapped."""
        return not vma.vm_flags & VM_LOCKED

    def madvise_guard_install(self, vma: Vma, start: int, end: int) -> int:
        """Make every page of the range a guard; 0, -EINVAL or -ENOMEM, which may leave some guards.

        Only if there is something in the way all of the range is zapped.
        """
        if not self.is_valid_guard_vma(vma):
            return -EINVAL
        if self.prepare_guards(vma) != 0:
            return -ENOMEM
        rc = self.guard_install_walk(vma.vm_mm, start, end)
        if rc > 0:
            self.zap_page_range(vma, start, end, keep_guards=True)
            rc = self.guard_install_walk(vma.vm_mm, start, end)
        return rc

    def prepare_guards(self, vma: Vma) -> int:
        """Tell fork that it has to copy this page table, by VM_MAYBE_GUARD; 0 or -ENOMEM.

        Anonymous memory gets an anon_vma besides, before it has any
        anonymous page: that it has none means an empty page table elsewhere.
        """
        vma.vm_flags |= VM_MAYBE_GUARD
        anonymous = vma.file is None
        return self.anon_vma_prepare(vma) if anonymous else 0

    def guard_install_walk(self, mm: Mm, start: int, end: int) -> int:
        """Put guards in, up to the first page that something is mapped at; 0, 1 for such a page, or -ENOMEM."""
        for address in range(start, end, PAGE_SIZE):
            entry = mm.page_table.get(address)
            if isinstance(entry, GuardMarker):
                continue
            if entry is not None or mm.page_table.present(address) is not None:
                return 1
            if self.pte_alloc(mm, address) != 0:
                return -ENOMEM
            mm.page_table.set(address, GuardMarker())
        return 0

    def madvise_guard_remove(self, vma: Vma, start: int, end: int) -> int:
        """Take the guards of a range away; 0."""
        table = vma.vm_mm.page_table
        for address, entry in table.range(start, end):
            if isinstance(entry, GuardMarker):
                table.clear(address)
        return 0

    # --- mlock -------------------------------------------------------------------------------

    def do_mlock(self, mm: Mm, start: int, end: int) -> int:
        """Lock [start, end) in memory and fault it in; 0, -ENOMEM for a hole or an inaccessible page, or -EAGAIN.

        -EAGAIN: no memory for a page; what was locked stays locked.
        """
        rc = self.apply_vma_lock_flags(mm, start, end, VM_LOCKED)
        return rc if rc != 0 else self.mm_populate(mm, start, end)

    def do_munlock(self, mm: Mm, start: int, end: int) -> int:
        """Unlock [start, end); 0 or -ENOMEM."""
        return self.apply_vma_lock_flags(mm, start, end, 0)

    def apply_vma_lock_flags(self, mm: Mm, start: int, end: int, locked: int) -> int:
        """Set or clear VM_LOCKED, VMA by VMA up to the first hole; 0 or -ENOMEM."""

        def change(vma: Vma, first: int, upto: int) -> int:
            return self.madvise_update_vma(vma, first, upto, vma.vm_flags & ~VM_LOCKED | locked)

        return self.change_vmas(mm, start, end, change)
