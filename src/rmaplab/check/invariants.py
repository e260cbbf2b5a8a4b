# SPDX-License-Identifier: GPL-2.0-only
"""The invariants: what must hold between any two calls, whatever the history.

AV-001 to AV-037 are numbered as in the project's fact sheet on mm/rmap.c
(read from Debian's linux-source-6.1 and 6.12 and from v7.0-rc6); those from
AV-038 on add the services' rules.  An invariant without a check here is
watched while a call runs, by the services or by :mod:`rmaplab.check.monitor`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import rmaplab.check.page_invariants  # noqa: F401 (registers those about pages)
from rmaplab.check.registry import INVARIANTS, Invariant, InvariantViolation, checks_for, holds, watched
from rmaplab.check.state import State
from rmaplab.kernel.events import Report
from rmaplab.kernel.flags import PAGE_SHIFT
from rmaplab.kernel.interval_tree import vma_last_pgoff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel import Kernel

__all__ = ["HARM", "INVARIANTS", "Invariant", "InvariantViolation", "violations"]


HARM = ("AV-018", "AV-019", "AV-021", "AV-030")
"""Those whose violation hurts at once: something freed is used, or a page is missed by a walk."""

_RMAP = "mm/rmap.c"
_VMA = "mm/vma.c"


def violations(kernel: Kernel) -> list[Report]:
    """Every invariant that does not hold now, and what was reported during the calls since the last time."""
    series = type(kernel)
    found = [report for report in kernel.events.take_reports() if INVARIANTS[report.id].holds_for(series)]
    if kernel.locks.held:
        found.append(Report("AV-029", f"still held: {kernel.locks.held}"))
        kernel.locks.forget()
    state = State(kernel)
    for ident, check in checks_for(series):
        for detail in check(state):
            found.append(Report(ident, detail))  # noqa: PERF401 (nearly always there is none)
    return found


# --- structure -----------------------------------------------------------------------------


@holds("AV-001", "an AVC is on the list of its live VMA and in the tree of its anon_vma, and nowhere else", _RMAP)
def _two_threads(state: State) -> Iterator[str]:
    listed = 0
    for vma in state.vmas:
        for avc in vma.anon_vma_chain:
            listed += 1
            if avc.vma is not vma:
                yield f"{avc} on the list of {vma} belongs to {avc.vma}"
            if avc not in avc.anon_vma.rb_root.keys:
                yield f"{avc} of {vma} is not in the tree of {avc.anon_vma}"
    in_trees = 0
    for anon_vma in state.anon_vmas:
        for avc in anon_vma.rb_root.keys:
            in_trees += 1
            if avc.anon_vma is not anon_vma:
                yield f"{avc} in the tree of {anon_vma} belongs to {avc.anon_vma}"
            if avc.vma.freed:
                yield f"{avc} in the tree of {anon_vma} points to freed {avc.vma}"
            elif avc not in avc.vma.anon_vma_chain:
                yield f"{avc} in the tree of {anon_vma} is not on the list of {avc.vma}"
    if listed != in_trees:
        yield f"{listed} AVCs on lists, {in_trees} in trees"


@holds("AV-002", "a VMA and an anon_vma are linked by at most one AVC", _RMAP)
def _linked_once(state: State) -> Iterator[str]:
    for vma in state.vmas:
        if len({avc.anon_vma for avc in vma.anon_vma_chain}) != len(vma.anon_vma_chain):
            yield f"{vma} is linked twice to one anon_vma"


@holds("AV-003", "a VMA has an anon_vma if and only if its chain is not empty", _RMAP, needs="has_links")
def _faulted_or_not(state: State) -> Iterator[str]:
    for vma in state.vmas:
        if (vma.anon_vma is None) != (not vma.anon_vma_chain):
            yield f"{vma}: anon_vma {vma.anon_vma}, {len(vma.anon_vma_chain)} AVCs"


@holds("AV-004", "a VMA's anon_vma is in its chain", _RMAP, needs="has_links")
def _active_in_chain(state: State) -> Iterator[str]:
    for vma in state.vmas:
        if vma.anon_vma is not None and all(avc.anon_vma is not vma.anon_vma for avc in vma.anon_vma_chain):
            yield f"{vma}: {vma.anon_vma} is not in its chain"


@holds("AV-005", "all anon_vmas of a chain have one root, and so have parent and child", _RMAP)
def _one_root(state: State) -> Iterator[str]:
    for vma in state.vmas:
        roots = {avc.anon_vma.root for avc in vma.anon_vma_chain}
        if len(roots) > 1:
            yield f"{vma}: roots {sorted(map(str, roots))}"
    for anon_vma in state.anon_vmas:
        if anon_vma.rb_root.keys and anon_vma.parent.root is not anon_vma.root:
            yield f"{anon_vma} and its parent {anon_vma.parent} have different roots"


@holds("AV-006", "with an anon_vma, its parent is in the chain", _RMAP, needs="has_links")
def _ancestors(state: State) -> Iterator[str]:
    for vma in state.vmas:
        chain = {avc.anon_vma for avc in vma.anon_vma_chain}
        for anon_vma in chain:
            if anon_vma.parent not in chain:
                yield f"{vma}: {anon_vma} without its parent {anon_vma.parent}"


@holds("AV-007", "the one anon_vma of a singular chain is a root", _RMAP, needs="has_links")
def _singular_is_root(state: State) -> Iterator[str]:
    for vma in state.vmas:
        if len(vma.anon_vma_chain) == 1:
            anon_vma = vma.anon_vma_chain[0].anon_vma
            if anon_vma.root is not anon_vma:
                yield f"{vma}: its only anon_vma {anon_vma} is below {anon_vma.root}"


@holds(
    "AV-008",
    "VMAs with the same anon_vma have the same set of anon_vmas in their chains",
    _RMAP,
    needs="has_links",
)
def _same_chain(state: State) -> Iterator[str]:
    for anon_vma, vmas in state.active.items():
        if len(vmas) > 1 and len({frozenset(avc.anon_vma for avc in vma.anon_vma_chain) for vma in vmas}) > 1:
            yield f"{anon_vma}: {vmas} have different chains"


@holds("AV-009", "in one mm, VMAs of one anon_vma overlap in page offsets only after one of them was moved", _RMAP)
def _overlap(state: State) -> Iterator[str]:
    for vmas in state.active.values():
        unmoved = [vma for vma in vmas if vma.file is None and vma.vm_pgoff == vma.vm_start >> PAGE_SHIFT]
        for vma, other in pairwise(sorted(unmoved, key=lambda vma: (vma.vm_mm.id, vma.vm_start))):
            if vma.vm_mm is other.vm_mm and vma_last_pgoff(vma) >= other.anon_pgoff:
                yield f"{vma} and {other} both have the page offset {other.vm_pgoff:#x}"


@holds(
    "AV-010",
    "an AVC's key in the tree is its VMA's present range",
    "mm/interval_tree.c",
    needs="has_interval_trees",
)
def _keys(state: State) -> Iterator[str]:
    for anon_vma in state.anon_vmas:
        for avc, key in anon_vma.rb_root.keys.items():
            vma = avc.vma
            if key != (vma.anon_pgoff, vma_last_pgoff(vma)) and not vma.freed:
                yield f"{avc} of {vma} in {anon_vma} has the key {key}"


# --- counters ------------------------------------------------------------------------------


@holds("AV-011", "num_active_vmas is the number of VMAs whose anon_vma it is", _RMAP, needs="counts_apart")
def _active_count(state: State) -> Iterator[str]:
    for anon_vma in state.anon_vmas:
        users = len(state.active.get(anon_vma, ()))
        if anon_vma.num_active_vmas != users:
            yield f"{anon_vma}: num_active_vmas {anon_vma.num_active_vmas}, {users} VMAs"


@holds(
    "AV-012",
    "num_children is the number of linked anon_vmas whose parent it is, a root counting itself",
    _RMAP,
    needs="counts_apart",
)
def _child_count(state: State) -> Iterator[str]:
    for anon_vma in state.anon_vmas:
        children = state.children.get(anon_vma, 0)
        if anon_vma.num_children != children:
            yield f"{anon_vma}: num_children {anon_vma.num_children}, {children} linked"


@holds(
    "AV-013",
    "refcount is 1 for being linked, 1 for each pin, and on a root 1 for each other anon_vma of its tree",
    _RMAP,
    needs="has_links",
)
def _refcounts(state: State) -> Iterator[str]:
    pins_roots = state.kernel.has_root_lock
    for anon_vma in state.anon_vmas:
        expected = bool(anon_vma.rb_root.keys) + state.pins.get(anon_vma, 0)
        if pins_roots:
            expected += state.tree_size.get(anon_vma, 0)
        if anon_vma.refcount != expected:
            yield f"{anon_vma}: refcount {anon_vma.refcount}, expected {expected}"


@holds("AV-014", "an anon_vma without links has no children and no active VMAs", _RMAP, needs="counts_apart")
def _emptied(state: State) -> Iterator[str]:
    for anon_vma in state.anon_vmas:
        if not anon_vma.rb_root.keys and (anon_vma.num_children or anon_vma.num_active_vmas):
            yield f"{anon_vma}: no links, {anon_vma.num_children} children, {anon_vma.num_active_vmas} active VMAs"


@holds("AV-015", "every live AVC is on a VMA's list, and every faulted VMA is counted once", _RMAP)
def _sums(state: State) -> Iterator[str]:
    listed = sum(len(vma.anon_vma_chain) for vma in state.vmas)
    if listed != len(state.avcs) and state.kernel.has_chains:
        yield f"{len(state.avcs)} AVCs allocated, {listed} on lists"
    active = sum(anon_vma.num_active_vmas for anon_vma in state.anon_vmas)
    faulted = sum(vma.anon_vma is not None for vma in state.vmas)
    if active != faulted and state.kernel.counts_apart:
        yield f"num_active_vmas add up to {active}, {faulted} VMAs are faulted"


@holds("AV-016", "num_children add up to the number of linked anon_vmas", _RMAP, needs="counts_apart")
def _sum_children(state: State) -> Iterator[str]:
    total = sum(anon_vma.num_children for anon_vma in state.anon_vmas)
    linked = sum(bool(anon_vma.rb_root.keys) for anon_vma in state.anon_vmas)
    if total != linked:
        yield f"num_children add up to {total}, {linked} anon_vmas are linked"


@holds("AV-017", "no counter underflows", _RMAP)
def _underflow(state: State) -> Iterator[str]:
    for anon_vma in state.anon_vmas:
        highest = max(anon_vma.num_children, anon_vma.num_active_vmas, anon_vma.degree)
        if highest >> 63 or anon_vma.refcount < 0:
            yield f"{anon_vma}: a counter went below zero"


@holds(
    "AV-050",
    "degree is the number of VMAs whose anon_vma it is and of linked anon_vmas whose parent it is",
    _RMAP,
    needs="counts_together",
)
def _degree(state: State) -> Iterator[str]:
    for anon_vma in state.anon_vmas:
        users, children = len(state.active.get(anon_vma, ())), state.children.get(anon_vma, 0)
        if anon_vma.degree != users + children:
            yield f"{anon_vma}: degree {anon_vma.degree}, {users} VMAs, {children} linked"


# --- lifetime ------------------------------------------------------------------------------


@holds("AV-018", "an anon_vma is freed when, and only when, its last reference goes", _RMAP)
def _freed(state: State) -> Iterator[str]:
    for anon_vma in state.anon_vmas:
        if anon_vma.refcount <= 0:
            yield f"{anon_vma} is allocated with refcount {anon_vma.refcount}"
    for vma in state.vmas:
        if vma.anon_vma is not None and vma.anon_vma.freed:
            yield f"{vma} names freed {vma.anon_vma}"
        for avc in vma.anon_vma_chain:
            if avc.freed or avc.anon_vma.freed:
                yield f"{vma} has a link to freed {avc if avc.freed else avc.anon_vma}"


@holds("AV-019", "parent and root of a linked anon_vma are allocated", _RMAP)
def _parent_lives(state: State) -> Iterator[str]:
    for anon_vma in state.anon_vmas:
        if anon_vma.root.freed or (anon_vma.rb_root.keys and anon_vma.parent.freed):
            yield f"{anon_vma}: parent {anon_vma.parent} or root {anon_vma.root} is freed"


watched("AV-020", "an anon_vma that lost its last link is never linked again", _RMAP)


# --- order and locking, watched while calls run -----------------------------------------------

watched(
    "AV-022",
    "fork links the child's VMA before it shares a page, children behind parents",
    "kernel/fork.c",
    needs="has_links",
)
watched("AV-023", "teardown zaps pages, then unlinks, then frees the VMA", "mm/mmap.c")


@holds(
    "AV-024",
    "a chain is newest first, root last, on a series that copies chains in order (before patch 8)",
    _RMAP,
    unless="mirrors_chains",
)
def _chain_order(state: State) -> Iterator[str]:
    for vma in state.vmas:
        idents = [avc.anon_vma.id for avc in vma.anon_vma_chain]
        if idents != sorted(idents, reverse=True):
            yield f"{vma}: {[avc.anon_vma for avc in vma.anon_vma_chain]}"


watched("AV-025", "no allocation may sleep while an anon_vma lock is held", _RMAP)
watched("AV-026", "an interval tree changes only under its root's lock, held for writing", _RMAP)
watched("AV-027", "an operation holds at most one anon_vma lock", _RMAP)
watched("AV-028", "an anon_vma is not freed inside its own root's lock", _RMAP)
watched("AV-029", "no lock is held on return, and none released that is not held", _RMAP)


# --- merging, failing, forking, watched while calls run -------------------------------------------

watched("AV-031", "a merge touches no page and no page-table entry", _VMA)
watched("AV-032", "a merge joins no two different anon_vmas, and a fork child with nothing unfaulted", _VMA)
watched("AV-051", "after a split that succeeds a VMA begins at the address", _VMA)
watched("AV-033", "a call that runs out of memory leaves anon_vmas, AVCs and counters as they were", _RMAP)
watched(
    "AV-034",
    "fork links the child to the parent's anon_vmas, and to one of its own unless it reuses one of them",
    _RMAP,
    needs="has_links",
)
watched("AV-035", "fork allocates an anon_vma if and only if no ancestor's is reusable", _RMAP, needs="reuses")
watched("AV-036", "a new anon_vma is a child of the parent VMA's anon_vma", _RMAP, needs="has_links")
watched("AV-037", "reading and walking change nothing in the reverse map", _RMAP)
watched("AV-038", "locks nest in the order of mm/rmap.c", _RMAP)
watched("AV-039", "no debug assertion of the kernel fires", _RMAP)


@holds("AV-040", "after the last exit nothing is left but what KSM holds until its next scan", _RMAP)
def _nothing_left(state: State) -> Iterator[str]:
    if not state.kernel.processes and not state.pins and (state.anon_vmas or state.avcs):
        yield f"{len(state.anon_vmas)} anon_vmas and {len(state.avcs)} AVCs left"


@holds("AV-043", "all VMAs with one anon_vma are in one mm", _RMAP, needs="has_chains")
def _one_mm(state: State) -> Iterator[str]:
    for anon_vma, vmas in state.active.items():
        if len({vma.vm_mm for vma in vmas}) > 1:
            yield f"{anon_vma} is the anon_vma of VMAs in several processes"


watched("AV-045", "the kernel does not crash", _RMAP)
watched("AV-046", "a VMA's page offset moves with its start, so that each page keeps its index", _VMA)
watched(
    "AV-052",
    "a merge is not refused for anon_vmas that are equal, or for one that is lacking where nothing was inherited",
    _VMA,
    needs="merges_into_unfaulted",
)
watched("AV-053", "a page that its last mapper writes to is named after that VMA's own anon_vma", "mm/memory.c")
