# SPDX-License-Identifier: GPL-2.0-only
"""Results of replays and experiments as tables of text.

All formats work on documents, fresh or read from a file: a *cell* is the
result of one workload on one series with one reclaim pattern.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rmaplab.report.text import join, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["FIGURES", "cells_of", "experiment_text", "groups", "rates", "replay_rows", "replay_text", "worst_walks"]

Document = dict[str, Any]


def mean(histogram: Mapping[str, int]) -> float:
    """Of a histogram {value: how often}; 0 if it is empty."""
    number = sum(histogram.values())
    return total(histogram) / number if number else 0.0


def total(histogram: Mapping[str, int]) -> int:
    """The sum of all its values."""
    return sum(int(value) * count for value, count in histogram.items())


def most(histogram: Mapping[str, int]) -> int:
    """Its largest value; 0 if it is empty."""
    return max(map(int, histogram), default=0)


def highest(result: Document, column: str) -> int:
    """The largest value in the timeline; 0 if that is empty."""
    return max((sample[column] for sample in result["timeline"]), default=0)


def crowding(result: Document) -> float:
    """The most anon_vmas there were for each VMA that has one, at the moments of the timeline."""
    return max((one["anon_vma"] / one["faulted"] for one in result["timeline"] if one["faulted"]), default=0.0)


def in_vain(result: Document) -> float:
    """The share of a walk's visits that did not find the page."""
    visits = total(result["walk_visits"])
    return 1 - result["walk_maps"] / visits if visits else 0.0


FIGURES: dict[str, Callable[[Document], int | str]] = {
    "events": lambda result: result["events"],
    "forks": lambda result: result["forks"],
    "VMAs attached by fork": lambda result: result["vma_forks"],
    "  of them by reuse": lambda result: result["reuses"],
    "allocations": lambda result: result["allocations"],
    "  thrown away": lambda result: result["wasted_allocations"],
    "  under an anon_vma lock": lambda result: result["lock"]["allocations_under_lock"],
    "anon_vmas at the peak": lambda result: result["peak"]["anon_vma"],
    "AVCs at the peak": lambda result: result["peak"]["anon_vma_chain"],
    "bytes at the peak": lambda result: result["peak"]["bytes"],
    "anon_vmas at the end": lambda result: result["final"]["anon_vma"],
    "AVCs at the end": lambda result: result["final"]["anon_vma_chain"],
    "anon_vma lock taken": lambda result: result["lock"]["acquisitions"],
    "tree operations under it": lambda result: result["lock"]["tree_operations_under_lock"],
    "  most in one hold": lambda result: result["lock"]["longest_hold"],
    "allocations of a fork, mean": lambda result: f"{mean(result['fork']['allocations']):.2f}",
    "locks taken by a fork, mean": lambda result: f"{mean(result['fork']['locks']):.2f}",
    "anon_vmas to a VMA, most": lambda result: f"{crowding(result):.2f}",
    "longest chain": lambda result: max(highest(result, "longest_chain"), most(result["chain_length"])),
    "deepest anon_vma": lambda result: highest(result, "depth"),
    "largest tree": lambda result: highest(result, "tree"),
    "visits of a walk, mean": lambda result: f"{mean(result['walk_visits']):.2f}",
    "  most": lambda result: most(result["walk_visits"]),
    "  in vain": lambda result: f"{in_vain(result):.1%}",
}
"""What a table of replays says of each, by label."""


def cells_of(document: Document) -> list[Document]:
    """The cells of a document of the kind replay, compare or experiment that have a result."""
    if document["kind"] == "experiment":
        return [cell for cell in document["cells"] if cell["result"] is not None]
    workload = ", ".join(document["traces"])
    return [
        {"series": series, "workload": workload, "reclaim": result["reclaim"], "result": result}
        for series, result in document["results"].items()
    ]


def groups(cells: Sequence[Document]) -> Iterator[tuple[str, dict[str, Document]]]:
    """A title for each workload and reclaim pattern, with its results by series."""
    found: dict[tuple[str, str], dict[str, Document]] = {}
    for cell in cells:
        found.setdefault((cell["workload"], cell["reclaim"]), {})[cell["series"]] = cell["result"]
    for (workload, reclaim), results in found.items():
        yield f"{workload}, pages walked: {reclaim}", results


def replay_rows(results: Mapping[str, Document]) -> list[list[object]]:
    """Rows of a comparison: a figure each, a column a series."""
    rows: list[list[object]] = [["", *results]]
    return rows + [[label, *map(figure, results.values())] for label, figure in FIGURES.items()]


def rates(results: Mapping[str, Document]) -> str:
    """How fast each was replayed."""
    told = (
        f"{name} {result['events'] / result['seconds']:,.0f}{' on the fast engine' * (result['engine'] == 'fast')}"
        for name, result in results.items()
        if result["seconds"]
    )
    return f"replayed at (events/s): {', '.join(told)}"


def worst_walks(results: Mapping[str, Document]) -> Iterator[str]:
    """Which page took the longest walk, a line a series."""
    for name, result in results.items():
        if worst := result["worst_walk"]:
            yield (
                f"worst walk on {name}: {worst['visits']:,} VMAs, of which {worst['maps']:,} map the page: "
                f"process {worst['process']}, {worst['address']:#x}, after {worst['event']:,} events"
            )


def left_out(result: Document) -> Iterator[str]:
    """What the replay did not do, or did in another way than the real kernel."""
    for label, key in (
        ("not modelled yet, left out", "unmodelled"),
        ("approximated", "approximated"),
        ("refused by the model, done by the real kernel", "refused"),
    ):
        if result[key]:
            yield f"{label}: " + ", ".join(f"{count} x {name}" for name, count in sorted(result[key].items()))


def replay_text(document: Document) -> str:
    """The comparison as a table, and what the model left out."""
    results = document["results"]
    lines = [*table(replay_rows(results)), "", *worst_walks(results), rates(results)]
    lines += left_out(next(iter(results.values())))
    if any(result["interrupted"] for result in results.values()):
        lines.append("interrupted: figures up to that point")
    return join(lines)


def experiment_text(document: Document) -> str:
    """A table for each workload, then what failed."""
    lines: list[str] = []
    for title, results in groups([cell for cell in document["cells"] if cell["result"] is not None]):
        lines += [
            title,
            *table(replay_rows(results)),
            *worst_walks(results),
            *left_out(next(iter(results.values()))),
            "",
        ]
    failed = [cell for cell in document["cells"] if cell["error"]]
    lines += [f"{cell['workload']} on {cell['series']}, {cell['reclaim']}: {cell['error']}" for cell in failed]
    lines.append(f"{len(document['cells']) - len(failed)} of {len(document['cells'])} cells are there")
    return join(lines)
