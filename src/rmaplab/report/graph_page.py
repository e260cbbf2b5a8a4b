# SPDX-License-Identifier: GPL-2.0-only
"""One self-contained HTML page of a machine's reverse map: figures, violations, and its largest trees drawn."""

from __future__ import annotations

from collections import defaultdict
from html import escape
from typing import TYPE_CHECKING

from rmaplab.report.family import by_family
from rmaplab.report.inspection import overview

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rmaplab.report.inspection import Inspection
    from rmaplab.snapshot import AnonVmaView, ProcessView, VmaView

__all__ = ["graph_page"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #c0392b; --own: #2471a3; --avc: #7f8c8d; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; } .bad { color: var(--bad); font-weight: 600; }
svg { background: var(--soft); } svg text { font: 12px ui-monospace, monospace; fill: currentColor; }
svg .soft { opacity: .65; } svg line { stroke: var(--line); } svg path { stroke: var(--line); fill: none; }
svg .own { fill: var(--own); } svg .avc { fill: none; stroke: var(--avc); stroke-width: 1.5; }
"""
_ROW, _COLUMN, _HEAD = 22, 26, 150
_MOST_ROWS, _MOST_COLUMNS = 60, 80
_INDENT = 14


def graph_page(inspection: Inspection, top: int = 10) -> str:
    """The page; it needs nothing from elsewhere."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>anon_vmas of Linux {escape(inspection.kernel)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>The anonymous reverse map of Linux {escape(inspection.kernel)}</h1>",
            *_figures(inspection, top),
            *_verdict(inspection),
            *_trees(inspection, top),
            "</body></html>",
            "",
        ]
    )


def _figures(inspection: Inspection, top: int) -> Iterator[str]:
    figures = overview(inspection.snapshot, top, inspection.sizes)
    counts = figures.counts
    yield (
        f"<p>{counts['processes']:,} processes, {counts['vmas']:,} VMAs, {counts['anon_vmas']:,} anon_vmas in "
        f"{counts['trees']:,} trees, {counts['anon_vma_chains']:,} AVCs, {counts['bytes']:,} bytes; "
        f"{counts['folios']:,} anonymous folios. {counts['without_vmas']:,} anon_vmas are no VMA's own.</p>"
    )
    yield "<h2>Processes with most AVCs</h2>"
    yield from _table(("process", "VMAs", "faulted", "AVCs", "longest chain", "bytes"), figures.processes)
    yield "<h2>Largest trees</h2>"
    yield from _table(("root", "anon_vmas", "AVCs", "levels", "widest", "bytes"), figures.trees)
    wasteful = [one for one in figures.walks if one.visited > one.mapped]
    if wasteful:
        yield "<h2>Worst walks</h2>"
        yield from _table(("folio", "anon_vma", "VMAs visited", "that map it"), wasteful)


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    yield '<div class="wide"><table>'
    yield f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"
    for row in rows:
        cells = (f"{value:,}" if isinstance(value, int) else str(value) for value in row)
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    yield "</table></div>"


def _verdict(inspection: Inspection) -> Iterator[str]:
    if inspection.incomplete:
        yield f"<h2>Incomplete</h2><p>{len(inspection.incomplete):,} remarks</p><ul>"
        yield from (f"<li>{escape(remark)}</li>" for remark in inspection.incomplete[:20])
        yield "</ul>"
    verdict = inspection.verdict
    if verdict is None:
        return
    yield f"<h2>Invariants, as {escape(inspection.series)} has them</h2>"
    if verdict.violations:
        yield f'<p class="bad">{len(verdict.violations):,} violations</p><ul>'
        yield from (f"<li>{escape(report.id)}: {escape(report.detail)}</li>" for report in verdict.violations[:100])
        yield "</ul>"
    else:
        yield "<p>None is violated.</p>"
    if verdict.unjudged:
        yield "<p>Not judged:</p><ul>"
        yield from (f"<li>{escape(one.id)}: {escape(one.reason)}</li>" for one in verdict.unjudged)
        yield "</ul>"


# --- drawings ----------------------------------------------------------------------------------------


def _trees(inspection: Inspection, top: int) -> Iterator[str]:
    by_root: defaultdict[str, list[AnonVmaView]] = defaultdict(list)
    for av in inspection.snapshot.anon_vmas:
        by_root[av.root].append(av)
    vmas = {vma.id: (process, vma) for process in inspection.snapshot.processes for vma in process.vmas}
    roots = sorted(by_root, key=lambda root: (-sum(len(av.tree) for av in by_root[root]), root))
    yield "<h2>The largest trees</h2>"
    left_out = f" Of {len(roots):,} trees {top:,} are drawn." if len(roots) > top else ""
    yield (
        "<p>Down: anon_vmas, children below their parents. Across: the VMAs of each interval tree, by process and "
        "address. A disc is the VMA's own anon_vma, a ring an AVC to a relative's. Hover for addresses."
        f"{left_out}</p>"
    )
    for root in roots[:top]:
        yield from _tree(by_family(by_root[root]), vmas, inspection.addresses)


def _tree(
    rows: list[tuple[AnonVmaView, int]],
    vmas: Mapping[str, tuple[ProcessView, VmaView]],
    addresses: Mapping[str, int],
) -> Iterator[str]:
    in_tree = dict.fromkeys(name for av, _ in rows for name in av.tree if name in vmas)
    columns = sorted(in_tree, key=lambda name: (vmas[name][0].name, vmas[name][1].start))
    shown, drawn = columns[:_MOST_COLUMNS], rows[:_MOST_ROWS]
    label = 90 + _INDENT * max((level for _, level in drawn), default=0)
    width, height = label + _COLUMN * len(shown) + 150, _HEAD + _ROW * len(drawn) + 10
    yield f'<div class="wide"><svg role="img" width="{width}" height="{height}">'
    for number, name in enumerate(shown):
        process, vma = vmas[name]
        x = label + _COLUMN * number + _COLUMN // 2
        title = f"{process.name} {vma.start:#x}-{vma.end:#x} {vma.flags}, {vma.end - vma.start >> 12} pages"
        text = f"{process.name} {vma.start >> 12:x}"[:22]
        place = f"translate({x + 4},{_HEAD - 8}) rotate(-60)"
        yield f'<g><title>{escape(title)}</title><text transform="{place}">{escape(text)}</text></g>'
        yield f'<line x1="{x}" y1="{_HEAD - 4}" x2="{x}" y2="{height - 8}"/>'
    for number, (av, level) in enumerate(drawn):
        y = _HEAD + _ROW * number + _ROW // 2
        where = f" at {addresses[av.id]:#x}" if av.id in addresses else ""
        title = f"{av.id}{where}: refcount {av.refcount}, children {av.num_children}, own VMAs {av.num_active_vmas}"
        yield f'<g><title>{escape(title)}</title><text x="{8 + _INDENT * level}" y="{y + 4}">{escape(av.id)}</text>'
        linked = set(av.tree)
        for at, name in enumerate(shown):
            if name in linked:
                kind = "own" if vmas[name][1].anon_vma == av.id else "avc"
                yield f'<circle class="{kind}" cx="{label + _COLUMN * at + _COLUMN // 2}" cy="{y}" r="6"/>'
        told = f"{av.refcount} refs, {len(av.tree)} VMAs"
        yield f'<text class="soft" x="{width - 140}" y="{y + 4}">{told}</text></g>'
    yield "</svg></div>"
    left = [f"{len(rows) - len(drawn):,} anon_vmas"] * (len(rows) > len(drawn))
    left += [f"{len(columns) - len(shown):,} VMAs"] * (len(columns) > len(shown))
    if left:
        yield f"<p>Left out: {' and '.join(left)}.</p>"
