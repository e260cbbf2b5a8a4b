# SPDX-License-Identifier: GPL-2.0-only
"""More ways to break a healthy state: page offsets, swap slots, migration entries, access rights."""

from corruptions import corrupts, folios

from rmaplab.kernel.flags import PAGE_SHIFT, VM_WRITE
from rmaplab.kernel.objects import SwapSlot
from rmaplab.kernel.pagetable import MigrationPte, SwapPte


def address_of(process, page=0):
    return process.mm.vmas[0].vm_start + (page << PAGE_SHIFT)


@corrupts("AV-009")
def a_vma_overlaps_its_neighbour_in_page_offsets(kernel, p0, p1, p2):
    first, second = p1.mm.vmas[:2]
    first.vm_end += 1 << PAGE_SHIFT
    assert first.anon_vma is second.anon_vma


@corrupts("AV-030")
def a_migration_entry_is_out_of_reach(kernel, p0, p1, p2):
    folio = folios(p2)[1]
    folio.mapcount = 0
    folio.index += 1
    p2.mm.page_table.set(address_of(p2, 1), MigrationPte(folio, True, True))


@corrupts("AV-030")
def a_swap_entry_is_out_of_reach_of_its_page_in_the_swap_cache(kernel, p0, p1, p2):
    folio = folios(p2)[1]
    slot = folio.slot = SwapSlot(1)
    slot.folio, slot.count = folio, 1
    p0.mm.page_table.set(address_of(p0, 1), SwapPte(slot, False))


@corrupts("AV-047")
def a_migration_entry_is_left_behind(kernel, p0, p1, p2):
    p2.mm.page_table.set(address_of(p2, 1), MigrationPte(folios(p2)[1], True, True))


@corrupts("AV-048")
def a_swap_slot_counts_one_entry_too_many(kernel, p0, p1, p2):
    slot = SwapSlot(1)
    slot.count = 2
    p2.mm.page_table.set(address_of(p2, 1), SwapPte(slot, True))


@corrupts("AV-048")
def a_shared_swap_slot_is_exclusive_to_one(kernel, p0, p1, p2):
    slot = SwapSlot(1)
    slot.count = 2
    for process in (p1, p2):
        process.mm.page_table.set(address_of(process, 1), SwapPte(slot, True))


@corrupts("AV-048")
def a_mapped_page_stays_in_the_swap_cache_of_a_lost_slot(kernel, p0, p1, p2):
    folio = folios(p2)[1]
    slot = folio.slot = SwapSlot(1)
    slot.folio, slot.count = folio, 1


@corrupts("AV-049")
def a_vma_forbids_what_its_page_table_allows(kernel, p0, p1, p2):
    p2.mm.vmas[0].vm_flags &= ~VM_WRITE
