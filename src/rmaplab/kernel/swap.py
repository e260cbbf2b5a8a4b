# SPDX-License-Identifier: GPL-2.0-only
"""Swap-out and swap-in (mm/memory.c, mm/swapfile.c and mm/vmscan.c, v7.0)."""

from __future__ import annotations

from rmaplab.kernel.vma import VmaOps

__all__ = ["Swap"]


class Swap(VmaOps):
    """Swap-out and swap-in (mm/memory.c, mm/swapfile.c and mm/vmscan.c, v7.0)."""
