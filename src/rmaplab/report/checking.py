# SPDX-License-Identifier: GPL-2.0-only
"""What check, fuzz, shrink and compare have found, as text for a terminal; made from their documents."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rmaplab.check.monitor import REACHED
from rmaplab.report.text import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["check_text", "compare_text", "counterexample_text", "fuzz_text", "shrink_text", "violation_lines"]

Document = dict[str, Any]


def check_text(document: Document) -> str:
    """The verdict, what was covered, and the shortest scenario of each violation."""
    verdict = document["verdict"] + (f": {document['reason']}" if document["reason"] else "")
    rate = document["transitions"] / document["seconds"] if document["seconds"] else 0
    engine = " on the fast engine" if document["engine"] == "fast" else ""
    lines = [
        f"{document['series']}: {verdict}",
        f"{document['states']:,} states ({document['bytes_per_state']} bytes each), {document['transitions']:,} "
        f"transitions, {document['failure_points']:,} failed allocations in {document['seconds']:.1f} s "
        f"({rate:,.0f} transitions/s{engine})",
    ]
    stages = document["stages"] or [{**document, "name": ""}]
    if len(stages) == 1:
        lines.append(f"bounds: {_bounds(stages[0])}")
    else:
        lines += ["", *_stage_table(stages)]
    for violations in _by_scenario(document["violations"]):
        lines += ["", *violation_lines(violations)]
    missed = [name for name in REACHED if name not in document["reached"]]
    if document["verdict"] == "holds" and missed:
        lines += ["", "never reached within these bounds:", *(f"  {name}" for name in missed)]
    return _joined(lines)


def _bounds(stage: Document) -> str:
    bounds = stage["bounds"]
    return (
        f"{bounds['processes']} processes, {bounds['areas']} areas of {bounds['pages']} pages, "
        f"{bounds['calls']} calls ({stage['depth']} reached), {bounds['fail_alloc']} failed allocations a history, "
        f"made of {', '.join(bounds['operations'])}"
    )


def _stage_table(stages: Sequence[Document]) -> list[str]:
    rows: list[list[object]] = [
        ["exhausted", "processes", "areas", "pages", "calls", "failing", "states", "transitions", "made of"]
    ]
    for stage in stages:
        bounds = stage["bounds"]
        numbers = [bounds[name] for name in ("processes", "areas", "pages", "calls", "fail_alloc")]
        name = stage["name"] if stage["verdict"] == "holds" else f"{stage['name']} (no)"
        rows.append([name, *numbers, stage["states"], stage["transitions"], ", ".join(bounds["operations"])])
    return table(rows)


def _by_scenario(violations: Iterable[Document]) -> list[list[Document]]:
    """Violations that one scenario shows, in the order of the first of each."""
    order = list(dict.fromkeys(violation["scenario"] for violation in violations))
    ranked = sorted(violations, key=lambda violation: order.index(violation["scenario"]))
    return [list(group) for _, group in groupby(ranked, key=lambda violation: violation["scenario"])]


def violation_lines(violations: Sequence[Document]) -> Iterator[str]:
    """Invariants, circumstances, the scenario, what its last call changed, and what broke before."""
    for violation in violations:
        times = f" ({violation['transitions']:,} transitions)" if violation.get("transitions", 1) > 1 else ""
        yield f"{violation['id']}: {violation['statement']}{times}"
        yield f"    {violation['detail']}"
    first = violations[0]
    yield from (f"  | {line}" for line in first["scenario"].splitlines())
    if first["changed"]:
        yield "  the last call changed:"
        yield from (f"    {line}" for line in first["changed"])
    named = {violation["id"] for violation in violations}
    for broken in first["broken"]:
        others = [ident for ident in broken["ids"] if ident not in named]
        if others:
            yield f"  after call {broken['call']} ({broken['text']}) broken, too: {', '.join(others)}"
    if first["broken"]:
        yield f"  every invariant held up to call {first['broken'][0]['call'] - 1} of {first['length']}"


def fuzz_text(document: Document) -> str:
    """What was tried, and what came of it."""
    many = len(document["violations"])
    found = f"{many} violation{'s' * (many > 1)}" if many else "no violation found"
    rate = document["operations"] / document["seconds"] if document["seconds"] else 0
    failures = ", ".join(f"{count:,} {kind}" for kind, count in document["failures"].items())
    engine = " on the fast engine" if document["engine"] == "fast" else ""
    histories = "history" if document["histories"] == 1 else "histories"
    lines = [
        f"{document['series']}: {found}{', interrupted' * document['interrupted']}",
        f"{document['histories']:,} {histories} of seed {document['seed']}, {document['operations']:,} calls in "
        f"{document['seconds']:.1f} s ({rate:,.0f} calls/s{engine})",
        f"failed allocations: {failures or 'none'}",
    ]
    if not engine:
        lines.append(
            f"seen: {document['shapes']:,} shapes of the graph, {document['branches']:,} branches of the model; "
            f"{document['corpus']:,} histories kept to go on from"
        )
    for violation in document["violations"]:
        lines += ["", f"history {violation['history']}:", *violation_lines([violation])]
        others = [ident for ident in violation["ids"] if ident != violation["id"]]
        if others:
            lines.append(f"  as it was found it broke {', '.join(others)}, too")
    return _joined(lines)


def shrink_text(document: Document) -> str:
    """The smaller scenario."""
    (violation,) = document["violations"]
    head = (
        f"{document['series']}: {violation['length']} calls, down from {document['length_before']}, after "
        f"{document['tries']:,} tries{', interrupted' * document['interrupted']}"
    )
    return _joined([head, *violation_lines([violation])])


def compare_text(document: Document) -> str:
    """In what the two differ, each with the shortest history that shows it."""
    one, other = document["series"]
    verdict = {"differ": "differ", "same": "do the same", "no-verdict": "no verdict"}[document["verdict"]]
    lines = [
        f"{one} and {other}: {verdict}{': ' + document['reason'] if document['reason'] else ''}",
        f"{document['states']:,} pairs of states, {document['transitions']:,} transitions in "
        f"{document['seconds']:.1f} s",
    ]
    for name, bounds in document["bounds"].items():
        lines.append(
            f"  {name}: {bounds['processes']} processes, {bounds['areas']} areas of {bounds['pages']} pages, "
            f"{bounds['calls']} calls, {bounds['fail_alloc']} failed allocations, made of "
            f"{', '.join(bounds['operations'])}"
        )
    for difference in document["differences"]:
        lines += ["", f"{difference['in']}: {difference['meaning']}", f"    {difference['detail']}"]
        lines += [f"  | {line}" for line in difference["scenario"].splitlines()]
    same = sorted(set(document["aspects"]) - {difference["in"] for difference in document["differences"]})
    if document["differences"] and same:
        lines += ["", f"no difference within these bounds in: {', '.join(same)}"]
    return _joined(lines)


def counterexample_text(document: Document) -> str:
    """A counterexample call by call, in 72 columns, for mail."""
    lines = [f"{document['id']} on {document['series']}", *_wrapped(document["statement"], "  ")]
    lines += [*_wrapped(document["detail"], "  "), ""]
    for number, step in enumerate(document["steps"], 1):
        if step["fail"]:
            lines.append(f"     {step['fail']}")
        lines.append(f"{number:>3}  {step['text']}{'  -> ' + step['errno'] if step['errno'] else ''}")
        for change in step["changed"]:
            lines += _wrapped(change, "       ")
        for broken in step["violated"]:
            lines += _wrapped(f"{broken['id']} does not hold: {broken['detail']}", "     ! ")
    return _joined(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 72, initial_indent=indent, subsequent_indent=" " * len(indent) + "  ")


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
