# SPDX-License-Identifier: GPL-2.0-only
"""Each of the 22 traps as a fact: the specification has it, and every naive model made for it has not."""

import pytest
import traps_of_pages
import traps_of_vmas
from traps import TRAPS, machine

from rmaplab.check.invariants import violations
from rmaplab.kernel.events import KernelBug

MODULES = (traps_of_pages, traps_of_vmas)  # noted by being imported


def cases(which):
    """A fact with each series it is one of, or with each model that it is not one of."""
    return [
        pytest.param(fact, one, id=f"{number:02}-{fact.__name__}-{getattr(one, '__name__', one)}")
        for number, fact, *sides in TRAPS
        for one in sides[which]
    ]


def test_every_trap_has_a_fact_and_every_fact_a_model_that_steps_into_it():
    assert {number for number, *_ in TRAPS} == set(range(1, 23))
    assert all(naive for *_, naive in TRAPS)


@pytest.mark.parametrize(("fact", "series"), cases(0))
def test_the_specification_knows(fact, series):
    kernel, parent = machine(series)
    fact(kernel, parent)
    assert violations(kernel) == []


@pytest.mark.parametrize(("fact", "naive"), cases(1))
def test_a_naive_model_does_not(fact, naive):
    series = next(series for _, one, series, _ in TRAPS if one is fact)[0]
    with pytest.raises((AssertionError, KernelBug)):
        fact(*machine(series, naive))
