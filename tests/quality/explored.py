# SPDX-License-Identifier: GPL-2.0-only
"""The bounds within which every series is explored, and what came of it: searched once for all tests."""

from functools import cache

from rmaplab.check.explore import explore
from rmaplab.check.histories import Bounds
from rmaplab.check.run import run
from rmaplab.scenario import parse
from rmaplab.series import SERIES, find

BOUNDS = Bounds(processes=2, areas=2, pages=1, calls=5, fail_alloc=1)


@cache
def every_series_explored():
    """Every series within the bounds, with one failed allocation, past the first finding."""
    return {series: explore(series, BOUNDS, stop_at_first=False) for series in SERIES}


def violated(series, text):
    return {violation.id for violation in run(parse(text), find(series)).violations}
