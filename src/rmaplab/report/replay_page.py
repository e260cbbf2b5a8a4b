# SPDX-License-Identifier: GPL-2.0-only
"""Results of replays and experiments as one self-contained HTML page: pictures over time, and tables."""

from __future__ import annotations

from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from rmaplab.report.html import STYLE, html_table
from rmaplab.report.replays import groups, left_out, rates, replay_rows, worst_walks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["COLOURS", "replay_page"]

Document = dict[str, Any]
Point = tuple[float, float]

# Okabe and Ito's palette, which the colour-blind can tell apart; dashes tell what is beyond it.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
COLUMNS = {
    "anon_vma": "anon_vmas",
    "anon_vma_chain": "AVCs",
    "bytes": "bytes in the slabs",
    "longest_chain": "longest chain of a VMA",
}
WIDTH, HEIGHT = 440, 170
LEFT, BOTTOM = 64, 22  # room for the axes, in px


def replay_page(name: str, cells: Sequence[Document]) -> str:
    """The page; it needs nothing from elsewhere."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(name)}</title><style>{STYLE}{_MORE}</style></head><body>",
            f"<h1>{escape(name)}</h1>",
            "<p>What each series and design took for the same workloads, replayed on rmaplab's model.</p>",
            *(line for title, results in groups(cells) for line in _group(title, results)),
            "</body></html>",
            "",
        ]
    )


_MORE = """
.charts { display: flex; flex-wrap: wrap; gap: 1rem; } .charts figure { margin: 0; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; } .legend span { margin-right: 1rem; }
.legend svg { vertical-align: middle; }
"""


def _group(title: str, results: Mapping[str, Document]) -> Iterator[str]:
    yield f"<h2>{escape(title)}</h2>"
    if any(result["timeline"] for result in results.values()):
        keys = "".join(
            f'<span><svg width="28" height="8" aria-hidden="true">{_line("M0 4H28", at)}</svg> {name}</span>'
            for at, name in enumerate(map(escape, results))
        )
        yield f'<p class="legend">{keys}</p><div class="charts">'
        for column, label in COLUMNS.items():
            lines = [[(one["events"], one[column]) for one in result["timeline"]] for result in results.values()]
            yield from _chart(label, "events", lines)
        walks = [_cumulated(result["walk_visits"]) for result in results.values()]
        if any(walks):
            yield from _chart("per cent of walks that meet at most so many VMAs", "VMAs", walks)
        yield "</div>"
    yield from html_table(replay_rows(results))
    for text in (*worst_walks(results), rates(results), *left_out(next(iter(results.values())))):
        yield f"<p>{escape(text)}</p>"


def _cumulated(histogram: Mapping[str, int]) -> list[Point]:
    """The share (per cent) of what is in a histogram up to each of its values."""
    values = sorted(map(int, histogram))
    shares = accumulate(histogram[str(value)] for value in values)
    return [(value, 100 * share / sum(histogram.values())) for value, share in zip(values, shares, strict=True)]


def _chart(label: str, unit: str, lines: Sequence[Sequence[Point]]) -> Iterator[str]:
    """A line a series; ``unit`` is that of the axis below."""
    last = max((x for line in lines for x, _ in line), default=1)
    high = max((y for line in lines for _, y in line), default=0) or 1
    yield f"<figure><figcaption>{escape(label)}</figcaption>"
    yield f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(label)} over {unit}">'
    for share in (0, 0.5, 1):
        y = _y(high * share, high)
        yield f'<path d="M{LEFT} {y}H{WIDTH}" stroke="currentColor" opacity=".15"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_short(high * share)}</text>'
    yield f'<text x="{LEFT}" y="{HEIGHT - 4}">0</text>'
    yield f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{_short(last)} {unit}</text>'
    for at, line in enumerate(lines):
        points = [f"{LEFT + x / last * (WIDTH - LEFT):.1f} {_y(y, high)}" for x, y in line]
        if points:
            yield _line("M" + "L".join(points), at)
    yield "</svg></figure>"


def _line(path: str, at: int) -> str:
    """A line of series number ``at``: a colour, and dashes that tell lines apart that lie on each other."""
    dashes = f"{9 - at % 4 * 2} {at % 4 * 2}" if at else "none"
    colour = COLOURS[at % len(COLOURS)]
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-dasharray="{dashes}"/>'


def _y(value: float, high: float) -> float:
    return round(8 + (1 - value / high) * (HEIGHT - BOTTOM - 8), 1)


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g} {unit}"
    return f"{value:.3g}" if value < 10 else f"{value:.0f}"
