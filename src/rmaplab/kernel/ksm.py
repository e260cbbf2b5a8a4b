# SPDX-License-Identifier: GPL-2.0-only
"""KSM: pages merged by content (mm/ksm.c, v7.0)."""

from __future__ import annotations

from rmaplab.kernel.gup import Gup

__all__ = ["Ksm"]


class Ksm(Gup):
    """KSM: pages merged by content (mm/ksm.c, v7.0)."""
