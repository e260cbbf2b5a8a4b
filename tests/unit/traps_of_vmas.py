# SPDX-License-Identifier: GPL-2.0-only
"""Traps in what fork, split, merge and mremap do to links and VMAs."""

import naive_models as naive
from machine_parts import BASE, chain, counters, descendants, vma, written
from traps import active, trap, visits

from rmaplab.kernel.flags import PAGE_SIZE, VM_ACCOUNT
from rmaplab.kernel.process import Area


@trap(1, naive.OldestFirst, series=("v7.0",))
def a_clone_is_mirrored_so_it_is_not_the_oldest_that_is_reused(kernel, parent):
    written(parent)
    line = descendants(parent, 4)
    avs = [active(process) for process in line]
    assert chain(line[4]) == [avs[4], avs[2], avs[0], avs[1], avs[3]]
    line[1].exit()
    line[2].exit()
    assert active(line[4].fork()) is avs[2]


@trap(2, naive.RootDoesNotCountItself)
def a_root_with_one_child_counts_two_and_is_not_reused(kernel, parent):
    written(parent)
    child, root = parent.fork(), active(parent)
    parent.exit()
    assert counters(root) == (2, 2, 0)
    assert active(child.fork()) is not root


@trap(3, naive.ReuseAsksForNoOwner, naive.ReuseGivesANewParent)
def a_child_has_an_anon_vma_of_its_own_and_a_grandchild_that_of_the_dead_which_keeps_its_parent(kernel, parent):
    written(parent)
    line = descendants(parent, 2)
    assert len({active(process) for process in line}) == 3
    dead = active(line[1])
    line[1].exit()
    heir = line[2].fork()
    assert active(heir) is dead
    assert dead.parent is active(parent)


@trap(4, naive.SiblingsStayTogether)
def two_vmas_that_share_a_root_have_one_each_in_the_child(kernel, parent):
    parent.mprotect(written(parent, 2).part(1, 1), "r")
    root = active(parent)
    assert active(parent, 1) is root
    child = parent.fork()
    assert active(child, 0) is not active(child, 1)
    assert counters(root) == (3, 3, 2)


@trap(5, naive.ForkChildrenLend, naive.ForkChildrenMerge)
def a_child_neither_merges_what_is_new_nor_lends_it_an_anon_vma(kernel, parent):
    parent.write(parent.brk(1))
    child = parent.fork()
    child.write(child.brk(1), 1)
    assert len(child.mm.vmas) == 2
    assert active(child, 1) not in chain(child)
    assert active(child, 1).root is active(child, 1)


@trap(6, naive.MergesAsIn616, series=("v6.12",))
def before_6_16_a_faulted_vma_does_not_merge_into_an_unfaulted_one(kernel, parent):
    high = parent.mmap(2, at=BASE).part(1, 1)
    parent.madvise(high, "dontdump")
    parent.write(high)
    parent.madvise(high, "dodump")
    assert len(parent.mm.vmas) == 2
    parent.write(Area(BASE, 1))
    parent.munmap(high)
    parent.mmap(1, at=high.start)
    assert len(parent.mm.vmas) == 1  # the other way round it does


@trap(7, naive.UnlinksBeforeTheMerge)
def what_a_merge_removes_is_unlinked_after_the_survivor_stands_under_a_lock_of_its_own(kernel, parent):
    high = parent.mmap(2, at=BASE).part(1, 1)
    parent.madvise(high, "dontdump")
    parent.write(high)
    seen, unlink = [], kernel.unlink_anon_vmas

    def unlink_anon_vmas(removed):
        trees = [[avc.vma for avc in anon_vma.rb_root] for anon_vma in chain(parent)]
        seen.append((len(parent.mm.vmas), len(trees), kernel.locks.anon_vma_held))
        unlink(removed)

    kernel.unlink_anon_vmas = unlink_anon_vmas
    parent.madvise(high, "dodump")
    assert seen == [(1, 1, 0)]
    assert visits(parent, high) == [vma(parent)]


@trap(12, naive.WipeOnForkKeepsTheLinks)
def a_wiped_vma_has_no_link(kernel, parent):
    parent.madvise(written(parent), "wipeonfork")
    child = parent.fork()
    assert (active(child), chain(child)) == (None, [])


@trap(12, naive.DontForkIsIgnored)
def a_vma_not_to_be_copied_is_not_there(kernel, parent):
    parent.madvise(written(parent), "dontfork")
    assert parent.fork().mm.vmas == []


@trap(15, naive.DontUnmapKeepsTheLinks)
def a_vma_whose_pages_have_all_moved_is_unfaulted_again(kernel, parent):
    area = written(parent)
    new = parent.mremap(area, dontunmap=True)
    assert (parent.mm.lookup(area.start).anon_vma, len(kernel.live_anon_vmas)) == (None, 1)
    parent.write(area)
    assert parent.mm.lookup(area.start).anon_vma is not parent.mm.lookup(new.start).anon_vma


@trap(15, naive.DontUnmapAlwaysUnlinks)
def a_vma_whose_pages_have_moved_in_part_is_not(kernel, parent):
    area = written(parent, 2)
    new = parent.mremap(area.part(0, 0), dontunmap=True)
    assert parent.mm.lookup(area.start).anon_vma is parent.mm.lookup(new.start).anon_vma is not None


@trap(18, naive.CopiesReuse, naive.CopiesCountTwice, naive.CopiesDoNotCount)
def a_split_or_moved_vma_counts_once_and_reuses_nothing(kernel, parent):
    area = written(parent, 3)
    line = descendants(parent, 2)
    idle, own = active(line[1]), active(line[2])
    line[1].exit()
    line[2].mprotect(area.part(1, 1), "r")
    assert [active(line[2], index) for index in range(3)] == [own] * 3
    line[2].mremap(area.part(2, 2))
    assert counters(own) == (1, 0, 3)
    assert counters(idle) == (1, 1, 0)


@trap(19, naive.ForkByAge)
def fork_numbers_its_anon_vmas_by_address(kernel, parent):
    for pages_up in (16, 8, 0):
        written(parent, at=BASE + pages_up * PAGE_SIZE)
    child = parent.fork()
    numbers = [active(child, index).id for index in range(3)]
    assert numbers == sorted(numbers)


@trap(21, naive.AccountFollowsTheRights)
def having_been_written_to_shows_in_the_flags_and_keeps_vmas_apart(kernel, parent):
    low, high = parent.mmap(1, at=BASE), parent.mmap(1, at=BASE + PAGE_SIZE, prot="none")
    parent.write(low)
    for area in (low, high):
        parent.mprotect(area, "r")
    assert [bool(part.vm_flags & VM_ACCOUNT) for part in parent.mm.vmas] == [True, False]


@trap(22, naive.ForkMirrorsTheParent, naive.ParentsDoNotMerge)
def the_parent_of_a_fork_notices_nothing(kernel, parent):
    high = written(parent, 2, at=BASE).part(1, 1)
    parent.munmap(high)
    child = parent.fork()
    for process in (parent, child):
        before, owner, links = chain(process), active(process), list(vma(process).anon_vma_chain)
        children, trees = owner.num_children, [len(anon_vma.rb_root) for anon_vma in before]
        process.fork()
        assert (chain(process), active(process), vma(process).anon_vma_chain) == (before, owner, links)
        assert owner.num_children == children + 1
        assert [len(anon_vma.rb_root) for anon_vma in before] == [size + 1 for size in trees]
    parent.mmap(1, at=high.start)
    assert len(parent.mm.vmas) == 1
