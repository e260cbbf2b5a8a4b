# SPDX-License-Identifier: GPL-2.0-only
"""UFFDIO_MOVE (mm/userfaultfd.c, v7.0)."""

from __future__ import annotations

from rmaplab.kernel.madvise import Madvise

__all__ = ["Userfaultfd"]


class Userfaultfd(Madvise):
    """UFFDIO_MOVE (mm/userfaultfd.c, v7.0)."""
