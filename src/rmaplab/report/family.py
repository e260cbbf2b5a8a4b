# SPDX-License-Identifier: GPL-2.0-only
"""anon_vmas in the order of a drawing: children below their parents."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmaplab.snapshot import AnonVmaView

__all__ = ["by_family"]


def by_family(anon_vmas: Iterable[AnonVmaView]) -> list[tuple[AnonVmaView, int]]:
    """Each with its level, which is 0 for a root and for one whose parent is not among them."""
    found = {anon_vma.id: anon_vma for anon_vma in anon_vmas}
    children: defaultdict[str, list[AnonVmaView]] = defaultdict(list)
    tops: list[AnonVmaView] = []
    for one in found.values():
        (tops if one.parent == one.id or one.parent not in found else children[one.parent]).append(one)
    rows: list[tuple[AnonVmaView, int]] = []
    waiting = [(one, 0) for one in reversed(tops)]
    while waiting:
        one, level = waiting.pop()
        rows.append((one, level))
        waiting += [(child, level + 1) for child in reversed(children[one.id])]
    return rows
