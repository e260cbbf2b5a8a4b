# SPDX-License-Identifier: GPL-2.0-only
"""UFFDIO_MOVE: pages change their place, their index and their anon_vma (mm/userfaultfd.c, v7.0).

The one call that can take a page to an unrelated tree of anon_vmas.  It is
safe for a page of this process alone, and because every walk holds the
folio's lock.  The destination counts as registered with the userfaultfd;
UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES is not modelled.
"""

from __future__ import annotations

from errno import EAGAIN, EBUSY, EEXIST, EFAULT, EINVAL, ENOENT, ENOMEM
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rmaplab.kernel.flags import PAGE_SIZE, PMD_SIZE, VM_ACCESS_FLAGS, VM_LOCKED, VM_SHARED, VM_WRITE
from rmaplab.kernel.folio import linear_page_index
from rmaplab.kernel.locking import FOLIO_LOCK, MMAP_LOCK, READ
from rmaplab.kernel.madvise import Madvise
from rmaplab.kernel.objects import ZERO_PAGE
from rmaplab.kernel.pagetable import MigrationPte, Pte, SwapPte

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Folio, Mm, Vma

__all__ = ["MovePlace", "Userfaultfd"]


class MovePlace(NamedTuple):
    """One end of a move: the VMA, and the address of the page in it in bytes."""

    vma: Vma
    address: int


class Userfaultfd(Madvise):
    """UFFDIO_MOVE (adef440691ba, v6.8)."""

    has_uffdio_move: ClassVar[bool] = True
    """Whether the ioctl exists: since v6.8."""

    def userfaultfd_move(self, mm: Mm, dst: int, src: int, size: int) -> int:
        """Move ``size`` bytes from ``src`` to ``dst``: 0, the first page's error, -EAGAIN if a later one failed."""
        if not self.has_uffdio_move or size <= 0 or (dst | src | size) % PAGE_SIZE:
            return -EINVAL
        self.locks.acquire(MMAP_LOCK, mm, READ)
        ends = self.uffd_move_vmas(mm, dst, src, size)
        if isinstance(ends, int):
            moved, rc = 0, ends
        else:
            moved, rc = self.move_pages(*ends, size)
        self.locks.release(MMAP_LOCK, mm)
        return rc if moved == 0 else 0 if moved == size else -EAGAIN

    def uffd_move_vmas(self, mm: Mm, dst: int, src: int, size: int) -> tuple[MovePlace, MovePlace] | int:
        """Both ends, or an errno; the destination has an anon_vma from here on, even if nothing can be moved."""
        dst_vma = mm.lookup(dst)
        if dst_vma is None:
            return -ENOENT
        if not dst_vma.vm_flags & VM_SHARED and self.anon_vma_prepare(dst_vma) != 0:
            return -ENOMEM
        src_vma = mm.lookup(src)
        if src_vma is None:
            return -ENOENT
        if (src_vma.vm_flags | dst_vma.vm_flags) & VM_SHARED:
            return -EINVAL
        if src + size > src_vma.vm_end or dst + size > dst_vma.vm_end:
            return -EINVAL
        if not self.validate_move_areas(src_vma, dst_vma):
            return -EINVAL
        return MovePlace(dst_vma, dst), MovePlace(src_vma, src)

    def validate_move_areas(self, src: Vma, dst: Vma) -> bool:
        """Whether pages may go from one VMA to the other: both writable and anonymous, locked alike."""
        return (
            (src.vm_flags ^ dst.vm_flags) & (VM_ACCESS_FLAGS | VM_LOCKED) == 0
            and src.vm_flags & VM_WRITE != 0
            and src.file is None
            and dst.file is None
        )

    def move_pages(self, dst: MovePlace, src: MovePlace, size: int) -> tuple[int, int]:
        """Move entry by entry; bytes moved, and 0 or the error that ended it.

        The kernel begins again as long as it gets -EAGAIN; nothing changes
        here in between, so that error ends the move.
        """
        done = 0
        while done < size:
            to = MovePlace(dst.vma, dst.address + done)
            source = MovePlace(src.vma, src.address + done)
            step = self.move_one(to, source, size - done)
            if step < 0:
                return done, step
            done += step
        return done, 0

    def move_one(self, dst: MovePlace, src: MovePlace, left: int) -> int:
        """Move one entry, small or huge: the bytes it maps (0: it was split, try again), or a negative errno."""
        mm = src.vma.vm_mm
        table = mm.page_table
        if dst.address & -PMD_SIZE in table.pmds:
            return -EEXIST
        huge = table.pmds.get(src.address & -PMD_SIZE)
        if huge is not None:
            aligned = (src.address | dst.address) % PMD_SIZE == 0 and left >= PMD_SIZE
            if aligned and self.pmd_none(mm, dst.address):
                return self.move_pages_huge_pmd(dst, src, huge) or PMD_SIZE
            if not huge.folio.exclusive & 1:
                return -EBUSY
            self.split_huge_pmd(src.vma, src.address)
            return 0
        if self.pmd_none(mm, src.address):
            return -ENOENT
        if self.pte_alloc(mm, dst.address) != 0:
            return -ENOMEM
        return self.move_pages_pte(dst, src)

    def move_pages_pte(self, dst: MovePlace, src: MovePlace) -> int:
        """Move one small entry: PAGE_SIZE, 0 if its folio was split first, or a negative errno."""
        table = src.vma.vm_mm.page_table
        if table.get(dst.address) is not None:
            return -EEXIST
        entry = table.get(src.address)
        if entry is None:
            return -ENOENT
        if isinstance(entry, SwapPte):
            return self.move_swap_pte(dst, src, entry) or PAGE_SIZE
        if not isinstance(entry, Pte):
            return -EAGAIN if isinstance(entry, MigrationPte) else -EFAULT
        if entry.folio is ZERO_PAGE:
            table.clear(src.address)
            table.set(dst.address, Pte(ZERO_PAGE, False))
            return PAGE_SIZE
        if not entry.folio.anon or not entry.folio.exclusive & 1:  # of a large folio, too, the first page is asked
            return -EBUSY
        if entry.folio.order:
            self.locks.acquire(FOLIO_LOCK, entry.folio)
            rc = self.split_folio(entry.folio)
            self.locks.release(FOLIO_LOCK, entry.folio)
            return rc
        return self.move_present_pte(dst, src, entry.folio) or PAGE_SIZE

    def move_present_pte(self, dst: MovePlace, src: MovePlace, folio: Folio) -> int:
        """Move a present small page; 0, or -EBUSY if it is pinned."""
        table = src.vma.vm_mm.page_table
        anon_vma = self.lock_moved_folio(folio)
        rc = -EBUSY if folio.pins else 0
        if rc == 0:
            table.clear(src.address)
            self.folio_change_place(folio, dst)
            self.set_pte(src.vma.vm_mm, dst.address, folio, True)
        self.unlock_moved_folio(folio, anon_vma)
        return rc

    def move_pages_huge_pmd(self, dst: MovePlace, src: MovePlace, huge: Pte) -> int:
        """Move a whole huge entry, and its table with it; 0, or -EBUSY if it is shared or pinned."""
        if not huge.folio.exclusive & 1:
            return -EBUSY
        anon_vma = self.lock_moved_folio(huge.folio)
        rc = -EBUSY if huge.folio.pins else 0
        if rc == 0:
            table = src.vma.vm_mm.page_table
            del table.pmds[src.address]
            self.folio_change_place(huge.folio, dst)
            table.pmds[dst.address] = Pte(huge.folio, True)
        self.unlock_moved_folio(huge.folio, anon_vma)
        return rc

    def move_swap_pte(self, dst: MovePlace, src: MovePlace, entry: SwapPte) -> int:
        """Move a swap entry, and with it the page that may still be in the swap cache; 0, or -EBUSY if it is shared.

        Nobody maps that page, so no walk can be on its way to it.
        """
        if not entry.exclusive:
            return -EBUSY
        table, folio = src.vma.vm_mm.page_table, entry.slot.folio
        if folio is not None:
            self.move_cached_folio(folio, dst)
        table.clear(src.address)
        table.set(dst.address, entry)
        return 0

    def move_cached_folio(self, folio: Folio, dst: MovePlace) -> None:
        """Rename a page in the swap cache whose entry moves, for a swap-in there to find it (c50f8e6053b0, v6.14)."""
        self.locks.acquire(FOLIO_LOCK, folio)
        self.folio_change_place(folio, dst)
        self.locks.release(FOLIO_LOCK, folio)

    def folio_change_place(self, folio: Folio, dst: MovePlace) -> None:
        """Rewrite what the folio names: the destination's anon_vma, and its index there."""
        exclusive = folio.exclusive
        self.folio_move_anon_rmap(folio, dst.vma)
        folio.exclusive = exclusive
        folio.index = linear_page_index(dst.vma, dst.address)

    def lock_moved_folio(self, folio: Folio) -> AnonVma | None:
        """Keep walks away: all of them hold the folio's lock (since v6.19).  The result is for the unlock."""
        self.locks.acquire(FOLIO_LOCK, folio)
        return None

    def unlock_moved_folio(self, folio: Folio, anon_vma: AnonVma | None) -> None:
        """Undo :meth:`lock_moved_folio`, which returned ``anon_vma``."""
        self.locks.release(FOLIO_LOCK, folio)
