# SPDX-License-Identifier: GPL-2.0-only
"""Puppets on the running kernel, or the reason why there are none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import counters
import pytest
from running import RunningKernel, unusable

if TYPE_CHECKING:
    from collections.abc import Iterator

REASON = unusable()


@pytest.fixture(scope="session")
def kernel() -> Iterator[RunningKernel]:
    """A family of puppets for random programs."""
    if REASON is not None:
        pytest.skip(REASON)
    with RunningKernel() as running:
        yield running


@pytest.fixture(scope="session")
def counted() -> Iterator[RunningKernel]:
    """Puppets on one CPU, whose slabs are then all that blurs the count."""
    reason = REASON or counters.uncountable()
    if reason is not None:
        pytest.skip(reason)
    noise = counters.noise()
    if noise > counters.MARGIN * counters.vmas_needed() / 2:
        pytest.skip(f"the number of anon_vma objects wanders by {noise}: something else is busy")
    with RunningKernel(processes=10, cpu=min(os.sched_getaffinity(0))) as running:
        yield running
