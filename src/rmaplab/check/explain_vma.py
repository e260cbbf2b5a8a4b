# SPDX-License-Identifier: GPL-2.0-only
"""Why a VMA is linked to the anon_vmas of its chain, and whether its neighbours may absorb it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.explain_answers import Answer, ChainLink, MergeVerdict
from rmaplab.check.explain_facts import counted
from rmaplab.kernel.flags import PAGE_SHIFT, VM_DONTCOPY, VM_IGNORE_MERGE, VM_SHARED, VM_WIPEONFORK, flags_name
from rmaplab.kernel.vma import VmaMerge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.check.explain_facts import Facts
    from rmaplab.kernel.objects import AnonVma, Vma

__all__ = ["vma_answer"]


def vma_answer(facts: Facts, vma: Vma) -> Answer:
    """Its chain and its neighbours."""
    chain = tuple(_link(facts, vma, avc.anon_vma) for avc in vma.anon_vma_chain)
    if vma.anon_vma is None:
        title = f"{facts.vma(vma)}: has no anonymous page yet, and no anon_vma"
    else:
        title = (
            f"{facts.vma(vma)}: its own is {facts.name(vma.anon_vma)}, {counted(len(chain), 'anon_vma')} in its chain"
        )
    merges = tuple(_merges(facts, vma))
    return Answer(title, (*_lines(facts, vma), *_merge_lines(facts, vma, merges)), chain=chain, merge=merges)


# --- the chain ---------------------------------------------------------------------------------------


def _lines(facts: Facts, vma: Vma) -> Iterator[str]:
    pages = (vma.vm_end - vma.vm_start) >> PAGE_SHIFT
    shared = "shared" if vma.vm_flags & VM_SHARED else "private"
    what = f"a {shared} mapping of {vma.file}" if vma.file else "anonymous memory"
    offset = f"page offset {vma.vm_pgoff:#x}"
    if vma.anon_pgoff != vma.vm_pgoff:
        offset += f", of anonymous pages {vma.anon_pgoff:#x}"
    flags = flags_name(vma.vm_flags) or "none"
    yield f"{counted(pages, 'page')} from {vma.vm_start:#x}, {what}, {offset}, flags {flags}."
    own, linked = vma.anon_vma, [avc.anon_vma for avc in vma.anon_vma_chain]
    if own is not None and own not in linked and facts.kernel.has_links:
        yield f"Broken: it names {facts.name(own)} as its own and is not linked to it, so walks miss its pages."
    if own is None and linked:
        yield "Broken: it is linked to anon_vmas and has none of its own; a call left it half built."
    if facts.kernel.vma_is_fork_child(vma):
        yield (
            "It was inherited by fork: pages that it has not copied name the anon_vmas it inherited, "
            f"those it writes from now on name {facts.name(own)}."
        )
    adoption = facts.adoption(vma)
    if adoption is not None:
        yield adoption.sentence(facts.names)
    if vma.vm_flags & VM_DONTCOPY:
        yield "Fork leaves it out (dontfork)."
    elif vma.vm_flags & VM_WIPEONFORK:
        yield "Fork gives the child an empty one (wipeonfork)."


def _link(facts: Facts, vma: Vma, anon_vma: AnonVma) -> ChainLink:
    return ChainLink(facts.name(anon_vma), anon_vma is vma.anon_vma, _link_reason(facts, vma, anon_vma))


def _link_reason(facts: Facts, vma: Vma, anon_vma: AnonVma) -> str:
    """Why a VMA is linked to an anon_vma."""
    if anon_vma.freed:
        return "the link dangles: the anon_vma is freed"
    if not facts.kernel.has_links:
        return "the VMA was moved: a remap tells walks of its process's context where its pages are"
    if not facts.kernel.has_chains:
        return "the one list of the whole family, which forked VMAs join"
    if anon_vma is vma.anon_vma:
        return _own_reason(facts, vma, anon_vma)
    owners = facts.owners(anon_vma)
    whose = f"{facts.vmas(owners)} {_owns(owners)} it now" if owners else "no VMA owns it any more"
    return f"inherited at fork from an ancestor; {whose}, and pages not copied since may name it"


def _owns(owners: list[Vma]) -> str:
    return "owns" if len(owners) == 1 else "own"


def _own_reason(facts: Facts, vma: Vma, anon_vma: AnonVma) -> str:
    """How a VMA came by its own."""
    shared = [other for other in facts.owners(anon_vma) if other is not vma]
    tail = f"; shared with {facts.vmas(shared)}" if shared else ""
    adoption = facts.adoption(vma)
    if adoption is not None:
        return f"its own, adopted by fork from an ancestor{adoption.where()}{tail}"
    if len(vma.anon_vma_chain) == 1:
        return f"its own, made by a first write, or a neighbour's that fits{tail}"
    if any(_descends(avc.anon_vma, anon_vma) for avc in vma.anon_vma_chain):
        return f"its own, adopted by fork: it is older than others of the chain, which hang below it{tail}"
    return f"its own, below {facts.name(anon_vma.parent)}: made when the VMA was forked, or adopted then{tail}"


def _descends(anon_vma: AnonVma, ancestor: AnonVma) -> bool:
    """Whether an anon_vma hangs below another, at any depth."""
    met = set()
    while anon_vma.parent is not anon_vma and anon_vma not in met:
        met.add(anon_vma)
        anon_vma = anon_vma.parent
        if anon_vma is ancestor:
            return True
    return False


# --- merging -----------------------------------------------------------------------------------------


def _merges(facts: Facts, vma: Vma) -> Iterator[MergeVerdict]:
    """Each touching neighbour, and whether it may absorb the VMA."""
    before, after = vma.vm_mm.neighbours(vma.vm_start, vma.vm_end)
    for neighbour, side in ((before, "before"), (after, "after")):
        if neighbour is not None and neighbour is not vma:
            allowed = _may_absorb(facts, neighbour, vma)
            why = _fits(facts, neighbour, vma) if allowed else _refusals(facts, neighbour, vma)
            yield MergeVerdict(facts.name(neighbour), side, allowed, tuple(why))


def _merge(facts: Facts, target: Vma, vma: Vma) -> VmaMerge:
    """What the kernel is asked when a call changes all of a VMA, and nothing in the way."""
    before = target if target.vm_start < vma.vm_start else None
    after = None if before else target
    return VmaMerge(
        vma.vm_mm,
        vma.vm_start,
        vma.vm_end,
        vma.vm_pgoff,
        vma.vm_flags,
        vma.file,
        prev=before,
        middle=vma,
        next=after,
        anon_vma=vma.anon_vma,
    )


def _may_absorb(facts: Facts, target: Vma, vma: Vma) -> bool:
    """The series' own verdict, asked of one neighbour alone."""
    vmg = _merge(facts, target, vma)
    return facts.kernel.can_vma_merge_left(vmg) if vmg.prev else facts.kernel.can_vma_merge_right(vmg, False)


def _merge_lines(facts: Facts, vma: Vma, merges: tuple[MergeVerdict, ...]) -> Iterator[str]:
    before, after = vma.vm_mm.neighbours(vma.vm_start, vma.vm_end)
    sides = {"before": before, "after": after}
    for merge in merges:
        neighbour = sides[merge.side]
        assert neighbour is not None
        verdict = "may" if merge.allowed else "may not"
        yield f"{merge.neighbour}, right {merge.side} it, {verdict} absorb it: {'; '.join(merge.why)}."
        if _may_absorb(facts, vma, neighbour) is not merge.allowed:
            verdict = "may not" if merge.allowed else "may"
            yield f"The other way round, {facts.name(vma)} {verdict} absorb {merge.neighbour}."
    if any(merge.allowed for merge in merges):
        yield "They stand apart until a call changes one of them: only then is a merge tried."
    if len(merges) == 2 and all(merge.allowed for merge in merges) and before is not None and after is not None:
        apart = before.anon_vma is not None and after.anon_vma is not None and before.anon_vma is not after.anon_vma
        if apart:
            yield "Not all three: those before and after have different anon_vmas, and the one before goes first."


def _fits(facts: Facts, target: Vma, vma: Vma) -> list[str]:
    """Why a neighbour may absorb a VMA."""
    own, other = vma.anon_vma, target.anon_vma
    if own is other:
        links = "neither has an anon_vma" if own is None else f"both belong to {facts.name(own)}"
    else:
        faulted, empty = (target, vma) if own is None else (vma, target)
        child = facts.kernel.vma_is_fork_child(faulted)
        links = f"{facts.name(empty)} has no anon_vma"
        if not child:
            links += f", and {facts.name(faulted)} was not inherited by fork"
    return ["flags, file and page offsets fit", links]


def _refusals(facts: Facts, target: Vma, vma: Vma) -> list[str]:
    """Every reason why a neighbour may not absorb a VMA."""
    kernel, vmg = facts.kernel, _merge(facts, target, vma)
    reasons = []
    if not kernel.is_mergeable_vma(vmg, target):
        reasons += _attributes(facts, target, vma)
    if not kernel.is_mergeable_anon_vma(vmg, target):
        reasons += _anon_vmas(facts, target, vma)
    reasons += _offsets(target, vma)
    return reasons or [f"a rule of {kernel.name} is against it"]


def _attributes(facts: Facts, target: Vma, vma: Vma) -> list[str]:
    reasons = []
    for here, there in ((vma, target), (target, vma)):
        only = here.vm_flags & ~there.vm_flags & ~VM_IGNORE_MERGE
        if only:
            reasons.append(f"only {facts.name(here)} has the flags {flags_name(only) or hex(only)}")
    if vma.file != target.file:
        files = [other.file or "no file" for other in (vma, target)]
        reasons.append(f"different files: {files[0]} and {files[1]}")
    return reasons or [f"a rule of {facts.kernel.name} on their attributes is against it"]


def _anon_vmas(facts: Facts, target: Vma, vma: Vma) -> list[str]:
    kernel, own, other = facts.kernel, vma.anon_vma, target.anon_vma
    if own is not None and other is not None:
        return [f"different anon_vmas, {facts.name(own)} and {facts.name(other)}"]
    faulted, empty = (target, vma) if own is None else (vma, target)
    reasons = []
    if kernel.vma_is_fork_child(faulted) and kernel.spares_fork_children:
        links = counted(len(faulted.anon_vma_chain), "anon_vma")
        reasons.append(
            f"{facts.name(faulted)} was inherited by fork ({links} in its chain), "
            f"and such a VMA does not merge with {facts.name(empty)}, which has none"
        )
    if empty is target and (not kernel.merges_into_unfaulted or not reasons):
        reasons.append(f"on {kernel.name} a VMA without anon_vma does not absorb one that has pages")
    return reasons or [f"a rule of {kernel.name} on their anon_vmas is against it"]


def _offsets(target: Vma, vma: Vma) -> list[str]:
    """Offsets that do not go on across the boundary."""
    lower, upper = sorted((vma, target), key=lambda one: one.vm_start)
    pages = (upper.vm_start - lower.vm_start) >> PAGE_SHIFT
    reasons = []
    if upper.vm_pgoff != lower.vm_pgoff + pages:
        moved = "" if vma.file else ": one of them was moved"
        reasons.append(
            f"page offsets do not go on ({upper.vm_pgoff:#x} behind {lower.vm_pgoff + pages - 1:#x}){moved}"
        )
    elif upper.anon_pgoff != lower.anon_pgoff + pages:
        ends = f"{upper.anon_pgoff:#x} behind {lower.anon_pgoff + pages - 1:#x}"
        reasons.append(f"the offsets of anonymous pages do not go on ({ends})")
    return reasons
