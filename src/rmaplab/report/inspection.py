# SPDX-License-Identifier: GPL-2.0-only
"""What an operator wants to know of a reverse map: who holds how much, how deep and wide it is, what a walk costs."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from rmaplab.report.text import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rmaplab.check.validate import Verdict
    from rmaplab.kernel.events import Report
    from rmaplab.snapshot import AnonVmaView, Snapshot, VmaView

__all__ = ["NAME", "USUAL_SIZES", "Inspection", "Overview", "inspection_document", "inspection_text", "overview"]

_PAGE = 12
NAME = re.compile(r"\b[a-z]+\d+\b")
"""What names an object of a snapshot, such as ``av3``."""
USUAL_SIZES = 104, 64
"""Bytes of an anon_vma and of an AVC on x86-64 without debugging."""


class ProcessCost(NamedTuple):
    """What a process holds: VMAs, those that are faulted, its AVCs, its longest chain, bytes of its AVCs."""

    process: str
    vmas: int
    faulted: int
    avcs: int
    longest: int
    bytes: int


class TreeCost(NamedTuple):
    """What a root has below it: anon_vmas, AVCs, levels, the widest interval tree, and all their bytes."""

    root: str
    anon_vmas: int
    avcs: int
    levels: int
    widest: int
    bytes: int


class Empty(NamedTuple):
    """An anon_vma that no VMA uses as its own, and what keeps it: links, children, roots' references, others."""

    anon_vma: str
    links: int
    children: int
    references: int
    unexplained: int


class WalkCost(NamedTuple):
    """A folio, how many VMAs a walk looks at, and how many of these map it."""

    folio: str
    anon_vma: str
    visited: int
    mapped: int


@dataclass(frozen=True)
class Overview:
    """The figures of one snapshot; lists are the worst first, ``counts`` says of how many."""

    counts: dict[str, int]
    processes: list[ProcessCost]
    trees: list[TreeCost]
    deepest: list[TreeCost]
    widest: list[TreeCost]
    empty: list[Empty]
    walks: list[WalkCost]


@dataclass(frozen=True)
class Inspection:
    """A snapshot of a real kernel.

    ``incomplete`` says what is not in it, ``addresses`` where in the kernel
    its objects are, by their names; ``partial``: only some processes were asked
    for; ``sizes``: bytes of an anon_vma and of an AVC.
    """

    kernel: str
    series: str
    snapshot: Snapshot
    incomplete: tuple[str, ...] = ()
    addresses: Mapping[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None
    partial: bool = False
    sizes: tuple[int, int] = USUAL_SIZES

    @cached_property
    def roots(self) -> dict[str, set[str]]:
        """The roots of the trees that anon_vmas, VMAs and folios have to do with, by their names."""
        of = {av.id: av.root for av in self.snapshot.anon_vmas}
        found = {name: {root} for name, root in of.items()}
        for process in self.snapshot.processes:
            for vma in process.vmas:
                found[vma.id] = {of.get(name, name) for name in (vma.anon_vma, *vma.chain) if name}
        for folio in self.snapshot.folios:
            if folio.mapping:
                found[folio.id] = {of.get(folio.mapping, folio.mapping)}
        return found

    def placed(self, report: Report) -> str:
        """A violation with addresses in place of names, so that it is the same in another reading."""
        named = NAME.sub(
            lambda name: f"{self.addresses[name[0]]:#x}" if name[0] in self.addresses else "", report.detail
        )
        return f"{report.id} {named}"


def overview(snapshot: Snapshot, top: int = 10, sizes: tuple[int, int] = USUAL_SIZES) -> Overview:
    """Work out the figures, in time that grows with the snapshot's size.

    ``sizes``: bytes of an anon_vma, and of an AVC.
    """
    av_bytes, avc_bytes = sizes
    vmas = {vma.id: vma for process in snapshot.processes for vma in process.vmas}
    trees = _trees(snapshot, av_bytes, avc_bytes)
    processes = [
        ProcessCost(
            process.name,
            len(process.vmas),
            sum(vma.anon_vma is not None for vma in process.vmas),
            avcs := sum(len(vma.chain) for vma in process.vmas),
            max((len(vma.chain) for vma in process.vmas), default=0),
            avcs * avc_bytes,
        )
        for process in snapshot.processes
    ]
    empty = list(_empty(snapshot))
    walks = list(_walks(snapshot, vmas))
    return Overview(
        counts={
            "processes": len(processes),
            "vmas": len(vmas),
            "anon_vmas": len(snapshot.anon_vmas),
            "anon_vma_chains": sum(process.avcs for process in processes),
            "trees": len(trees),
            "folios": len(snapshot.folios),
            "without_vmas": len(empty),
            "bytes": snapshot.slab.bytes,
        },
        processes=sorted(processes, key=lambda one: (-one.avcs, one.process))[:top],
        trees=sorted(trees, key=lambda one: (-one.bytes, one.root))[:top],
        deepest=sorted(trees, key=lambda one: (-one.levels, one.root))[:top],
        widest=sorted(trees, key=lambda one: (-one.widest, one.root))[:top],
        empty=sorted(empty, key=lambda one: (-one.references, one.anon_vma))[:top],
        walks=sorted(walks, key=lambda one: (one.mapped - one.visited, one.folio))[:top],
    )


def _trees(snapshot: Snapshot, av_bytes: int, avc_bytes: int) -> list[TreeCost]:
    parents = {av.id: av.parent for av in snapshot.anon_vmas}
    levels: dict[str, int] = {}
    below: defaultdict[str, list[AnonVmaView]] = defaultdict(list)
    for av in snapshot.anon_vmas:
        below[av.root].append(av)
        path = [av.id]
        while path[-1] not in levels:
            parent = parents.get(path[-1])
            if parent is None or parent in path:  # a root, or a circle, which is none of our business here
                levels[path[-1]] = 1
                break
            path.append(parent)
        for child, parent in zip(path[-2::-1], path[:0:-1], strict=True):
            levels[child] = levels[parent] + 1
    return [
        TreeCost(
            root,
            len(avs),
            avcs := sum(len(av.tree) for av in avs),
            max(levels[av.id] for av in avs),
            max(len(av.tree) for av in avs),
            len(avs) * av_bytes + avcs * avc_bytes,
        )
        for root, avs in below.items()
    ]


def _empty(snapshot: Snapshot) -> Iterator[Empty]:
    """References that are not explained are KSM's, or of somebody who is at work with it."""
    owned = Counter(vma.anon_vma for process in snapshot.processes for vma in process.vmas if vma.anon_vma)
    holds = Counter(av.root for av in snapshot.anon_vmas if av.root != av.id)
    children = Counter(av.parent for av in snapshot.anon_vmas if av.parent != av.id)
    for av in snapshot.anon_vmas:
        if owned[av.id] == 0 and "?" not in av.tree:
            known = 1 + (holds[av.id] if av.root == av.id else 0)
            yield Empty(av.id, len(av.tree), children[av.id], av.refcount, max(0, av.refcount - known))


def _walks(snapshot: Snapshot, vmas: dict[str, VmaView]) -> Iterator[WalkCost]:
    """How many entries of a tree overlap a folio: all but those that end before it or begin behind it."""
    bounds: dict[str, tuple[list[int], list[int], int]] = {}
    trees = {av.id: av.tree for av in snapshot.anon_vmas}
    for folio in snapshot.folios:
        if folio.mapping is None or folio.mapping not in trees:
            continue
        if folio.mapping not in bounds:
            known = [vmas[name] for name in trees[folio.mapping] if name in vmas]
            bounds[folio.mapping] = (
                sorted(vma.anon_pgoff for vma in known),
                sorted(vma.anon_pgoff + ((vma.end - vma.start) >> _PAGE) for vma in known),
                len(trees[folio.mapping]) - len(known),
            )
        starts, ends, unknown = bounds[folio.mapping]
        last = folio.index + (1 << folio.order)
        visited = bisect_left(starts, last) - bisect_right(ends, folio.index) + unknown
        yield WalkCost(folio.id, folio.mapping, visited, len(folio.ptes))


# --- telling it ------------------------------------------------------------------------------------


def inspection_text(inspection: Inspection, top: int = 10) -> str:
    """For a terminal."""
    return "\n".join(_lines(inspection, overview(inspection.snapshot, top, inspection.sizes))) + "\n"


def _lines(inspection: Inspection, figures: Overview) -> Iterator[str]:
    counts = figures.counts
    yield f"Linux {inspection.kernel}, judged as {inspection.series}"
    yield ""
    yield (
        f"  {counts['processes']:,} processes, {counts['vmas']:,} VMAs, {counts['anon_vmas']:,} anon_vmas in "
        f"{counts['trees']:,} trees, {counts['anon_vma_chains']:,} AVCs; {counts['folios']:,} anonymous folios"
    )
    yield f"  {counts['bytes']:,} bytes in anon_vmas and AVCs"
    yield from _section(
        "Most AVCs", ["process", "VMAs", "faulted", "AVCs", "longest chain", "bytes"], figures.processes
    )
    heads = ["root", "anon_vmas", "AVCs", "levels", "widest", "bytes"]
    where = inspection.addresses
    yield from _section("Largest trees", heads, _placed(figures.trees, where))
    yield from _section("Deepest trees", heads, _placed([one for one in figures.deepest if one.levels > 1], where))
    yield from _section("Widest trees", heads, _placed([one for one in figures.widest if one.widest > 1], where))
    yield from _section(
        f"anon_vmas that are no VMA's own: {counts['without_vmas']:,}",
        ["anon_vma", "kept by links", "children", "references", "unexplained"],
        _placed(figures.empty, where),
    )
    wasteful = [one for one in figures.walks if one.visited > one.mapped]
    yield from _section("Worst walks", ["folio", "anon_vma", "VMAs visited", "that map it"], wasteful)
    yield from _told(inspection)


def _told(inspection: Inspection) -> Iterator[str]:
    if inspection.incomplete:
        yield ""
        yield f"Incomplete: {len(inspection.incomplete):,} remarks"
        yield from (f"  {remark}" for remark in inspection.incomplete[:10])
    verdict = inspection.verdict
    if verdict is None:
        return
    yield ""
    if verdict.violations:
        yield f"Violations: {len(verdict.violations):,}"
        yield from (f"  {report.id}: {report.detail}" for report in verdict.violations[:20])
    else:
        yield "No invariant is violated"
    yield from (f"  not judged: {one.id}, {one.reason}" for one in verdict.unjudged)


def _placed(rows: Iterable[tuple[Any, ...]], addresses: Mapping[str, int]) -> list[list[object]]:
    """The first column with the address of what it names."""
    return [[f"{row[0]} {addresses[row[0]]:#x}" if row[0] in addresses else row[0], *row[1:]] for row in rows]


def _section(title: str, heads: list[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    lines = [list(row) for row in rows]
    if lines:
        yield ""
        yield title
        yield from (f"  {line}" for line in table([heads, *lines]))


def inspection_document(inspection: Inspection, top: int = 10) -> dict[str, Any]:
    """For programs: the snapshot, and what is known of it."""
    verdict = inspection.verdict
    figures = overview(inspection.snapshot, top, inspection.sizes)
    lists = ("processes", "trees", "deepest", "widest", "empty", "walks")
    return {
        "series": inspection.series,
        "kernel": inspection.kernel,
        "partial": inspection.partial,
        "sizes": dict(zip(("anon_vma", "anon_vma_chain"), inspection.sizes, strict=True)),
        "incomplete": list(inspection.incomplete),
        "violations": None
        if verdict is None
        else [{"id": report.id, "where": report.detail} for report in verdict.violations],
        "unjudged": [] if verdict is None else [{"id": one.id, "reason": one.reason} for one in verdict.unjudged],
        "overview": {
            "counts": figures.counts,
            **{name: [one._asdict() for one in getattr(figures, name)] for name in lists},
        },
        **asdict(inspection.snapshot),
    }
