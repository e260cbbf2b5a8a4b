# SPDX-License-Identifier: GPL-2.0-only
"""Ways to break each invariant in a healthy state."""

from rmaplab.check.monitor import monitored
from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.kernel.rmap import u64
from rmaplab.kernel.slab import Gfp

CORRUPTIONS = {}


def corrupts(ident):
    """Register a way to break an invariant in a healthy state."""

    def register(function):
        CORRUPTIONS.setdefault(ident, []).append(function)
        return function

    return register


def healthy():
    """P0 with two trees, P1 its child with a split VMA, P2 the grandchild, and pages of all three."""
    kernel = monitored(Kernel)()
    p0 = kernel.spawn()
    a, b = p0.mmap(3), p0.mmap(1)
    p0.write(a)
    p0.write(b)
    p1 = p0.fork()
    p2 = p1.fork()
    p1.write(a, 0)
    p2.write(a, 1)
    p1.mprotect(a.part(2, 2), "r")
    return kernel, p0, p1, p2


def unlinked(avc):
    """Take an AVC off its list and out of its tree, and free it."""
    avc.vma.anon_vma_chain.remove(avc)
    avc.anon_vma.rb_root.remove(avc)


def folios(process):
    return [pte.folio for _, pte in process.mm.page_table]


def link_of(vma, anon_vma):
    return next(avc for avc in vma.anon_vma_chain if avc.anon_vma is anon_vma)


@corrupts("AV-001")
def an_avc_is_on_a_list_but_in_no_tree(kernel, p0, p1, p2):
    avc = p2.mm.vmas[0].anon_vma_chain[0]
    avc.anon_vma.rb_root.remove(avc)


@corrupts("AV-001")
def an_avc_is_in_a_tree_but_on_no_list(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma_chain.pop()


@corrupts("AV-001")
def a_freed_vma_is_left_in_a_tree(kernel, p0, p1, p2):
    p2.mm.vmas.pop().freed = True


@corrupts("AV-001")
def an_avc_is_on_another_vmas_list(kernel, p0, p1, p2):
    p1.mm.vmas[0].anon_vma_chain.append(p0.mm.vmas[0].anon_vma_chain[0])


@corrupts("AV-002")
def a_vma_is_linked_twice(kernel, p0, p1, p2):
    vma = p0.mm.vmas[0]
    avc = kernel.anon_vma_chain_alloc(Gfp.KERNEL)
    kernel.anon_vma_chain_assign(vma, avc, vma.anon_vma)
    vma.anon_vma.rb_root.insert(avc)


@corrupts("AV-003")
def a_faulted_vma_lost_its_pointer(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma = None


@corrupts("AV-003")
def an_unfaulted_vma_has_a_pointer(kernel, p0, p1, p2):
    p2.mmap(1)
    p2.mm.vmas[-1].anon_vma = p2.mm.vmas[0].anon_vma


@corrupts("AV-004")
def a_pointer_leads_to_another_tree(kernel, p0, p1, p2):
    p0.mm.vmas[0].anon_vma = p0.mm.vmas[1].anon_vma


@corrupts("AV-005")
def a_chain_has_two_roots(kernel, p0, p1, p2):
    own = p2.mm.vmas[0].anon_vma
    own.root = own


@corrupts("AV-006")
def a_link_to_an_ancestor_is_missing(kernel, p0, p1, p2):
    vma = p2.mm.vmas[0]
    unlinked(link_of(vma, vma.anon_vma.parent))


@corrupts("AV-007")
def a_child_knows_only_its_own_anon_vma(kernel, p0, p1, p2):
    vma = p1.mm.vmas[0]
    unlinked(link_of(vma, vma.anon_vma.root))


@corrupts("AV-008")
def half_of_a_split_lost_a_link(kernel, p0, p1, p2):
    vma = p1.mm.vmas[1]
    unlinked(link_of(vma, vma.anon_vma.root))


@corrupts("AV-010")
def a_vma_grew_while_it_was_in_a_tree(kernel, p0, p1, p2):
    p0.mm.vmas[0].vm_end += 1 << PAGE_SHIFT


@corrupts("AV-010")
def a_vma_changed_its_offset_while_it_was_in_a_tree(kernel, p0, p1, p2):
    p0.mm.vmas[0].anon_pgoff += 1


@corrupts("AV-011")
def an_owner_is_counted_twice(kernel, p0, p1, p2):
    p0.mm.vmas[0].anon_vma.num_active_vmas += 1


@corrupts("AV-012")
def a_child_is_not_counted(kernel, p0, p1, p2):
    p0.mm.vmas[0].anon_vma.num_children -= 1


@corrupts("AV-012")
def a_child_is_counted_for_another_parent(kernel, p0, p1, p2):
    p0.mm.vmas[0].anon_vma.num_children += 1
    p1.mm.vmas[0].anon_vma.num_children -= 1


@corrupts("AV-013")
def a_reference_leaked(kernel, p0, p1, p2):
    kernel.get_anon_vma(p1.mm.vmas[0].anon_vma)


@corrupts("AV-013")
def a_root_lacks_a_reference(kernel, p0, p1, p2):
    p0.mm.vmas[0].anon_vma.refcount -= 1


@corrupts("AV-014")
def an_emptied_anon_vma_has_an_owner(kernel, p0, p1, p2):
    kernel.anon_vma_alloc().num_active_vmas = 1


@corrupts("AV-014")
def an_emptied_anon_vma_has_a_child(kernel, p0, p1, p2):
    kernel.anon_vma_alloc().num_children = 1


@corrupts("AV-015")
def an_avc_leaked(kernel, p0, p1, p2):
    avc = kernel.anon_vma_chain_alloc(Gfp.KERNEL)
    avc.vma, avc.anon_vma = p0.mm.vmas[0], p0.mm.vmas[0].anon_vma


@corrupts("AV-015")
def the_owners_do_not_add_up(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma.num_active_vmas = 0


@corrupts("AV-016")
def the_children_do_not_add_up(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma.num_children = 1


@corrupts("AV-017")
def the_owners_went_below_zero(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma.num_active_vmas = u64(-1)


@corrupts("AV-017")
def the_children_went_below_zero(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma.num_children = u64(-1)


@corrupts("AV-018")
def an_anon_vma_is_allocated_without_reference(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma.refcount = 0


@corrupts("AV-018")
def a_vma_names_a_freed_anon_vma(kernel, p0, p1, p2):
    kernel.anon_vma_free(p2.mm.vmas[0].anon_vma)


@corrupts("AV-018")
def an_avc_is_freed_while_it_is_on_a_list(kernel, p0, p1, p2):
    kernel.anon_vma_chain_free(p2.mm.vmas[0].anon_vma_chain[0])


@corrupts("AV-018")
def an_anon_vma_is_freed_twice(kernel, p0, p1, p2):
    anon_vma = kernel.anon_vma_alloc()
    kernel.anon_vma_free(anon_vma)
    kernel.anon_vma_free(anon_vma)


@corrupts("AV-019")
def a_parent_is_freed(kernel, p0, p1, p2):
    kernel.anon_vma_free(p1.mm.vmas[0].anon_vma)


@corrupts("AV-019")
def a_root_is_freed(kernel, p0, p1, p2):
    kernel.anon_vma_free(p0.mm.vmas[0].anon_vma)


@corrupts("AV-021")
def a_mapped_folio_names_a_freed_anon_vma(kernel, p0, p1, p2):
    anon_vma = kernel.anon_vma_alloc()
    kernel.put_anon_vma(anon_vma)
    folios(p2)[1].mapping = anon_vma


@corrupts("AV-030")
def a_shared_folio_names_the_childs_anon_vma(kernel, p0, p1, p2):
    folios(p0)[2].mapping = p2.mm.vmas[0].anon_vma


@corrupts("AV-040")
def an_anon_vma_is_left_after_the_last_exit(kernel, p0, p1, p2):
    for process in (p0, p1, p2):
        process.exit()
    kernel.anon_vma_alloc()


@corrupts("AV-041")
def a_folio_counts_a_mapping_too_many(kernel, p0, p1, p2):
    folios(p0)[0].mapcount += 1


@corrupts("AV-042")
def a_shared_folio_is_called_exclusive(kernel, p0, p1, p2):
    folios(p0)[2].exclusive = True


@corrupts("AV-042")
def a_shared_folio_is_writable_in_one_process(kernel, p0, p1, p2):
    next(pte for _, pte in p0.mm.page_table if pte.folio.mapcount > 1).writable = True


@corrupts("AV-043")
def a_child_has_its_parents_anon_vma(kernel, p0, p1, p2):
    p2.mm.vmas[0].anon_vma = p1.mm.vmas[0].anon_vma


@corrupts("AV-044")
def a_folio_has_another_index(kernel, p0, p1, p2):
    folios(p0)[0].index += 1


@corrupts("AV-044")
def a_folio_belongs_to_another_tree(kernel, p0, p1, p2):
    folios(p0)[0].mapping = p0.mm.vmas[1].anon_vma


@corrupts("AV-044")
def a_page_is_mapped_outside_any_vma(kernel, p0, p1, p2):
    kernel.set_pte(p0.mm, 1 << PAGE_SHIFT, folios(p0)[0], False)
