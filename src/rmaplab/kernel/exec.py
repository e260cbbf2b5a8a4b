# SPDX-License-Identifier: GPL-2.0-only
"""exec: the stack that moves (mm/vma_exec.c, v7.0)."""

from __future__ import annotations

from rmaplab.kernel.userfaultfd import Userfaultfd

__all__ = ["Exec"]


class Exec(Userfaultfd):
    """exec: the stack that moves (mm/vma_exec.c, v7.0)."""
