# SPDX-License-Identifier: GPL-2.0-only
"""v6.18+2 and v6.18+3: the root is looked up, compared and locked AVC by AVC."""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING, ClassVar

from rmaplab.kernel.locking import ANON_VMA_LOCK, WRITE
from rmaplab.kernel.slab import GFP_KERNEL, GFP_NOWAIT
from rmaplab.series.v6_18_4 import V6_18_4

if TYPE_CHECKING:
    from rmaplab.kernel.objects import AnonVma, Vma
    from rmaplab.kernel.rmap import Operation

__all__ = ["V6_18_2", "V6_18_3"]


class V6_18_3(V6_18_4):  # noqa: N801
    """69e945845585: clone and unlink return at once for an unfaulted VMA.

    Against v6.18+4: a walk over a chain remembers the locked root and warns
    if another one turns up; clone makes its first allocation before it locks.
    """

    name = "v6.18+3"
    parent: ClassVar[str | None] = "v6.18+2"
    commits: ClassVar[tuple[str, ...]] = ("69e945845585",)
    summary = "patch 3: skip unfaulted VMAs on anon_vma clone, unlink"

    def lock_anon_vma_root(self, root: AnonVma | None, anon_vma: AnonVma) -> AnonVma:
        """Hold the root of this anon_vma, given the one held so far; returns the one held now."""
        if anon_vma.root is not root:
            if root is not None:
                self.vm_warn_on(True, "lock_anon_vma_root: a chain with two roots, {} and {}", root, anon_vma.root)
                self.locks.release(ANON_VMA_LOCK, root)
            self.locks.acquire(ANON_VMA_LOCK, anon_vma.root, WRITE)
        return anon_vma.root

    def unlock_anon_vma_root(self, root: AnonVma | None) -> None:
        """Release the root, if any is held."""
        if root is not None:
            self.locks.release(ANON_VMA_LOCK, root)

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """Nothing to do for an unfaulted source."""
        self.check_anon_vma_clone(dst, src, operation)
        return 0 if src.anon_vma is None else self.clone_chain(dst, src)

    def clone_chain(self, dst: Vma, src: Vma) -> int:
        """The walk of anon_vma_clone, tail to head."""
        root: AnonVma | None = None
        for pavc in reversed(src.anon_vma_chain):
            avc = self.anon_vma_chain_alloc(GFP_NOWAIT)
            if avc is None:
                self.unlock_anon_vma_root(root)
                root = None
                avc = self.anon_vma_chain_alloc(GFP_KERNEL)
                if avc is None:
                    self.cleanup_partial_anon_vmas(dst)
                    return -ENOMEM
            root = self.lock_anon_vma_root(root, pavc.anon_vma)
            self.anon_vma_chain_link(dst, avc, pavc.anon_vma)
            self.try_reuse_anon_vma(dst, src, pavc.anon_vma)
        self.count_active_vma(dst)
        self.unlock_anon_vma_root(root)
        return 0

    def unlink_anon_vmas(self, vma: Vma) -> None:
        """Nothing to do for an unfaulted VMA."""
        self.check_unlink_anon_vmas(vma)
        if vma.anon_vma is not None:
            self.unlink_chain(vma)

    def unlink_chain(self, vma: Vma) -> None:
        """The walk of unlink_anon_vmas: what is on the list decides."""
        root: AnonVma | None = None
        for avc in list(vma.anon_vma_chain):
            root = self.lock_anon_vma_root(root, avc.anon_vma)
            self.unlink_one_anon_vma(vma, avc)
        if vma.anon_vma is not None:
            self.add_active_vmas(vma.anon_vma, -1)
            vma.anon_vma = None
        self.unlock_anon_vma_root(root)
        self.put_emptied_anon_vmas(vma)


class V6_18_2(V6_18_3):  # noqa: N801
    """91901a441fa1, the seed: fork allocates its anon_vma and AVC ahead and never unlinks a half-built VMA.

    Against v6.18+3: clone and unlink are led by the list alone, unfaulted or not.
    """

    name = "v6.18+2"
    parent: ClassVar[str | None] = "v6.18+1"
    commits: ClassVar[tuple[str, ...]] = ("91901a441fa1",)
    summary = "patch 2: eliminate partial anon_vma tear-down in anon_vma_fork()"

    def anon_vma_clone(self, dst: Vma, src: Vma, operation: Operation) -> int:
        """Walk the source's list, be it empty."""
        self.check_anon_vma_clone(dst, src, operation)
        return self.clone_chain(dst, src)

    def unlink_anon_vmas(self, vma: Vma) -> None:
        """Walk the list, be it empty."""
        self.check_unlink_anon_vmas(vma)
        self.unlink_chain(vma)
