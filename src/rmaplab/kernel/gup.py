# SPDX-License-Identifier: GPL-2.0-only
"""Long-term pins (mm/gup.c, v7.0)."""

from __future__ import annotations

from rmaplab.kernel.memory import Memory

__all__ = ["Gup"]


class Gup(Memory):
    """Long-term pins (mm/gup.c, v7.0)."""
