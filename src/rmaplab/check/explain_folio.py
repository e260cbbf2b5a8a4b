# SPDX-License-Identifier: GPL-2.0-only
"""Why a walk of a folio visits the VMAs that it visits, and what the folio names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.explain_answers import Answer, WalkStep
from rmaplab.check.explain_facts import counted, listed
from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.kernel.objects import ZERO_PAGE
from rmaplab.kernel.pagetable import GuardMarker, MigrationPte, Pte, SwapPte

if TYPE_CHECKING:
    from rmaplab.check.explain_facts import Facts
    from rmaplab.kernel.objects import AnonVma, Folio, KsmRmapItem, Mm, StableNode, Vma
    from rmaplab.kernel.pagetable import Entry

__all__ = ["folio_answer"]


def folio_answer(facts: Facts, folio: Folio) -> Answer:
    """The walk of a folio that is mapped or in the swap cache."""
    walk = _Walk(facts, folio)
    walk.explain()
    return Answer(f"{facts.name(folio)}: {walk.title}", tuple(walk.lines), tuple(walk.steps))


class _Walk:
    """One walk as it would be made now, from the objects alone: no lock is taken."""

    def __init__(self, facts: Facts, folio: Folio) -> None:
        self.facts = facts
        self.kernel = facts.kernel
        self.folio = folio
        self.name = facts.name(folio)
        self.title = "a walk visits nothing"
        self.steps: list[WalkStep] = []
        self.lines: list[str] = []
        self.found: set[tuple[Mm, int]] = set()

    def explain(self) -> None:
        """Fill in title, steps and lines."""
        folio = self.folio
        if folio.stable_node is not None:
            self.merged(folio.stable_node)
        elif folio.mapping is None:
            self.title = "names no anon_vma, so no walk finds it"
            self.lines += [
                self.cached(),
                "It was not mapped since it was read back: the fault that maps it names it.",
            ]
        elif folio.mapping.freed:
            self.title = f"names {self.facts.name(folio.mapping)}, which is freed"
            self.stale(folio.mapping)
        elif folio.mapcount == 0:
            self.unmapped(folio.mapping)
        else:
            self.mapped(folio.mapping)

    # --- an ordinary page ----------------------------------------------------------------------

    def mapped(self, anon_vma: AnonVma) -> None:
        """A page that page tables have."""
        self.lines.append(self.named(anon_vma))
        lock = self.kernel.anon_vma_rwsem(anon_vma)
        if lock.freed:
            self.title = f"a walk would take the lock in {self.facts.name(lock)}, which is freed"
            return
        for vma, address in self.visited(anon_vma):
            self.visit(vma, address, self.link_reason(anon_vma, vma))
        self.conclude()

    def visited(self, anon_vma: AnonVma) -> list[tuple[Vma, int]]:
        """VMAs and addresses (bytes) in the order of the walk; before there were trees, all of the list."""
        folio, kernel = self.folio, self.kernel
        vmas = kernel.folio_vmas(folio)
        found = {vma: kernel.vma_address(vma, folio.index, 1 << folio.order) for vma in vmas}
        if kernel.has_interval_trees or not found:
            return [(vma, found[vma]) for vma in vmas]
        listed_vmas = [avc.vma for avc in anon_vma.rb_root]
        away = {vma: vma.vm_start + ((folio.index - vma.anon_pgoff) << PAGE_SHIFT) for vma in listed_vmas}
        return [(vma, found.get(vma, away[vma])) for vma in listed_vmas]

    def visit(self, vma: Vma, address: int, reason: str) -> None:
        """One place of the walk."""
        facts = self.facts
        if vma.freed:
            self.step(vma, address, False, f"{reason}; but the VMA is freed, and the walk reads freed memory")
            return
        if not vma.vm_start <= address < vma.vm_end:
            met = (
                "its range leaves the page out"
                if address >= 0
                else "its range does not have the page, as the tree says"
            )
            self.step(vma, address, False, f"{reason}, but {met}: met in vain")
            return
        hits = self.kernel.page_vma_mapped_walk(self.folio, vma, address)
        self.found.update((vma.vm_mm, at) for at, _ in hits)
        if hits:
            writable = any(isinstance(entry, Pte) and entry.writable for _, entry in hits)
            self.step(vma, address, True, f"{reason}; maps it {'writable' if writable else 'read-only'}")
            return
        entry = vma.vm_mm.page_table.get(address) or vma.vm_mm.page_table.present(address)
        self.step(vma, address, False, f"{reason}; in vain: {self.instead(entry, facts.process(vma.vm_mm))}")

    def step(self, vma: Vma, address: int, maps: bool, why: str) -> None:
        """Note one place."""
        name = self.facts.name(vma) if vma in self.facts.known else "?"
        self.steps.append(WalkStep(name, self.facts.process(vma.vm_mm), address, maps, why))

    def link_reason(self, anon_vma: AnonVma, vma: Vma) -> str:
        """Why the walk comes to a VMA."""
        facts, name = self.facts, self.facts.name(anon_vma)
        if not self.kernel.has_links:
            if vma.anon_vma is anon_vma:
                return f"{name}, which {self.name} names, is its process's, and it has had a page"
            return f"its process's {facts.name(vma.anon_vma)} is below {name}, which {self.name} names"
        if not self.kernel.has_chains:
            return f"it is on the list of {name}, as all relatives are"
        if vma.anon_vma is anon_vma:
            return f"its own {name} is what {self.name} names"
        return f"it inherited a link to {name}, which {self.name} names"

    def instead(self, entry: Entry | None, process: str) -> str:
        """What is at a place that the walk has met in vain."""
        match entry:
            case None:
                return f"{process} has nothing there, not touched yet or unmapped since"
            case SwapPte(slot=slot) if slot.folio is self.folio:
                return f"{process} has a swap entry for it there ({self.facts.name(slot)}), and has not faulted it in"
            case SwapPte(slot=slot):
                return f"{process} has a page there that is swapped out ({self.facts.name(slot)})"
            case MigrationPte(folio=folio):
                return f"{process} waits there for {self.facts.name(folio)}, which is being moved"
            case GuardMarker():
                return f"{process} has a guard there"
            case Pte(folio=folio) if folio is ZERO_PAGE:
                return f"{process} has the zero page there"
            case Pte(folio=folio) if not folio.anon:
                return f"{process} has a page of the file there, not copied yet"
            case Pte(folio=folio) if folio.stable_node is not None:
                return f"{process} has {self.facts.name(folio)} there, which KSM merged"
            case Pte(folio=folio):
                return f"{process} has {self.facts.name(folio)} there, its own copy or a page written anew"
        return "what is there is unknown"

    def named(self, anon_vma: AnonVma) -> str:
        """What the folio names, and whose that is."""
        facts, folio = self.facts, self.folio
        owners = facts.owners(anon_vma)
        whose = f"the own anon_vma of {facts.vmas(owners)}" if owners else "no VMA's own any more"
        root = ", and the root of its tree" if anon_vma.root is anon_vma and facts.below[anon_vma] else ""
        alone = " It is exclusive to one process." if folio.exclusive else ""
        pages = f" and has {1 << folio.order} pages" if folio.order else ""
        return f"It names {facts.name(anon_vma)}, {whose}{root}; its index is {folio.index:#x}{pages}.{alone}"

    def conclude(self) -> None:
        """The title, whether the name is the right one, and what the walk misses."""
        hits = sum(step.maps for step in self.steps)
        self.title = f"a walk visits {counted(len(self.steps), 'VMA')}"
        if self.steps:
            self.title += f", {hits or 'none'} of them {'map' if hits > 1 else 'maps'} it"
        ptes = self.facts.state.ptes.get(self.folio, [])
        missed = [(mm, at) for mm, at, _ in ptes if (mm, at) not in self.found]
        if missed:
            places = listed([f"{self.facts.process(mm)} at {at:#x}" for mm, at in missed])
            self.lines.append(f"The walk misses {places}, where the page table has it: the name is wrong there.")
        elif ptes:
            self.lines.append(self.right())

    def right(self) -> str:
        """Why the name serves."""
        if self.folio.stable_node is not None:
            return "Every page-table entry of it is at a place that the items lead to."
        name = self.facts.name(self.folio.mapping)
        if not self.kernel.has_chains:
            return f"The name is right: every VMA that maps it is on the list of {name}."
        if not self.kernel.has_links:
            return f"The name is right: who maps it belongs to {name}'s process or to one below it."
        return f"The name is right: every VMA that maps it has {name} in its chain."

    # --- pages that nobody maps ------------------------------------------------------------------

    def unmapped(self, anon_vma: AnonVma) -> None:
        """In the swap cache alone."""
        self.title = "is not mapped, so a walk visits nothing"
        self.lines.append(self.cached())
        self.lines.append(
            f"It still names {self.facts.name(anon_vma)}, with index {self.folio.index:#x}; "
            "a walk asks first whether the page is mapped, since nothing keeps the name valid otherwise."
        )

    def stale(self, anon_vma: AnonVma) -> None:
        """It names what does not exist any more."""
        if self.folio.mapcount:
            self.lines.append("It is mapped, so a walk follows the name into freed memory: the state is broken.")
        else:
            self.lines.append(self.cached())
            self.lines.append("As it is not mapped no walk follows the name, which may dangle.")

    def cached(self) -> str:
        """Where the page is kept."""
        slot = self.folio.slot
        if slot is None:
            return "No page table has it."
        entries = counted(slot.count, "swap entry", "swap entries")
        return f"It is in the swap cache, for {entries} of {self.facts.name(slot)}."

    # --- KSM's pages -----------------------------------------------------------------------------

    def merged(self, node: StableNode) -> None:
        """A page of KSM's stable tree: it names no anon_vma, its items do."""
        places = counted(len(node.items), "place")
        self.lines.append(
            f"KSM merged it (content {node.content!r}); it names no anon_vma. ksmd remembers {places}, each with an "
            "anon_vma: a walk goes through their VMAs, first in the process where a place was merged, then in others."
        )
        gone = [item.anon_vma for item in node.items if item.anon_vma.freed]
        if gone:
            self.title = f"a walk would follow an item to {self.facts.name(gone[0])}, which is freed"
            return
        for forks in (False, True):
            for item in node.items:
                self.item(item, forks)
        self.conclude()

    def item(self, item: KsmRmapItem, forks: bool) -> None:
        """One item's turn: the process it was merged in, or (``forks``) all others."""
        facts = self.facts
        where = f"{facts.process(item.mm)} at {item.address:#x}"
        for vma in self.kernel.ksm_vmas(item, None):
            if (vma.vm_mm is item.mm) is not forks:
                linked = f"linked to {facts.name(item.anon_vma)}, which the item of {where} names"
                self.visit(vma, item.address, linked)
