# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that counts what its forks do, and a look at the size of its graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rmaplab.kernel.locking import ANON_VMA_LOCK
from rmaplab.workload.result import Objects, Sample

if TYPE_CHECKING:
    from rmaplab.kernel import Kernel
    from rmaplab.kernel.objects import AnonVma, Mm, Vma
    from rmaplab.workload.result import ReplayResult

__all__ = ["metered", "objects", "sample"]


def metered(series: type[Kernel]) -> Any:  # noqa: ANN401 (a class made here, of one argument)
    """The series as a class whose machines add to the :class:`ReplayResult` that they are made with."""

    class Metered(series):  # type: ignore[valid-type, misc]
        anon_orders = ()  # samples tell of pages, not of folios

        def __init__(self, result: ReplayResult) -> None:
            super().__init__()
            self.result = result

        def dup_mm(self, oldmm: Mm) -> Mm | int:
            result, slab, locks = self.result, self.slab, self.locks
            objects = slab.anon_vma.allocations + slab.anon_vma_chain.allocations
            taken, operations = locks.acquisitions[ANON_VMA_LOCK], locks.tree_operations
            mm: Mm | int = super().dup_mm(oldmm)
            result.fork_allocations[slab.anon_vma.allocations + slab.anon_vma_chain.allocations - objects] += 1
            result.fork_locks[locks.acquisitions[ANON_VMA_LOCK] - taken] += 1
            result.fork_tree_operations[locks.tree_operations - operations] += 1
            return mm

        def anon_vma_fork(self, vma: Vma, pvma: Vma) -> int:
            rc: int = super().anon_vma_fork(vma, pvma)
            if rc == 0 and vma.anon_vma is not None:
                self.result.vma_forks += 1
                length = len(vma.anon_vma_chain)
                self.result.chain_length[length] += 1
                self.result.reuses += series.reuses and length == len(pvma.anon_vma_chain)
            return rc

    return Metered


def objects(kernel: Kernel) -> Objects:
    """What is allocated now."""
    slab = kernel.slab
    return Objects(slab.anon_vma.in_use, slab.anon_vma_chain.in_use, slab.bytes)


def sample(kernel: Kernel, events: int) -> Sample:
    """How large the graph is now, after so many events."""
    mms = {process.mm for process in kernel.processes.values()}
    vmas = [vma for mm in mms for vma in mm.vmas]
    slab = kernel.slab
    return Sample(
        events,
        len(kernel.processes),
        len(vmas),
        sum(vma.anon_vma is not None for vma in vmas),
        slab.anon_vma.in_use,
        slab.anon_vma_chain.in_use,
        slab.bytes,
        max((len(vma.anon_vma_chain) for vma in vmas), default=0),
        _depth(kernel),
        max((len(anon_vma.rb_root) for anon_vma in kernel.live_anon_vmas.values()), default=0),
    )


def _depth(kernel: Kernel) -> int:
    """The anon_vmas on the longest way from one to its root, both included."""
    depths: dict[AnonVma, int] = {}
    for anon_vma in kernel.live_anon_vmas.values():
        way = []
        while anon_vma not in depths and anon_vma.parent is not anon_vma and not anon_vma.parent.freed:
            way.append(anon_vma)
            anon_vma = anon_vma.parent
        depth = depths.setdefault(anon_vma, 1)
        for below in reversed(way):
            depth += 1
            depths[below] = depth
    return max(depths.values(), default=0)
