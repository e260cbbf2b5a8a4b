# SPDX-License-Identifier: GPL-2.0-only
"""Results as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rmaplab.check.invariants import INVARIANTS
from rmaplab.report.drawing import LEGEND, draw
from rmaplab.workload.result import mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rmaplab.check.explore import Finding
    from rmaplab.check.run import RunResult
    from rmaplab.kernel.events import Event
    from rmaplab.workload.result import ReplayResult

__all__ = [
    "by_scenario",
    "finding_lines",
    "list_text",
    "replay_rows",
    "replay_text",
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


def _join(lines: Sequence[str]) -> str:
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
    return _join(lines)


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


def replay_rows(results: Sequence[ReplayResult]) -> list[list[object]]:
    """Rows of the comparison: a figure each, a column a series."""
    rows: list[list[object]] = [["", *(result.series for result in results)]]

    def row(label: str, *values: object) -> None:
        rows.append([label, *values])

    row("events", *(r.events for r in results))
    row("forks", *(r.forks for r in results))
    row("VMAs attached by fork", *(r.vma_forks for r in results))
    row("  of them by reuse", *(r.reuses for r in results))
    row("allocations", *(r.allocations for r in results))
    row("  thrown away", *(r.wasted_allocations for r in results))
    row("  under an anon_vma lock", *(r.allocations_under_lock for r in results))
    row("anon_vmas at the peak", *(r.peak.anon_vma for r in results))
    row("AVCs at the peak", *(r.peak.anon_vma_chain for r in results))
    row("bytes at the peak", *(r.peak.bytes for r in results))
    row("anon_vmas at the end", *(r.final.anon_vma for r in results))
    row("AVCs at the end", *(r.final.anon_vma_chain for r in results))
    row("anon_vma lock taken", *(r.lock_acquisitions.get("anon_vma", 0) for r in results))
    row("tree operations under it", *(r.tree_operations_under_lock for r in results))
    row("  most in one hold", *(r.longest_hold for r in results))
    row("allocations of a fork, mean", *(f"{mean(r.fork_allocations):.2f}" for r in results))
    row("lock taken by a fork, mean", *(f"{mean(r.fork_locks):.2f}" for r in results))
    row("longest chain", *(max(r.timeline.highest("longest_chain"), *r.chain_length, 0) for r in results))
    row("deepest anon_vma", *(r.timeline.highest("depth") for r in results))
    row("visits of a walk, mean", *(f"{mean(r.walk_visits):.2f}" for r in results))
    row("  most", *(max(r.walk_visits, default=0) for r in results))
    row("  in vain", *(f"{_in_vain(r):.1%}" for r in results))
    return rows


def _in_vain(result: ReplayResult) -> float:
    visits = sum(value * count for value, count in result.walk_visits.items())
    return 1 - result.walk_maps / visits if visits else 0.0


def replay_text(results: Sequence[ReplayResult]) -> str:
    """The comparison as a table, and what the model left out."""
    lines = table(replay_rows(results))
    speed = ", ".join(f"{r.series} {r.events / r.seconds:,.0f}" for r in results if r.seconds)
    lines += ["", f"replayed at (events/s): {speed}"]
    for label, counts in (
        ("not modelled yet, left out", results[0].unmodelled),
        ("approximated", results[0].approximated),
        ("refused by the model, done by the real kernel", results[0].refused),
    ):
        if counts:
            lines.append(f"{label}: " + ", ".join(f"{count} x {name}" for name, count in sorted(counts.items())))
    if any(result.interrupted for result in results):
        lines.append("interrupted: figures up to that point")
    return _join(lines)


def list_text(what: str, items: Sequence[Mapping[str, Any]]) -> str:
    """A catalogue, a line or a few per item."""
    if not items:
        return f"no {what} here; a package offers some by entry points of the group rmaplab.{what}\n"
    lines = []
    for item in items:
        fields = dict(item)
        name = str(fields.pop("name", None) or fields.pop("id"))
        summary = fields.pop("summary", None) or fields.pop("statement", "")
        lines.append(f"{name:<10} {summary}")
        for key, value in fields.items():
            if value:
                shown = ", ".join(value) if isinstance(value, list | tuple) else value
                lines.append(f"{'':<10}   {key.replace('_', ' ')}: {shown}")
    return _join(lines)
