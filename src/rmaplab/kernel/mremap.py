# SPDX-License-Identifier: GPL-2.0-only
"""mremap (mm/mremap.c, v7.0)."""

from __future__ import annotations

from rmaplab.kernel.mmap import Mmap

__all__ = ["Mremap"]


class Mremap(Mmap):
    """mremap (mm/mremap.c, v7.0)."""
