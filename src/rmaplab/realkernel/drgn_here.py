# SPDX-License-Identifier: GPL-2.0-only
"""drgn, which is an optional part."""

from __future__ import annotations

from typing import Any

from rmaplab.errors import InputError

__all__ = ["import_drgn"]


def import_drgn() -> Any:  # noqa: ANN401 (a module)
    """The module; :class:`InputError` names the extra that brings it."""
    try:
        import drgn
    except ImportError as error:
        raise InputError("drgn is not installed: pip install 'rmaplab[kernel]'") from error
    return drgn
