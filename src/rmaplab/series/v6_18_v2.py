# SPDX-License-Identifier: GPL-2.0-only
"""v6.18+v2: the second posting of the series, eight patches without today's patch 2."""

from __future__ import annotations

from typing import ClassVar

from rmaplab.series.unwinding_fork import UnwindingFork
from rmaplab.series.v6_18_9 import V6_18_9

__all__ = ["V6_18_V2"]


class V6_18_V2(UnwindingFork, V6_18_9):  # noqa: N801
    """An unlink that returns early for an unset anon_vma, and a fork that relies on it not to.

    A fork that fails after its clone leaks the child's AVCs: they stay in
    the trees and point to a freed VMA.
    """

    name = "v6.18+v2"
    parent: ClassVar[str | None] = "v6.18+9"
    commits: ClassVar[tuple[str, ...]] = ()
    release = "never released"
    summary = "the eight-patch v2 posting: v3 without patch 2"
