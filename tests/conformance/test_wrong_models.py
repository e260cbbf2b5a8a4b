# SPDX-License-Identifier: GPL-2.0-only
"""Wrong models are told from the running kernel: what the comparison is good for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from differential import HERE, first_difference
from programs import ADVICE, EVERYTHING, FAMILY, GROWTH, MOVES, PINNED, PLAIN, TAKEN, Mix

from rmaplab.kernel.flags import PAGE_SIZE, VM_ACCOUNT, VM_DONTCOPY, VM_LOCKED, VM_WIPEONFORK
from rmaplab.kernel.pagetable import Pte
from rmaplab.kernel.rmap import Operation
from rmaplab.kernel.vma import CopiedVma
from rmaplab.scenario import parse
from rmaplab.series import SERIES

if TYPE_CHECKING:
    from running import RunningKernel

    from rmaplab.kernel import Kernel
    from rmaplab.kernel.mremap import VmaRemap
    from rmaplab.kernel.objects import AnonVma, Folio, Mm, Vma
    from rmaplab.kernel.userfaultfd import MovePlace

SEEDS = range(500)


class NobodySharesAnonVmas(HERE):
    """The first fault of a VMA does not ask its neighbours."""

    def find_mergeable_anon_vma(self, vma: Vma) -> AnonVma | None:
        return None


class ForkChildrenShareAnonVmas(HERE):
    """A neighbour's anon_vma is shared though the neighbour has others, inherited."""

    def reusable_anon_vma(self, old: Vma, lower: Vma, upper: Vma) -> AnonVma | None:
        return old.anon_vma if self.anon_vma_compatible(lower, upper) else None


class PreviousFirst(HERE):
    """Of two neighbours, the one below lends its anon_vma."""

    def find_mergeable_anon_vma(self, vma: Vma) -> AnonVma | None:
        prev, following = vma.vm_mm.neighbours(vma.vm_start, vma.vm_end)
        lent = None if prev is None else self.reusable_anon_vma(prev, prev, vma)
        if lent is None and following is not None:
            lent = self.reusable_anon_vma(following, vma, following)
        return lent


class AccountIsForEver(HERE):
    """mprotect never takes VM_ACCOUNT away."""

    def vma_modify_flags(self, vma: Vma, start: int, end: int, flags: int) -> Vma | int:
        return super().vma_modify_flags(vma, start, end, flags | vma.vm_flags & VM_ACCOUNT)


class ReadsTakeAnonVmas(HERE):
    """A read fault prepares the VMA, too."""

    def handle_pte_fault(self, vma: Vma, address: int, write: bool, *, unshare: bool = False) -> int:
        return self.anon_vma_prepare(vma) or super().handle_pte_fault(vma, address, write, unshare=unshare)


class CopiedPagesStayMapped(HERE):
    """Copy on write forgets that the writer maps the old page no more."""

    def do_wp_page(self, vma: Vma, address: int, pte: Pte, *, unshare: bool = False) -> int:
        mapcount = pte.folio.mapcount
        rc = super().do_wp_page(vma, address, pte, unshare=unshare)
        pte.folio.mapcount = mapcount
        return rc


class LeftBehindVmasStayFaulted(HERE):
    """A VMA whose pages have all been moved away keeps its anon_vma."""

    def dontunmap_complete(self, vrm: VmaRemap, vma: Vma, new: Vma) -> None:
        """Nothing is done."""


class UnfaultedVmasKeepTheirOffset(HERE):
    """A VMA without pages does not take the page offset of the place it is moved to."""

    def copy_vma(self, vma: Vma, start: int, end: int, pgoff: int, keep_source: bool) -> CopiedVma | None:
        new = self.vm_area_dup(vma)
        assert new is not None
        self.vma_set_range(new, start, end, pgoff)
        self.anon_vma_clone(new, vma, Operation.REMAP)
        self.vma_link(new)
        return CopiedVma(new, vma, False)


class InheritedVmasDoNotGrow(HERE):
    """A VMA inherited by fork does not grow in place."""

    def vma_merge_extend(self, vma: Vma, delta: int) -> Vma | None:
        return None if self.vma_is_fork_child(vma) else super().vma_merge_extend(vma, delta)


class ChildrenStayLocked(HERE):
    """fork leaves VM_LOCKED set."""

    def dup_vma(self, mm: Mm, mpnt: Vma) -> int:
        rc = super().dup_vma(mm, mpnt)
        if rc == 0:
            mm.vmas[-1].vm_flags |= mpnt.vm_flags & VM_LOCKED
        return rc


class HeapsTouch(HERE):
    """The heap grows up to whatever comes next."""

    def do_brk(self, mm: Mm, old_end: int, new_end: int) -> int:
        at = mm.find(old_end)
        if old_end < new_end and at < len(mm.vmas) and mm.vmas[at].vm_start == new_end:
            mm.brk = new_end
            return self.do_brk_flags(mm, old_end, new_end)
        return super().do_brk(mm, old_end, new_end)


class StacksGrowWithoutAnonVma(HERE):
    """A stack that grows gets its anon_vma with its first page."""

    def expand_downwards(self, vma: Vma, address: int) -> int:
        unfaulted = vma.anon_vma is None
        rc = super().expand_downwards(vma, address)
        if unfaulted and vma.anon_vma is not None:
            self.unlink_anon_vmas(vma)
        return rc


class LockingFaultsNothingIn(HERE):
    """mlock leaves faults for later."""

    def mm_populate(self, mm: Mm, start: int, end: int) -> int:
        return 0


class DontforkIsDeaf(HERE):
    """MADV_DONTFORK has no effect."""

    def dup_mmap(self, mm: Mm, oldmm: Mm) -> int:
        hidden = [vma for vma in oldmm.vmas if vma.vm_flags & VM_DONTCOPY]
        for vma in hidden:
            vma.vm_flags &= ~VM_DONTCOPY
        rc = super().dup_mmap(mm, oldmm)
        for vma in hidden:
            vma.vm_flags |= VM_DONTCOPY
        return rc


class WipedVmasAreInherited(HERE):
    """MADV_WIPEONFORK takes the pages, but not the anon_vmas."""

    def dup_vma(self, mm: Mm, mpnt: Vma) -> int:
        rc = super().dup_vma(mm, mpnt)
        return self.anon_vma_fork(mm.vmas[-1], mpnt) if mpnt.vm_flags & VM_WIPEONFORK else rc


class GuardsNeedNoAnonVma(HERE):
    """MADV_GUARD_INSTALL leaves the VMA unfaulted."""

    def prepare_guards(self, vma: Vma) -> int:
        unfaulted = vma.anon_vma is None
        rc = super().prepare_guards(vma)
        if unfaulted and vma.anon_vma is not None:
            self.unlink_anon_vmas(vma)
        return rc


class GuardsAreZapped(HERE):
    """MADV_DONTNEED takes guards away."""

    def madvise_dontneed(self, vma: Vma, start: int, end: int) -> int:
        rc = super().madvise_dontneed(vma, start, end)
        return rc if rc != 0 else self.madvise_guard_remove(vma, start, end)


class SharedPagesAreCopiedAlways(HERE):
    """The last user of a page that was shared does not go on with it."""

    def do_wp_page(self, vma: Vma, address: int, pte: Pte, *, unshare: bool = False) -> int:
        folio = pte.folio
        if not folio.anon or folio.exclusive or unshare:
            return super().do_wp_page(vma, address, pte, unshare=unshare)
        rc = self.wp_page_copy(vma, address)
        self.folio_remove_rmap_pte(folio, pte.page)
        return rc


class MovesSharedPages(HERE):
    """UFFDIO_MOVE takes a page away that a child has as well."""

    def move_pages_pte(self, dst: MovePlace, src: MovePlace) -> int:
        entry = src.vma.vm_mm.page_table.get(src.address)
        if isinstance(entry, Pte) and entry.folio.anon:
            entry.folio.exclusive = 1
        return super().move_pages_pte(dst, src)


class MovesPrepareNothing(HERE):
    """UFFDIO_MOVE that moves nothing leaves the destination unfaulted."""

    def uffd_move_vmas(self, mm: Mm, dst: int, src: int, size: int) -> tuple[MovePlace, MovePlace] | int:
        vma = mm.lookup(dst)
        unfaulted = vma is not None and vma.anon_vma is None
        ends = super().uffd_move_vmas(mm, dst, src, size)
        if vma is not None and unfaulted and isinstance(ends, int):
            self.unlink_anon_vmas(vma)
        return ends


class PinnedPagesAreShared(HERE):
    """fork shares pages that a device writes to."""

    def folio_try_dup_anon_rmap_pte(self, folio: Folio, page: int, dst: Vma, src: Vma) -> bool:
        pins, folio.pins = folio.pins, 0
        shared = super().folio_try_dup_anon_rmap_pte(folio, page, dst, src)
        folio.pins = pins
        return shared


class AdviceChangesAccounting(HERE):
    """madvise treats VM_ACCOUNT like mprotect does."""

    def madvise_update_vma(self, vma: Vma, start: int, end: int, flags: int) -> int:
        unused = vma.anon_vma is None and end - start == PAGE_SIZE
        return super().madvise_update_vma(vma, start, end, flags & ~VM_ACCOUNT if unused else flags)


WRONG = [
    (SERIES["v6.12" if HERE.name != "v6.12" else "v6.18"], PLAIN),
    *((wrong, PLAIN) for wrong in (NobodySharesAnonVmas, AccountIsForEver, ReadsTakeAnonVmas)),
    *((wrong, FAMILY) for wrong in (ForkChildrenShareAnonVmas, PreviousFirst, CopiedPagesStayMapped)),
    *((wrong, MOVES) for wrong in (LeftBehindVmasStayFaulted, UnfaultedVmasKeepTheirOffset, InheritedVmasDoNotGrow)),
    *((wrong, GROWTH) for wrong in (ChildrenStayLocked, HeapsTouch, StacksGrowWithoutAnonVma)),
    *((wrong, GROWTH) for wrong in (LockingFaultsNothingIn,)),
    *((wrong, ADVICE) for wrong in (DontforkIsDeaf, WipedVmasAreInherited, AdviceChangesAccounting)),
    *((wrong, EVERYTHING) for wrong in (GuardsNeedNoAnonVma, GuardsAreZapped)),
    *((wrong, TAKEN) for wrong in (MovesSharedPages, MovesPrepareNothing)),
    (PinnedPagesAreShared, PINNED),
    (SharedPagesAreCopiedAlways, FAMILY),
]


@pytest.mark.parametrize(("series", "mix"), WRONG, ids=lambda value: getattr(value, "__name__", value.name))
def test_a_wrong_model_is_told_from_the_kernel(kernel: RunningKernel, series: type[Kernel], mix: Mix) -> None:
    found = first_difference(kernel, series, mix, SEEDS)
    assert found is not None
    difference = found[1]
    assert len(difference.program) <= 12
    said = [call for call in difference.program if not str(call).startswith("#")]
    assert len(parse(str(difference)).statements) == len(said) + 2
