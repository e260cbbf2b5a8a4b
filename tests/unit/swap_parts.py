# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of swapping and migration look at, and KSM's pages made by hand."""

from rmaplab.kernel.folio import linear_page_index
from rmaplab.kernel.objects import Folio, KsmRmapItem, StableNode

IN_CACHE_UNTIL_MAPPED = ("v7.0", "v7.3")  # since 4b34f1d82c65


def entry(process, area, page=0):
    return process.mm.page_table.get(area.page(page))


def page_state(process, area, page=0):
    """What the folio names, whether the page is exclusive, its mapcount, and whether the entry is writable."""
    pte = entry(process, area, page)
    return pte.folio.mapping, bool(pte.folio.exclusive >> pte.page & 1), pte.folio.mapcount, pte.writable


def swap_state(process, area, page=0):
    """Users of the slot, whether the page is in the swap cache, whether this entry is exclusive."""
    swapped = entry(process, area, page)
    return swapped.slot.count, swapped.slot.folio is not None, swapped.exclusive


def ksm_page(kernel, *places):
    """One page in the place of the first page of several areas, as ksmd leaves it."""
    page = Folio(kernel.new_ident(Folio))
    node = StableNode(kernel.new_ident(StableNode), "content", page)
    page.stable_node = kernel.stable_tree["content"] = node
    for process, area in places:
        table, vma = process.mm.page_table, process.mm.lookup(area.start)
        kernel.folio_remove_rmap_pte(table.get(area.start).folio, 0)
        kernel.get_anon_vma(vma.anon_vma)
        node.items.append(KsmRmapItem(process.mm, area.start, vma.anon_vma, linear_page_index(vma, area.start)))
        page.mapcount += 1
        kernel.set_pte(process.mm, area.start, page, False)
    return page


def forget_ksm(kernel):
    """Drop the places that ksmd remembers, and so the references to their anon_vmas."""
    for node in kernel.stable_tree.values():
        for item in node.items:
            kernel.put_anon_vma(item.anon_vma)
    kernel.stable_tree.clear()
