# SPDX-License-Identifier: GPL-2.0-only
"""How much memory this process takes."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["resident"]

_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> tuple[int, int]:
    """The number of this process and the bytes that are its own, in memory now (0 where nobody tells)."""
    try:
        _, pages, shared, *_ = _STATM.read_text(encoding="ascii").split()
    except OSError:
        return os.getpid(), 0
    return os.getpid(), (int(pages) - int(shared)) * _PAGE
