# SPDX-License-Identifier: GPL-2.0-only
"""Random histories over all operations, with every allocation failing once, hold every invariant."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmaplab.check.execute import NO_PLAN, Plan, execute
from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.check.soak import soak
from rmaplab.kernel.slab import KINDS
from rmaplab.scenario import CALL_NAMES, Scenario, format_scenario, parse
from rmaplab.scenario.generator import Generator
from rmaplab.series import find

SERIES = ("v7.0", "v6.18")
HISTORIES = 460
OPERATIONS = 100_000


@pytest.mark.parametrize("name", SERIES)
def test_a_hundred_thousand_operations_hold_every_invariant(name):
    result = soak(find(name), range(HISTORIES))
    assert [(found.seed, found.violations, found.scenario) for found in result.findings] == []
    assert result.operations >= OPERATIONS
    done = {call.rsplit(" ", 1)[0] for call, count in result.calls.items() if call.endswith(" ok")}
    assert done == {*CALL_NAMES, "ksmd"}
    assert set(result.failures) == set(KINDS)


@pytest.mark.parametrize("name", SERIES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(random=st.randoms(use_true_random=False), failing=st.sampled_from(KINDS), n=st.integers(1, 6))
def test_a_history_with_failures_that_hypothesis_can_shrink(name, random, failing, n):
    kernel = monitored(find(name))()
    kernel.spawn()
    generator = Generator(random)
    generator.configure(kernel)
    history = []
    for step in range(25):
        if not kernel.processes:
            break
        call = generator.call(kernel)
        history.append(call)
        plan = Plan(n, kind=failing) if step % 3 == 2 else NO_PLAN
        found = execute(kernel, call, plan).violations
        assert not found, format_scenario(Scenario(tuple(history)))
    for call in generator.ending(kernel):
        execute(kernel, call)
    assert violations(kernel) == []
    assert not kernel.live_anon_vmas
    assert not kernel.live_anon_vma_chains


def test_a_history_is_drawn_from_its_seed_alone_and_can_be_written_down():
    def history(seed):
        kernel = monitored(find("v7.0"))()
        kernel.spawn()
        generator = Generator(Random(seed))
        generator.configure(kernel)
        calls = []
        while kernel.processes and len(calls) < 40:
            calls.append(generator.call(kernel))
            execute(kernel, calls[-1])
        return Scenario(tuple(calls))

    for seed in range(20):
        drawn = history(seed)
        assert drawn == history(seed)
        assert parse(format_scenario(drawn)) == drawn
