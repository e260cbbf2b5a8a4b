# SPDX-License-Identifier: GPL-2.0-only
"""What can be said of a machine that goes on while it is read: only of trees that are as they were a moment ago.

Locks that would keep a tree still are not taken.  A tree that two readings
find with the same objects at the same addresses stood still from the one to
the other, so what was seen of it was there at one time.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rmaplab.report.inspection import NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rmaplab.kernel.events import Report
    from rmaplab.report.inspection import Inspection

__all__ = ["Steady"]

Place = int | str


class Steady:
    """The trees of a reading, by their roots' addresses; fewer with every other reading that is held against it."""

    def __init__(self, first: Inspection) -> None:
        self.first = first
        self.states = _states(first)
        self.moved = False

    def hold_against(self, again: Inspection) -> None:
        """Forget the trees that another reading finds changed."""
        states = _states(again)
        kept = {root: state for root, state in self.states.items() if states.get(root) == state}
        self.moved = self.moved or len(kept) < max(len(self.states), len(states))
        self.states = kept

    def knows(self, report: Report) -> bool:
        """Whether all trees that a violation of the first reading is about stood still; of none: whether all did."""
        roots = {root for name in NAME.findall(report.detail) for root in self.first.roots.get(name, ())}
        return roots <= self.states.keys() if roots else not self.moved


def _states(inspection: Inspection) -> dict[Place, frozenset[object]]:
    """What each tree is made of: its anon_vmas, the VMAs on them, and the folios that name them."""
    places, snapshot = inspection.addresses, inspection.snapshot
    found: defaultdict[str, list[object]] = defaultdict(list)

    def at(names: Iterable[str | None]) -> tuple[Place | None, ...]:
        return tuple([None if name is None else places.get(name, name) for name in names])

    for av in snapshot.anon_vmas:
        counters = av.refcount, av.num_children, av.num_active_vmas, av.degree
        found[av.root].append((*at((av.id, av.parent)), counters, at(av.tree)))
    for process in snapshot.processes:
        for vma in process.vmas:
            bounds = vma.start, vma.end, vma.pgoff, vma.anon_pgoff, vma.flags
            for root in inspection.roots.get(vma.id, ()):
                found[root].append((process.name, *at((vma.id, vma.anon_vma)), bounds, at(vma.chain)))
    mms: Mapping[str, str] = {process.mm: process.name for process in snapshot.processes}
    for folio in snapshot.folios:
        ptes = frozenset((mms[pte.mm], pte.address, pte.writable, pte.page, pte.pages) for pte in folio.ptes)
        counters = folio.index, folio.mapcount, folio.exclusive, folio.order
        for root in inspection.roots.get(folio.id, ()):
            found[root].append((*at((folio.id, folio.mapping)), counters, ptes))
    return {places.get(root, root): frozenset(state) for root, state in found.items()}
