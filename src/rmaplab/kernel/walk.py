# SPDX-License-Identifier: GPL-2.0-only
"""Walks of the reverse map and what they are for (mm/rmap.c, v7.0)."""

from __future__ import annotations

from rmaplab.kernel.folio import FolioRmap

__all__ = ["RmapWalk"]


class RmapWalk(FolioRmap):
    """Walks of the reverse map and what they are for (mm/rmap.c, v7.0)."""
