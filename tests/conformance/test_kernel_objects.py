# SPDX-License-Identifier: GPL-2.0-only
"""As many anon_vmas and AVCs as the running kernel has: the slab counters, which root may read."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

import counters
import pytest
from differential import HERE

from rmaplab.series import SERIES

if TYPE_CHECKING:
    from running import RunningKernel

SCRIPTS = 2


# --- objects ---------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [counters.ROWS, counters.DAEMON], ids=["rows", "daemon"])
def test_as_many_anon_vmas_as_the_kernel_has(counted: RunningKernel, script: tuple[str, ...]) -> None:
    runs = [counters.count_in_kernel(counted, script, counters.vmas_needed()) for _ in range(3)]
    measured = [statistics.median(counts) for counts in zip(*runs, strict=True)]
    expected = counters.count_in_model(HERE, script)
    assert agree(expected, measured, counters.MARGIN), counters.table(script, expected, measured)


def agree(expected: list[float], measured: list[float], margin: float) -> bool:
    """Whether counts per VMA are equal but for the margin, relative above 1."""
    return all(abs(ours - got) <= margin * max(ours, 1) for ours, got in zip(expected, measured, strict=True))


def test_the_kernel_reuses_the_anon_vmas_that_the_model_does(counted: RunningKernel) -> None:
    """Scripts after which the order of chains before and since v7.0 leaves different counts."""
    old, new = SERIES["v6.18"], SERIES["v7.0"]
    telling = (
        script
        for script in map(counters.random_script, itertools.count())
        if counters.count_in_model(old, script, 1) != counters.count_in_model(new, script, 1)
    )
    for script in itertools.islice(telling, SCRIPTS):
        expected = counters.count_in_model(HERE, script)
        for _ in range(3):  # another process may disturb a count, but not make a wrong one right
            measured = counters.count_in_kernel(counted, script, 2 * counters.vmas_needed())
            if all(abs(ours - got) < 0.5 for ours, got in zip(expected, measured, strict=True)):
                break
        else:
            pytest.fail(counters.table(script, expected, measured), pytrace=False)
