# SPDX-License-Identifier: GPL-2.0-only
"""The page docs/series.md, written from the register of series and the zoo.

``make pages`` renews it; a test tells when that was forgotten.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING

from rmaplab.check.invariants import INVARIANTS
from rmaplab.kernel import Kernel
from rmaplab.series import SERIES, ZOO, changed_functions, designs, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Column = Callable[[type[Kernel]], str]

__all__ = ["series_page"]

_HEAD = """\
# The series

Made by `make pages` from the classes in `src/rmaplab/series/`; change those, not this page.

The plain text of the specification, `src/rmaplab/kernel/`, is v7.0. Every other series is a class that
overrides what it had otherwise: an older one derives from the next newer, and *differs in* names the
functions that are not its parent's; each thing that other calls did not do yet, or did otherwise, is a class
of its own there, with the release that changed it. The shape of the code (who calls whom) is v7.0's where it
decides alike, and so are the sizes of the objects.
"""

_LATER = """
## What invariants may count on

An attribute of a series or a design says which. Where it is not as it must be, an invariant is not checked; AV-013
counts no pins of roots without `has_root_lock`, AV-015 no AVCs without `has_chains` and no VMAs without
`counts_apart`, AV-032 allows a fork child to merge with an unfaulted range without `spares_fork_children`.

"""

_ZOO = """
## The zoo

Logic that was wrong once, on the nearest series that has it right. `rmaplab list zoo` names a scenario for
each; `rmaplab check --series zoo/Z23` searches for it anew.

"""


def series_page() -> str:
    """The page, in Markdown."""
    columns = _columns("what differs")
    page = [_HEAD, "", *_table(columns, SERIES.values())]
    page += [_LATER.rstrip("\n"), "", *_attributes()]
    page += [_ZOO.rstrip("\n"), "", *_table(_columns("what is wrong"), ZOO.values())]
    return "\n".join(page) + "\n"


def _columns(what: str) -> dict[str, Column]:
    return {
        "name": lambda series: f"`{series.name}`",
        "on": lambda series: f"`{series.parent}`" if series.parent else "",
        "released": lambda series: series.release,
        what: _description,
        "commits": lambda series: ", ".join(f"`{commit}`" for commit in series.commits),
        "differs in": lambda series: ", ".join(f"`{function}`" for function in changed_functions(series)),
    }


def _description(series: type[Kernel]) -> str:
    """The summary, and the first paragraph of the class's own docstring."""
    if series is Kernel:
        return f"**{series.summary}**"
    paragraph = inspect.cleandoc(series.__doc__ or "").split("\n\n", maxsplit=1)[0]
    return f"**{series.summary}**. {' '.join(paragraph.split())}".replace("``", "`")


def _table(columns: dict[str, Column], series: Iterable[type[Kernel]]) -> list[str]:
    rows = [" | ".join(column(one) for column in columns.values()) for one in series]
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *(f"| {row} |" for row in rows)]


def _attributes() -> list[str]:
    """Each attribute that an invariant asks for, the series that have it not as they should, the invariants."""
    asked: dict[tuple[str, bool], list[str]] = {}
    for invariant in INVARIANTS.values():
        if invariant.needs:
            asked.setdefault((invariant.needs, True), []).append(invariant.id)
        if invariant.unless:
            asked.setdefault((invariant.unless, False), []).append(invariant.id)
    judged = SERIES | {point.name: find(point.name) for point in designs() if point.value.startswith("rmaplab.")}
    lines = ["| attribute | must be | for | not checked on |", "|---|---|---|---|"]
    for (attribute, wanted), idents in sorted(asked.items()):
        others = [f"`{name}`" for name, logic in judged.items() if bool(getattr(logic, attribute)) is not wanted]
        must_be = "true" if wanted else "false"
        lines.append(f"| `{attribute}` | {must_be} | {', '.join(sorted(idents))} | {', '.join(others)} |")
    return lines


if __name__ == "__main__":
    sys.stdout.write(series_page())
