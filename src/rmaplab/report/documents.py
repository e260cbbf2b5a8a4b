# SPDX-License-Identifier: GPL-2.0-only
"""Results as JSON documents; their schemas are in ``rmaplab/schema``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rmaplab.check.compare import ASPECTS
from rmaplab.check.invariants import INVARIANTS
from rmaplab.check.retrace import retrace
from rmaplab.scenario import parse
from rmaplab.series import find

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from rmaplab.check.compare import Comparison
    from rmaplab.check.explore import Exploration
    from rmaplab.check.fuzz import Fuzz, FuzzFinding
    from rmaplab.check.retrace import Moment
    from rmaplab.check.run import RunResult
    from rmaplab.check.shrink import Shrunk
    from rmaplab.workload.recorder import RecordSummary
    from rmaplab.workload.result import ReplayResult

__all__ = [
    "check_document",
    "compare_document",
    "counterexample_document",
    "experiment_document",
    "fuzz_document",
    "import_document",
    "list_document",
    "record_document",
    "replay_document",
    "replay_result",
    "replay_results",
    "run_document",
    "shrink_document",
    "stamp",
    "step_documents",
    "version",
]

Document = dict[str, Any]


def stamp(kind: str, document: Document) -> Document:
    """Head a document with the version and its kind."""
    return {"rmaplab": version(), "kind": kind, **document}


def version() -> str:
    """The version of rmaplab."""
    from importlib import metadata  # slow to load

    return metadata.version("rmaplab")


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


def _bounds(result: Exploration) -> Document:
    return {**asdict(result.bounds), "operations": list(result.bounds.operations)}


def _violation(series: str, ident: str, detail: str, scenario: str, length: int, failed: int | None) -> Document:
    """A violation, with what its last call changed, and after which calls which invariants were broken."""
    moments = retrace(find(series), parse(scenario))
    return {
        "id": ident,
        "statement": INVARIANTS[ident].statement,
        "detail": detail,
        "scenario": scenario,
        "length": length,
        "failed_allocation": failed,
        "changed": list(moments[-1].changed) if moments else [],
        "broken": [
            {"call": number, "text": moment.text, "ids": sorted(moment.violated)}
            for number, moment in enumerate(moments, 1)
            if moment.violated
        ],
    }


def check_document(result: Exploration) -> Document:
    """Body of ``kind: check``."""
    return {
        "series": result.series,
        "engine": result.engine,
        "verdict": result.verdict,
        "reason": result.reason or None,
        "interrupted": result.interrupted,
        "states": result.states,
        "transitions": result.transitions,
        "seconds": round(result.seconds, 3),
        "depth": result.depth,
        "bounds": _bounds(result),
        "stages": [
            {
                "name": part.stage,
                "verdict": part.verdict,
                "states": part.states,
                "transitions": part.transitions,
                "seconds": round(part.seconds, 3),
                "depth": part.depth,
                "bounds": _bounds(part),
            }
            for part in result.parts
        ],
        "digest": f"{result.digest:016x}",
        "bytes_per_state": result.state_bytes,
        "failure_points": result.failures["points"],
        "reached": sorted(name for name, count in result.reached.items() if count),
        "violations": [
            {
                **_violation(
                    result.series,
                    finding.id,
                    finding.detail,
                    finding.scenario,
                    finding.length,
                    finding.failed_allocation,
                ),
                "transitions": finding.count,
            }
            for finding in result.findings.values()
        ],
    }


def fuzz_document(result: Fuzz, shrunk: Sequence[Shrunk]) -> Document:
    """Body of ``kind: fuzz``; ``shrunk`` are the findings made small; those that became the same stand once."""
    smaller = {found.id: found for found in shrunk}
    violations: dict[tuple[str, str], Document] = {}
    for finding in result.findings:
        body = _found(result.series, finding, smaller.get(finding.ids[0]))
        known = violations.setdefault((body["id"], body["scenario"]), {**body, "ids": [], "history": finding.history})
        known["ids"] = sorted({*known["ids"], *finding.ids})
    return {
        "series": result.series,
        "seed": result.seed,
        "verdict": "violated" if result.findings else "none-found",
        "interrupted": result.interrupted,
        "engine": result.engine,
        "histories": result.histories,
        "operations": result.operations,
        "seconds": round(result.seconds, 3),
        "shapes": result.shapes,
        "branches": result.branches,
        "corpus": result.corpus,
        "failures": dict(sorted(result.failures.items())),
        "calls": dict(sorted(result.calls.items())),
        "reached": sorted(name for name, count in result.reached.items() if count),
        "violations": list(violations.values()),
    }


def _found(series: str, finding: FuzzFinding, smaller: Shrunk | None) -> Document:
    if smaller is None:
        return _violation(series, finding.ids[0], finding.detail, finding.scenario, finding.length, finding.failed)
    return _violation(series, smaller.id, smaller.detail, smaller.scenario, smaller.length, smaller.failed)


def shrink_document(result: Shrunk, series: str) -> Document:
    """Body of ``kind: shrink``."""
    return {
        "series": series,
        "interrupted": result.interrupted,
        "length_before": result.before,
        "tries": result.tries,
        "ids": list(result.ids),
        "violations": [_violation(series, result.id, result.detail, result.scenario, result.length, result.failed)],
    }


def compare_document(result: Comparison) -> Document:
    """Body of ``kind: compare`` on histories."""
    return {
        "series": [result.one, result.other],
        "verdict": "differ" if result.differences else "no-verdict" if result.unfinished else "same",
        "reason": result.unfinished or None,
        "interrupted": any(search.interrupted for search in result.searches.values()),
        "states": sum(search.states for search in result.searches.values()),
        "transitions": sum(search.transitions for search in result.searches.values()),
        "seconds": round(sum(search.seconds for search in result.searches.values()), 3),
        "bounds": {name: _bounds(search) for name, search in result.searches.items()},
        "aspects": list(ASPECTS),
        "differences": [
            {
                "in": aspect,
                "meaning": ASPECTS[aspect],
                "detail": finding.detail,
                "scenario": finding.scenario,
                "length": finding.length,
                "failed_allocation": finding.failed_allocation,
            }
            for aspect, finding in result.differences.items()
        ],
    }


def counterexample_document(series: str, violation: Document, moments: Sequence[Moment]) -> Document:
    """Body of ``kind: counterexample``: all there is to show of it, so that nothing need be run again."""
    return {
        "series": series,
        **{key: violation[key] for key in ("id", "statement", "detail", "scenario", "length", "failed_allocation")},
        "steps": step_documents(moments),
    }


def step_documents(moments: Sequence[Moment]) -> list[Document]:
    """The calls of a scenario: how each ended, what it changed and broke, and the state it left."""
    return [
        {
            "text": moment.text,
            "fail": moment.failed or None,
            "errno": moment.errno,
            "changed": list(moment.changed),
            "violated": [
                {"id": ident, "statement": INVARIANTS[ident].statement, "detail": detail}
                for ident, detail in moment.violated.items()
            ],
            "state": moment.state.as_dict(),
        }
        for moment in moments
    ]


def _histogram(counts: Counter[int]) -> dict[str, int]:
    return {str(value): counts[value] for value in sorted(counts)}


def replay_result(result: ReplayResult) -> Document:
    """What one series did with the traces."""
    return {
        "engine": result.engine,
        "events": result.events,
        "seconds": round(result.seconds, 3),
        "interrupted": result.interrupted,
        "forks": result.forks,
        "vma_forks": result.vma_forks,
        "reuses": result.reuses,
        "page_faults": result.page_faults,
        "peak": asdict(result.peak),
        "final": asdict(result.final),
        "marks": [asdict(mark) for mark in result.marks],
        "allocations": result.allocations,
        "wasted_allocations": result.wasted_allocations,
        "lock": {
            "acquisitions": result.lock_acquisitions.get("anon_vma", 0),
            "acquisitions_by_class": result.lock_acquisitions,
            "allocations_under_lock": result.allocations_under_lock,
            "tree_operations_under_lock": result.tree_operations_under_lock,
            "longest_hold": result.longest_hold,
        },
        "chain_length": _histogram(result.chain_length),
        "fork": {
            "allocations": _histogram(result.fork_allocations),
            "locks": _histogram(result.fork_locks),
            "tree_operations": _histogram(result.fork_tree_operations),
        },
        "reclaim": result.reclaim,
        "walk_visits": _histogram(result.walk_visits),
        "walk_maps": result.walk_maps,
        "worst_walk": result.worst_walk and result.worst_walk._asdict(),
        "timeline": [sample._asdict() for sample in result.timeline.samples],
        "unmodelled": dict(sorted(result.unmodelled.items())),
        "approximated": dict(sorted(result.approximated.items())),
        "refused": dict(sorted(result.refused.items())),
    }


def replay_document(traces: Sequence[str], results: Sequence[ReplayResult]) -> Document:
    """Body of ``kind: replay``."""
    return {"traces": list(traces), "results": replay_results(results)}


def replay_results(results: Sequence[ReplayResult]) -> dict[str, Document]:
    """Results by series."""
    return {result.series: replay_result(result) for result in results}


def experiment_document(name: str, cells: Sequence[Document], interrupted: bool) -> Document:
    """Body of ``kind: experiment``."""
    return {"experiment": name, "interrupted": interrupted, "cells": list(cells)}


def record_document(trace: str, command: Sequence[str], summary: RecordSummary) -> Document:
    """Body of ``kind: record``."""
    return {"trace": trace, "command": list(command), **asdict(summary)}


def import_document(trace: str, form: str, events: dict[str, int], tasks: int, assumed: dict[str, int]) -> Document:
    """Body of ``kind: import``."""
    return {"trace": trace, "from": form, "events": events, "tasks": tasks, "assumed": assumed}


def list_document(what: str, items: Sequence[Document]) -> Document:
    """Body of ``kind: list``."""
    return {"what": what, "items": list(items)}
