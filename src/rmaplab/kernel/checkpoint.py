# SPDX-License-Identifier: GPL-2.0-only
"""Copies the whole state of a kernel, object by object, and takes a copy apart again.

Written out by hand because the explorer does it once per transition:
:func:`copy.deepcopy` takes ten times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from rmaplab.kernel.objects import FILE_PAGE, ZERO_PAGE, AnonVma, AnonVmaChain, Folio, Mm, Pte, Vma

if TYPE_CHECKING:
    from rmaplab.kernel.kernel import Kernel

__all__ = ["copy_state", "drop_state"]

K = TypeVar("K", bound="Kernel")


def copy_state(source: K, target: K) -> K:
    """Fill ``target``, a fresh kernel of the same class, with copies of all live objects."""
    anon_vmas = _copy_anon_vmas(source)
    vmas: dict[Vma, Vma] = {}
    folios: dict[Folio, Folio] = {ZERO_PAGE: ZERO_PAGE, FILE_PAGE: FILE_PAGE}
    mms: dict[Mm, Mm] = {}
    for name, process in source.processes.items():
        mm = mms.get(process.mm)
        if mm is None:
            mm = mms[process.mm] = _copy_mm(process.mm, anon_vmas, vmas, folios)
        copied = target.add_process(name, mm)
        copied.mmap_hint = process.mmap_hint
        copied.areas = process.areas

    avcs: dict[AnonVmaChain, AnonVmaChain] = {}
    for avc in source.slab.anon_vma_chain.live.values():
        new = avcs[avc] = AnonVmaChain(avc.id)
        new.linked = avc.linked
        new.vma = vmas[avc.vma] if avc.vma in vmas else _copy_vma(avc.vma, avc.vma.vm_mm, anon_vmas, vmas)
        new.anon_vma = anon_vmas[avc.anon_vma]
        target.slab.anon_vma_chain.live[new.id] = new
    for old_vma, new_vma in vmas.items():
        new_vma.anon_vma_chain = [avcs[avc] for avc in old_vma.anon_vma_chain]
    for old_av, new_av in anon_vmas.items():
        new_av.rb_root.keys = {avcs[avc]: key for avc, key in old_av.rb_root.keys.items()}
        if not old_av.freed:
            target.slab.anon_vma.live[new_av.id] = new_av

    target.idents = source.idents.copy()
    target.slab.bytes = source.slab.bytes
    target.slab.anon_vma.allocations = source.slab.anon_vma.allocations
    target.slab.anon_vma_chain.allocations = source.slab.anon_vma_chain.allocations
    return target


def drop_state(kernel: Kernel) -> None:
    """Take a kernel that nobody needs any more apart, so that its memory is free at once.

    Its objects point at each other in cycles, which Python's collector would
    have to find: that took a seventh of an exploration.
    """
    for process in kernel.processes.values():
        process.mm.vmas.clear()
    kernel.processes.clear()
    for avc in kernel.live_anon_vma_chains.values():
        if hasattr(avc, "vma"):  # a crash may have come before it was assigned
            del avc.vma, avc.anon_vma
    for anon_vma in kernel.live_anon_vmas.values():
        del anon_vma.root, anon_vma.parent
        anon_vma.rb_root.keys.clear()


def _copy_anon_vmas(source: Kernel) -> dict[AnonVma, AnonVma]:
    live = source.slab.anon_vma.live.values()
    copies: dict[AnonVma, AnonVma] = {}
    for old in live:
        new = copies[old] = AnonVma(old.id)
        new.refcount = old.refcount
        new.num_children = old.num_children
        new.num_active_vmas = old.num_active_vmas
        new.linked = old.linked
    for old in live:
        copies[old].root = copies[old.root]
        copies[old].parent = copies[old.parent]
    return copies


def _copy_vma(old: Vma, mm: Mm, anon_vmas: dict[AnonVma, AnonVma], vmas: dict[Vma, Vma]) -> Vma:
    new = vmas[old] = Vma(old.id, mm, old.vm_start, old.vm_end, old.vm_pgoff, old.vm_flags, old.file)
    if old.anon_vma is not None:
        new.anon_vma = anon_vmas[old.anon_vma]
    new.attached = old.attached
    new.freed = old.freed
    return new


def _copy_mm(old: Mm, anon_vmas: dict[AnonVma, AnonVma], vmas: dict[Vma, Vma], folios: dict[Folio, Folio]) -> Mm:
    new = Mm(old.id)
    new.users = old.users
    new.brk = old.brk
    new.vmas = [_copy_vma(vma, new, anon_vmas, vmas) for vma in old.vmas]
    for key, table in old.page_table.tables.items():
        copied = new.page_table.tables[key] = {}
        for address, pte in table.items():
            folio = folios.get(pte.folio)
            if folio is None:
                folio = folios[pte.folio] = _copy_folio(pte.folio, anon_vmas)
            copied[address] = Pte(folio, pte.writable)
    return new


def _copy_folio(old: Folio, anon_vmas: dict[AnonVma, AnonVma]) -> Folio:
    new = Folio(old.id)
    new.mapping = anon_vmas[old.mapping] if old.mapping is not None else None
    new.index = old.index
    new.mapcount = old.mapcount
    new.exclusive = old.exclusive
    return new
