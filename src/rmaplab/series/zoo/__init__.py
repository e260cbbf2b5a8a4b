# SPDX-License-Identifier: GPL-2.0-only
"""The bug zoo: logic that was wrong once, each on top of a series that has it right.

``parent`` names that series, the nearest without another bug (v4.0 where
v3.19 was the first: a failed clone miscounts there).  The smallest scenario that shows the bug is
``data/zoo/`` in the package, under the entry's number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.series.zoo.failures import Z01, Z02, Z11, Z12, Z21d
from rmaplab.series.zoo.lifetime import Z32
from rmaplab.series.zoo.links import Z09, Z10, Z20, Z21b
from rmaplab.series.zoo.merge import Z07, Z08, Z13, Z17, Z21a
from rmaplab.series.zoo.pages import Z33, Z21c, Z21e
from rmaplab.series.zoo.reuse import Z22, Z23, Z25

if TYPE_CHECKING:
    from rmaplab.kernel import Kernel

__all__ = ["ZOO"]

_BY_NUMBER: tuple[type[Kernel], ...] = (
    Z01,
    Z02,
    Z07,
    Z08,
    Z09,
    Z10,
    Z11,
    Z12,
    Z13,
    Z17,
    Z20,
    Z21a,
    Z21b,
    Z21c,
    Z21d,
    Z21e,
    Z22,
    Z23,
    Z25,
    Z32,
    Z33,
)
ZOO: dict[str, type[Kernel]] = {entry.name: entry for entry in _BY_NUMBER}
"""Every entry by its name, ``zoo/Z01`` and so on."""
