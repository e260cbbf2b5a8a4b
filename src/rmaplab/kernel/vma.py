# SPDX-License-Identifier: GPL-2.0-only
"""Merge VMAs, and copy one for mremap (mm/vma.c, v7.0).

A merge first gives the VMA that stays the links it lacks
(:meth:`VmaOps.dup_anon_vma`), then sets tree nodes aside, then changes
ranges, and last unlinks and frees the VMAs that it replaced.  Only the first
two steps can fail, and both are undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import ENOMEM
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.kernel.flags import PAGE_SHIFT, VM_IGNORE_MERGE, VM_STICKY
from rmaplab.kernel.rmap import Operation
from rmaplab.kernel.vma_adjust import VmaAdjust

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Mm, Vma

__all__ = ["CopiedVma", "VmaMerge", "VmaOps"]


@dataclass(slots=True)
class VmaMerge:
    """struct vma_merge_struct: a range [start, end) in bytes that might join its neighbours.

    ``middle`` is the VMA that holds the range now, None for a new mapping;
    ``anon_vma`` that of the pages in the range, or None.  ``copied_from`` is
    the VMA whose pages mremap is about to move into the range.
    ``keep_pgoff``: the VMA that grows keeps its page offset although its
    start moves (exec's stack).  ``oom`` tells why there was no merge.
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
    anon_vma: AnonVma | None = None
    copied_from: Vma | None = None
    keep_pgoff: bool = False
    oom: bool = False


class CopiedVma(NamedTuple):
    """What copy_vma made: the VMA at the new place, the one at the old, whether a move must hold the rmap locks."""

    vma: Vma
    source: Vma
    need_rmap_locks: bool


class VmaOps(VmaAdjust):
    """Which VMAs may be merged, and the merge itself."""

    # --- may they merge? -----------------------------------------------------------------

    def vma_is_fork_child(self, vma: Vma | None) -> bool:
        """Whether a VMA has links beyond its own anon_vma: it was inherited by fork."""
        return vma is not None and vma.anon_vma is not None and len(vma.anon_vma_chain) > 1

    def is_mergeable_vma(self, vmg: VmaMerge, vma: Vma) -> bool:
        """Attributes other than range and anon_vma: equal flags but for the ignored ones, same file."""
        return (vma.vm_flags ^ vmg.flags) & ~VM_IGNORE_MERGE == 0 and vma.file == vmg.file

    def is_mergeable_anon_vma(self, vmg: VmaMerge, target: Vma) -> bool:
        """Whether ``target`` may absorb the range as far as anon_vmas go (rule of 879bca0a2c4f, v6.16).

        Equal anon_vmas, or one side unfaulted and the other not inherited by
        fork; for pages that mremap brings along, their old VMA counts (3b617fd3d317, v6.19).
        """
        if target.anon_vma is None and vmg.anon_vma is not None:
            return not self.vma_is_fork_child(vmg.middle) and not self.vma_is_fork_child(vmg.copied_from)
        if target.anon_vma is not None and vmg.anon_vma is None:
            return not self.vma_is_fork_child(target)
        return target.anon_vma is vmg.anon_vma

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

    # --- merge -----------------------------------------------------------------------------

    def vma_merge_existing_range(self, vmg: VmaMerge) -> Vma | None:
        """Merge a range of ``vmg.middle`` with its neighbours; the survivor, or None (``vmg.oom`` tells why)."""
        middle, prev, following = vmg.middle, vmg.prev, vmg.next
        assert middle is not None
        at_start, at_end = vmg.start == middle.vm_start, vmg.end == middle.vm_end
        left = at_start and self.can_vma_merge_left(vmg)
        right = at_end and self.can_vma_merge_right(vmg, left)
        removed = (middle,) if at_start and at_end else ()
        if left and prev is not None:
            if right and following is not None:
                exporter = middle if following.anon_vma is None else following
                return self.commit_merge(vmg, prev, exporter, prev.vm_start, following.vm_end, (middle, following))
            return self.commit_merge(vmg, prev, middle, prev.vm_start, vmg.end, removed)
        if right and following is not None:
            return self.commit_merge(vmg, following, middle, vmg.start, following.vm_end, removed)
        return None

    def vma_merge_new_range(self, vmg: VmaMerge) -> Vma | None:
        """Let a neighbour grow over a range that no VMA holds; the survivor, or None (``vmg.oom`` tells why).

        Out of memory, most callers go on and make a VMA of its own.
        """
        prev, following = vmg.prev, vmg.next
        left = self.can_vma_merge_left(vmg)
        right = self.can_vma_merge_right(vmg, left)
        if left and prev is not None:
            end = following.vm_end if right and following is not None else vmg.end
            return self.vma_expand(vmg, prev, prev.vm_start, end)
        if right and following is not None:
            return self.vma_expand(vmg, following, vmg.start, following.vm_end)
        return None

    def vma_merge_copied_range(self, vmg: VmaMerge) -> Vma | None:
        """vma_merge_new_range for a range that mremap copies ``vmg.middle`` to (61f67c230a5e, v6.19)."""
        vmg.copied_from, vmg.middle = vmg.middle, None
        return self.vma_merge_new_range(vmg)

    def vma_merge_extend(self, vma: Vma, delta: int) -> Vma | None:
        """Grow a VMA by ``delta`` bytes behind its end, and join the VMA behind if that fits; None: out of memory.

        The free range counts as faulted if the VMA is, so one inherited by
        fork may grow, and may even absorb an unfaulted VMA behind.
        """
        vmg = VmaMerge(
            mm=vma.vm_mm,
            start=vma.vm_end,
            end=vma.vm_end + delta,
            pgoff=vma.vm_pgoff + ((vma.vm_end - vma.vm_start) >> PAGE_SHIFT),
            flags=vma.vm_flags,
            file=vma.file,
            prev=vma,
            next=vma.vm_mm.neighbours(vma.vm_end, vma.vm_end + delta)[1],
            anon_vma=vma.anon_vma,
        )
        return self.vma_merge_new_range(vmg)

    def vma_expand(self, vmg: VmaMerge, target: Vma, start: int, end: int) -> Vma | None:
        """Make ``target`` span [start, end), and replace ``vmg.next`` if that ends there; None: out of memory.

        The target needs the links of the VMA it replaces, and those of the VMA that mremap copies from.
        """
        following = vmg.next
        if following is None or following is target or following.vm_end != end:
            return self.commit_merge(vmg, target, vmg.copied_from, start, end)
        exporter = vmg.copied_from if following.anon_vma is None else following
        return self.commit_merge(vmg, target, exporter, start, end, (following,))

    def commit_merge(
        self,
        vmg: VmaMerge,
        target: Vma,
        exporter: Vma | None,
        start: int,
        end: int,
        removed: tuple[Vma, ...] = (),
    ) -> Vma | None:
        """Make ``target`` span [start, end) with the links of ``exporter``; None: out of memory, nothing changed."""
        unfaulted = target.anon_vma is None
        if exporter is not None and self.dup_anon_vma(target, exporter) != 0:
            vmg.oom = True
            return None
        if self.vma_iter_prealloc() != 0:
            if unfaulted and target.anon_vma is not None:
                self.unlink_anon_vmas(target)
            vmg.oom = True
            return None
        adjusted = [target]
        if vmg.middle is not None and vmg.middle is not target and vmg.middle not in removed:
            adjusted.append(vmg.middle)
        locked = self.vma_prepare(*adjusted)
        self.vma_adjust_trans_huge(target, start, end)
        for vma in removed:
            self.vma_unlink(vma)
        if len(adjusted) > 1:
            self.vma_shift_boundary(adjusted[1], vmg)
        for flags in (vmg.flags, *(vma.vm_flags for vma in removed)):
            target.vm_flags |= flags & VM_STICKY
        moved = 0 if vmg.keep_pgoff else (target.vm_start - start) >> PAGE_SHIFT
        self.vma_set_range(target, start, end, target.vm_pgoff - moved)
        self.vma_complete(locked, *adjusted, removed=removed)
        return target

    def vma_shift_boundary(self, middle: Vma, vmg: VmaMerge) -> None:
        """Take the merged range off the VMA that keeps the rest of it."""
        if vmg.start == middle.vm_start:
            pgoff = middle.vm_pgoff + ((vmg.end - middle.vm_start) >> PAGE_SHIFT)
            self.vma_set_range(middle, vmg.end, middle.vm_end, pgoff)
        else:
            self.vma_set_range(middle, middle.vm_start, vmg.start, middle.vm_pgoff)

    def dup_anon_vma(self, dst: Vma, src: Vma) -> int:
        """Give an unfaulted VMA that absorbs a faulted one the latter's links; 0 or -ENOMEM."""
        if src.anon_vma is None or dst.anon_vma is not None:
            return 0
        dst.anon_vma = src.anon_vma
        return self.anon_vma_clone(dst, src, Operation.MERGE_UNFAULTED)

    # --- what callers ask for ------------------------------------------------------------------

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
            anon_vma=vma.anon_vma,
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

    def copy_vma(self, vma: Vma, start: int, end: int, pgoff: int, keep_source: bool) -> CopiedVma | None:
        """A VMA like ``vma`` for the free range [start, end), where mremap moves its pages; None: out of memory.

        An anonymous VMA without pages takes the page offset of its new
        address, which makes it mergeable there, even with itself.  A new VMA
        stands behind the old one in the trees, so that a walk that misses a
        page at the old place finds it at the new; for a merged one only the
        locks give that, unless it begins at a higher offset.
        """
        if vma.file is None and vma.anon_vma is None:
            pgoff = start >> PAGE_SHIFT
        prev, following = self.copy_vma_neighbours(vma, start, end, keep_source)
        vmg = VmaMerge(
            vma.vm_mm, start, end, pgoff, vma.vm_flags, vma.file, prev, vma, following, anon_vma=vma.anon_vma
        )
        merged = self.vma_merge_copied_range(vmg)
        if merged is not None:
            source = merged if vma.freed else vma  # absorbed by its own copy
            return CopiedVma(merged, source, merged.vm_pgoff <= source.vm_pgoff)
        new = self.vm_area_dup(vma)
        if new is None:
            return None
        self.vma_set_range(new, start, end, pgoff)
        if self.anon_vma_clone(new, vma, Operation.REMAP) == 0:
            if self.vma_link(new) == 0:
                return CopiedVma(new, vma, False)
            self.unlink_anon_vmas(new)
        self.vm_area_free(new)
        return None

    def copy_vma_neighbours(self, vma: Vma, start: int, end: int, keep_source: bool) -> tuple[Vma | None, Vma | None]:
        """The VMAs around the new place that might grow over it; the source may be one of them."""
        return vma.vm_mm.neighbours(start, end)
