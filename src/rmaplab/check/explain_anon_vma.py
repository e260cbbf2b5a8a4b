# SPDX-License-Identifier: GPL-2.0-only
"""What keeps an anon_vma alive, and whether a fork would adopt it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.check.explain_answers import Answer, Hold, Reuse
from rmaplab.check.explain_facts import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.check.explain_facts import Facts
    from rmaplab.kernel.objects import AnonVma, Vma

__all__ = ["anon_vma_answer"]


def anon_vma_answer(facts: Facts, anon_vma: AnonVma) -> Answer:
    """Holders, owners, children, reuse."""
    holds, reuse = _holds(facts, anon_vma), _reuse(facts, anon_vma)
    owners = facts.owners(anon_vma)
    whose = f"the own anon_vma of {facts.vmas(owners)}" if owners else "no VMA's own"
    title = f"{facts.name(anon_vma)}: {whose}, refcount {anon_vma.refcount}"
    return Answer(title, tuple(_lines(facts, anon_vma)), holds=tuple(holds), reuse=reuse)


# --- references --------------------------------------------------------------------------------------


def _holds(facts: Facts, anon_vma: AnonVma) -> list[Hold]:
    """References piece by piece; what they lack of the refcount, or exceed it by, is the last piece."""
    holds = [*_graph_holds(facts, anon_vma), *_ksm_holds(facts, anon_vma)]
    rest = anon_vma.refcount - sum(hold.refs for hold in holds)
    if rest > 0:
        holds.append(Hold(f"{rest} more, unaccounted: a pin that no structure tells of, or a leak", rest))
    elif rest < 0:
        holds.append(Hold(f"{-rest} fewer than that: a reference was dropped that was not held", rest))
    return holds


def _graph_holds(facts: Facts, anon_vma: AnonVma) -> Iterator[Hold]:
    """VMAs, and the anon_vmas of its tree."""
    kernel = facts.kernel
    if not kernel.has_links:
        owners = facts.owners(anon_vma)
        if owners:
            yield Hold(f"its process has VMAs that have had a page: {facts.vmas(owners)}", 1)
        children = facts.children[anon_vma]
        if children:
            yield Hold(f"{facts.anon_vmas(children)} directly below", len(children))
        return
    if anon_vma.rb_root.keys:
        yield Hold(f"one for all links: {_linked(facts, anon_vma)}", 1)
    below = facts.below[anon_vma]
    if below and kernel.has_root_lock:
        yield Hold(f"{facts.anon_vmas(below)} of its tree: the lock of all is in the root", len(below))


def _ksm_holds(facts: Facts, anon_vma: AnonVma) -> Iterator[Hold]:
    """KSM's items."""
    for node in facts.kernel.stable_tree.values():
        for item in node.items:
            if item.anon_vma is anon_vma:
                where = f"{facts.process(item.mm)} at {item.address:#x}"
                yield Hold(f"KSM's item of {where}, content {node.content!r}", 1)


def _linked(facts: Facts, anon_vma: AnonVma) -> str:
    known = facts.known
    vmas = [avc.vma for avc in anon_vma.rb_root]
    strangers = sum(vma not in known for vma in vmas)
    told = [facts.vmas(vma for vma in vmas if vma in known)] if strangers < len(vmas) else []
    if strangers:
        told.append(f"{counted(strangers, 'VMA')} that no process has")
    return " and ".join(told)


# --- sentences ---------------------------------------------------------------------------------------


def _lines(facts: Facts, anon_vma: AnonVma) -> Iterator[str]:
    name = facts.name(anon_vma)
    if anon_vma.embedded:
        yield f"{name} is a part of its VMA, and not allocated until a second VMA needs it."
    if anon_vma.root is anon_vma:
        yield f"It is a root{_below(facts, anon_vma)}."
    else:
        lost = " (freed)" if anon_vma.parent.freed else ""
        yield f"It hangs below {facts.name(anon_vma.parent)}{lost}; the root is {facts.name(anon_vma.root)}."
    yield from _counters(facts, anon_vma)
    yield f"{counted(facts.naming[anon_vma], 'folio')} {_verb(facts.naming[anon_vma])} it.".capitalize()
    if not anon_vma.rb_root.keys and facts.kernel.has_links:
        yield "No VMA is linked to it any more: only references from outside keep it, and it is never linked again."
    elif not facts.owners(anon_vma) and facts.kernel.has_links:
        yield "Its owner is gone; it stays for those that inherited a link, whose pages may still name it."
    for adoption in facts.adoptions.values():
        if adoption.anon_vma == str(anon_vma):
            yield adoption.sentence(facts.names)


def _below(facts: Facts, anon_vma: AnonVma) -> str:
    below = facts.below[anon_vma]
    return f" with {facts.anon_vmas(below)} below it" if below else " with nothing below it"


def _verb(number: int) -> str:
    return "names" if number < 2 else "name"


def _counters(facts: Facts, anon_vma: AnonVma) -> Iterator[str]:
    """What is counted, and what there is."""
    kernel = facts.kernel
    owners, children = facts.owners(anon_vma), facts.children[anon_vma]
    own = facts.vmas(owners) or "none"
    itself = anon_vma.root is anon_vma and bool(anon_vma.rb_root.keys)
    hanging = facts.anon_vmas(children) or "none"
    if itself and kernel.has_links:
        hanging = f"{hanging}, and a root counts itself"
    total = len(children) + (itself and kernel.has_links)
    if kernel.counts_together:
        yield f"Owners: {own}; children: {hanging}. Together that is its degree, {anon_vma.degree}."
        yield from _wrong("degree", anon_vma.degree, len(owners) + total)
    elif kernel.counts_apart:
        yield f"Owners: {own} (num_active_vmas {anon_vma.num_active_vmas})."
        yield f"Children: {hanging} (num_children {anon_vma.num_children})."
        yield from _wrong("num_active_vmas", anon_vma.num_active_vmas, len(owners))
        yield from _wrong("num_children", anon_vma.num_children, total)
    else:
        yield f"Owners: {own}; directly below: {facts.anon_vmas(children) or 'none'}."


def _wrong(counter: str, value: int, found: int) -> Iterator[str]:
    if value != found:
        yield f"{counter} is wrong: it says {value}, there are {found}."


# --- reuse -------------------------------------------------------------------------------------------


def _reuse(facts: Facts, anon_vma: AnonVma) -> Reuse:
    """Whether the fork of some VMA would adopt it now."""
    kernel, name = facts.kernel, facts.name(anon_vma)
    if not kernel.reuses:
        return Reuse(False, f"On {kernel.name} fork never adopts what there is.")
    holders = facts.holders[anon_vma]
    forked = [vma for vma in holders if facts.forked(vma)]
    takers = [vma for vma in forked if facts.adopted(vma) is anon_vma]
    if takers:
        return Reuse(True, f"A fork of {facts.vmas(takers)} adopts it: {_free(facts, anon_vma)}.")
    if not holders:
        return Reuse(False, f"No VMA has {name} in its chain, so no fork comes upon it.")
    if not forked:
        return Reuse(False, f"{facts.vmas(holders)}: fork does not link copies of these (dontfork or wipeonfork).")
    late = [vma for vma in forked if facts.reusable(vma, anon_vma)]
    if late:
        first = facts.adopted(late[0])
        return Reuse(False, f"It could be, but a fork of {facts.vma(late[0])} comes upon {facts.name(first)} first.")
    return Reuse(False, _refusal(facts, anon_vma, forked))


def _free(facts: Facts, anon_vma: AnonVma) -> str:
    """Why it may be adopted."""
    if facts.kernel.counts_together:
        text = f"its degree is {anon_vma.degree}, below 2, and it is not the parent's own"
        return f"{text}, though {facts.vmas(facts.owners(anon_vma))} owns it" if facts.owners(anon_vma) else text
    return f"no VMA owns it, and it has {counted(anon_vma.num_children, 'child', 'children')}"


def _refusal(facts: Facts, anon_vma: AnonVma, forked: list[Vma]) -> str:
    """Why no fork may adopt it."""
    root = ", a root counting itself" if anon_vma.root is anon_vma else ""
    if facts.kernel.counts_together:
        if anon_vma.degree >= 2:
            return f"Its degree is {anon_vma.degree}{root}: VMAs and children together must be below 2."
        if all(vma.anon_vma is anon_vma for vma in forked):
            return f"It is the own anon_vma of all that have it in their chain ({facts.vmas(forked)})."
        return f"{facts.kernel.name} does not adopt it, though its degree is {anon_vma.degree}."
    reasons = []
    if anon_vma.num_active_vmas:
        owners = facts.vmas(facts.owners(anon_vma)) or "nobody in fact"
        reasons.append(f"it is owned by {owners} (num_active_vmas {anon_vma.num_active_vmas})")
    if anon_vma.num_children > 1:
        children = facts.anon_vmas(facts.children[anon_vma]) or "none in fact"
        reasons.append(f"more than one anon_vma hangs on it: {children}{root} (num_children {anon_vma.num_children})")
    if not reasons:
        return f"{facts.kernel.name} does not adopt it, though no VMA owns it and at most one child hangs on it."
    text = ", and ".join(reasons)
    return f"{text[0].upper()}{text[1:]}."
