# SPDX-License-Identifier: GPL-2.0-only
"""v6.12.112: the stable hybrid, zoo entry Z04."""

from __future__ import annotations

from typing import ClassVar

from rmaplab.series.mremap_rules import DontunmapApart
from rmaplab.series.publishing_barrier import PublishingBarrier
from rmaplab.series.v6_12 import V6_12

__all__ = ["V6_12_112"]


class V6_12_112(DontunmapApart, PublishingBarrier, V6_12):  # noqa: N801
    """Took patch 8 of the series only for what the barrier's fix leans on.

    An AVC is put on the list and into the tree in two steps, everything else
    is v6.12: GFP_NOWAIT under the lock, chains copied in order, a fork that
    unwinds through unlink_anon_vmas(), which goes by the list.  So neither
    Z01 nor Z02 can happen.  What MREMAP_DONTUNMAP leaves behind is a VMA
    apart (6.12.113 and 6.12.114), as on v7.2.
    """

    name = "v6.12.112"
    parent: ClassVar[str | None] = "v6.12"
    commits: ClassVar[tuple[str, ...]] = ()
    release = "v6.12.112"
    summary = "stable: publication barrier, the half of patch 8 that it needs, MREMAP_DONTUNMAP leaves a VMA apart"
