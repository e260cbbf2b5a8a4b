# SPDX-License-Identifier: GPL-2.0-only
"""Results as JSON documents; their schemas are in ``rmaplab/schema``."""

from __future__ import annotations

from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

from rmaplab.check.invariants import INVARIANTS

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from rmaplab.check.explore import Exploration
    from rmaplab.check.run import RunResult
    from rmaplab.workload.recorder import RecordSummary
    from rmaplab.workload.replay import ReplayResult

__all__ = [
    "check_document",
    "list_document",
    "record_document",
    "replay_document",
    "run_document",
    "stamp",
]

Document = dict[str, Any]


def stamp(kind: str, document: Document) -> Document:
    """Head a document with the version and its kind."""
    return {"rmaplab": metadata.version("rmaplab"), "kind": kind, **document}


def run_document(result: RunResult) -> Document:
    """Body of ``kind: run``."""
    return {
        "series": result.series,
        "scenario": result.scenario,
        "ok": result.ok,
        "statements": [
            {
                "line": statement.line,
                "text": statement.text,
                "errno": statement.errno,
                "walk": None
                if statement.walk is None
                else [
                    {"process": process, "address": address, "maps": maps}
                    for process, address, maps in statement.walk
                ],
            }
            for statement in result.statements
        ],
        "snapshots": {name: snapshot.as_dict() for name, snapshot in result.snapshots.items()},
        "final": result.kernel.snapshot(canonical=False).as_dict(),
        "expects": [asdict(expected) for expected in result.expects],
        "violations": [
            {
                "id": violation.id,
                "statement": INVARIANTS[violation.id].statement,
                "line": violation.line,
                "detail": violation.detail,
            }
            for violation in result.violations
        ],
        "reached": dict(sorted(result.kernel.reached.items())),
    }


def check_document(result: Exploration) -> Document:
    """Body of ``kind: check``."""
    return {
        "series": result.series,
        "verdict": result.verdict,
        "reason": result.reason or None,
        "interrupted": result.interrupted,
        "states": result.states,
        "transitions": result.transitions,
        "seconds": round(result.seconds, 3),
        "depth": result.depth,
        "bounds": asdict(result.bounds),
        "digest": f"{result.digest:016x}",
        "failure_points": result.failures["points"],
        "reached": sorted(name for name, count in result.reached.items() if count),
        "violations": [
            {
                "id": finding.id,
                "statement": INVARIANTS[finding.id].statement,
                "detail": finding.detail,
                "scenario": finding.scenario,
                "length": finding.length,
                "failed_allocation": finding.failed_allocation,
                "transitions": finding.count,
            }
            for finding in result.findings.values()
        ],
    }


def _histogram(counts: Counter[int]) -> dict[str, int]:
    return {str(value): counts[value] for value in sorted(counts)}


def replay_document(traces: Sequence[str], results: Sequence[ReplayResult]) -> Document:
    """Body of ``kind: replay``."""
    return {
        "traces": list(traces),
        "results": {
            result.series: {
                "events": result.events,
                "seconds": round(result.seconds, 3),
                "interrupted": result.interrupted,
                "forks": result.forks,
                "vma_forks": result.vma_forks,
                "reuses": result.reuses,
                "page_faults": result.page_faults,
                "peak": asdict(result.peak),
                "final": asdict(result.final),
                "allocations": result.allocations,
                "wasted_allocations": result.wasted_allocations,
                "lock": {
                    "acquisitions": result.lock_acquisitions.get("anon_vma", 0),
                    "acquisitions_by_class": result.lock_acquisitions,
                    "allocations_under_lock": result.allocations_under_lock,
                    "tree_operations_under_lock": result.tree_operations_under_lock,
                },
                "chain_length": _histogram(result.chain_length),
                "walk_visits": _histogram(result.walk_visits),
                "unmodelled": dict(sorted(result.unmodelled.items())),
                "approximated": dict(sorted(result.approximated.items())),
                "refused": dict(sorted(result.refused.items())),
            }
            for result in results
        },
    }


def record_document(trace: str, command: Sequence[str], summary: RecordSummary) -> Document:
    """Body of ``kind: record``."""
    return {"trace": trace, "command": list(command), **asdict(summary)}


def list_document(what: str, items: Sequence[Document]) -> Document:
    """Body of ``kind: list``."""
    return {"what": what, "items": list(items)}
