# SPDX-License-Identifier: GPL-2.0-only
"""Results as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rmaplab.check.invariants import INVARIANTS
from rmaplab.report.drawing import LEGEND, draw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rmaplab.check.explore import Finding
    from rmaplab.check.run import RunResult
    from rmaplab.kernel.events import Event

__all__ = [
    "by_scenario",
    "finding_lines",
    "join",
    "list_text",
    "run_text",
    "table",
]


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table: the first row heads it, numbers stand to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
    right = [any(isinstance(row[at], int | float) for row in rows[1:]) for at in range(len(cells[0]))]
    lines = [
        "  ".join(
            f"{cell:>{width}}" if r else f"{cell:<{width}}" for cell, width, r in zip(row, widths, right, strict=True)
        )
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return [line.rstrip() for line in lines]


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def join(lines: Sequence[str]) -> str:
    """Lines as a text."""
    return "\n".join(lines) + "\n"


def run_text(result: RunResult, events: Mapping[int, Sequence[Event]]) -> str:
    """What happened call by call, the final graph, and the verdicts."""
    lines = [f"{result.scenario} on {result.series}", ""]
    untold = dict(events)  # the calls of a `par` share a line, and its events
    for statement in result.statements:
        outcome = f"  -> {statement.errno}" if statement.errno else ""
        lines.append(f"{statement.line:>4}  {statement.text}{outcome}")
        lines += [
            f"        {event.verb} {event.object} {event.detail}".rstrip() for event in untold.pop(statement.line, ())
        ]
        for process, address, maps in statement.walk or ():
            lines.append(f"        visits {process} at {address:#x}{'' if maps else ', which does not map it'}")
        if statement.walk == ():
            lines.append("        visits nothing")
    lines += ["", *draw(result.kernel.snapshot(canonical=False)), LEGEND]
    slab = result.kernel.slab
    lines.append(f"{slab.anon_vma.in_use} anon_vmas, {slab.anon_vma_chain.in_use} AVCs, {slab.bytes:,} bytes")
    if result.expects or result.violations:
        lines.append("")
    for expected in result.expects:
        verdict = "ok  " if expected.ok else "FAIL"
        found = "" if expected.ok else f" (found {expected.found})"
        lines.append(f"{verdict}  line {expected.line}: {expected.text}{found}")
    for violation in result.violations:
        lines.append(f"violated at line {violation.line}: {violation.id}: {INVARIANTS[violation.id].statement}")
        lines.append(f"    {violation.detail}")
    return join(lines)


def by_scenario(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings grouped by the scenario that shows them, shortest first."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.scenario, []).append(finding)
    return list(groups.values())


def finding_lines(*findings: Finding) -> list[str]:
    """Violations that one scenario shows: invariants, circumstances, the scenario."""
    lines = []
    for finding in findings:
        times = f" ({finding.count:,} transitions)" if finding.count > 1 else ""
        lines += [f"{finding.id}: {INVARIANTS[finding.id].statement}{times}", f"    {finding.detail}"]
    return [*lines, *(f"  | {line}" for line in findings[0].scenario.splitlines())]


def list_text(what: str, items: Sequence[Mapping[str, Any]]) -> str:
    """A catalogue, a line or a few per item."""
    if not items:
        return f"no {what} here; a package offers some by entry points of the group rmaplab.{what}\n"
    names = [str(item.get("name") or item["id"]) for item in items]
    width = max(10, *map(len, names))
    lines = []
    for name, item in zip(names, items, strict=True):
        fields = {key: value for key, value in item.items() if key not in ("name", "id")}
        summary = fields.pop("summary", None) or fields.pop("statement", "")
        lines.append(f"{name:<{width}} {summary}")
        for key, value in fields.items():
            if value:
                shown = ", ".join(value) if isinstance(value, list | tuple) else value
                lines.append(f"{'':<{width}}   {key.replace('_', ' ')}: {shown}")
    return join(lines)
