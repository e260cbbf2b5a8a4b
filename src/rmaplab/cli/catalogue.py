# SPDX-License-Identifier: GPL-2.0-only
"""What there is to choose from."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from rmaplab.check.invariants import INVARIANTS
from rmaplab.errors import InputError
from rmaplab.series import SERIES, ZOO, changed_functions, designs, find
from rmaplab.workload.sources import provenance, shipped_traces
from rmaplab.workload.synthetic import GENERATORS, Synthetic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["CATALOGUES"]

Item = dict[str, Any]


def _series() -> list[Item]:
    return [
        {
            "name": series.name,
            "summary": series.summary,
            "description": " ".join((series.__doc__ or "").split()),
            "parent": series.parent,
            "commits": list(series.commits),
            "first_release": series.release,
            "differs_in": changed_functions(series),
        }
        for series in (*SERIES.values(), *ZOO.values())
    ]


def _invariants() -> list[Item]:
    return [
        {
            "id": invariant.id,
            "statement": invariant.statement,
            "source": invariant.source,
            "checked": "between calls" if invariant.check else "while a call runs",
            "not_for": [name for name, series in SERIES.items() if not invariant.holds_for(series)],
        }
        for _, invariant in sorted(INVARIANTS.items())
    ]


def _designs() -> list[Item]:
    """What installed packages offer; one that cannot be used says why in its summary."""
    items = []
    for point in designs():
        try:
            design = find(point.name)
            summary, parent = design.summary, design.parent
        except InputError as error:
            summary, parent = str(error), None
        items.append({"name": point.name, "summary": summary, "parent": parent, "from": point.value})
    return items


def data_files(folder: str, suffix: str) -> list[Path]:
    """Files that the package ships, by name."""
    root = resources.files("rmaplab") / "data" / folder
    with resources.as_file(root) as path:
        return sorted(path.glob(f"*{suffix}"))


def _zoo() -> list[Item]:
    items = []
    for path in data_files("zoo", ".rmap"):
        head = [line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        series = head[1].removeprefix("series:").strip()
        items.append({"name": path.stem, "summary": head[0], "series": series, "scenario": str(path)})
    return items


def _workloads() -> list[Item]:
    """Recorded ones first; ``trace`` is what replay takes."""
    known = provenance()
    items: list[Item] = []
    for name, path in shipped_traces().items():
        told = known[name]
        where = f"Linux {told['kernel']}, {told['arch']}, {told['system']}"
        items.append(
            {"name": name, "summary": told["summary"], "recorded_on": where, "trace": str(path), "sizes": None}
        )
    for kind in sorted(GENERATORS):
        sizes = Synthetic(kind).defaults
        items.append(
            {
                "name": kind,
                "summary": f"synthetic: {Synthetic(kind).summary}",
                "recorded_on": None,
                "trace": kind,
                "sizes": [f"{name}={value}" for name, value in sizes.items()],
            }
        )
    return items


CATALOGUES: dict[str, Callable[[], list[Item]]] = {
    "designs": _designs,
    "invariants": _invariants,
    "series": _series,
    "workloads": _workloads,
    "zoo": _zoo,
}
