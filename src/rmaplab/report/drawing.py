# SPDX-License-Identifier: GPL-2.0-only
"""Draws a state in at most 72 columns: VMAs across, anon_vmas down, an AVC at each crossing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rmaplab.snapshot import AnonVmaView, FolioView, ProcessView, Snapshot, VmaView

__all__ = ["LEGEND", "WIDTH", "draw"]

WIDTH = 72
LEGEND = "(*) the VMA's own anon_vma   (o) an AVC   read down: a VMA's chain"
_COLUMN = 10
_COUNTERS = 16  # "  1   2   1" and room


def draw(snapshot: Snapshot) -> list[str]:
    """The lines of a drawing; VMAs that do not fit are counted in a last line."""
    columns = [(process, vma) for process in snapshot.processes for vma in process.vmas]
    rows = _by_family(snapshot.anon_vmas)
    label_width = max([12, *(len(label) for _, label in rows)])
    fitting = max(1, (WIDTH - label_width - _COUNTERS) // _COLUMN)
    shown, left_out = columns[:fitting], columns[fitting:]
    heads = [_heading(process, vma) for process, vma in shown]
    lines = [
        " " * label_width + "".join(f"{head[part]:>{_COLUMN}}" for head in heads) + tail
        for part, tail in ((0, ""), (1, "   refs kids vmas"))
    ]
    for anon_vma, label in rows:
        cells = "".join(f"{_crossing(anon_vma, vma):>{_COLUMN}}" for _, vma in shown)
        counters = f"{anon_vma.refcount:>7}{anon_vma.num_children:>5}{anon_vma.num_active_vmas:>5}"
        lines.append(f"{label:<{label_width}}{cells}{counters}")
    if not rows:
        lines.append("(no anon_vma)")
    if left_out:
        lines.append(f"... and {len(left_out)} more VMAs")
    names = {process.mm: process.name for process in reversed(snapshot.processes)}
    lines += [_folio(folio, names) for folio in snapshot.folios]
    return [line[:WIDTH].rstrip() for line in lines]


def _heading(process: ProcessView, vma: VmaView) -> tuple[str, str]:
    pages = (vma.end - vma.start) >> 12
    return f"{process.name} {vma.id}", f"{pages}p {_access(vma)}"


def _access(vma: VmaView) -> str:
    flags = vma.flags.split()
    return "".join(letter if code in flags else "-" for code, letter in (("rd", "r"), ("wr", "w"), ("ex", "x")))


def _by_family(anon_vmas: tuple[AnonVmaView, ...]) -> list[tuple[AnonVmaView, str]]:
    """Children under their parents, indented."""
    known = {anon_vma.id for anon_vma in anon_vmas}
    rows: list[tuple[AnonVmaView, str]] = []

    def add(anon_vma: AnonVmaView, depth: int) -> None:
        rows.append((anon_vma, f"{'  ' * depth}{'`-' if depth else ''}{anon_vma.id}"))
        for child in anon_vmas:
            if child.parent == anon_vma.id and child.id != anon_vma.id:
                add(child, depth + 1)

    for anon_vma in anon_vmas:
        if anon_vma.parent == anon_vma.id or anon_vma.parent not in known:
            add(anon_vma, 0)
    return rows


def _crossing(anon_vma: AnonVmaView, vma: VmaView) -> str:
    if vma.anon_vma == anon_vma.id:
        return "(*)" if anon_vma.id in vma.chain else "(*)!"
    return "(o)" if anon_vma.id in vma.chain else "."


def _folio(folio: FolioView, names: dict[str, str]) -> str:
    places = ", ".join(f"{names.get(pte.mm, '?')}{' (w)' if pte.writable else ''}" for pte in folio.ptes)
    kind = "exclusive" if folio.exclusive else f"mapcount {folio.mapcount}"
    return f"{folio.id} -> {folio.mapping}, {kind}, mapped by {places}"
