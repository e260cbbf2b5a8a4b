# SPDX-License-Identifier: GPL-2.0-only
"""The invariants about pages: what folios, page tables and swap slots must agree on between any two calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.registry import holds
from rmaplab.kernel.flags import PAGE_SHIFT, VM_WRITE
from rmaplab.kernel.folio import linear_page_index
from rmaplab.kernel.walk import ULONG_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.check.state import State
    from rmaplab.kernel import Kernel
    from rmaplab.kernel.objects import AnonVma, Folio, Mm, StableNode, Vma

__all__: list[str] = []

_MEMORY = "mm/memory.c"
_RMAP = "mm/rmap.c"


@holds("AV-021", "a mapped folio names an allocated anon_vma", _RMAP)
def _folio_mapping(state: State) -> Iterator[str]:
    for folio in state.ptes:
        if folio.mapping is not None and folio.mapping.freed:
            yield f"mapped {folio} names freed {folio.mapping}"


@holds("AV-030", "a walk of a folio visits every place that maps it, or has a migration or swap entry for it", _RMAP)
def _coverage(state: State) -> Iterator[str]:
    for folio, ptes in state.ptes.items():
        places = [(mm, address, pte.page) for mm, address, pte in ptes]
        if folio.stable_node is not None:
            places = _noted(folio.stable_node, places)
        yield from _missed(state, folio, "mapped", places)
    for folio, waiting in state.migrating.items():
        yield from _missed(state, folio, "awaited", [(mm, address, pte.page) for mm, address, pte in waiting])
    for slot, entries in state.swapped.items():
        if slot.folio is not None:
            places = [(mm, address, 0) for mm, address, _ in entries if _comes_back(slot.folio, mm, address)]
            yield from _missed(state, slot.folio, "swapped out", places)


def _noted(node: StableNode, places: list[tuple[Mm, int, int]]) -> list[tuple[Mm, int, int]]:
    """The places of a KSM page that ksmd knows of: not those since its last scan, nor where another VMA was then."""
    items = {(item.mm, item.address): item.anon_vma for item in node.items}
    noted = []
    for mm, address, page in places:
        vma, anon_vma = mm.lookup(address), items.get((mm, address))
        if anon_vma is not None and vma is not None:
            noted += [(mm, address, page)] * _knows(vma, anon_vma)
    return noted


def _knows(vma: Vma, anon_vma: AnonVma) -> bool:
    """Whether the VMA is linked to the anon_vma, or, in a design without links, has it or an heir of it."""
    linked = {avc.anon_vma for avc in vma.anon_vma_chain}
    if not linked and vma.anon_vma is not None:
        own = vma.anon_vma
        linked = {own}
        while own.parent is not own:
            own = own.parent
            linked.add(own)
    return anon_vma in linked


def _comes_back(folio: Folio, mm: Mm, address: int) -> bool:
    """Whether a swap-in maps this very page, and not a copy of what was KSM's and now is another tree's."""
    if folio.stable_node is not None or folio.mapping is None:  # KSM's still, or fresh and nobody's yet
        return False
    vma = mm.lookup(address)
    if vma is None or vma.anon_vma is None:
        return True
    return folio.mapping.root is vma.anon_vma.root and folio.index == linear_page_index(vma, address)


def _missed(state: State, folio: Folio, how: str, places: list[tuple[Mm, int, int]]) -> Iterator[str]:
    looks = _visited if folio.stable_node is None else _visited_by_ksm
    visited = looks(state.kernel, folio)
    for mm, address, page in places:
        if (mm.lookup(address), address - (page << PAGE_SHIFT)) not in visited:
            yield f"{folio} is {how} at {address:#x} in {mm}; a walk of {folio.mapping} does not get there"


def _visited(kernel: Kernel, folio: Folio) -> set[tuple[Vma | None, int]]:
    """In which VMAs a walk of an anonymous folio looks, and where its first page would be there."""
    if folio.mapping is None:
        return set()
    return {(vma, vma.vm_start + ((folio.index - vma.anon_pgoff) << PAGE_SHIFT)) for vma in kernel.folio_vmas(folio)}


def _visited_by_ksm(kernel: Kernel, folio: Folio) -> set[tuple[Vma | None, int]]:
    """Where a walk of a KSM page looks: at each item's address, in every VMA of its anon_vma."""
    assert folio.stable_node is not None
    return {
        (vma, item.address)
        for item in folio.stable_node.items
        for vma in kernel.anon_vma_vmas(item.anon_vma, 0, ULONG_MAX)
        if vma.vm_start <= item.address < vma.vm_end
    }


@holds("AV-041", "mapcount is the number of page-table entries, a PMD being one", "include/linux/rmap.h")
def _mapcounts(state: State) -> Iterator[str]:
    for folio, ptes in state.ptes.items():
        if folio.mapcount != len(ptes):
            yield f"{folio}: mapcount {folio.mapcount}, {len(ptes)} entries"


@holds("AV-042", "an exclusive or writable anonymous page is mapped by one process only", _MEMORY)
def _exclusive(state: State) -> Iterator[str]:
    for folio, ptes in state.ptes.items():
        if len(ptes) < 2:
            continue
        if folio.order == 0:
            if folio.exclusive or any(pte.writable for _, _, pte in ptes):
                yield f"{folio} is mapped {len(ptes)} times, exclusive {folio.exclusive}"
            continue
        users: dict[int, set[Mm]] = {}
        for mm, address, pte in ptes:
            huge = mm.page_table.pmds.get(address) is pte
            for page in range(1 << folio.order) if huge else (pte.page,):
                users.setdefault(page, set()).add(mm)
        for mm, address, pte in ptes:
            if len(users[pte.page]) > 1 and (pte.writable or folio.exclusive >> pte.page & 1):
                yield f"{folio}: page {pte.page} at {address:#x} of {mm} has {len(users[pte.page])} processes"


@holds("AV-044", "a page's index and the root of its anon_vma agree with the VMA that maps it", _RMAP)
def _index(state: State) -> Iterator[str]:
    for folio, ptes in state.ptes.items():
        for mm, address, pte in ptes:
            vma = mm.lookup(address)
            if vma is None:
                yield f"{folio} is mapped at {address:#x} of {mm}, outside any VMA"
            elif folio.stable_node is not None:
                continue
            elif folio.index + pte.page != linear_page_index(vma, address):
                yield f"{folio} has the index {folio.index:#x}, not that of {address:#x} in {vma}"
            elif vma.anon_vma is None or folio.mapping is None or folio.mapping.root is not vma.anon_vma.root:
                yield f"{folio} and {vma} belong to different trees"


@holds("AV-047", "no migration entry is left when no migration is under way", "mm/migrate.c")
def _migration_ended(state: State) -> Iterator[str]:
    for folio, waiting in state.migrating.items():
        for mm, address, _ in waiting:
            yield f"{address:#x} of {mm} still waits for {folio}"


@holds(
    "AV-048",
    "a swap slot counts the entries that name it, and is in use by an entry or a mapped page",
    "mm/swapfile.c",
)
def _swap_counts(state: State) -> Iterator[str]:
    for slot, entries in state.swapped.items():
        if slot.count != len(entries):
            yield f"{slot}: count {slot.count}, {len(entries)} entries"
        exclusive = [address for _, address, entry in entries if entry.exclusive]
        if exclusive and len(entries) > 1:
            yield f"{slot} is exclusive at {exclusive[0]:#x} and has {len(entries)} entries"
    for folio in state.ptes:
        slot_of = folio.slot
        if slot_of is not None and (
            slot_of.folio is not folio or slot_of.count != len(state.swapped.get(slot_of, ()))
        ):
            yield f"mapped {folio} is in the swap cache for {slot_of}, count {slot_of.count}"


@holds("AV-049", "a page-table entry allows writing only where its VMA does", _MEMORY)
def _writable(state: State) -> Iterator[str]:
    for folio, ptes in state.ptes.items():
        for mm, address, pte in ptes:
            vma = mm.lookup(address) if pte.writable else None
            if vma is not None and not vma.vm_flags & VM_WRITE:
                yield f"{folio} is writable at {address:#x} of {mm}, {vma} is not"
