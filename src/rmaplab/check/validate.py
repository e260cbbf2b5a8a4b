# SPDX-License-Identifier: GPL-2.0-only
"""Runs the invariants of states on a snapshot: of a whole machine, or of a part that somebody could read.

A part is judged tree by tree.  A tree whose VMAs were all read is judged by
everything that can be said of it.  Of a tree with VMAs of processes that were
not read, only what holds for each of its VMAs and pages alone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.invariants import violations
from rmaplab.check.rebuild import rebuild
from rmaplab.check.registry import checks_for
from rmaplab.check.state import State
from rmaplab.gcpause import paused_gc
from rmaplab.kernel.events import Report

if TYPE_CHECKING:
    from rmaplab.kernel import Kernel
    from rmaplab.kernel.objects import AnonVma, Folio, Mm, Vma
    from rmaplab.snapshot import Snapshot

__all__ = ["Unjudged", "Verdict", "validate"]

LOCAL = frozenset(
    (
        *("AV-001", "AV-002", "AV-003", "AV-004", "AV-005", "AV-006", "AV-007", "AV-008", "AV-009", "AV-010"),
        *("AV-017", "AV-018", "AV-019", "AV-021", "AV-024", "AV-030", "AV-042", "AV-043", "AV-044", "AV-049"),
    )
)
"""Those that hold for a part of a tree as well: whatever else is in the tree cannot mend what they find."""

PAGES = frozenset(("AV-021", "AV-030", "AV-041", "AV-042", "AV-044", "AV-049"))
"""Those about mapped pages."""

NEVER = {"AV-047": "a snapshot does not show migration entries"}
ON_A_PART = {
    "AV-040": "other processes may still run",
    "AV-048": "other processes may have entries for the same swap slots",
}
_MERGED = "pages may have been merged, and the places that ksmd notes, each with a reference, were not read"


_WHOLE, _CUT, _BLIND = range(3)  # what is known of a tree: all VMAs, some of them, not even its anon_vmas


class Unjudged(NamedTuple):
    """An invariant that was not checked, or not everywhere, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The violations that were found, and the invariants that nothing was, or not everything could be said of."""

    violations: tuple[Report, ...]
    unjudged: tuple[Unjudged, ...]


def validate(snapshot: Snapshot, series: type[Kernel], *, partial: bool = False) -> Verdict:
    """Check every invariant of states that holds for the series; :class:`rmaplab.errors.InputError`.

    ``partial``: there are processes that the snapshot does not have, or VMAs
    of its processes.  What stands in its trees as ``?`` and anon_vmas that it
    lacks are then unread ones instead of freed ones.  The page tables of the
    processes that it has must have been read in full: if they were not, take
    its folios and swap slots out.
    """
    reasons = dict(NEVER)
    if _lacks_ksm(snapshot):
        reasons["AV-013"] = _MERGED
    if partial:
        reasons |= ON_A_PART
    with paused_gc():
        found = _Part(snapshot, series, reasons).violations() if partial else violations(rebuild(snapshot, series))
    if _lacks_ksm(snapshot):
        found = [report for report in found if report.id != "AV-013"]
    known = {ident for ident, _ in checks_for(series)}
    unjudged = tuple(Unjudged(ident, reasons[ident]) for ident in sorted(reasons.keys() & known))
    return Verdict(tuple(found), unjudged)


def _lacks_ksm(snapshot: Snapshot) -> bool:
    """Whether KSM may hold references that the snapshot does not show: readers do not read its notes."""
    noted = {node.content for node in snapshot.ksm}
    if any(folio.ksm is not None and folio.ksm not in noted for folio in snapshot.folios):
        return True
    vmas = (vma for process in snapshot.processes for vma in process.vmas)
    return not noted and any("mg" in vma.flags.split() for vma in vmas)


class _Part:
    """A part of a machine, its trees (by their roots) sorted by what is known of them."""

    def __init__(self, snapshot: Snapshot, series: type[Kernel], reasons: dict[str, str]) -> None:
        self.reasons = reasons
        self.series = series
        views = [replace(view, tree=tuple(name for name in view.tree if name != "?")) for view in snapshot.anon_vmas]
        kernel = rebuild(replace(snapshot, anon_vmas=tuple(views)), series)
        self.state = State(kernel)
        self.roots = {vma: {av.root for av in _named(vma)} for vma in self.state.vmas}
        self.blind = self.spread({av.root for av in self.anon_vmas() if av.freed or av.root.freed or av.parent.freed})
        self.lost = sum(folio.mapping is not None and folio.mapping.freed for folio in self.state.ptes)
        unread = {view.id for view in snapshot.anon_vmas if "?" in view.tree}
        self.cut = self.spread({av.root for av in self.state.anon_vmas if str(av) in unread}) - self.blind

    def anon_vmas(self) -> dict[AnonVma, None]:
        """Those that were read, and those that VMAs name."""
        return dict.fromkeys(self.state.anon_vmas) | {av: None for vma in self.state.vmas for av in _named(vma)}

    def spread(self, roots: set[AnonVma]) -> set[AnonVma]:
        """With them, those that VMAs are linked to as well: only the unread and the corrupt have several."""
        mixed = [several for several in self.roots.values() if len(several) > 1]
        before = -1
        while len(roots) != before:
            before = len(roots)
            for several in mixed:
                if not several.isdisjoint(roots):
                    roots |= several
        return roots

    def violations(self) -> list[Report]:
        """Of the trees that are known in full, and then of the others what can be said."""
        found = []
        whole, part = self.state_of(_WHOLE), self.state_of(_CUT)
        for ident, check in checks_for(self.series):
            if ident in ON_A_PART or ident in NEVER:
                continue
            found += [Report(ident, detail) for detail in check(whole)]
            if ident in LOCAL:
                found += [Report(ident, detail) for detail in check(part)]
            self.explain(ident)
        return found

    def explain(self, ident: str) -> None:
        """Why an invariant was not checked everywhere."""
        causes = [self.reasons[ident]] if ident in self.reasons else []
        if self.blind:
            causes.append(f"anon_vmas of {_trees(len(self.blind))} were not read")
        if self.lost and ident in PAGES:
            causes.append(f"pages that name an anon_vma that was not read: {self.lost}")
        if self.cut and ident not in LOCAL:
            causes.append(f"VMAs of {_trees(len(self.cut))} were not read")
        if self.cut and ident == "AV-001":
            causes.append(f"freed VMAs in {_trees(len(self.cut))} would look like unread ones")
        if causes:
            self.reasons[ident] = "; ".join(causes)

    # --- three parts of a state ------------------------------------------------------------------

    def state_of(self, wanted: int) -> State:
        """The state with those trees only, and the VMAs and pages that belong to them."""
        state = copy.copy(self.state)
        state.anon_vmas = [av for av in state.anon_vmas if self.kind({av.root}) == wanted]
        state.vmas = [vma for vma in state.vmas if self.kind(self.roots[vma]) == wanted]
        kept = set(state.vmas)
        state.avcs = [avc for avc in state.avcs if hasattr(avc, "vma") and avc.vma in kept]
        state.active = {av: vmas for av, vmas in state.active.items() if kept.issuperset(vmas)}
        state.ptes = {
            folio: ptes
            for folio, ptes in state.ptes.items()
            if self.kind_of_folio(folio, [(mm, address) for mm, address, _ in ptes]) == wanted
        }
        state.swapped = {
            slot: entries
            for slot, entries in state.swapped.items()
            if slot.folio is None
            or self.kind_of_folio(slot.folio, [(mm, address) for mm, address, _ in entries]) == wanted
        }
        return state

    def kind(self, roots: set[AnonVma]) -> int:
        """What is known of the trees with these roots."""
        if not roots.isdisjoint(self.blind):
            return _BLIND
        return _WHOLE if roots.isdisjoint(self.cut) else _CUT

    def kind_of_folio(self, folio: Folio, places: list[tuple[Mm, int]]) -> int:
        """That of its own tree and of the VMAs it is mapped in; a merged one may be mapped anywhere."""
        roots = set() if folio.mapping is None else {folio.mapping.root}
        if folio.mapping is not None and folio.mapping.freed:
            return _BLIND
        for mm, address in places:
            vma = mm.lookup(address)
            roots |= self.roots.get(vma, set()) if vma is not None else set()
        kind = self.kind(roots)
        return _CUT if folio.stable_node is not None and kind == _WHOLE else kind


def _named(vma: Vma) -> list[AnonVma]:
    named = [avc.anon_vma for avc in vma.anon_vma_chain]
    return named if vma.anon_vma is None else [vma.anon_vma, *named]


def _trees(count: int) -> str:
    return "1 tree" if count == 1 else f"{count} trees"
