# SPDX-License-Identifier: GPL-2.0-only
"""What is at an address of a machine that was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.report.inspection import Inspection
    from rmaplab.snapshot import AnonVmaView, FolioView, ProcessView, VmaView

__all__ = ["place_text"]

_KERNEL = 1 << 63
_PAGE = 12


def place_text(inspection: Inspection, address: int) -> str:
    """The VMA, chain and folio at a user address (bytes) of each process, or the object at a kernel address.

    :class:`InputError` if there is nothing.
    """
    lines = list(_of_kernel(inspection, address) if address in inspection.addresses.values() else ())
    if not lines and address < _KERNEL:
        lines = list(_of_users(inspection, address))
    if not lines:
        kind = "anon_vma, VMA or folio" if address >= _KERNEL else "VMA"
        raise InputError(f"{address:#x}: no {kind} of what was read is there")
    return "\n".join(lines) + "\n"


def _of_users(inspection: Inspection, address: int) -> Iterator[str]:
    snapshot = inspection.snapshot
    for process in snapshot.processes:
        for vma in process.vmas:
            if not vma.start <= address < vma.end:
                continue
            yield f"{process.name}: {_vma(inspection, vma)}"
            yield f"  anon_vma {_named(inspection, vma.anon_vma)}"
            yield f"  chain {', '.join(_named(inspection, name) for name in vma.chain) or 'empty'}"
            for folio in snapshot.folios:
                if any(
                    pte.mm == process.mm and pte.address <= address < pte.address + (pte.pages << _PAGE)
                    for pte in folio.ptes
                ):
                    yield from _folio(inspection, folio)


def _of_kernel(inspection: Inspection, address: int) -> Iterator[str]:
    names = {name for name, at in inspection.addresses.items() if at == address}
    snapshot = inspection.snapshot
    for av in snapshot.anon_vmas:
        if av.id in names:
            yield from _anon_vma(inspection, av)
    for process in snapshot.processes:
        for vma in process.vmas:
            if vma.id in names:
                yield f"{process.name}: {_vma(inspection, vma)}"
                yield f"  chain {', '.join(_named(inspection, name) for name in vma.chain) or 'empty'}"
    for folio in snapshot.folios:
        if folio.id in names:
            yield from _folio(inspection, folio)


def _anon_vma(inspection: Inspection, av: AnonVmaView) -> Iterator[str]:
    yield f"anon_vma {_named(inspection, av.id)}"
    yield f"  root {_named(inspection, av.root)}, parent {_named(inspection, av.parent)}"
    yield f"  refcount {av.refcount}, children {av.num_children}, VMAs of its own {av.num_active_vmas}"
    yield f"  its tree: {len(av.tree)} VMAs"
    for process, vma in _vmas(inspection, av):
        yield f"    {process.name}: {_vma(inspection, vma)}"
    unread = av.tree.count("?")
    if unread:
        yield f"    and {unread} of processes that were not read"


def _vmas(inspection: Inspection, av: AnonVmaView) -> Iterator[tuple[ProcessView, VmaView]]:
    wanted = set(av.tree)
    for process in inspection.snapshot.processes:
        for vma in process.vmas:
            if vma.id in wanted:
                yield process, vma


def _folio(inspection: Inspection, folio: FolioView) -> Iterator[str]:
    merged = " (merged by KSM)" if folio.ksm else ""
    yield f"  folio {_named(inspection, folio.id)}: {1 << folio.order} pages, index {folio.index:#x}{merged}"
    yield f"    mapping {_named(inspection, folio.mapping)}, mapcount {folio.mapcount}, exclusive {folio.exclusive}"
    last = folio.index + (1 << folio.order)
    for av in inspection.snapshot.anon_vmas:
        if av.id != folio.mapping:
            continue
        for process, vma in _vmas(inspection, av):
            if vma.anon_pgoff < last and folio.index < vma.anon_pgoff + (vma.end - vma.start >> _PAGE):
                maps = any(pte.mm == process.mm and vma.start <= pte.address < vma.end for pte in folio.ptes)
                yield f"    a walk visits {process.name} {vma.start:#x}: {'maps it' if maps else 'does not map it'}"


def _vma(inspection: Inspection, vma: VmaView) -> str:
    return f"VMA {_named(inspection, vma.id)} {vma.start:#x}-{vma.end:#x} {vma.flags}, pgoff {vma.pgoff:#x}"


def _named(inspection: Inspection, name: str | None) -> str:
    if name is None:
        return "none"
    address = inspection.addresses.get(name)
    return name if address is None else f"{name} ({address:#x})"
