# SPDX-License-Identifier: GPL-2.0-only
"""Page migration (mm/migrate.c, v7.0)."""

from __future__ import annotations

from rmaplab.kernel.ksm import Ksm

__all__ = ["Migrate"]


class Migrate(Ksm):
    """Page migration (mm/migrate.c, v7.0)."""
