# SPDX-License-Identifier: GPL-2.0-only
"""What a call changed, in sentences: for people; :func:`rmaplab.check.retrace.changes` has every field."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.retrace import changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rmaplab.snapshot import AnonVmaView, FolioView, Snapshot, VmaView

__all__ = ["words"]

_FIELDS = ("KSM ", "guard ", "slot")  # what is told of these field by field


class Place(NamedTuple):
    """A VMA and whose it is."""

    process: str
    vma: VmaView


def words(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """Sentences, a line each; both states are of one machine, with its own ids."""
    old_processes, new_processes = ([process.name for process in state.processes] for state in (before, after))
    yield from (f"{name} begins" for name in new_processes if name not in old_processes)
    yield from (f"{name} is gone" for name in old_processes if name not in new_processes)
    yield from _vmas(_places(before), _places(after))
    yield from _anon_vmas({one.id: one for one in before.anon_vmas}, {one.id: one for one in after.anon_vmas})
    names = {process.mm: process.name for state in (before, after) for process in reversed(state.processes)}
    yield from _folios({one.id: one for one in before.folios}, {one.id: one for one in after.folios}, names)
    yield from (line for line in changes(before, after) if line.startswith(_FIELDS))


def _places(state: Snapshot) -> dict[str, Place]:
    return {vma.id: Place(process.name, vma) for process in state.processes for vma in process.vmas}


def _vmas(old: dict[str, Place], new: dict[str, Place]) -> Iterator[str]:
    for ident, (process, vma) in new.items():
        name = f"{process}'s {ident}"
        if ident not in old:
            yield f"{name} is new: {_pages(vma)}, {_rights(vma)}{f', of {vma.file}' if vma.file else ''}"
            if vma.chain:
                yield f"{name} is linked to {_listed(vma.chain)}; {_own(vma)}"
            continue
        was = old[ident].vma
        if (was.start, was.end) != (vma.start, vma.end):
            yield f"{name} now has {_pages(vma)} (before: {_pages(was)})"
        if was.flags != vma.flags:
            yield f"{name}: flags {was.flags or 'none'} -> {vma.flags or 'none'}"
        if was.chain != vma.chain:
            yield f"{name} is linked to {_listed(vma.chain)} (before: {_listed(was.chain)})"
        if was.anon_vma != vma.anon_vma:
            yield f"{name}: {_own(vma)} (before: {was.anon_vma or 'none'})"
    yield from (f"{process}'s {ident} is gone" for ident, (process, _) in old.items() if ident not in new)


def _anon_vmas(old: dict[str, AnonVmaView], new: dict[str, AnonVmaView]) -> Iterator[str]:
    for ident, one in new.items():
        was = old.get(ident)
        if was is None:
            below = "a root" if one.parent == ident else f"below {one.parent}"
            yield f"{ident} is new: {below}, {_counters(one)}"
        else:
            counters = [
                f"{label} {getattr(was, field)} -> {getattr(one, field)}"
                for field, label in _COUNTERS.items()
                if getattr(was, field) != getattr(one, field)
            ]
            if counters:
                yield f"{ident}: {', '.join(counters)}"
            if was.parent != one.parent:
                yield f"{ident} is below {one.parent} now"
        yield from _walks(ident, was.tree if was else (), one.tree)
    yield from (f"{ident} is freed" for ident in old if ident not in new)


def _walks(ident: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """What walks of an anon_vma come to."""
    if come := [vma for vma in new if vma not in old]:
        yield f"walks of {ident} come to {_listed(come)} now"
    if left := [vma for vma in old if vma not in new]:
        yield f"walks of {ident} no longer come to {_listed(left)}"
    if not come and not left and list(old) != list(new):
        yield f"walks of {ident} come in another order: {_listed(new)}"


def _folios(old: dict[str, FolioView], new: dict[str, FolioView], names: dict[str, str]) -> Iterator[str]:
    for ident, one in new.items():
        was = old.get(ident)
        if was is None:
            yield f"{ident} is new: names {_named(one)}, {_mapped(one, names)}"
            continue
        if _named(was) != _named(one):
            yield f"{ident} names {_named(one)} now, no longer {_named(was)}"
        if was.ptes != one.ptes or was.exclusive != one.exclusive:
            yield f"{ident} is {_mapped(one, names)} (before: {_mapped(was, names)})"
        if was.pins != one.pins:
            yield f"{ident}: pins {was.pins} -> {one.pins}"
    yield from (f"{ident} is gone" for ident in old if ident not in new)


_COUNTERS = {
    "refcount": "references",
    "num_children": "children",
    "num_active_vmas": "own VMAs",
    "degree": "degree",
}


def _counters(one: AnonVmaView) -> str:
    told = (f"{label} {getattr(one, field)}" for field, label in _COUNTERS.items() if getattr(one, field))
    return ", ".join(told) or "all counters 0"


def _pages(vma: VmaView) -> str:
    count = (vma.end - vma.start) >> 12
    return f"{count:,} page{'s' * (count != 1)} at {vma.start:#x}"


def _rights(vma: VmaView) -> str:
    flags = vma.flags.split()
    return "".join(letter if code in flags else "-" for code, letter in (("rd", "r"), ("wr", "w"), ("ex", "x")))


def _own(vma: VmaView) -> str:
    return f"{vma.anon_vma} is its own" if vma.anon_vma else "it has no anon_vma of its own"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def _named(folio: FolioView) -> str:
    return f"KSM's page {folio.ksm}" if folio.ksm is not None else folio.mapping or "nothing"


def _mapped(folio: FolioView, names: dict[str, str]) -> str:
    """By whom, and how."""
    by: dict[str, bool] = {}
    for pte in folio.ptes:
        name = names.get(pte.mm, pte.mm)
        by[name] = by.get(name, False) or pte.writable
    if not by:
        return "mapped nowhere"
    listed = ", ".join(f"{name}{'' if writable else ' (read-only)'}" for name, writable in by.items())
    return f"mapped by {listed}{', exclusively' if folio.exclusive else ''}"
