# SPDX-License-Identifier: GPL-2.0-only
"""As many anon_vmas and AVCs as the running kernel has: the slab counters, which root may read."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import counters
import pytest
from differential import HERE

from rmaplab.series import SERIES

if TYPE_CHECKING:
    from running import RunningKernel

pytestmark = pytest.mark.alone

SCRIPTS = 2
ATTEMPTS = 4


RUNS = {"rows": counters.ROWS, "daemon": counters.DAEMON, **counters.EXPERIMENTS}


@pytest.mark.parametrize("script", RUNS.values(), ids=RUNS)
def test_as_many_objects_as_the_kernel_has(counted: RunningKernel, script: tuple[str, ...]) -> None:
    expected = counters.count_in_model(HERE, script)
    runs = []
    for _ in range(ATTEMPTS):  # another process may disturb a count, but not make a wrong one right
        runs.append(counters.count_in_kernel(counted, script, counters.vmas_needed()))
        measured = list(zip(*(itertools.chain(*run) for run in runs), strict=True))
        wrong = [
            values
            for ours, values in zip(itertools.chain(*expected), measured, strict=True)
            if not any(agree(ours, got) for got in values)
        ]
        if not wrong:
            return
    if not any(agree(min(values), max(values)) for values in wrong):
        pytest.skip(f"the slab counters are disturbed: one step gave {wrong[0]}")
    pytest.fail(counters.table(script, expected, runs[-1]), pytrace=False)


def agree(one: float, other: float) -> bool:
    """Whether two counts per VMA are equal but for the margin, relative above 1."""
    return abs(one - other) <= counters.MARGIN * max(one, 1)


def anon_vmas(counts: list[counters.Counts]) -> list[float]:
    return [one.anon_vmas for one in counts]


def test_the_kernel_reuses_the_anon_vmas_that_the_model_does(counted: RunningKernel) -> None:
    """Scripts after which the order of chains before and since v7.0 leaves different counts."""
    old, new = SERIES["v6.18"], SERIES["v7.0"]
    telling = (
        script
        for script in map(counters.random_script, itertools.count())
        if anon_vmas(counters.count_in_model(old, script, 1)) != anon_vmas(counters.count_in_model(new, script, 1))
    )
    for script in itertools.islice(telling, SCRIPTS):
        expected = counters.count_in_model(HERE, script)
        for _ in range(ATTEMPTS):
            measured = counters.count_in_kernel(counted, script, 2 * counters.vmas_needed())
            pairs = zip(anon_vmas(expected), anon_vmas(measured), strict=True)
            if all(abs(ours - got) < 0.5 for ours, got in pairs):
                break
        else:
            pytest.fail(counters.table(script, expected, measured), pytrace=False)
