# SPDX-License-Identifier: GPL-2.0-only
"""Results of replays and experiments as one self-contained HTML page: pictures over time, and tables."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from rmaplab.report.html import STYLE, html_table
from rmaplab.report.replays import groups, left_out, rates, replay_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["COLOURS", "replay_page"]

Document = dict[str, Any]

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
            yield from _chart(column, label, results)
        yield "</div>"
    yield from html_table(replay_rows(results))
    for text in (rates(results), *left_out(next(iter(results.values())))):
        yield f"<p>{escape(text)}</p>"


def _chart(column: str, label: str, results: Mapping[str, Document]) -> Iterator[str]:
    """One column of the timelines, over the events."""
    last = max((sample["events"] for result in results.values() for sample in result["timeline"]), default=1)
    high = max((sample[column] for result in results.values() for sample in result["timeline"]), default=0) or 1
    yield f'<figure><svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(label)} over events">'
    for share in (0, 0.5, 1):
        y = _y(high * share, high)
        yield f'<path d="M{LEFT} {y}H{WIDTH}" stroke="currentColor" opacity=".15"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_short(high * share)}</text>'
    yield f'<text x="{LEFT}" y="{HEIGHT - 4}">0</text>'
    yield f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{_short(last)} events</text>'
    for at, result in enumerate(results.values()):
        points = [
            f"{LEFT + sample['events'] / last * (WIDTH - LEFT):.1f} {_y(sample[column], high)}"
            for sample in result["timeline"]
        ]
        if points:
            yield _line("M" + "L".join(points), at)
    yield f"</svg><figcaption>{escape(label)}</figcaption></figure>"


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
