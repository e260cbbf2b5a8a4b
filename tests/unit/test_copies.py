# SPDX-License-Identifier: GPL-2.0-only
"""A copy of a machine is equal to it, goes on alike, and neither sees the other."""

import pytest
from random_calls import CALLS, Chance, end_all, machine

from rmaplab.check.execute import NO_PLAN, Plan, execute
from rmaplab.check.state import fingerprint
from rmaplab.scenario import Fork, Mmap, Pages, Walk, Write
from rmaplab.series import SERIES


@pytest.mark.parametrize("series", SERIES)
def test_a_copy_is_equal_and_goes_on_alike(series):
    for seed in range(5):
        chance = Chance(seed)
        kernel = machine(series)
        for _ in range(CALLS // 2):
            execute(kernel, chance.call(kernel))
        copy = kernel.copy()
        assert copy.snapshot() == kernel.snapshot()
        assert copy.snapshot(canonical=False) == kernel.snapshot(canonical=False)
        assert fingerprint(copy) == fingerprint(kernel)
        for step in range(CALLS):
            call = chance.call(kernel)
            plan = chance.plan() if step % 2 else NO_PLAN
            first, second = execute(kernel, call, plan), execute(copy, call, plan)
            assert first == second, (step, call, plan)
            assert copy.snapshot(canonical=False) == kernel.snapshot(canonical=False), (step, call, plan)
            assert fingerprint(copy) == fingerprint(kernel)
            if first.violations:
                break


@pytest.mark.parametrize("series", SERIES)
def test_a_copy_and_its_original_do_not_see_each_other(series):
    kernel, chance = machine(series), Chance(7)
    for _ in range(CALLS):
        execute(kernel, chance.call(kernel))
    before, mark = kernel.snapshot(canonical=False), fingerprint(kernel)
    copy = kernel.copy()
    for _ in range(CALLS):
        execute(copy, chance.call(copy))
    assert fingerprint(copy) != mark
    assert kernel.snapshot(canonical=False) == before
    assert fingerprint(kernel) == mark
    end_all(copy)
    assert kernel.snapshot(canonical=False) == before
    end_all(kernel)


def test_a_copy_keeps_what_a_failed_call_left_behind():
    kernel = machine("v6.18+v2")
    execute(kernel, Mmap("P0", "A", 1))
    execute(kernel, Write("P0", Pages("A", 0, 0)))
    assert execute(kernel, Fork("P0", "P1"), Plan(2)).errno == "ENOMEM"
    copy = kernel.copy()
    assert len(copy.live_anon_vma_chains) == 2
    assert fingerprint(copy) == fingerprint(kernel)
    found = execute(kernel, Walk("P0", Pages("A", 0, 0)))
    assert {report.id for report in found.violations} >= {"AV-001", "AV-015"}
    assert execute(copy, Walk("P0", Pages("A", 0, 0))).violations == found.violations


def test_two_tasks_of_one_address_space_are_copied_as_such():
    kernel = machine("v7.0")
    process = kernel.processes["P0"]
    area = process.mmap(1)
    process.share("P1")
    copy = kernel.copy()
    assert copy.processes["P0"].mm is copy.processes["P1"].mm
    assert copy.processes["P0"].mm is not process.mm
    copy.processes["P1"].write(area)
    copy.processes["P0"].exit()
    assert copy.processes["P1"].mm.users == 1
    assert process.mm.users == 2
    assert process.mm.page_table.get(area.start) is None
