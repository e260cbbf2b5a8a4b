# SPDX-License-Identifier: GPL-2.0-only
"""A watched machine of every series since v6.0, for the tests that ask for one."""

import pytest
from machine_parts import SINCE_6_0

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.series import SERIES


@pytest.fixture(params=SINCE_6_0, name="series")
def _series(request):
    return request.param


@pytest.fixture(name="kernel")
def _kernel(series):
    """A watched machine; whatever a test does to it, every invariant holds at its end."""
    kernel = monitored(SERIES[series])()
    kernel.spawn()
    yield kernel
    assert violations(kernel) == []


@pytest.fixture(name="parent")
def _parent(kernel):
    return kernel.processes["P0"]
