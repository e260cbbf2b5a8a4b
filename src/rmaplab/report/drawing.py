# SPDX-License-Identifier: GPL-2.0-only
"""Draws a state in at most 72 columns: VMAs across, anon_vmas down, an AVC at each crossing."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

from rmaplab.report.family import by_family

if TYPE_CHECKING:
    from rmaplab.snapshot import AnonVmaView, FolioView, GuardView, ProcessView, Snapshot, SwapView, VmaView

__all__ = ["LEGEND", "WIDTH", "draw"]

WIDTH = 72
LEGEND = "(*) the VMA's own anon_vma   (o) an AVC   read down: a VMA's chain"
_COLUMN = 10
_COUNTERS = 16  # "  1   2   1" and room
_RUN = 4  # objects of which the same is told that have a line each


def draw(snapshot: Snapshot) -> list[str]:
    """The lines of a drawing; VMAs that do not fit are counted in a last line."""
    columns = [(process, vma) for process in snapshot.processes for vma in process.vmas]
    rows = [
        (anon_vma, f"{'  ' * level}{'`-' if level else ''}{anon_vma.id}")
        for anon_vma, level in by_family(snapshot.anon_vmas)
    ]
    label_width = max([12, *(len(label) for _, label in rows)])
    fitting = max(1, (WIDTH - label_width - _COUNTERS) // _COLUMN)
    shown, left_out = columns[:fitting], columns[fitting:]
    heads = [_heading(process, vma) for process, vma in shown]
    counted = _counted(snapshot)
    lines = [
        " " * label_width + "".join(f"{head[part]:>{_COLUMN}}" for head in heads) + tail
        for part, tail in ((0, ""), (1, counted))
    ]
    for anon_vma, label in rows:
        cells = "".join(f"{_crossing(anon_vma, vma):>{_COLUMN}}" for _, vma in shown)
        lines.append(f"{label:<{label_width}}{cells}{_counters(anon_vma, counted)}")
    if not rows:
        lines.append("(no anon_vma)")
    if left_out:
        lines.append(f"... and {len(left_out)} more VMAs")
    names = {process.mm: process.name for process in reversed(snapshot.processes)}
    lines += _folded([(folio.id, _folio(folio, names)) for folio in snapshot.folios])
    lines += _folded([(slot.id, _swap(slot, names)) for slot in snapshot.swap])
    lines += _guards(snapshot.guards, names)
    return [line[:WIDTH].rstrip() for line in lines]


def _counted(snapshot: Snapshot) -> str:
    """What the series counts: users and children apart, together (v3.19 to v5.19), or not at all (before)."""
    if any(anon_vma.degree for anon_vma in snapshot.anon_vmas):
        return "   refs    degree"
    apart = any(anon_vma.num_children or anon_vma.num_active_vmas for anon_vma in snapshot.anon_vmas)
    return "   refs kids vmas" if apart or not snapshot.anon_vmas else "   refs"


def _counters(anon_vma: AnonVmaView, counted: str) -> str:
    counters = {"refs": anon_vma.refcount, "degree": anon_vma.degree}
    counters |= {"kids": anon_vma.num_children, "vmas": anon_vma.num_active_vmas}
    widths = {"refs": 7, "degree": 10, "kids": 5, "vmas": 5}
    return "".join(f"{counters[name]:>{widths[name]}}" for name in counted.split())


def _heading(process: ProcessView, vma: VmaView) -> tuple[str, str]:
    pages = (vma.end - vma.start) >> 12
    return f"{process.name} {vma.id}", f"{pages}p {_access(vma)}"


def _access(vma: VmaView) -> str:
    flags = vma.flags.split()
    return "".join(letter if code in flags else "-" for code, letter in (("rd", "r"), ("wr", "w"), ("ex", "x")))


def _crossing(anon_vma: AnonVmaView, vma: VmaView) -> str:
    if vma.anon_vma == anon_vma.id:
        return "(*)" if anon_vma.id in vma.chain else "(*)!"
    return "(o)" if anon_vma.id in vma.chain else "."


def _folded(told: list[tuple[str, str]]) -> list[str]:
    """A line for each object and what is told of it; one for a long run of which the same is told."""
    lines: list[str] = []
    for text, group in groupby(told, key=lambda item: item[1]):
        run = [ident for ident, _ in group]
        if len(run) > _RUN:
            lines.append(f"{run[0]} ... {run[-1]}{text} ({len(run)})")
        else:
            lines += [f"{ident}{text}" for ident in run]
    return lines


def _folio(folio: FolioView, names: dict[str, str]) -> str:
    """What a folio names, and where it is."""
    named = f"KSM page {folio.ksm}" if folio.ksm is not None else folio.mapping or "nothing yet"
    facts = [f" -> {named}"]
    if folio.order:
        facts.append(f"{1 << folio.order} pages")
    facts.append("exclusive" if folio.exclusive else f"mapcount {folio.mapcount}")
    if folio.pins:
        facts.append(f"pinned {folio.pins} times" if folio.pins > 1 else "pinned")
    places: dict[str, None] = {}
    for pte in folio.ptes:
        places[f"{names.get(pte.mm, '?')}{' (w)' if pte.writable else ''}"] = None
    facts.append(f"mapped by {', '.join(places)}" if places else "mapped nowhere")
    return ", ".join(facts)


def _swap(slot: SwapView, names: dict[str, str]) -> str:
    """A swap slot, who waits for it, and whether the page is still in memory."""
    users = ", ".join(f"{names.get(pte.mm, '?')}{' (exclusive)' if pte.exclusive else ''}" for pte in slot.ptes)
    cached = f", {slot.folio} is in the swap cache" if slot.folio is not None else ""
    return f": swapped out by {users}{cached}"


def _guards(guards: tuple[GuardView, ...], names: dict[str, str]) -> list[str]:
    """Guard pages, counted by process."""
    counts = Counter(names.get(guard.mm, "?") for guard in guards)
    return [f"{name}: {count} guard page{'s' * (count > 1)}" for name, count in counts.items()]
