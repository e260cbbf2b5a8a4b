# SPDX-License-Identifier: GPL-2.0-only
"""Results of replays as a picture (PNG or SVG), by matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from rmaplab.errors import InputError
from rmaplab.report.replay_page import COLOURS, COLUMNS
from rmaplab.report.replays import groups

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["replay_plot"]

Document = dict[str, Any]
STYLES = ("-", "--", "-.", ":")


def replay_plot(name: str, cells: Sequence[Document], form: str) -> bytes:
    """A row for each workload, a column for each figure over time; ``form`` is png or svg.

    Raises :class:`InputError` where matplotlib is missing.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure  # without pyplot: no window, no state
    except ImportError as error:
        raise InputError(f"a picture needs matplotlib: pip install 'rmaplab[plot]' ({error})") from error

    rows = list(groups(cells))
    with rc_context({"svg.hashsalt": "rmaplab", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4 * len(COLUMNS), 0.6 + 2.6 * len(rows)), layout="constrained")
        figure.suptitle(name)
        axes = figure.subplots(len(rows), len(COLUMNS), squeeze=False)
        for (title, results), line in zip(rows, axes, strict=True):
            for (column, label), ax in zip(COLUMNS.items(), line, strict=True):
                for at, (series, result) in enumerate(results.items()):
                    ax.plot(
                        [sample["events"] for sample in result["timeline"]],
                        [sample[column] for sample in result["timeline"]],
                        STYLES[at % len(STYLES)],
                        color=COLOURS[at % len(COLOURS)],
                        label=series,
                        linewidth=1.2,
                    )
                ax.set_title(label, fontsize="small")
                ax.set_xlabel("events", fontsize="small")
                ax.set_ylim(bottom=0)
                ax.tick_params(labelsize="small")
            line[0].set_ylabel(title, fontsize="small")
            line[-1].legend(fontsize="x-small")
        file = io.BytesIO()
        figure.savefig(file, format=form, dpi=110, metadata={"Date": None} if form == "svg" else {"Software": None})
    return file.getvalue()
