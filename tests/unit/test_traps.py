# SPDX-License-Identifier: GPL-2.0-only
"""The 22 traps for models of the reverse map: the specification has each fact, a naive model does not.

What else there is to say about each is in the tests of facts; here a trap is
what a reader would get wrong, and the number says which.
"""

import pytest
from machine_parts import BASE, chain, counters, descendants, folio, vma, written
from swap_parts import entry, page_state

from rmaplab.check.invariants import violations
from rmaplab.check.run import run
from rmaplab.kernel.flags import PAGE_SIZE, VM_ACCOUNT
from rmaplab.scenario import parse
from rmaplab.series import find


@pytest.fixture(params=["v6.12", "v6.18", "v7.0", "v7.3"], name="series")
def _series(request):
    return request.param


def judged(text, series):
    """Run a text; every expectation is met, every invariant holds."""
    result = run(parse(text), find(series))
    assert [(one.text, one.found) for one in result.expects if not one.ok] == []
    assert result.violations == []
    return result.kernel


MIRRORED = pytest.mark.parametrize(("series", "mirrored"), [("v6.18", False), ("v7.0", True)])


# --- reuse ----------------------------------------------------------------------------------------------


@MIRRORED
def test_trap_01_the_order_of_a_chain_is_mirrored_and_decides_what_is_reused(kernel, parent, mirrored):
    # Naive: chains are newest first, and the oldest ancestor is offered first.
    written(parent)
    line = descendants(parent, 3)
    own = [vma(process).anon_vma for process in line]
    order = [3, 1, 0, 2] if mirrored else [3, 2, 1, 0]
    assert chain(line[3]) == [own[at] for at in order]
    line[1].exit()
    line[2].exit()
    reused = vma(line[3].fork()).anon_vma
    assert reused is own[1]  # both orders come to A1 before A2
    deeper = descendants(line[3], 1)[-1]
    assert vma(deeper).anon_vma is own[2]


@MIRRORED
def test_trap_01_the_same_calls_reuse_another_anon_vma(kernel, parent, mirrored):
    written(parent)
    line = descendants(parent, 4)
    own = [vma(process).anon_vma for process in line]
    line[1].exit()
    line[2].exit()
    assert vma(line[4].fork()).anon_vma is own[2 if mirrored else 1]


def test_trap_02_a_root_counts_itself_and_is_never_reused(kernel, parent):
    # Naive: no VMA of its own and one child left, so it may be taken.
    written(parent)
    root = vma(parent).anon_vma
    assert root.num_children == 1
    child = parent.fork()
    parent.exit()
    assert (root.num_children, root.num_active_vmas) == (2, 0)
    assert vma(child.fork()).anon_vma is not root


def test_trap_03_a_child_does_not_take_its_parents_and_what_is_reused_keeps_its_parent(kernel, parent):
    written(parent)
    _, child, grandchild = descendants(parent, 2)
    middle, root = vma(child).anon_vma, vma(parent).anon_vma
    assert vma(grandchild).anon_vma is not middle  # which had no child yet
    child.exit()
    newest = grandchild.fork()
    assert vma(newest).anon_vma is middle
    assert middle.parent is root  # and not the anon_vma of the process that forked
    assert vma(grandchild).anon_vma.parent is middle


def test_trap_04_two_vmas_with_one_root_have_two_anon_vmas_in_the_child(series):
    judged(
        "P0 mmap A 2\nP0 write A\nP0 mprotect A[1] r\nexpect anon_vmas 1\nexpect P0 anon_vma_chains 2\n"
        "P0 fork P1\nexpect anon_vmas 3\nexpect P1 anon_vma_chains 4\n"
        "P1 mprotect A[1] rw\nexpect P1 vmas 2\nP0 mprotect A[1] rw\nexpect P0 vmas 1\nexpect invariants hold",
        series,
    )


# --- merging ----------------------------------------------------------------------------------------------


def test_trap_05_an_inherited_vma_neither_lends_its_anon_vma_nor_takes_in_a_new_mapping(series):
    judged(
        "P0 mmap A 1 at=0x7f0000000000\nP0 write A\nP0 fork P1\n"
        "P0 mmap B 1 at=0x7f0000001000\nexpect P0 vmas 1\n"
        "P1 mmap B 1 at=0x7f0000001000\nexpect P1 vmas 2\n"
        "expect anon_vmas 2\nP1 write B\nexpect anon_vmas 3\nexpect P1 anon_vma_chains 3\n"
        "P1 brk +1\nP1 write heap\nP1 fork P2\nP2 brk +1\nexpect P2 vmas 4\nexpect invariants hold",
        series,
    )


@pytest.mark.parametrize(("series", "vmas"), [("v6.12", 2), ("v6.18", 1), ("v7.0", 1)])
def test_trap_06_before_6_16_an_unfaulted_vma_never_took_in_a_faulted_one(series, vmas):
    judged(
        "P0 mmap A 1 at=0x7f0000000000\nP0 mmap B 1 at=0x7f0000001000\nP0 madvise B dontdump\nP0 write B\n"
        f"P0 madvise B dodump\nexpect P0 vmas {vmas}\nexpect anon_vmas 1\nexpect invariants hold",
        series,
    )


def test_trap_07_a_merged_vma_leaves_the_trees_when_the_survivor_has_its_new_range_and_the_lock_is_free(
    kernel, parent
):
    area = written(parent, 2)
    parent.madvise(area.part(1, 1), "dontdump")
    root, seen = vma(parent).anon_vma, []
    unlink = kernel.unlink_anon_vmas

    def watch(removed):
        (survivor,) = parent.mm.vmas
        seen.append((removed is survivor, survivor.vm_end - survivor.vm_start, len(root.rb_root)))
        assert kernel.locks.anon_vma_held == 0
        unlink(removed)

    kernel.unlink_anon_vmas = watch
    parent.madvise(area.part(1, 1), "dodump")
    assert seen == [(False, 2 * PAGE_SIZE, 2)]  # for a moment, both are in the tree, and overlap
    assert len(root.rb_root) == 1


# --- pages ------------------------------------------------------------------------------------------------


def test_trap_08_a_page_in_the_swap_cache_does_not_keep_the_anon_vma_that_it_names(kernel, parent):
    area = written(parent)
    child = parent.fork()
    child.write(area)
    page, own = folio(child, area), vma(child).anon_vma
    child.swapout(area, cached=True)
    assert page.mapping is own
    grandchild = child.fork()  # has the swap entry, and a link
    child.exit()
    assert not own.freed
    grandchild.munmap(area)
    assert own.freed
    assert page.slot is None


def test_trap_09_a_shared_page_from_swap_names_the_root_and_a_cached_one_what_it_named(kernel, parent):
    area = written(parent, 2)
    child = parent.fork()
    child.write(area)
    grandchild = child.fork()
    own, root = vma(child).anon_vma, vma(parent).anon_vma
    cached = folio(child, area, 1)
    child.swapout(area.part(0, 0))
    child.swapout(area.part(1, 1), cached=True)
    grandchild.swapin(area)
    assert folio(grandchild, area, 0).mapping is root
    assert folio(grandchild, area, 1) is cached
    assert cached.mapping is own is not vma(grandchild).anon_vma


def test_trap_10_a_page_may_move_up_the_tree_and_membership_in_the_chain_is_the_test(kernel, parent):
    # Naive: the anon_vma of a page is an ancestor of its VMA's.
    area = written(parent)
    _, child, _, third = descendants(parent, 3)
    third.write(area)
    page, low = folio(third, area), vma(third).anon_vma
    first_dead = vma(child).anon_vma
    child.exit()
    newest = third.fork()
    assert vma(newest).anon_vma is first_dead
    assert (page.mapping, low.parent.parent) == (low, first_dead)  # a descendant of newest's own
    assert low in chain(newest)
    third.exit()
    newest.write(area)
    assert (folio(newest, area), page.mapping) == (page, first_dead)
    assert violations(kernel) == []


@pytest.mark.parametrize("series", ["v6.18", "v7.0"])
def test_trap_11_a_guard_and_the_stacks_growth_take_an_anon_vma_and_a_read_takes_none(series):
    judged(
        "P0 mmap A 1\nP0 read A\nexpect anon_vmas 0\nexpect folios 0\n"
        "P0 mmap G 1\nP0 madvise G guard-install\nexpect anon_vmas 1\nexpect folios 0\nexpect invariants hold",
        series,
    )


def test_trap_11_a_stack_that_grows_has_an_anon_vma_even_if_its_page_cannot_be_had(kernel, parent):
    kernel.slab.plan(1, kind="page")
    with pytest.raises(OSError, match="allocate memory"):
        parent.stack_grow(1)
    kernel.slab.disarm()
    (stack,) = parent.mm.vmas
    assert stack.vm_end - stack.vm_start == 2 * PAGE_SIZE
    assert counters(stack.anon_vma) == (1, 1, 1)
    assert not list(parent.mm.page_table)


def test_trap_12_a_wiped_vma_has_no_chain_and_one_that_is_not_copied_no_vma(series):
    judged(
        "P0 mmap A 3\nP0 write A\nP0 madvise A[0] wipeonfork\nP0 madvise A[2] dontfork\nP0 fork P1\n"
        "expect P1 vmas 2\nexpect P1 anon_vma_chains 2\nexpect P1 folios 1\nexpect anon_vmas 2\n"
        "P1 write A[0]\nexpect anon_vmas 3\nexpect P1 anon_vma_chains 3\nexpect invariants hold",
        series,
    )


def test_trap_13_the_copy_of_a_pinned_page_is_on_the_childs_anon_vma_which_so_comes_first(kernel, parent):
    area = written(parent)
    parent.pin(area)
    order = []
    fork, copy = kernel.anon_vma_fork, kernel.copy_present_page
    kernel.anon_vma_fork = lambda *args: order.append("attach") or fork(*args)
    kernel.copy_present_page = lambda *args: order.append("copy") or copy(*args)
    child = parent.fork()
    assert order == ["attach", "copy"]
    assert page_state(child, area) == (vma(child).anon_vma, True, 1, True)


# --- trees ------------------------------------------------------------------------------------------------


def test_trap_14_a_vma_that_changed_its_range_stands_behind_its_equals(kernel, parent):
    area = written(parent, 2)
    root = vma(parent).anon_vma
    child = parent.fork()
    assert [avc.vma for avc in root.rb_root] == [vma(parent), vma(child)]
    parent.munmap(area.part(1, 1))  # the range's end, not its start
    assert [avc.vma for avc in root.rb_root] == [vma(child), vma(parent)]
    assert [visit.vma for visit in parent.walk(area, 0)] == [vma(child), vma(parent)]


def test_trap_15_a_faulted_vma_may_become_unfaulted_again(kernel, parent):
    area = written(parent)
    root = vma(parent).anon_vma
    parent.mremap(area, dontunmap=True)
    left = parent.mm.lookup(area.start)
    assert (left.anon_vma, left.anon_vma_chain) == (None, [])
    parent.write(area)
    assert left.anon_vma is not root
    assert counters(left.anon_vma) == counters(root) == (1, 1, 1)


def test_trap_16_an_anon_vma_without_vmas_may_live_on_by_its_references(kernel, parent):
    area = written(parent)
    parent.madvise(area, "mergeable")
    parent.ksm_merge(area, "X")
    root = vma(parent).anon_vma
    parent.exit()
    assert (root.freed, len(root.rb_root), counters(root)) == (False, 0, (1, 0, 0))
    assert violations(kernel) == []
    kernel.ksmd()
    assert root.freed


@pytest.mark.parametrize("series", ["v6.12", "v6.18"])
def test_trap_17_a_discarded_anon_vma_counts_an_owner_and_the_next_does_not(kernel, parent):
    # What is freed may have counts; allocation resets them, the slab's constructor does not.
    written(parent)
    freed = []
    anon_vma_free = kernel.anon_vma_free
    kernel.anon_vma_free = lambda anon_vma: freed.append(counters(anon_vma)) or anon_vma_free(anon_vma)
    kernel.slab.plan(3)
    with pytest.raises(OSError, match="allocate memory"):
        parent.fork()
    kernel.slab.disarm()
    assert freed == [(0, 0, 1)]
    assert counters(kernel.anon_vma_alloc()) == (1, 0, 0)
    kernel.put_anon_vma(max(kernel.live_anon_vmas.values(), key=lambda anon_vma: anon_vma.id))


def test_trap_18_a_split_and_a_move_add_one_owner_and_do_not_reuse(kernel, parent):
    area = written(parent, 2)
    _, child, grandchild = descendants(parent, 2)
    middle, own = vma(child).anon_vma, vma(grandchild).anon_vma
    child.exit()
    assert (middle.num_children, middle.num_active_vmas) == (1, 0)  # a fork would take it
    grandchild.mprotect(area.part(1, 1), "r")
    assert own.num_active_vmas == 2
    moved = grandchild.mremap(area.part(0, 0))
    assert grandchild.mm.lookup(moved.start).anon_vma is own
    assert (own.num_active_vmas, middle.num_active_vmas) == (2, 0)
    assert vma(grandchild.fork()).anon_vma is middle


def test_trap_19_fork_goes_by_address_so_the_lower_vma_has_the_older_anon_vma(kernel, parent):
    high = written(parent, at=BASE + 16 * PAGE_SIZE)
    low = written(parent, at=BASE)
    assert parent.mm.lookup(high.start).anon_vma.id < parent.mm.lookup(low.start).anon_vma.id
    child = parent.fork()
    assert child.mm.lookup(low.start).anon_vma.id < child.mm.lookup(high.start).anon_vma.id


def test_trap_20_no_anon_vma_is_freed_inside_a_roots_lock(kernel, parent):
    area = written(parent, 2)
    held = []
    anon_vma_free = kernel.anon_vma_free
    kernel.anon_vma_free = lambda anon_vma: held.append(kernel.locks.anon_vma_held) or anon_vma_free(anon_vma)
    _, child, grandchild = descendants(parent, 2)
    child.exit()
    grandchild.fork()  # reuses; what was made in advance is thrown away
    parent.mremap(area, dontunmap=True)
    for process in list(kernel.processes.values()):
        process.exit()
    assert held
    assert set(held) == {0}
    assert not kernel.live_anon_vmas


# --- flags, and the parent ------------------------------------------------------------------------------


def test_trap_21_whether_a_vma_is_faulted_shows_in_its_flags_and_so_in_what_merges(kernel, parent):
    # Naive: equal rights, equal offsets, one side unfaulted, so they merge.
    area = parent.mmap(2)
    parent.madvise(area.part(1, 1), "dontdump")
    parent.write(area, 1)
    parent.mprotect(area, "r")
    parent.madvise(area.part(1, 1), "dodump")
    low, high = (parent.mm.lookup(area.page(page)) for page in (0, 1))
    assert (low is high, bool(low.vm_flags & VM_ACCOUNT), bool(high.vm_flags & VM_ACCOUNT)) == (False, False, True)


def test_trap_22_a_fork_leaves_the_parents_chain_and_its_neighbours_alone(kernel, parent):
    area = written(parent, at=BASE)
    root, before = vma(parent).anon_vma, list(vma(parent).anon_vma_chain)
    for children in (1, 2, 3):
        child = parent.fork()
        assert vma(parent).anon_vma_chain == before
        assert (root.num_children, root.num_active_vmas, len(root.rb_root)) == (1 + children, 1, 1 + children)
        assert vma(child).anon_vma is not root
    parent.mmap(1, at=area.end)
    assert len(parent.mm.vmas) == 1  # its chain is still of one link
    assert not entry(parent, area).writable  # but its pages are protected
