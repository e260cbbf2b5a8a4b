# SPDX-License-Identifier: GPL-2.0-only
"""The seed's experiment as text: tables, drawings, and a verdict on each claim."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rmaplab.report.documents import check_document, replay_document, replay_results
from rmaplab.report.drawing import LEGEND
from rmaplab.report.replays import replay_rows
from rmaplab.report.text import by_scenario, finding_lines, table

if TYPE_CHECKING:
    from rmaplab.check.explore import Exploration
    from rmaplab.workload.result import ReplayResult

__all__ = ["Demo", "Drawing", "Trace", "Verdict", "demo_document", "demo_text", "failure_rows"]

MAIL = "[PATCH v3 2/9] mm/rmap: eliminate partial anon_vma tear-down in anon_vma_fork(), 18 January 2026"


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace and its replays; ``origin`` says where it comes from."""

    name: str
    origin: str
    results: list[ReplayResult]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A titled drawing, at most 72 columns wide."""

    title: str
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim of the mail (in our words), whether it ``holds``, ``fails`` or holds ``in part``, and the figures."""

    claim: str
    result: str
    why: str


@dataclass(slots=True)
class Demo:
    """Everything the experiment found.

    ``failing``: explorations with every allocation of every fork failing
    once; ``succeeding``: the same histories without failures.
    """

    failing: list[Exploration] = field(default_factory=list)
    succeeding: list[Exploration] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


def failure_rows(explorations: list[Exploration]) -> list[list[object]]:
    """The table of part (a): a series a row."""
    head = ["series", "histories", "failures", "half-built", "assertions", "leaked", "dangling", "changed"]
    rows: list[list[object]] = [list(head)]
    for result in explorations:
        counts = {ident: finding.count for ident, finding in result.findings.items()}
        failures = result.failures
        rows.append(
            [
                result.series,
                result.states,
                failures["points"],
                failures["half-built"],
                counts.get("AV-039", 0),
                failures["leaked"],
                failures["dangling"],
                counts.get("AV-033", 0),
            ]
        )
    return rows


def demo_text(demo: Demo) -> str:
    """The whole experiment for a terminal."""
    lines = [MAIL, ""]
    if demo.failing:
        lines += [*_failing(demo), ""]
    for trace in demo.traces:
        lines += [f"b) {trace.name}: {trace.origin}", "", *table(replay_rows(replay_results(trace.results))), ""]
    if demo.drawings:
        lines += ["c) One fork, before and after", ""]
    for drawing in demo.drawings:
        lines += [drawing.title, "", *(f"  {line}" if line else "" for line in drawing.lines), ""]
    if demo.drawings:
        lines += [f"  {LEGEND}", ""]
    if demo.verdicts:
        lines += ["Verdicts", ""]
    for verdict in demo.verdicts:
        lines += [f"{verdict.result.upper():<8} {verdict.claim}", *_wrapped(verdict.why), ""]
    lines += [line for text in demo.notes for line in (*textwrap.wrap(text, 78), "")]
    if demo.interrupted:
        lines.append("interrupted: what is above was finished")
    return "\n".join(lines).rstrip() + "\n"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 78, initial_indent=" " * 9, subsequent_indent=" " * 9)


def _failing(demo: Demo) -> list[str]:
    bounds = demo.failing[0].bounds
    lines = [
        f"a) Every fork after every history of up to {bounds.calls - 1} calls ({bounds.processes} processes alive, "
        f"{bounds.areas} area of {bounds.pages} page),",
        "   with each of its allocations failing once",
        "",
        *table(failure_rows(demo.failing)),
        "",
        "histories   distinct states that the histories lead to",
        "failures    forks made with one allocation failing",
        "half-built  of these, forks that handed a half-built VMA to unlink_anon_vmas()",
        "assertions  of these, forks in which an assertion of the kernel fired",
        "leaked      AVCs left behind; dangling: those that point to a freed VMA",
        "changed     failed forks that left links or counters changed",
    ]
    for result in demo.failing:
        if result.findings:
            first = by_scenario(result.findings.values())[0]
            lines += ["", f"{result.series}, first failing scenario:", *finding_lines(*first)]
    return lines


def demo_document(demo: Demo) -> dict[str, Any]:
    """Body of ``kind: demo``."""
    head, *rows = failure_rows(demo.failing) if demo.failing else [[]]
    return {
        "mail": MAIL,
        "failing_forks": [dict(zip(map(str, head), row, strict=True)) for row in rows],
        "explorations": [check_document(result) for result in demo.failing],
        "success": [check_document(result) for result in demo.succeeding],
        "traces": [
            {"name": trace.name, "origin": trace.origin, **replay_document([trace.name], trace.results)}
            for trace in demo.traces
        ],
        "drawings": [{"title": drawing.title, "lines": drawing.lines} for drawing in demo.drawings],
        "notes": demo.notes,
        "verdicts": [
            {"claim": verdict.claim, "result": verdict.result, "why": verdict.why} for verdict in demo.verdicts
        ],
        "interrupted": demo.interrupted,
    }
