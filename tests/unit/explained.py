# SPDX-License-Identifier: GPL-2.0-only
"""Machines to be explained, and what is to be true of every explanation."""

from random import Random

from rmaplab.check.execute import NO_PLAN, Plan, execute
from rmaplab.check.explain import explain
from rmaplab.check.explain_history import Follower
from rmaplab.check.monitor import monitored
from rmaplab.check.state import fingerprint, graph
from rmaplab.kernel.flags import VM_ACCOUNT, VM_DONTCOPY, VM_READ, VM_SHARED, VM_WIPEONFORK, VM_WRITE
from rmaplab.kernel.locking import MMAP_LOCK
from rmaplab.kernel.objects import Mm
from rmaplab.kernel.process import Area
from rmaplab.scenario.generator import Generator
from rmaplab.series import find

ERAS = ["v2.6.32", "v2.6.34", "v3.19", "v4.0", "v5.5", "v6.0", "v6.1", "v6.12", "v6.18", "v6.18+8", "v7.0", "v7.3"]
DESIGNS = ["lazy", "lazy_repoint", "cow_context"]


def machine(series):
    kernel = monitored(find(series))()
    kernel.spawn()
    return kernel


def history(series, seed, calls=40):
    """A machine after each call of a random history, and what was adopted up to there."""
    random = Random(seed)
    kernel, adoptions = machine(series), []
    source = Generator(random)
    source.configure(kernel)
    for _ in range(calls):
        call = source.call(kernel)
        follower = Follower(kernel, call)
        plan = Plan(random.randint(1, 4)) if random.random() < 0.1 else NO_PLAN
        execute(kernel, call, plan, check=False)
        adoptions += follower.adoptions("drawn")
        yield kernel, adoptions
        if not kernel.processes:
            return


def everything(kernel):
    """All that an explanation must leave as it was."""
    slab, locks = kernel.slab, kernel.locks
    return (
        kernel.snapshot(canonical=False),
        fingerprint(kernel),
        graph(kernel),
        list(kernel.events.reports),
        list(kernel.events.listeners),
        (slab.count, dict(slab.counts), slab.bytes, slab.peak_bytes),
        [(cache.made, cache.peak, cache.wasted, cache.spared) for cache in (slab.anon_vma, slab.anon_vma_chain)],
        (list(locks.acquisitions), locks.tree_operations, locks.longest_hold, list(locks.held)),
        dict(kernel.reached),
        dict(kernel.idents),
    )


def explained(kernel, adoptions=()):
    """The answers, if they are about what there is, leave no trace and are all told."""
    before, heard = everything(kernel), []
    kernel.events.listeners.append(heard.append)
    answers = explain(kernel, adoptions=adoptions)
    kernel.events.listeners.remove(heard.append)
    assert everything(kernel) == before
    assert heard == []
    state = before[0]
    vmas = {vma.id: vma for process in state.processes for vma in process.vmas}
    anon_vmas = {anon_vma.id: anon_vma for anon_vma in state.anon_vmas}
    assert set(answers) == {*vmas, *anon_vmas, *(folio.id for folio in state.folios)}
    for ident, answer in answers.items():
        assert "Cannot be told" not in answer.lines[0], answer
        assert answer.title.startswith(ident)
        if ident in anon_vmas:
            assert sum(hold.refs for hold in answer.holds) == anon_vmas[ident].refcount
        elif ident in vmas:
            assert tuple(link.anon_vma for link in answer.chain) == vmas[ident].chain
            assert all(link.own == (link.anon_vma == vmas[ident].anon_vma) for link in answer.chain)
        else:
            assert answer.walk is not None
    return answers


def vmas_of(kernel):
    return {str(vma): vma for process in kernel.processes.values() for vma in process.mm.vmas}


def folios_of(kernel):
    return {
        str(pte.folio): pte.folio
        for process in kernel.processes.values()
        for _, pte in [*process.mm.page_table, *process.mm.page_table.pmds.items()]
        if pte.present and pte.folio.anon
    }


def assert_walks_are_real(kernel, answers):
    """What is told of a mapped folio is what a walk of it visits."""
    copy = kernel.copy()
    for ident, folio in folios_of(copy).items():
        visits = copy.rmap_walk_anon(folio) if folio.stable_node is None else copy.rmap_walk_ksm(folio)
        told = [(step.vma, step.address, step.maps) for step in answers[ident].walk]
        assert told == [(str(visit.vma), visit.address, visit.maps) for visit in visits]


def assert_reuse_is_real(kernel, answers):
    """An anon_vma may be adopted if and only if the fork of some VMA does."""
    adopted = {fork_alone(kernel, ident) for ident in vmas_of(kernel)}
    told = {ident for ident, answer in answers.items() if answer.reuse is not None and answer.reuse.may}
    assert told == adopted - {None}


def fork_alone(kernel, ident):
    """What a forked copy of one VMA adopts, on a copy of the machine."""
    copy = kernel.copy()
    vma, before = vmas_of(copy)[ident], set(copy.live_anon_vmas.values())
    if vma.anon_vma is None or vma.vm_flags & (VM_DONTCOPY | VM_WIPEONFORK) or not copy.reuses:
        return None
    copy.locks.acquire(MMAP_LOCK, vma.vm_mm)
    child = copy.vm_area_dup(vma)
    child.vm_mm = Mm(0)
    assert copy.anon_vma_fork(child, vma) == 0
    return str(child.anon_vma) if child.anon_vma in before else None


def assert_merges_are_real(kernel, answers, flip):
    """A VMA whose flags come back to what they were merges with those that may absorb it."""
    for ident, vma in vmas_of(kernel).items():
        told = {merge.side: merge.allowed for merge in answers[ident].merge}
        before, after = vma.vm_mm.neighbours(vma.vm_start, vma.vm_end)
        assert set(told) == {side for side, other in (("before", before), ("after", after)) if other is not None}
        if all(told.values()) and len(told) == 2:
            told["after"] = before.anon_vma is after.anon_vma or None in (before.anon_vma, after.anon_vma)
        assert merged(kernel, ident, flip) == {side: told.get(side, False) for side in ("before", "after")}


def leveled(kernel):
    """A copy of the machine in which no flags keep VMAs apart: all that is left are offsets, files and anon_vmas."""
    copy = kernel.copy()
    for vma in vmas_of(copy).values():
        vma.vm_flags = VM_READ | VM_WRITE | VM_ACCOUNT | vma.vm_flags & VM_SHARED
    return copy


def merged(kernel, ident, flip):
    """With which neighbours a VMA merges, on a copy of the machine."""
    copy = kernel.copy()
    vma = vmas_of(copy)[ident]
    process = next(process for process in copy.processes.values() if process.mm is vma.vm_mm)
    start, end = vma.vm_start, vma.vm_end
    flip(vma, process, Area(start, (end - start) >> 12))
    whole = process.mm.lookup(start)
    return {"before": whole.vm_start < start, "after": whole.vm_end > end}
