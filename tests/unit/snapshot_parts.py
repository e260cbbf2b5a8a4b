# SPDX-License-Identifier: GPL-2.0-only
"""Snapshots of random machines, and what somebody sees of a machine who reads some of its processes only."""

from dataclasses import replace
from random import Random

from rmaplab.check.execute import execute
from rmaplab.check.monitor import monitored
from rmaplab.scenario.generator import Generator
from rmaplab.series import find


def histories(name, seeds, calls=40, extra=None):
    """A machine of a series after each random history."""
    for seed in seeds:
        kernel = monitored(find(name))()
        kernel.spawn()
        random = Random(seed)
        generator = Generator(random) if extra is None else Generator(random, extra=extra)
        generator.configure(kernel)
        for _ in range(random.randint(1, calls)):
            if kernel.processes:
                execute(kernel, generator.call(kernel), check=False)
        yield kernel


def part_of(snapshot, names):
    """The snapshot that a reader of the processes ``names`` would have made."""
    processes = tuple(process for process in snapshot.processes if process.name in names)
    mms = {process.mm for process in processes}
    vmas = {vma.id for process in processes for vma in process.vmas}
    known = {view.id: view for view in snapshot.anon_vmas}
    folios = tuple(
        replace(folio, ptes=tuple(pte for pte in folio.ptes if pte.mm in mms))
        for folio in snapshot.folios
        if any(pte.mm in mms for pte in folio.ptes)
    )
    reached = {folio.mapping for folio in folios} & known.keys()
    reached |= {name for process in processes for vma in process.vmas for name in vma.chain}
    while more := {name for av in reached for name in (known[av].root, known[av].parent)} & known.keys() - reached:
        reached |= more
    anon_vmas = tuple(
        replace(view, tree=tuple(vma if vma in vmas else "?" for vma in view.tree))
        for view in snapshot.anon_vmas
        if view.id in reached
    )
    swap = tuple(
        replace(slot, ptes=tuple(pte for pte in slot.ptes if pte.mm in mms), folio=None)
        for slot in snapshot.swap
        if any(pte.mm in mms for pte in slot.ptes)
    )
    guards = tuple(guard for guard in snapshot.guards if guard.mm in mms)
    return replace(
        snapshot, processes=processes, anon_vmas=anon_vmas, folios=folios, swap=swap, guards=guards, ksm=()
    )
