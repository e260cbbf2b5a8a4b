# SPDX-License-Identifier: GPL-2.0-only
"""madvise and mlock (mm/madvise.c and mm/mlock.c, v7.0)."""

from __future__ import annotations

from rmaplab.kernel.mremap import Mremap

__all__ = ["Madvise"]


class Madvise(Mremap):
    """madvise and mlock (mm/madvise.c and mm/mlock.c, v7.0)."""
