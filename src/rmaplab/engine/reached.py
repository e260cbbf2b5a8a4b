# SPDX-License-Identifier: GPL-2.0-only
"""The *sometimes* properties by number, in the order of :data:`rmaplab.check.monitor.REACHED`."""

from __future__ import annotations

__all__ = [
    "COPIED",
    "FORK_FAILED",
    "HALF_BUILT",
    "IMPORTED",
    "MERGED",
    "MOVED_UP",
    "NEIGHBOUR_SHARED",
    "OWN_MADE",
    "OWN_REUSED",
    "RETRY_SERVED",
    "REUSED",
    "SPLIT_DONE",
]

(
    OWN_REUSED,
    MOVED_UP,
    FORK_FAILED,
    RETRY_SERVED,
    HALF_BUILT,
    IMPORTED,
    NEIGHBOUR_SHARED,
    OWN_MADE,
    COPIED,
    REUSED,
    SPLIT_DONE,
    MERGED,
) = range(12)
