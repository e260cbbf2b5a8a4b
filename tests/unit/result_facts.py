# SPDX-License-Identifier: GPL-2.0-only
"""What must be the same each time of a result."""

from dataclasses import asdict


def facts(result):
    """Everything but the time it took."""
    known = asdict(result)
    del known["seconds"]
    return known
