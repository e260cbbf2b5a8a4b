# SPDX-License-Identifier: GPL-2.0-only
"""v7.3: the publication barrier."""

from __future__ import annotations

from typing import ClassVar

from rmaplab.series.publishing_barrier import PublishingBarrier

__all__ = ["V7_3"]


class V7_3(PublishingBarrier):  # noqa: N801
    """Makes the same graph as v7.0 in every history of calls that run one at a time.

    The kernel also renamed ``anon_vma_interval_tree_*`` to ``anon_rmap_tree_*``
    and gives them the anon_vma; the functions here keep v7.0's names.
    """

    name = "v7.3"
    parent: ClassVar[str | None] = "v7.0"
    commits: ClassVar[tuple[str, ...]] = ("b6ac0b3f6013",)
    release = "v7.3"
    summary = "a new anon_vma is published with release order"
