# SPDX-License-Identifier: GPL-2.0-only
"""Facts that a plausible but wrong model gets wrong, and what running kernels were seen to do.

The names say which short cut each test catches.
"""

import pytest

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.check.state import graph
from rmaplab.kernel.flags import PAGE_SIZE, VM_ACCOUNT, VM_DONTCOPY, VM_WIPEONFORK, flags_name, prot_flags
from rmaplab.series import SERIES

BASE = 0x10000000
SINCE_6_16 = [name for name in SERIES if name != "v6.12"]
K = 5  # VMAs per process where the experiment on a running kernel had 2000 or more


@pytest.fixture(params=SERIES, name="series")
def _series(request):
    return request.param


@pytest.fixture(name="kernel")
def _kernel(series):
    """A watched machine; whatever a test does to it, every invariant holds at its end."""
    kernel = monitored(SERIES[series])()
    kernel.spawn()
    yield kernel
    assert violations(kernel) == []


@pytest.fixture(name="parent")
def _parent(kernel):
    return kernel.processes["P0"]


def vma(process, index=0):
    return process.mm.vmas[index]


def folio(process, area, page=0):
    return process.mm.page_table.get(area.page(page)).folio


def chain(process, index=0):
    return [avc.anon_vma for avc in vma(process, index).anon_vma_chain]


def counters(anon_vma):
    return anon_vma.refcount, anon_vma.num_children, anon_vma.num_active_vmas


def written(process, pages=1, at=None):
    area = process.mmap(pages, at=at)
    process.write(area)
    return area


def descendants(process, count):
    """Straight forks; the generations, oldest first."""
    line = [process]
    for _ in range(count):
        line.append(line[-1].fork())
    return line


class Delta:
    """What was added to the live anon_vmas and AVCs since."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.anon_vmas, self.avcs = self.now()

    def now(self):
        return len(self.kernel.live_anon_vmas), len(self.kernel.live_anon_vma_chains)

    def __call__(self):
        before, (self.anon_vmas, self.avcs) = (self.anon_vmas, self.avcs), self.now()
        return self.anon_vmas - before[0], self.avcs - before[1]


# --- reuse ------------------------------------------------------------------------------------------


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


# --- fork ---------------------------------------------------------------------------------------------


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


# --- sharing with neighbours ------------------------------------------------------------------------------


def neighbours(process, low="rw", high="rwx", file=None):
    """Two areas that touch and differ in rights."""
    return (
        process.mmap(1, at=BASE, prot=low, file=file),
        process.mmap(1, at=BASE + PAGE_SIZE, prot=high, file=file),
    )


@pytest.mark.parametrize("lender", [0, 1])
def test_a_neighbour_that_differs_in_exec_lends_its_root(kernel, parent, lender):
    areas = neighbours(parent)
    parent.write(areas[lender])
    added = Delta(kernel)
    parent.write(areas[1 - lender])
    assert added() == (0, 1)
    (root,) = {part.anon_vma for part in parent.mm.vmas}
    assert counters(root) == (1, 1, 2)


def test_the_upper_neighbour_is_asked_first(kernel, parent):
    middle = parent.mmap(1, at=BASE + PAGE_SIZE, prot="rwx")
    below, above = (parent.mmap(1, at=BASE + at * PAGE_SIZE) for at in (0, 2))
    parent.write(below)
    parent.write(above)
    assert vma(parent, 0).anon_vma is not vma(parent, 2).anon_vma
    parent.write(middle)
    assert vma(parent, 1).anon_vma is vma(parent, 2).anon_vma


def test_an_inherited_vma_lends_nothing(kernel, parent):
    # Lending whatever anon_vma a neighbour has would hand out one that is no root.
    low, high = neighbours(parent)
    parent.write(low)
    child = parent.fork()
    added = Delta(kernel)
    child.write(high)
    assert added() == (1, 1)
    assert vma(child, 1).anon_vma is vma(child, 1).anon_vma.root
    assert vma(child, 1).anon_vma.root is not vma(child, 0).anon_vma.root
    parent.write(high)
    assert vma(parent, 1).anon_vma is vma(parent, 0).anon_vma


def test_no_root_is_shared_across_a_hole(kernel, parent):
    for at, prot in ((0, "rw"), (2, "rwx")):
        parent.write(parent.mmap(1, at=BASE + at * PAGE_SIZE, prot=prot))
    assert vma(parent, 0).anon_vma is not vma(parent, 1).anon_vma


@pytest.mark.parametrize(
    ("file", "pgoff", "shared"), [("f", 1, True), ("g", 1, False), (None, 1, False), ("f", 2, False)]
)
def test_a_root_is_shared_within_one_file_at_consecutive_offsets_only(kernel, parent, file, pgoff, shared):
    low, at = parent.mmap(1, at=BASE, file="f"), BASE + PAGE_SIZE
    kernel.do_mmap(parent.mm, at, at + PAGE_SIZE, prot_flags("rwx"), file, pgoff)
    parent.write(low)
    kernel.handle_mm_fault(parent.mm, at, True)
    assert (vma(parent, 0).anon_vma is vma(parent, 1).anon_vma) == shared


def test_sharing_a_root_does_not_merge(kernel, parent):
    for area in neighbours(parent):
        parent.write(area)
    assert len(parent.mm.vmas) == 2


# --- merge ------------------------------------------------------------------------------------------------


def unfaulted_below_faulted(process):
    """The upper VMA was written, then made read-only, which keeps VM_ACCOUNT; the lower came later."""
    high = written(process, at=BASE + PAGE_SIZE)
    process.mprotect(high, "r")
    process.mmap(1, at=BASE)
    return high


def faulted_below_unfaulted(process):
    written(process, at=BASE)
    return process.mmap(1, at=BASE + PAGE_SIZE, prot="r")


def count_after_rw(process, area):
    """VMAs before and after the area becomes writable and so equal to its neighbour."""
    before = len(process.mm.vmas)
    process.mprotect(area, "rw")
    return before, len(process.mm.vmas)


def test_up_to_6_15_a_faulted_vma_is_not_merged_into_an_unfaulted_one_by_accident(kernel, parent, series):
    area = unfaulted_below_faulted(parent)
    assert count_after_rw(parent, area) == ((2, 2) if series == "v6.12" else (2, 1))


def test_an_unfaulted_vma_is_merged_into_a_faulted_one_in_every_release(kernel, parent):
    assert count_after_rw(parent, faulted_below_unfaulted(parent)) == (2, 1)


@pytest.mark.parametrize("layout", [unfaulted_below_faulted, faulted_below_unfaulted])
def test_a_fork_child_merges_neither_way(kernel, parent, layout):
    area = layout(parent)
    assert count_after_rw(parent.fork(), area) == (2, 2)


@pytest.mark.parametrize("layout", [unfaulted_below_faulted, faulted_below_unfaulted])
def test_having_forked_does_not_keep_the_parent_from_merging(kernel, parent, series, layout):
    # A test of the anon_vma's children instead of the VMA's chain would refuse.
    area = layout(parent)
    parent.fork()
    refused = series == "v6.12" and layout is unfaulted_below_faulted
    assert count_after_rw(parent, area) == ((2, 2) if refused else (2, 1))


def test_a_split_pair_merges_again_in_the_parent_and_not_in_the_child(kernel, parent):
    area = written(parent, 2)
    parent.mprotect(area.part(1, 1), "r")
    child = parent.fork()
    assert count_after_rw(parent, area.part(1, 1)) == (2, 1)
    assert count_after_rw(child, area.part(1, 1)) == (2, 2)


def test_a_vma_split_within_the_child_merges_again_there(kernel, parent):
    # Refusing every VMA with a long chain would not: both halves have the same anon_vma.
    area = written(parent, 2)
    child = parent.fork()
    before = (counters(vma(child).anon_vma), {av.id for av in chain(child)})
    child.mprotect(area.part(1, 1), "r")
    assert count_after_rw(child, area.part(1, 1)) == (2, 1)
    assert (counters(vma(child).anon_vma), {av.id for av in chain(child)}) == before


@pytest.mark.parametrize("side", ["below", "above"])
def test_a_new_mapping_joins_its_neighbour_but_not_one_that_was_inherited(kernel, parent, side):
    area = written(parent, at=BASE)
    child = parent.fork()
    at = area.start - PAGE_SIZE if side == "below" else area.end
    for process, vmas in ((parent, 1), (child, 2)):
        process.mmap(1, at=at)
        assert len(process.mm.vmas) == vmas


def test_the_heap_of_a_fork_child_grows_by_a_vma_of_its_own_with_a_root_of_its_own(kernel, parent):
    def brk(process, pages):
        kernel.do_brk(process.mm, process.mm.brk or BASE, (process.mm.brk or BASE) + pages * PAGE_SIZE)

    brk(parent, 1)
    kernel.handle_mm_fault(parent.mm, BASE, True)
    child = parent.fork()
    brk(parent, 1)
    brk(child, 1)
    assert [len(process.mm.vmas) for process in (parent, child)] == [1, 2]
    kernel.handle_mm_fault(child.mm, BASE + PAGE_SIZE, True)
    assert vma(child, 1).anon_vma.root is vma(child, 1).anon_vma
    assert vma(child, 1).anon_vma is not vma(child, 0).anon_vma.root


def test_faulted_vmas_of_different_trees_stay_apart_even_if_all_else_is_equal(kernel, parent):
    middle = parent.mmap(1, at=BASE + PAGE_SIZE, prot="none")
    for at in (0, 2):
        written(parent, at=BASE + at * PAGE_SIZE)
    low, high = vma(parent, 0), vma(parent, 2)
    assert low.anon_vma is not high.anon_vma
    parent.mprotect(middle, "rw")  # fits either, but not both: it joins the lower one
    assert parent.mm.vmas == [low, high]
    assert [part.vm_end - part.vm_start for part in parent.mm.vmas] == [2 * PAGE_SIZE, PAGE_SIZE]


def test_an_unfaulted_hole_between_halves_of_one_anon_vma_closes_to_one_vma(kernel, parent):
    area = written(parent, 3, at=BASE)
    parent.munmap(area.part(1, 1))
    (root,) = {part.anon_vma for part in parent.mm.vmas}
    assert counters(root) == (1, 1, 2)
    parent.mmap(1, at=area.page(1))
    assert len(parent.mm.vmas) == 1
    assert counters(root) == (1, 1, 1)
    assert len(kernel.live_anon_vma_chains) == 1


def test_a_removed_vma_leaves_its_trees_after_the_survivor_stands_in_a_second_hold_of_the_lock(kernel, parent):
    # Unlinking it first would empty the root; unlinking it inside the first hold would deadlock.
    area = written(parent, 2)
    parent.mprotect(area.part(1, 1), "r")
    removed, survivor = parent.mm.vmas
    unlinked, events = [], []
    unlink = kernel.unlink_anon_vmas

    def watch(target):
        unlinked.append(target)
        assert parent.mm.vmas == [survivor]
        assert (survivor.vm_start, survivor.vm_end) == (area.start, area.end)
        assert all(avc in avc.anon_vma.rb_root for avc in (*survivor.anon_vma_chain, *target.anon_vma_chain))
        assert kernel.locks.anon_vma_held == 0
        unlink(target)

    kernel.unlink_anon_vmas = watch
    kernel.events.listeners.append(lambda event: events.append((event.verb, event.detail)))
    parent.mprotect(area.part(0, 0), "r")
    assert unlinked == [removed]
    assert removed.freed
    assert [verb for verb, detail in events if detail.startswith("anon_vma")] == ["lock", "unlock"] * 2


@pytest.mark.parametrize("series", SINCE_6_16)
def test_a_merge_into_an_unfaulted_vma_brings_the_links_along(kernel, parent):
    area = unfaulted_below_faulted(parent)
    (root,) = chain(parent, 1)
    parent.mprotect(area, "rw")
    assert chain(parent) == [root]
    assert vma(parent).anon_vma is root
    assert counters(root) == (1, 1, 1)
    assert [visit.maps for visit in parent.walk(area, 0)] == [True]


@pytest.mark.parametrize("series", SINCE_6_16)
def test_part_of_a_faulted_vma_merged_away_makes_the_unfaulted_neighbour_a_second_owner(kernel, parent):
    high = written(parent, 2, at=BASE + PAGE_SIZE)
    parent.mprotect(high, "r")
    parent.mmap(1, at=BASE)
    parent.mprotect(high.part(0, 0), "rw")
    assert [part.vm_end - part.vm_start for part in parent.mm.vmas] == [2 * PAGE_SIZE, PAGE_SIZE]
    (root,) = {part.anon_vma for part in parent.mm.vmas}
    assert counters(root) == (1, 1, 2)


# --- VM_ACCOUNT -----------------------------------------------------------------------------------------------


def test_a_read_only_vma_loses_account_unless_it_was_written(kernel, parent):
    # Flags that only follow the rights would make the two mergeable.
    area = parent.mmap(1, at=BASE)
    other = written(parent, at=BASE + 8 * PAGE_SIZE)
    for part in (area, other):
        parent.mprotect(part, "r")
    assert [flags_name(part.vm_flags) for part in parent.mm.vmas] == ["rd", "rd ac"]


def test_account_keeps_a_faulted_and_an_unfaulted_neighbour_apart_while_both_are_read_only(kernel, parent):
    low = written(parent, at=BASE)
    high = parent.mmap(1, at=BASE + PAGE_SIZE, prot="r")
    parent.mprotect(low, "r")
    assert [bool(part.vm_flags & VM_ACCOUNT) for part in parent.mm.vmas] == [True, False]
    assert len(parent.mm.vmas) == 2
    parent.mprotect(low, "rw")
    parent.mprotect(high, "rw")
    assert len(parent.mm.vmas) == 1


def test_account_is_lost_by_rights_alone_even_if_only_the_zero_page_was_read(kernel, parent):
    area = parent.mmap(1)
    parent.read(area)
    parent.mprotect(area, "r")
    assert flags_name(vma(parent).vm_flags) == "rd"


# --- split --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", range(4))
@pytest.mark.parametrize("part", [(0, 0), (1, 1), (2, 2)])
def test_a_split_adds_each_link_once_and_one_owner_per_new_vma(kernel, parent, generation, part):
    # Counting an owner per AVC, or the new VMA at dup and at clone, would add more.
    area = written(parent, 3)
    process = descendants(parent, generation)[-1]
    own, links = vma(process).anon_vma, len(chain(process))
    before = {av: counters(av) for av in chain(process)}
    added = Delta(kernel)
    process.mprotect(area.part(*part), "r")
    pieces = len(process.mm.vmas) - 1
    assert pieces == (2 if part == (1, 1) else 1)
    assert added() == (0, pieces * links)
    for anon_vma, (references, children, owners) in before.items():
        assert counters(anon_vma) == (references, children, owners + (pieces if anon_vma is own else 0))
    process.mprotect(area.part(*part), "rw")
    assert added() == (0, -pieces * links)
    assert {av: counters(av) for av in chain(process)} == before


def test_a_split_of_an_unfaulted_vma_makes_nothing(kernel, parent):
    area = parent.mmap(3)
    parent.mprotect(area.part(1, 1), "r")
    assert len(parent.mm.vmas) == 3
    assert not kernel.live_anon_vmas


def test_a_split_moves_the_offset_with_the_start_so_pages_are_still_found(kernel, parent):
    area = written(parent, 3)
    child = parent.fork()
    child.munmap(area.part(0, 0))
    parent.mprotect(area.part(1, 1), "r")
    for page in range(3):
        found = {(visit.vma.vm_mm, visit.address) for visit in parent.walk(area, page) if visit.maps}
        sharers = (parent, child) if page else (parent,)
        assert found == {(process.mm, area.page(page)) for process in sharers}


def test_a_range_changes_only_while_none_of_its_links_is_in_a_tree(kernel, parent):
    # Keys are read through the VMA: changing the range of an inserted one corrupts the order.
    area = written(parent, 2)
    child = parent.fork()
    before = vma(child).vm_start, vma(child).vm_end
    inside = []
    prepare = kernel.vma_prepare

    def watch(*vmas):
        locked = prepare(*vmas)
        inside.extend(avc for part in vmas for avc in part.anon_vma_chain if avc in avc.anon_vma.rb_root)
        assert (vmas[0].vm_start, vmas[0].vm_end) == before
        return locked

    kernel.vma_prepare = watch
    child.mprotect(area.part(1, 1), "r")
    assert len(child.mm.vmas) == 2
    assert inside == []


# --- munmap and exit -----------------------------------------------------------------------------------------


def test_unlink_comes_after_zap_and_touches_no_folio(kernel, parent):
    # A folio keeps the name of its anon_vma after its last mapping, even when that is freed.
    area = written(parent)
    page, root = folio(parent, area), vma(parent).anon_vma
    index = page.index
    mapped = []
    unlink = kernel.unlink_anon_vmas

    def watch(target):
        mapped.append((page.mapcount, parent.mm.page_table.get(area.start)))
        unlink(target)

    kernel.unlink_anon_vmas = watch
    parent.munmap(area)
    assert mapped == [(0, None)]
    assert root.freed
    assert (page.mapping, page.index, page.mapcount) == (root, index, 0)


def test_a_part_unmapped_takes_only_its_own_links(kernel, parent):
    area = written(parent, 3)
    (root,) = chain(parent)
    parent.munmap(area.part(1, 1))
    assert len(parent.mm.vmas) == 2
    assert counters(root) == (1, 1, 2)
    assert len(root.rb_root) == 2
    parent.munmap(area.part(0, 0))
    parent.munmap(area.part(2, 2))
    assert not kernel.live_anon_vmas


def test_no_anon_vma_is_freed_while_a_lock_is_held(kernel, parent):
    # Freeing may take the root's lock: inside it that is a deadlock.
    written(parent, 2)
    line = descendants(parent, 3)
    held, freed = 0, []

    def listen(event):
        nonlocal held
        if event.detail.startswith("anon_vma"):
            held += {"lock": 1, "unlock": -1}.get(event.verb, 0)
        if event.verb == "free" and not event.object.startswith("avc"):
            freed.append(held)

    kernel.events.listeners.append(listen)
    for process in line:
        process.exit()
    assert freed == [0, 0, 0, 0]


def test_exit_in_any_order_leaves_nothing(kernel, parent):
    written(parent, 2)
    line = descendants(parent, 3)
    for process in (line[1], line[3], line[0], line[2]):
        process.exit()
    assert not kernel.live_anon_vmas
    assert not kernel.live_anon_vma_chains
    assert kernel.slab.bytes == 0


@pytest.mark.parametrize("series", [name for name in SERIES if name != "v6.18+v2"])  # it leaks here
def test_counts_left_in_a_freed_anon_vma_do_not_reach_the_next_one(kernel, parent):
    # Before patch 2 a fork that fails at its last allocation frees an anon_vma that counts an owner already.
    written(parent)
    before = graph(kernel)
    kernel.slab.plan(3)
    with pytest.raises(OSError, match="allocate memory"):
        parent.fork()
    kernel.slab.disarm()
    kernel.events.take_reports()  # v6.18+1 trips over its own assertion
    assert graph(kernel) == before
    assert counters(vma(parent.fork()).anon_vma) == (1, 0, 1)


# --- faults -------------------------------------------------------------------------------------------------


def test_a_read_fault_takes_no_anon_vma_but_a_write_after_it_does(kernel, parent):
    area = parent.mmap(1)
    parent.read(area)
    assert vma(parent).anon_vma is None
    assert folio(parent, area).mapping is None
    parent.write(area)
    assert folio(parent, area).mapping is vma(parent).anon_vma is not None


def test_shared_memory_never_takes_an_anon_vma(kernel, parent):
    for area in (parent.mmap(1, shared=True), parent.mmap(1, file="f", shared=True)):
        parent.write(area)
    parent.fork().write(area)
    assert not kernel.live_anon_vmas


def test_a_private_file_page_becomes_anonymous_at_the_first_write_with_the_files_offset(kernel, parent):
    area = parent.mmap(3, file="f")
    parent.read(area)
    assert not kernel.live_anon_vmas
    parent.write(area, 2)
    assert (folio(parent, area, 2).mapping, folio(parent, area, 2).index) == (vma(parent).anon_vma, 2)
    assert folio(parent, area, 1).mapping is None


@pytest.mark.parametrize(("prot", "call"), [("r", "write"), ("none", "read"), ("none", "write")])
def test_a_refused_fault_makes_nothing(kernel, parent, prot, call):
    area = parent.mmap(1, prot=prot)
    with pytest.raises(OSError, match="address"):
        getattr(parent, call)(area)
    assert not kernel.live_anon_vmas
    assert parent.mm.page_table.get(area.start) is None


# --- experiments on a running kernel, per VMA -----------------------------------------------------------------


def apart(process, pages=1):
    """K areas that touch nothing."""
    return [process.mmap(pages) for _ in range(K)]


def test_experiment_read_then_write_fault(kernel, parent):
    added = Delta(kernel)
    areas = apart(parent)
    for area in areas:
        parent.read(area)
    assert added() == (0, 0)
    for area in areas:
        parent.write(area)
    assert added() == (K, K)


def test_experiment_fork_split_and_fork_of_the_split_pairs(kernel, parent):
    areas = apart(parent, 2)
    for area in areas:
        parent.write(area)
    added = Delta(kernel)
    child = parent.fork()
    assert added() == (K, 2 * K)
    child.exit()
    assert added() == (-K, -2 * K)
    for area in areas:
        parent.mprotect(area.part(1, 1), "r")
    assert added() == (0, K)
    parent.fork()
    assert added() == (2 * K, 4 * K)


def test_experiment_neighbour_that_differs_only_in_exec(kernel, parent):
    areas = apart(parent, 2)
    for area in areas:
        parent.mprotect(area.part(1, 1), "rwx")
        parent.write(area, 0)
    added = Delta(kernel)
    for area in areas:
        parent.write(area, 1)
    assert added() == (0, K)


# --- what a folio names ------------------------------------------------------------------------------------------


def page_state(process, area, page=0):
    entry = process.mm.page_table.get(area.page(page))
    return entry.folio.mapping, entry.folio.exclusive, entry.folio.mapcount, entry.writable


def test_a_new_page_names_its_vmas_own_anon_vma_not_the_root(kernel, parent):
    area = parent.mmap(2)
    parent.write(area, 0)
    _, child, grandchild = descendants(parent, 2)
    grandchild.write(area, 1)
    assert page_state(grandchild, area, 1) == (vma(grandchild).anon_vma, True, 1, True)
    assert folio(grandchild, area, 1).index == vma(grandchild).vm_pgoff + 1
    child.write(area, 0)
    assert page_state(child, area, 0) == (vma(child).anon_vma, True, 1, True)


def test_fork_shares_pages_under_their_old_name_read_only_in_both(kernel, parent):
    area = written(parent)
    (root,) = chain(parent)
    child = parent.fork()
    assert page_state(parent, area) == page_state(child, area) == (root, False, 2, False)
    assert list(root.rb_root) == [vma(parent).anon_vma_chain[0], child.mm.vmas[0].anon_vma_chain[-1]]
    assert len(vma(child).anon_vma.rb_root) == 1


def test_child_writes_first_copies_and_a_walk_of_the_old_page_still_visits_it_in_vain(kernel, parent):
    area = written(parent)
    (root,) = chain(parent)
    child = parent.fork()
    child.write(area)
    assert page_state(child, area) == (vma(child).anon_vma, True, 1, True)
    assert page_state(parent, area) == (root, False, 1, False)  # alone, but not known to be
    walk = parent.walk(area, 0)
    assert [(visit.vma.vm_mm, visit.maps) for visit in walk] == [(parent.mm, True), (child.mm, False)]
    assert [visit.vma.vm_mm for visit in child.walk(area, 0)] == [child.mm]
    parent.write(area)
    assert page_state(parent, area) == (root, True, 1, True)


def test_parent_writes_first_copies_and_the_last_mapper_moves_the_old_page_to_itself(kernel, parent):
    area = written(parent)
    (root,) = chain(parent)
    child = parent.fork()
    old = folio(child, area)
    index = old.index
    parent.write(area)
    assert page_state(parent, area) == (root, True, 1, True)
    assert folio(parent, area) is not old
    assert page_state(child, area) == (root, False, 1, False)
    child.write(area)
    assert folio(child, area) is old
    assert page_state(child, area) == (vma(child).anon_vma, True, 1, True)
    assert old.index == index


def test_parent_exits_first_and_its_root_stays_for_the_child(kernel, parent):
    area = written(parent)
    (root,) = chain(parent)
    child = parent.fork()
    parent.exit()
    assert [avc.vma for avc in root.rb_root] == [vma(child)]
    assert (root.num_active_vmas, root.num_children) == (0, 2)
    assert page_state(child, area) == (root, False, 1, False)
    child.write(area)
    assert page_state(child, area) == (vma(child).anon_vma, True, 1, True)
    assert not root.freed
    child.munmap(area)
    assert root.freed


def test_a_page_shared_by_k_children_has_k_plus_one_mappings_all_found_by_a_walk(kernel, parent):
    area = written(parent)
    for children in range(1, 5):
        parent.fork()
        assert page_state(parent, area)[2] == children + 1
        assert sum(visit.maps for visit in parent.walk(area, 0)) == children + 1


def test_the_last_of_several_mappers_need_not_copy(kernel, parent):
    area = written(parent)
    old = folio(parent, area)
    first, second = parent.fork(), parent.fork()
    parent.munmap(area)
    first.write(area)
    assert (folio(first, area) is old, old.mapcount) == (False, 1)
    second.write(area)
    assert folio(second, area) is old
    assert old.mapping is vma(second).anon_vma


def test_a_write_to_an_exclusive_page_does_not_move_it(kernel, parent):
    # A model that moves on every write fault would hide pages that name an ancestor although exclusive.
    area = written(parent)
    child = parent.fork()
    parent.exit()
    child.write(area)
    page, root = folio(child, area), chain(child)[-1]
    page.mapping = root  # as a swap-in from the swap cache would leave it
    child.mprotect(area, "r")
    child.mprotect(area, "rw")
    child.write(area)
    assert page.mapping is root
    assert page_state(child, area) == (root, True, 1, True)


def test_a_write_after_the_rights_came_back_faults_and_keeps_the_page(kernel, parent):
    area = written(parent)
    page = folio(parent, area)
    parent.mprotect(area, "r")
    parent.mprotect(area, "rw")
    assert not page_state(parent, area)[3]
    parent.write(area)
    assert folio(parent, area) is page
    assert page_state(parent, area) == (vma(parent).anon_vma, True, 1, True)


def adopted(kernel, parent):
    """P4 adopted P1's anon_vma and is the last to map a page that P3 made."""
    area = parent.mmap(1)
    parent.write(area)
    _, child, _, maker = descendants(parent, 3)
    child.exit()
    maker.write(area)
    heir = maker.fork()
    maker.exit()
    return area, heir


def test_after_reuse_a_page_moves_up_the_tree_when_its_last_mapper_writes(kernel, parent):
    # "The new anon_vma is below the old one" holds only as long as nothing was reused.
    area, heir = adopted(kernel, parent)
    old, new = folio(heir, area).mapping, vma(heir).anon_vma
    assert old.parent.parent is new
    heir.write(area)
    assert folio(heir, area).mapping is new
    assert kernel.reached["folio moved up the tree by its last mapper"] == 1


def test_after_reuse_the_right_test_is_membership_in_the_chain_not_ancestry(kernel, parent):
    area, heir = adopted(kernel, parent)
    named, own = folio(heir, area).mapping, vma(heir).anon_vma
    ancestors = {own, own.parent, own.parent.parent}
    assert named not in ancestors
    assert named in chain(heir)
    assert [visit.maps for visit in heir.walk(area, 0)] == [True]


def test_after_reuse_new_pages_are_walked_in_relatives_that_cannot_map_them(kernel, parent):
    area, heir = adopted(kernel, parent)
    heir.write(area)
    visits = heir.walk(area, 0)
    assert [visit.maps for visit in visits] == [False, True]  # P2, linked to P1's anon_vma, for nothing


def test_a_walk_takes_the_folio_lock_outside_the_roots_lock_for_reading(kernel, parent):
    area = written(parent)
    child = parent.fork()
    child.write(area)
    events = []
    kernel.events.listeners.append(lambda event: events.append(event))
    child.walk(area, 0)
    root = vma(parent).anon_vma
    assert [(event.verb, event.detail) for event in events] == [
        ("lock", "folio_lock write"),
        ("lock", "anon_vma read"),
        ("unlock", "anon_vma"),
        ("unlock", "folio_lock"),
    ]
    assert [event.object for event in events[1:3]] == [str(root)] * 2
