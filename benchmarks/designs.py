# SPDX-License-Identifier: GPL-2.0-only
"""Writes docs/measured.md from the results of benchmarks/designs.toml: ``make bench-designs``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.published import change, claims
from rmaplab.report.replays import cells_of, in_vain, mean, most
from rmaplab.workload.sources import provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.published import Results

PAGE = Path(__file__).parents[1] / "docs" / "measured.md"
DESIGNS = ("v2.6.32", "v2.6.34", "v6.18", "v7.0", "lazy", "lazy_repoint", "cow_context")
BASE = "v7.0"

_HEAD = """\
# Which reverse map, for which workload, at what price

Made by `make bench-designs` from the workloads that rmaplab ships and `benchmarks/designs.toml`; do not edit by
hand. Nothing here is a time: figures are counts on the model, the same on every machine. What the designs are and
what is open about them is in [designs](designs.md).

"""

_FIGURES = """
## Figures

At the peak over the whole workload unless said; in parentheses the change against v7.0. Bytes are those of the
slabs anon_vma (104 an object) and anon_vma_chain (64). A context of `cow_context` counts as an anon_vma, a remap
as an AVC; `lazy` keeps a state in each VMA that is not counted. Pages are walked going round all memory, 8 after
every 100 events of a trace.

"""


def main(results: Path) -> int:
    """Write the page."""
    document = json.loads(results.read_text(encoding="utf-8"))
    found: Results = {}
    for cell in cells_of(document):
        found.setdefault(cell["workload"], {})[cell["series"]] = cell["result"]
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"{PAGE.name}: {len(found)} workloads, {len(document['cells'])} cells")
    return 0


def page(found: Results) -> str:
    """The page, in Markdown."""
    lines = [_HEAD.rstrip("\n"), "", "## Published figures side by side", ""]
    lines += table(["published", "where", "here", "verdict"], [list(claim) for claim in claims(found)])
    lines += ["", "## What allocating ahead costs", "", *ahead(found)]
    lines += [_FIGURES.rstrip("\n"), ""]
    for title, figure in FIGURES.items():
        lines += [f"### {title}", ""]
        lines += table(["workload", *DESIGNS], [[name, *row(results, figure)] for name, results in found.items()])
        lines.append("")
    lines += ["## The workloads", "", *workloads(found)]
    return "\n".join(lines) + "\n"


FIGURES: dict[str, Callable[[dict[str, Any]], float]] = {
    "Anon_vmas": lambda result: result["peak"]["anon_vma"],
    "AVCs": lambda result: result["peak"]["anon_vma_chain"],
    "Bytes": lambda result: result["peak"]["bytes"],
    "Allocations in all": lambda result: result["allocations"],
    "Allocations of a fork, mean": lambda result: mean(result["fork"]["allocations"]),
    "Anon_vma locks taken by a fork, mean": lambda result: mean(result["fork"]["locks"]),
    "Anon_vma locks taken in all": lambda result: result["lock"]["acquisitions"],
    "Tree operations in the longest hold": lambda result: result["lock"]["longest_hold"],
    "VMAs that a walk meets, mean": lambda result: mean(result["walk_visits"]),
    "VMAs that a walk meets, most": lambda result: most(result["walk_visits"]),
    "VMAs met in vain, per cent": lambda result: 100 * in_vain(result),
    "Longest chain of a VMA": lambda result: max(
        most(result["chain_length"]), max((sample["longest_chain"] for sample in result["timeline"]), default=0)
    ),
}
COMPARED = ("Anon_vmas", "AVCs", "Bytes", "Allocations in all")


def row(results: dict[str, dict[str, Any]], figure: Callable[[dict[str, Any]], float]) -> Iterator[str]:
    """The figure on each design, with the change against v7.0 where that tells something."""
    base = figure(results[BASE])
    compared = figure in [FIGURES[name] for name in COMPARED]
    for series in DESIGNS:
        value = figure(results[series])
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
        differs = compared and base and value != base
        yield f"{text} ({change(base, value):+.0f} %)" if differs else text


def ahead(found: Results) -> list[str]:
    """What patch 2/9 of January 2026 allocates in vain, workload by workload."""
    rows = []
    for workload, results in found.items():
        before, after = results["v6.18+1"], results["v6.18+2"]
        rows.append(
            [
                workload,
                f"{before['vma_forks']:,}",
                f"{after['reuses']:,}",
                f"{before['allocations']:,}",
                f"{after['allocations']:,} ({change(before['allocations'], after['allocations']):+.1f} %)",
                f"{after['wasted_allocations']:,}",
            ]
        )
    return table(["workload", "VMAs forked", "of them reusing", "allocations before", "after", "in vain"], rows)


def workloads(found: Results) -> list[str]:
    """Where each comes from."""
    known, rows = provenance(), []
    for workload, results in found.items():
        told = known.get(workload)
        where = f"Linux {told['kernel'].split('-')[0]}, {told['system']}" if told else "synthetic"
        programs = ", ".join(f"{name} {number}" for name, number in told["programs"].items()) if told else ""
        summary = told["summary"] if told else "see `rmaplab list workloads`"
        sizes = [f"{results[BASE][figure]:,}" for figure in ("events", "forks")]
        rows.append([workload, summary, where, programs, *sizes])
    return table(["workload", "what", "recorded on", "programs", "events", "forks"], rows)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
