# SPDX-License-Identifier: GPL-2.0-only
"""Split, merge and adjust VMAs (mm/vma.c, v7.0).

A VMA's range is the key of its AVCs in the interval trees, so it changes only
between :meth:`VmaOps.vma_prepare` and :meth:`VmaOps.vma_complete`, which take the
AVCs out and put them back under the root's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import ENOMEM
from typing import TYPE_CHECKING

from rmaplab.kernel.flags import PAGE_SHIFT, VM_IGNORE_MERGE
from rmaplab.kernel.objects import Mm, Vma
from rmaplab.kernel.rmap import Operation
from rmaplab.kernel.walk import RmapWalk

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma

__all__ = ["VmaMerge", "VmaOps"]


@dataclass(slots=True)
class VmaMerge:
    """struct vma_merge_struct: a range [start, end) in bytes that might join its neighbours.

    ``middle`` is the VMA that holds the range now, None for a new mapping.
    """

    mm: Mm
    start: int
    end: int
    pgoff: int
    flags: int
    file: str | None = None
    prev: Vma | None = None
    middle: Vma | None = None
    next: Vma | None = None
    oom: bool = False


class VmaOps(RmapWalk):
    """What mmap, munmap and mprotect do to VMAs."""

    def vm_area_alloc(self, mm: Mm, start: int, end: int, pgoff: int, flags: int, file: str | None = None) -> Vma:
        """A detached VMA with no reverse map."""
        return Vma(self.new_ident(Vma), mm, start, end, pgoff, flags, file)

    def vm_area_dup(self, orig: Vma) -> Vma:
        """A detached copy: the anon_vma pointer is copied, the list starts empty."""
        vma = self.vm_area_alloc(orig.vm_mm, orig.vm_start, orig.vm_end, orig.vm_pgoff, orig.vm_flags, orig.file)
        vma.anon_vma = orig.anon_vma
        return vma

    def vm_area_free(self, vma: Vma) -> None:
        """Free a VMA."""
        vma.freed = True

    def vma_link(self, vma: Vma) -> None:
        """Store a VMA in its mm, in address order."""
        vma.vm_mm.vmas.insert(vma.vm_mm.find(vma.vm_start), vma)
        vma.attached = True

    def vma_unlink(self, vma: Vma) -> None:
        """Take a VMA out of its mm."""
        vma.vm_mm.vmas.remove(vma)
        vma.attached = False

    # --- adjusting -----------------------------------------------------------------------

    def vma_prepare(self, *vmas: Vma) -> AnonVma | None:
        """Lock and take the VMAs' AVCs out of their trees; returns the lock for :meth:`vma_complete`."""
        anon_vma = next((vma.anon_vma for vma in vmas if vma.anon_vma is not None), None)
        if anon_vma is not None:
            self.anon_vma_lock_write(anon_vma)
            for vma in vmas:
                for avc in vma.anon_vma_chain:
                    self.anon_vma_interval_tree_remove(avc, avc.anon_vma)
        return anon_vma

    def vma_complete(self, anon_vma: AnonVma | None, *vmas: Vma, removed: tuple[Vma, ...] = ()) -> None:
        """Put the AVCs back behind their equals and unlock; only then unlink and free removed VMAs."""
        if anon_vma is not None:
            for vma in vmas:
                for avc in vma.anon_vma_chain:
                    self.anon_vma_interval_tree_insert(avc, avc.anon_vma)
            self.anon_vma_unlock_write(anon_vma)
        for vma in removed:
            self.unlink_removed_vma(vmas[0], vma)
            self.vm_area_free(vma)

    def unlink_removed_vma(self, survivor: Vma, removed: Vma) -> None:
        """Drop the links of a VMA that ``survivor`` absorbed; the survivor has the same ones."""
        if removed.anon_vma is not None:
            self.unlink_anon_vmas(removed)

    # --- split ---------------------------------------------------------------------------

    def split_vma(self, vma: Vma, address: int, new_below: bool) -> int:
        """Cut a VMA at ``address`` (bytes); the new VMA is the part below or above it; 0 or -ENOMEM."""
        new = self.vm_area_dup(vma)
        if new_below:
            new.vm_end = address
        else:
            new.vm_start = address
            new.vm_pgoff += (address - vma.vm_start) >> PAGE_SHIFT
        if self.anon_vma_clone(new, vma, Operation.SPLIT) != 0:
            self.vm_area_free(new)
            return -ENOMEM

        locked = self.vma_prepare(vma)
        if new_below:
            vma.vm_pgoff += (address - vma.vm_start) >> PAGE_SHIFT
            vma.vm_start = address
        else:
            vma.vm_end = address
        self.vma_link(new)
        self.vma_complete(locked, vma)
        return 0

    # --- merge ---------------------------------------------------------------------------

    def vma_is_fork_child(self, vma: Vma | None) -> bool:
        """Whether a VMA has links beyond its own anon_vma: it was inherited by fork."""
        return vma is not None and vma.anon_vma is not None and len(vma.anon_vma_chain) > 1

    def is_mergeable_vma(self, vmg: VmaMerge, vma: Vma) -> bool:
        """Attributes other than range and anon_vma: equal flags but for the ignored ones, same file."""
        return (vma.vm_flags ^ vmg.flags) & ~VM_IGNORE_MERGE == 0 and vma.file == vmg.file

    def is_mergeable_anon_vma(self, vmg: VmaMerge, target: Vma) -> bool:
        """Whether ``target`` may absorb the range as far as anon_vmas go (rule of 879bca0a2c4f, v6.16).

        Equal anon_vmas, or one side unfaulted and the other not inherited by fork.
        """
        src = vmg.middle.anon_vma if vmg.middle is not None else None
        if target.anon_vma is None and src is not None:
            return not self.vma_is_fork_child(vmg.middle)
        if target.anon_vma is not None and src is None:
            return not self.vma_is_fork_child(target)
        return target.anon_vma is src

    def can_vma_merge_left(self, vmg: VmaMerge) -> bool:
        """Whether the VMA before the range can grow over it."""
        prev = vmg.prev
        return (
            prev is not None
            and prev.vm_end == vmg.start
            and self.is_mergeable_vma(vmg, prev)
            and self.is_mergeable_anon_vma(vmg, prev)
            and vmg.pgoff == prev.vm_pgoff + ((vmg.start - prev.vm_start) >> PAGE_SHIFT)
        )

    def can_vma_merge_right(self, vmg: VmaMerge, merge_left: bool) -> bool:
        """Whether the VMA behind the range can grow over it, together with a merge to the left if there is one."""
        following = vmg.next
        if (
            following is None
            or following.vm_start != vmg.end
            or not self.is_mergeable_vma(vmg, following)
            or not self.is_mergeable_anon_vma(vmg, following)
            or following.vm_pgoff != vmg.pgoff + ((vmg.end - vmg.start) >> PAGE_SHIFT)
        ):
            return False
        if not merge_left or vmg.prev is None:
            return True
        # Both fit the range; they must fit each other too.
        prev = vmg.prev.anon_vma
        return prev is None or following.anon_vma is None or prev is following.anon_vma

    def vma_merge_existing_range(self, vmg: VmaMerge) -> Vma | None:
        """Merge a range of ``vmg.middle`` with its neighbours; the survivor, or None (``vmg.oom`` tells why)."""
        middle, prev, following = vmg.middle, vmg.prev, vmg.next
        assert middle is not None
        at_start, at_end = vmg.start == middle.vm_start, vmg.end == middle.vm_end
        left = at_start and self.can_vma_merge_left(vmg)
        right = at_end and self.can_vma_merge_right(vmg, left)
        whole = at_start and at_end
        if left and prev is not None:
            if right and following is not None:
                exporter = middle if following.anon_vma is None else following
                return self.commit_merge(vmg, prev, exporter, prev.vm_start, following.vm_end, (middle, following))
            removed = (middle,) if whole else ()
            return self.commit_merge(vmg, prev, middle, prev.vm_start, vmg.end, removed)
        if right and following is not None:
            removed = (middle,) if whole else ()
            return self.commit_merge(vmg, following, middle, vmg.start, following.vm_end, removed)
        return None

    def vma_merge_new_range(self, vmg: VmaMerge) -> Vma | None:
        """Let a neighbour grow over a new mapping; the survivor, or None (``vmg.oom`` tells why)."""
        prev, following = vmg.prev, vmg.next
        left = self.can_vma_merge_left(vmg)
        right = self.can_vma_merge_right(vmg, left)
        if left and prev is not None:
            if right and following is not None:
                return self.commit_merge(vmg, prev, following, prev.vm_start, following.vm_end, (following,))
            return self.commit_merge(vmg, prev, None, prev.vm_start, vmg.end)
        if right and following is not None:
            return self.commit_merge(vmg, following, None, vmg.start, following.vm_end)
        return None

    def commit_merge(
        self,
        vmg: VmaMerge,
        target: Vma,
        exporter: Vma | None,
        start: int,
        end: int,
        removed: tuple[Vma, ...] = (),
    ) -> Vma | None:
        """Make ``target`` span [start, end); everything that can fail comes first."""
        if exporter is not None and self.dup_anon_vma(target, exporter) != 0:
            vmg.oom = True
            return None
        adjusted = [target]
        if vmg.middle is not None and vmg.middle not in removed:
            adjusted.append(vmg.middle)
        locked = self.vma_prepare(*adjusted)
        for vma in removed:
            self.vma_unlink(vma)
        if len(adjusted) > 1:
            self.vma_shift_boundary(adjusted[1], vmg)
        target.vm_pgoff -= (target.vm_start - start) >> PAGE_SHIFT
        target.vm_start, target.vm_end = start, end
        self.vma_complete(locked, *adjusted, removed=removed)
        return target

    def vma_shift_boundary(self, middle: Vma, vmg: VmaMerge) -> None:
        """Take the merged range off the VMA that keeps the rest of it."""
        if vmg.start == middle.vm_start:
            middle.vm_pgoff += (vmg.end - middle.vm_start) >> PAGE_SHIFT
            middle.vm_start = vmg.end
        else:
            middle.vm_end = vmg.start

    def dup_anon_vma(self, dst: Vma, src: Vma) -> int:
        """Give an unfaulted VMA that absorbs a faulted one the latter's links; 0 or -ENOMEM."""
        if src.anon_vma is None or dst.anon_vma is not None:
            return 0
        dst.anon_vma = src.anon_vma
        return self.anon_vma_clone(dst, src, Operation.MERGE_UNFAULTED)

    def vma_modify_flags(self, vma: Vma, start: int, end: int, flags: int) -> Vma | int:
        """A VMA for exactly [start, end) that can take new flags: merged, split off, or itself; or -ENOMEM."""
        prev, following = vma.vm_mm.neighbours(start, end)
        vmg = VmaMerge(
            mm=vma.vm_mm,
            start=start,
            end=end,
            pgoff=vma.vm_pgoff + ((start - vma.vm_start) >> PAGE_SHIFT),
            flags=flags,
            file=vma.file,
            prev=prev if start == vma.vm_start else None,
            middle=vma,
            next=following if end == vma.vm_end else None,
        )
        merged = self.vma_merge_existing_range(vmg)
        if merged is not None:
            return merged
        if vmg.oom:
            return -ENOMEM
        if vma.vm_start < start and self.split_vma(vma, start, new_below=True) != 0:
            return -ENOMEM
        if end < vma.vm_end and self.split_vma(vma, end, new_below=False) != 0:
            return -ENOMEM
        return vma
