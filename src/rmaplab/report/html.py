# SPDX-License-Identifier: GPL-2.0-only
"""The seed's experiment as one self-contained HTML page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from rmaplab.report.demo import MAIL, failure_rows
from rmaplab.report.documents import replay_results
from rmaplab.report.drawing import LEGEND
from rmaplab.report.replays import replay_rows
from rmaplab.report.text import by_scenario, finding_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rmaplab.report.demo import Demo

__all__ = ["STYLE", "demo_page", "html_table"]

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2a7f3f; --bad: #c0392b; --soso: #b9770e; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; white-space: pre; }
td.some { color: var(--bad); font-weight: 600; }
pre { background: var(--soft); padding: .8rem 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.35; }
.wide { overflow-x: auto; }
.verdict { border-left: .3rem solid var(--good); padding: .2rem 0 .2rem 1rem; margin: 1rem 0; }
.verdict.partly { border-color: var(--soso); } .verdict.fails { border-color: var(--bad); }
.verdict b { display: block; } .verdict span { opacity: .8; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; }
"""


def demo_page(demo: Demo) -> str:
    """The page; it needs nothing from elsewhere."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>rmaplab demo</title><style>{STYLE}</style></head><body>",
            "<h1>What a failed fork leaves behind, before and after one patch</h1>",
            f"<p>{escape(MAIL)}</p>",
            *_verdicts(demo),
            *_failing(demo),
            *_traces(demo),
            *_drawings(demo),
            "</body></html>",
            "",
        ]
    )


def html_table(rows: Sequence[Sequence[object]], alarms: int | None = None) -> Iterator[str]:
    """A table; non-zero figures from column ``alarms`` on stand out."""
    yield '<div class="wide"><table>'
    for number, row in enumerate(rows):
        tag = "th" if number == 0 else "td"
        cells = []
        for at, value in enumerate(row):
            text = f"{value:,}" if isinstance(value, int) else str(value)
            some = number > 0 and alarms is not None and at >= alarms and value != 0
            cells.append(f"<{tag}{' class=some' if some else ''}>{escape(text)}</{tag}>")
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</table></div>"


def _verdicts(demo: Demo) -> Iterator[str]:
    yield "<h2>Verdicts</h2>"
    if demo.interrupted:
        yield "<p><b>Interrupted: what is here was finished.</b></p>"
    for verdict in demo.verdicts:
        kind = {"holds": "verdict", "in part": "verdict partly"}.get(verdict.result, "verdict fails")
        claim = verdict.claim[0].upper() + verdict.claim[1:]
        yield f'<div class="{kind}"><b>{escape(claim)}: {verdict.result}</b><span>{escape(verdict.why)}</span></div>'
    yield from (f"<p>{escape(text)}</p>" for text in demo.notes)


def _failing(demo: Demo) -> Iterator[str]:
    if not demo.failing:
        return
    bounds = demo.failing[0].bounds
    yield "<h2>Every fork, every allocation failing once</h2>"
    yield (
        f"<p>After every history of up to {bounds.calls - 1} calls of at most {bounds.processes} processes on "
        f"{bounds.areas} area of {bounds.pages} page. <i>Half-built</i>: forks that handed a half-built VMA to "
        "unlink_anon_vmas(); <i>assertions</i>: forks in which one of the kernel's fired; <i>leaked</i> AVCs were "
        "left behind, <i>dangling</i> ones point to a freed VMA; <i>changed</i>: failed forks that "
        "left links or counters changed.</p>"
    )
    yield from html_table(failure_rows(demo.failing), alarms=3)
    for result in demo.failing:
        if result.findings:
            first = by_scenario(result.findings.values())[0]
            yield f"<h3>{escape(result.series)}: first failing scenario</h3>"
            yield f"<pre>{escape(chr(10).join(finding_lines(*first)))}</pre>"


def _traces(demo: Demo) -> Iterator[str]:
    if demo.traces:
        yield "<h2>The price, on real programs</h2>"
    for trace in demo.traces:
        yield f"<h3><code>{escape(trace.name)}</code>, {escape(trace.origin)}</h3>"
        yield from html_table(replay_rows(replay_results(trace.results)))


def _drawings(demo: Demo) -> Iterator[str]:
    if demo.drawings:
        yield "<h2>One fork, before and after</h2>"
    for drawing in demo.drawings:
        lines = escape("\n".join(drawing.lines))
        yield f"<figure><figcaption>{escape(drawing.title)}</figcaption><pre>{lines}</pre></figure>"
    if demo.drawings:
        yield f"<p>{escape(LEGEND)}</p>"
