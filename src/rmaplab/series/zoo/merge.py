# SPDX-License-Identifier: GPL-2.0-only
"""Bugs in the merge of VMAs: links not taken along, offsets, a point of no return."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel import Kernel
from rmaplab.kernel.vma import VmaMerge
from rmaplab.series.v2_6_34 import V2_6_34
from rmaplab.series.v4_0 import V4_0
from rmaplab.series.v6_12 import V6_12

if TYPE_CHECKING:
    from rmaplab.kernel.objects import Vma

__all__ = ["Z07", "Z08", "Z13", "Z17", "Z21a"]


class Z07(Kernel):
    """A VMA that grows over the place where mremap moves pages gets the links of a VMA it replaces, and no others.

    Once 879bca0a2c4f (v6.16) let an unfaulted VMA absorb faulted pages, the
    pages moved into a VMA that their anon_vma does not know (CVE-2026-23077).
    Until 61f67c230a5e (v6.19).
    """

    name = "zoo/Z07"
    parent: ClassVar[str | None] = "v7.0"
    commits: ClassVar[tuple[str, ...]] = ("879bca0a2c4f", "61f67c230a5e")
    release = "v6.16"
    summary = "mremap loses the anon_vma of the pages it moves"

    def vma_expand(self, vmg: VmaMerge, target: Vma, start: int, end: int) -> Vma | None:
        """Forget where the pages come from."""
        vmg.copied_from = None
        return super().vma_expand(vmg, target, start, end)


class Z08(Kernel):
    """The test for fork children looks at the VMA that holds the range: for mremap's new place there is none.

    So pages that a child inherited may be merged into an unfaulted VMA, with
    all their links.  From 879bca0a2c4f (v6.16) to 3b617fd3d317 (v6.19).
    """

    name = "zoo/Z08"
    parent: ClassVar[str | None] = "v7.0"
    commits: ClassVar[tuple[str, ...]] = ("879bca0a2c4f", "3b617fd3d317")
    release = "v6.16"
    summary = "mremap merges what was inherited by fork"

    def is_mergeable_anon_vma(self, vmg: VmaMerge, target: Vma) -> bool:
        """As in v7.0, but for the VMA that is copied."""
        if target.anon_vma is None and vmg.anon_vma is not None:
            return not self.vma_is_fork_child(vmg.middle)
        return super().is_mergeable_anon_vma(vmg, target)


class Z13(V4_0):
    """A merge on both sides goes in two rounds, and only the second finds out that it lacks memory.

    The middle VMA is freed by then, but the caller hears of no merge and
    goes on with it.  From 5beb49305251 (v2.6.34) to 734537c9cb72 (v4.8).
    """

    name = "zoo/Z13"
    parent: ClassVar[str | None] = "v4.0"
    commits: ClassVar[tuple[str, ...]] = ("5beb49305251", "734537c9cb72")
    release = "v2.6.34"
    summary = "a merge fails after the point of no return"

    def vma_merge_existing_range(self, vmg: VmaMerge) -> Vma | None:
        """Absorb the middle VMA, then come back for the next."""
        prev, middle, following = vmg.prev, vmg.middle, vmg.next
        whole = middle is not None and (vmg.start, vmg.end) == (middle.vm_start, middle.vm_end)
        if not whole or not self.can_vma_merge_left(vmg) or not self.can_vma_merge_right(vmg, True):
            return super().vma_merge_existing_range(vmg)
        assert prev is not None
        assert middle is not None
        assert following is not None
        if self.commit_merge(vmg, prev, middle, prev.vm_start, vmg.end, (middle,)) is None:
            return None
        again = VmaMerge(
            vmg.mm,
            following.vm_start,
            following.vm_end,
            following.vm_pgoff,
            vmg.flags,
            vmg.file,
            prev=prev,
            middle=following,
            anon_vma=following.anon_vma,
        )
        return self.commit_merge(again, prev, following, prev.vm_start, following.vm_end, (following,))


class Z17(V6_12):
    """Pages that mremap moves below a VMA which grows down over them: its start moves, its page offset does not.

    From 0503ea8f5ba7 (v6.3) to 7e7757876f25 (v6.4).
    """

    name = "zoo/Z17"
    parent: ClassVar[str | None] = "v6.12"
    commits: ClassVar[tuple[str, ...]] = ("0503ea8f5ba7", "7e7757876f25")
    release = "v6.3"
    summary = "a VMA that grows down keeps its page offset"

    def vma_expand(self, vmg: VmaMerge, target: Vma, start: int, end: int) -> Vma | None:
        """Only where mremap's pages join the VMA behind them."""
        if vmg.copied_from is not None and target is vmg.next:
            vmg.keep_pgoff = True
        return super().vma_expand(vmg, target, start, end)


class Z21a(V2_6_34):
    """A boundary that shifts into an unfaulted VMA brings pages, but not their links.

    2.6.34-rc, until 287d97ac0323.
    """

    name = "zoo/Z21a"
    parent: ClassVar[str | None] = "v2.6.34"
    commits: ClassVar[tuple[str, ...]] = ("287d97ac0323",)
    release = "v2.6.34-rc"
    summary = "a shifted boundary leaves the links behind"

    def commit_merge(
        self,
        vmg: VmaMerge,
        target: Vma,
        exporter: Vma | None,
        start: int,
        end: int,
        removed: tuple[Vma, ...] = (),
    ) -> Vma | None:
        """Links go along only with a whole VMA."""
        return super().commit_merge(vmg, target, exporter if removed else None, start, end, removed)
