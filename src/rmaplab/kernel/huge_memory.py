# SPDX-License-Identifier: GPL-2.0-only
"""Transparent huge pages: fault, PMD split, folio split (mm/huge_memory.c, v7.0)."""

from __future__ import annotations

from rmaplab.kernel.swap import Swap

__all__ = ["HugeMemory"]


class HugeMemory(Swap):
    """Transparent huge pages: fault, PMD split, folio split (mm/huge_memory.c, v7.0)."""
