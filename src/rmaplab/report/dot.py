# SPDX-License-Identifier: GPL-2.0-only
"""A state as a graph for Graphviz: VMAs, anon_vmas and folios; an AVC is an edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.snapshot import Snapshot

__all__ = ["dot"]


def dot(snapshot: Snapshot) -> str:
    """The graph: a cluster a process; bold from a VMA to its own anon_vma, dotted from a child to its parent."""
    return "\n".join(("digraph rmap {", *(f"  {line}" for line in _lines(snapshot)), "}", ""))


def _lines(snapshot: Snapshot) -> Iterator[str]:
    yield 'rankdir=LR; node [fontname="monospace" fontsize=10];'
    for number, process in enumerate(snapshot.processes):
        yield f"subgraph cluster_{number} {{ label={_quoted(process.name)};"
        for vma in process.vmas:
            label = f"{vma.id}\\n{vma.start:#x}\\n{vma.end - vma.start >> 12} pages {vma.flags}"
            yield f"  {_quoted(vma.id)} [shape=box label={_quoted(label)}];"
        yield "}"
    for anon_vma in snapshot.anon_vmas:
        counts = f"{anon_vma.refcount} refs"
        if anon_vma.num_children or anon_vma.num_active_vmas:
            counts += f", {anon_vma.num_children} children, {anon_vma.num_active_vmas} VMAs"
        if anon_vma.degree:
            counts += f", degree {anon_vma.degree}"
        yield f"{_quoted(anon_vma.id)} [shape=ellipse label={_quoted(f'{anon_vma.id}{chr(92)}n{counts}')}];"
        if anon_vma.parent != anon_vma.id:
            yield f"{_quoted(anon_vma.id)} -> {_quoted(anon_vma.parent)} [style=dotted label=parent];"
    for process in snapshot.processes:
        for vma in process.vmas:
            for place, anon_vma_id in enumerate(vma.chain):
                style = "bold" if anon_vma_id == vma.anon_vma else "solid"
                yield f"{_quoted(vma.id)} -> {_quoted(anon_vma_id)} [dir=both style={style} label={place}];"
    for folio in snapshot.folios:
        label = f"{folio.id}\\n{folio.mapcount} mapped{', exclusive' * folio.exclusive}"
        yield f"{_quoted(folio.id)} [shape=note label={_quoted(label)}];"
        if folio.mapping is not None:
            yield f"{_quoted(folio.id)} -> {_quoted(folio.mapping)};"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
