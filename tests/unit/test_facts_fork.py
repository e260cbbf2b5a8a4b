# SPDX-License-Identifier: GPL-2.0-only
"""What fork makes, what it takes from a dead ancestor, and what it leaves alone.

The names and comments say which short cut of a plausible but wrong model a test catches.
"""

from machine_parts import BASE, Delta, chain, counters, descendants, folio, vma, written

from rmaplab.kernel.flags import PAGE_SIZE, VM_DONTCOPY, VM_WIPEONFORK

# --- reuse -----------------------------------------------------------------------------------------------


def test_a_root_counts_itself_so_one_with_a_single_child_is_not_reused(kernel, parent):
    # Without the self-link num_children would be 1, and the dead parent's root would be taken.
    written(parent)
    child = parent.fork()
    parent.exit()
    root = chain(child)[-1]
    assert (root.num_children, root.num_active_vmas) == (2, 0)
    grandchild = child.fork()
    assert vma(grandchild).anon_vma is not root
    assert len(chain(grandchild)) == 3


def test_a_root_is_not_reused_even_when_all_its_children_are_gone(kernel, parent):
    area = written(parent)
    parent.fork().exit()
    (root,) = chain(parent)
    assert (root.num_children, root.num_active_vmas) == (1, 1)
    child = parent.fork()
    assert vma(child).anon_vma is not root
    assert root.num_children == 2
    assert folio(child, area).mapping is root


def test_a_child_does_not_take_its_parents_anon_vma_though_no_child_hangs_on_it(kernel, parent):
    # A rule that asks for num_children alone would take it.
    written(parent)
    child = parent.fork()
    own = vma(child).anon_vma
    assert own.num_children == 0
    grandchild = child.fork()
    assert vma(grandchild).anon_vma is not own
    assert vma(grandchild).anon_vma.parent is own


def test_an_ancestor_with_two_children_is_not_reused_though_it_has_no_owner(kernel, parent):
    written(parent)
    child = parent.fork()
    first, _ = child.fork(), child.fork()
    middle = vma(child).anon_vma
    child.exit()
    assert (middle.num_children, middle.num_active_vmas) == (2, 0)
    assert vma(first.fork()).anon_vma.parent is vma(first).anon_vma


def test_a_grandchild_takes_a_dead_ancestors_anon_vma_which_keeps_parent_children_and_references(kernel, parent):
    # A model that treats reuse as a new child would re-parent it or count it again.
    written(parent)
    _, child, grandchild = descendants(parent, 2)
    middle, root = vma(child).anon_vma, vma(parent).anon_vma
    child.exit()
    before = (middle.parent, counters(middle), counters(root))
    assert before == (root, (1, 1, 0), (3, 2, 1))
    newest = grandchild.fork()
    assert vma(newest).anon_vma is middle
    assert (middle.parent, counters(middle), counters(root)) == (root, (1, 1, 1), (3, 2, 1))
    assert chain(newest)[-1] is root or root in chain(newest)


def test_an_adopted_anon_vma_is_taken_by_one_process_only(kernel, parent):
    # With the one counter of v3.19 two relatives could adopt it.
    written(parent)
    _, child, grandchild = descendants(parent, 2)
    middle = vma(child).anon_vma
    child.exit()
    first, second = grandchild.fork(), grandchild.fork()
    assert vma(first).anon_vma is middle
    assert vma(second).anon_vma is not middle
    grandchild.exit()
    assert middle.num_active_vmas == 1
    assert vma(second.fork()).anon_vma is not middle


def test_only_a_fork_looks_for_something_to_reuse_a_split_keeps_its_anon_vma(kernel, parent):
    # Before patch 9 nothing but the preset pointer tells a split from a fork.
    area = written(parent, 2)
    _, child, grandchild = descendants(parent, 2)
    middle, own = vma(child).anon_vma, vma(grandchild).anon_vma
    child.exit()
    assert (middle.num_children, middle.num_active_vmas) == (1, 0)
    grandchild.mprotect(area.part(1, 1), "r")
    assert [half.anon_vma for half in grandchild.mm.vmas] == [own, own]
    assert (own.num_active_vmas, middle.num_active_vmas) == (2, 0)


# --- fork ------------------------------------------------------------------------------------------------


def test_two_vmas_that_share_a_root_get_an_anon_vma_each_in_the_child(kernel, parent):
    # Forking "per anon_vma" instead of per VMA would make one.
    area = written(parent, 2)
    parent.mprotect(area.part(1, 1), "r")
    (root,) = {half.anon_vma for half in parent.mm.vmas}
    child = parent.fork()
    low, high = (half.anon_vma for half in child.mm.vmas)
    assert low is not high
    assert low.parent is high.parent is root
    assert counters(root) == (3, 3, 2)
    assert len(root.rb_root) == 4


def test_fork_goes_by_address_not_by_age_of_the_mapping(kernel, parent):
    late = written(parent, at=BASE + 64 * PAGE_SIZE)
    early = written(parent, at=BASE)
    child = parent.fork()
    assert [part.vm_start for part in child.mm.vmas] == [early.start, late.start]
    low, high = (part.anon_vma.id for part in child.mm.vmas)
    assert low < high


def test_fork_leaves_the_parent_alone_but_for_one_more_child_and_longer_trees(kernel, parent):
    area = written(parent, 2)
    _, process = descendants(parent, 1)
    own, before = vma(process).anon_vma, chain(process)
    trees = [len(anon_vma.rb_root) for anon_vma in before]
    sizes = {anon_vma: counters(anon_vma) for anon_vma in before}
    process.fork()
    assert chain(process) == before
    assert vma(process).anon_vma is own
    assert [len(anon_vma.rb_root) for anon_vma in before] == [size + 1 for size in trees]
    root = own.root
    assert counters(own) == (sizes[own][0], sizes[own][1] + 1, sizes[own][2])
    assert counters(root) == (sizes[root][0] + 1, sizes[root][1], sizes[root][2])
    assert folio(process, area).index == vma(process).vm_pgoff


def test_a_new_anon_vma_hangs_below_the_parents_own_not_below_the_root(kernel, parent):
    written(parent)
    line = descendants(parent, 3)
    owns = [vma(process).anon_vma for process in line]
    assert [own.parent for own in owns] == [owns[0], *owns[:-1]]
    assert {own.root for own in owns} == {owns[0]}
    assert [counters(own) for own in owns] == [(4, 2, 1), (1, 1, 1), (1, 1, 1), (1, 0, 1)]


def test_only_roots_hold_references_for_their_tree(kernel, parent):
    # Reference counting along parent pointers would keep the middle alive.
    written(parent)
    _, child, grandchild = descendants(parent, 2)
    middle = vma(child).anon_vma
    assert middle.refcount == 1
    child.exit()
    assert not middle.freed  # linked through the grandchild's VMA
    grandchild.exit()
    assert middle.freed


def test_a_dead_parents_anon_vma_lives_as_long_as_a_child_is_linked_to_it(kernel, parent):
    written(parent)
    child = parent.fork()
    root = vma(parent).anon_vma
    parent.exit()
    assert counters(root) == (2, 2, 0)
    child.exit()
    assert root.freed
    assert not kernel.live_anon_vmas


def test_wipe_on_fork_gives_the_child_an_unfaulted_vma_and_no_page(kernel, parent):
    area = written(parent)
    vma(parent).vm_flags |= VM_WIPEONFORK
    added = Delta(kernel)
    child = parent.fork()
    assert added() == (0, 0)
    assert vma(child).anon_vma is None
    assert chain(child) == []
    assert child.mm.page_table.get(area.start) is None
    assert folio(parent, area).exclusive


def test_dont_copy_leaves_the_vma_out(kernel, parent):
    area = written(parent)
    vma(parent).vm_flags |= VM_DONTCOPY
    added = Delta(kernel)
    child = parent.fork()
    assert added() == (0, 0)
    assert child.mm.vmas == []
    assert folio(parent, area).mapcount == 1


def test_fork_of_an_unfaulted_vma_shares_not_even_the_zero_page(kernel, parent):
    area = parent.mmap(1)
    parent.read(area)
    child = parent.fork()
    assert parent.mm.page_table.get(area.start) is not None
    assert child.mm.page_table.get(area.start) is None
