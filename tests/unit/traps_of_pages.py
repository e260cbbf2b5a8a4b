# SPDX-License-Identifier: GPL-2.0-only
"""Traps in what pages name, in walks, and in how long an anon_vma lives."""

import naive_models as naive
import pytest
from huge_parts import pte, wanted
from machine_parts import chain, counters, descendants, folio, vma, written
from traps import active, trap, visits

from rmaplab.check.invariants import violations
from rmaplab.kernel.exec import STACK_FLAGS, STACK_TOP
from rmaplab.kernel.flags import PAGE_SIZE


@trap(8, naive.UnlinksBeforeTheZap)
def links_go_after_the_pages(kernel, parent):
    area = written(parent, 2)
    parent.fork()
    seen, zap = [], kernel.zap_page_range
    kernel.zap_page_range = lambda part, *range_: seen.append(len(part.anon_vma_chain)) or zap(part, *range_)
    parent.munmap(area)
    assert seen == [1]


@trap(8, naive.PagesHoldTheirAnonVma)
def a_page_that_nobody_maps_keeps_no_anon_vma(kernel, parent):
    area = written(parent)
    page = folio(parent, area)
    parent.pin(area)
    parent.munmap(area)
    assert not kernel.live_anon_vmas
    assert page.mapping.freed
    parent.unpin(area)


@trap(9, naive.SwappedPagesAreNew)
def a_shared_page_that_comes_back_from_swap_names_the_root(kernel, parent):
    area = written(parent)
    child = parent.fork()
    parent.swapout(area)
    child.swapin(area)
    assert folio(child, area).mapping is active(parent) is not active(child)


@trap(9, naive.SwapCacheHitsAreRenamed)
def a_page_that_never_left_memory_names_what_it_did(kernel, parent):
    area = written(parent)
    child = parent.fork()
    child.write(area)
    grandchild = child.fork()
    child.swapout(area, cached=True)
    grandchild.swapin(area)
    assert folio(grandchild, area).mapping is active(child)


@trap(9, naive.LargeFoliosMoveToo, series=("v7.0",))
def a_large_folio_that_is_reused_keeps_its_name(kernel, parent):
    kernel.anon_orders = (2,)
    area = wanted(parent, 4)
    parent.write(area, 0)
    child, root = parent.fork(), active(parent)
    parent.exit()
    child.write(area, 1)
    assert (pte(child, area, 1).folio.order, pte(child, area, 1).writable) == (2, True)
    assert pte(child, area, 1).folio.mapping is root


@trap(10, naive.PagesMoveDownOnly)
def a_page_moves_up_the_tree_after_reuse(kernel, parent):
    area = written(parent)
    _, child, _, maker = descendants(parent, 3)
    child.exit()
    maker.write(area)
    heir = maker.fork()
    maker.exit()
    named = folio(heir, area).mapping
    assert named in chain(heir)
    assert named.parent.parent is active(heir)
    heir.write(area)
    assert folio(heir, area).mapping is active(heir)


@trap(11, naive.PagesAttach)
def a_growing_stack_and_guards_make_an_anon_vma_without_a_page(kernel, parent):
    parent.madvise(parent.mmap(1), "guard-install")
    assert len(kernel.live_anon_vmas) == 1
    assert kernel.do_mmap(parent.mm, STACK_TOP - PAGE_SIZE, STACK_TOP, STACK_FLAGS) == 0
    assert kernel.expand_stack(parent.mm, STACK_TOP - 2 * PAGE_SIZE) == 0
    assert len(kernel.live_anon_vmas) == 2
    assert not kernel.snapshot().folios


@trap(11, naive.ReadsAttach)
def a_read_fault_makes_none(kernel, parent):
    parent.read(parent.mmap(1))
    assert not kernel.live_anon_vmas


@trap(13, naive.PinnedPagesAreShared, naive.PagesAreCopiedFirst)
def a_pinned_page_is_copied_by_fork_to_the_childs_own_anon_vma(kernel, parent):
    area = written(parent)
    parent.pin(area)
    page, child = folio(parent, area), parent.fork()
    copy = folio(child, area)
    assert (page.mapping, page.mapcount, page.exclusive) == (active(parent), 1, 1)
    assert (copy.mapping, copy.mapcount, copy.exclusive) == (active(child), 1, 1)
    assert active(child) is not active(parent)


@trap(14, naive.PlacesInATreeAreKept, naive.RangesChangeInTheTree)
def a_vma_that_was_cut_and_mended_is_visited_behind_its_equals(kernel, parent):
    area = written(parent, 2)
    child = parent.fork()
    assert visits(parent, area, 1) == [vma(parent), vma(child)]
    for page in (1, 0):  # cut off, and joined by the rest
        parent.mprotect(area.part(page, page), "r")
        assert visits(parent, area, 1) == [vma(child), vma(parent, page)]


@trap(16, naive.KsmHoldsNothing)
def an_anon_vma_with_an_empty_tree_lives_as_long_as_ksm_refers_to_it(kernel, parent):
    area = written(parent)
    parent.madvise(area, "mergeable")
    parent.ksm_merge(area, "X")
    root = active(parent)
    parent.exit()
    assert (root.freed, len(root.rb_root), counters(root)) == (False, 0, (1, 0, 0))
    assert violations(kernel) == []
    kernel.ksmd()
    assert root.freed


@trap(17, naive.FreedCountsAreInherited, series=("v6.18",))
def a_candidate_thrown_away_with_a_count_of_one_does_not_count_for_the_next(kernel, parent):
    written(parent)
    kernel.slab.plan(3)  # the child's own AVC, when its anon_vma has counted it already
    with pytest.raises(OSError, match="allocate memory"):
        parent.fork()
    kernel.slab.disarm()
    assert counters(active(parent.fork())) == (1, 0, 1)


@trap(20, naive.FreesInsideTheLock)
def an_anon_vma_is_freed_outside_the_lock(kernel, parent):
    written(parent)
    held, free = [], kernel.anon_vma_free
    kernel.anon_vma_free = lambda anon_vma: held.append(kernel.locks.anon_vma_held) or free(anon_vma)
    for process in descendants(parent, 2):
        process.exit()
    assert held == [0, 0, 0]
