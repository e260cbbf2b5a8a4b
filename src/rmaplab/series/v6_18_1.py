# SPDX-License-Identifier: GPL-2.0-only
"""v6.18+1: debug assertions on clone and unlink, and a clean-up helper for clone."""

from __future__ import annotations

from typing import ClassVar

from rmaplab.series.unwinding_fork import UnwindingFork
from rmaplab.series.v6_18_3 import V6_18_2

__all__ = ["V6_18_1"]


class V6_18_1(UnwindingFork, V6_18_2):  # noqa: N801
    """542eda1a8329: states what callers of clone and unlink promise, in assertions for debug kernels.

    Against v6.18+2: fork still unwinds through unlink_anon_vmas(), and so
    trips over the new assertion there.
    """

    name = "v6.18+1"
    parent: ClassVar[str | None] = "v6.18"
    commits: ClassVar[tuple[str, ...]] = ("542eda1a8329",)
    summary = "patch 1: improve anon_vma_clone(), unlink_anon_vmas() comments, add asserts"
