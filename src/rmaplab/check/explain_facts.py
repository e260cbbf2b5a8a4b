# SPDX-License-Identifier: GPL-2.0-only
"""What the answers of :mod:`rmaplab.check.explain` are made of: the graph from every side, and names for all."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rmaplab.check.state import State
from rmaplab.kernel.flags import VM_DONTCOPY, VM_WIPEONFORK
from rmaplab.kernel.objects import Vma

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rmaplab.check.explain_history import Adoption
    from rmaplab.kernel import Kernel
    from rmaplab.kernel.objects import AnonVma, Folio, Mm

__all__ = ["Facts", "counted", "listed", "undisturbed"]

_SHOWN = 6  # names in a sentence; of more the number is told


@contextmanager
def undisturbed(kernel: Kernel) -> Iterator[None]:
    """Let nobody hear of what is asked meanwhile: neither listeners, nor who collects complaints."""
    events = kernel.events
    listeners, reports = events.listeners, events.reports
    events.listeners, events.reports = [], []
    try:
        yield
    finally:
        events.listeners, events.reports = listeners, reports


class Facts:
    """A machine as it is now; ``names`` maps the machine's own ids to those that are shown (default: the same)."""

    def __init__(self, kernel: Kernel, names: Mapping[str, str], adoptions: Iterable[Adoption]) -> None:
        self.kernel = kernel
        self.names = names
        self.state = State(kernel)
        self.adoptions = {(found.anon_vma, found.mm): found for found in adoptions}
        self.known = frozenset(self.state.vmas)
        self.processes: dict[Mm, str] = {process.mm: name for name, process in reversed(kernel.processes.items())}
        self.folios: dict[Folio, None] = dict.fromkeys(self.state.ptes)
        for slot in self.state.swapped:
            if slot.folio is not None:
                self.folios[slot.folio] = None
        self.children: defaultdict[AnonVma, list[AnonVma]] = defaultdict(list)  # linked ones by parent, not itself
        self.below: defaultdict[AnonVma, list[AnonVma]] = defaultdict(list)  # live ones by root, not itself
        self.holders: defaultdict[AnonVma, list[Vma]] = defaultdict(list)  # VMAs whose chain has it
        for anon_vma in self.state.anon_vmas:
            if anon_vma.parent is not anon_vma and (anon_vma.rb_root.keys or not kernel.has_links):
                self.children[anon_vma.parent].append(anon_vma)
            if anon_vma.root is not anon_vma:
                self.below[anon_vma.root].append(anon_vma)
        for vma in self.state.vmas:
            for link in dict.fromkeys(avc.anon_vma for avc in vma.anon_vma_chain):
                self.holders[link].append(vma)
        self.naming: defaultdict[AnonVma, int] = defaultdict(int)  # folios by ->mapping
        for folio in self.folios:
            if folio.mapping is not None:
                self.naming[folio.mapping] += 1
        self._adopted: dict[Vma, AnonVma | None] = {}

    # --- names -----------------------------------------------------------------------------------

    def name(self, obj: object) -> str:
        """An object's id as it is shown."""
        return self.names.get(str(obj), str(obj))

    def process(self, mm: Mm) -> str:
        """The process (the first, if tasks share it) of an address space; ``?`` if it has none."""
        return self.processes.get(mm, "?")

    def vma(self, vma: Vma) -> str:
        """A VMA in a sentence: ``vma3 of P1``."""
        return f"{self.name(vma)} of {self.process(vma.vm_mm)}"

    def vmas(self, vmas: Iterable[Vma]) -> str:
        """Several of them."""
        return listed([self.vma(vma) for vma in vmas])

    def anon_vmas(self, anon_vmas: Iterable[AnonVma]) -> str:
        """Several anon_vmas."""
        return listed([self.name(anon_vma) for anon_vma in anon_vmas])

    def owners(self, anon_vma: AnonVma) -> list[Vma]:
        """The VMAs whose own anon_vma it is."""
        return self.state.active.get(anon_vma, [])

    def adoption(self, vma: Vma) -> Adoption | None:
        """How a VMA came by its own anon_vma, if a fork adopted it for this address space and that was noted."""
        return self.adoptions.get((str(vma.anon_vma), str(vma.vm_mm)))

    # --- what a fork would do ------------------------------------------------------------------------

    def forked(self, vma: Vma) -> bool:
        """Whether fork links the child's copy of a VMA at all."""
        return vma.anon_vma is not None and not vma.vm_flags & (VM_DONTCOPY | VM_WIPEONFORK)

    def adopted(self, vma: Vma) -> AnonVma | None:
        """The anon_vma that a fork of a VMA would adopt now: the first of its chain that may be, in clone's order."""
        if vma not in self._adopted:
            chain = [avc.anon_vma for avc in vma.anon_vma_chain]
            order = chain if self.kernel.mirrors_chains else reversed(chain)
            self._adopted[vma] = next((found for found in order if self.reusable(vma, found)), None)
        return self._adopted[vma]

    def reusable(self, vma: Vma, anon_vma: AnonVma) -> bool:
        """Whether a fork of a VMA may adopt an anon_vma: the series' own function is asked, its counting undone."""
        kernel = self.kernel
        if not kernel.reuses or not self.forked(vma) or anon_vma.freed:
            return False
        probe = Vma(0, vma.vm_mm, vma.vm_start, vma.vm_end, vma.vm_pgoff, vma.vm_flags)
        before = anon_vma.num_active_vmas, anon_vma.num_children, anon_vma.degree
        older = getattr(kernel, "try_reuse_anon_vma", None)  # by its name and arguments before d17f02417a33
        try:
            if older is None:
                kernel.maybe_reuse_anon_vma(probe, anon_vma)
            else:
                older(probe, vma, anon_vma)
        finally:
            anon_vma.num_active_vmas, anon_vma.num_children, anon_vma.degree = before
        return probe.anon_vma is anon_vma


def counted(number: int, noun: str, several: str = "") -> str:
    """``1 VMA``, ``2 VMAs``, ``no VMA``; ``several`` is a plural that does not end in s."""
    return f"{number or 'no'} {(several or f'{noun}s') if number > 1 else noun}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; of many only the first."""
    if len(names) > _SHOWN:
        return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
