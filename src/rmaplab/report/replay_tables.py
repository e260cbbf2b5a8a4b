# SPDX-License-Identifier: GPL-2.0-only
"""Results of replays for other tools: Parquet for one's own analysis, counter tracks for Perfetto."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from rmaplab.errors import InputError
from rmaplab.report.replays import FIGURES, crowding, mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["replay_parquet", "replay_perfetto"]

Document = dict[str, Any]
TRACKS = ("anon_vma", "anon_vma_chain", "bytes", "vmas", "processes", "longest_chain", "depth", "tree")


def replay_parquet(cells: Sequence[Document]) -> bytes:
    """A row for each histogram bar, moment and figure of each cell: long form, for group-by and pivot.

    Columns: series, workload, reclaim; ``what`` (the figure's name), ``at``
    (events for a moment, the value for a histogram's bar, else null) and
    ``value``.  Raises :class:`InputError` where pyarrow is missing.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"Parquet needs pyarrow: pip install 'rmaplab[data]' ({error})") from error

    rows = [
        (cell["series"], cell["workload"], cell["reclaim"], what, at, float(value))
        for cell in cells
        for what, at, value in _figures(cell["result"])
    ]
    names = ("series", "workload", "reclaim", "what", "at", "value")
    kinds = (*(pyarrow.string(),) * 4, pyarrow.int64(), pyarrow.float64())
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_arrays(arrays, names=list(names)), file)
    return file.getvalue()


def _figures(result: Document) -> Iterator[tuple[str, int | None, float]]:
    for label, figure in FIGURES.items():
        value = figure(result)
        if isinstance(value, int):
            yield label.strip(), None, value
    yield "anon_vmas to a VMA, most", None, crowding(result)
    for name in ("allocations", "locks", "tree_operations"):
        yield f"fork {name}, mean", None, mean(result["fork"][name])
        yield from ((f"forks by {name}", int(at), count) for at, count in result["fork"][name].items())
    for name in ("chain_length", "walk_visits"):
        yield f"{name}, mean", None, mean(result[name])
        yield from ((name, int(at), count) for at, count in result[name].items())
    for sample in result["timeline"]:
        yield from ((f"over time: {track}", sample["events"], sample[track]) for track in TRACKS)


def replay_perfetto(cells: Sequence[Document]) -> str:
    """Counter tracks in the JSON trace format: a process for each cell; an event of the trace lasts a microsecond."""
    events: list[Document] = []
    for pid, cell in enumerate(cells, 1):
        name = f"{cell['workload']} on {cell['series']}, {cell['reclaim']}"
        events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}})
        for sample in cell["result"]["timeline"]:
            for track in TRACKS:
                value = {track: sample[track]}
                events.append({"ph": "C", "name": track, "pid": pid, "ts": sample["events"], "args": value})
        worst = cell["result"]["worst_walk"]
        if worst:
            mark = {
                "ph": "i",
                "s": "p",
                "name": "worst walk",
                "pid": pid,
                "tid": 0,
                "ts": worst["event"],
                "args": worst,
            }
            events.append(mark)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}) + "\n"
