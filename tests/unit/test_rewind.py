# SPDX-License-Identifier: GPL-2.0-only
"""What was noted of a machine can be brought back, whatever was done since, and however it ended."""

from random import Random

import pytest

from rmaplab.check.execute import Plan, execute
from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.check.random_history import swarm
from rmaplab.check.state import fingerprint
from rmaplab.kernel import objects, pagetable, rewind
from rmaplab.kernel.rewind import Checkpoint
from rmaplab.kernel.slab import KINDS
from rmaplab.scenario.generator import Generator
from rmaplab.series import SERIES, find


def everything(kernel):
    return kernel.snapshot(canonical=False), fingerprint(kernel), kernel.idents.copy(), kernel.slab.bytes


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("large", [False, True])
def test_every_call_can_be_undone(series, large):
    for seed in range(4):
        kernel = monitored(find(series))()
        kernel.spawn("P0")
        generator = Generator(Random(seed))
        if large:
            kernel.anon_orders = (2,)
        for _ in range(40):
            if not kernel.processes:
                break
            before, then = Checkpoint(kernel), everything(kernel)
            call = generator.call(kernel)
            for plan in (Plan(), Plan(1), Plan(2), *(Plan(1, kind=kind) for kind in KINDS[1:])):
                execute(kernel, call, plan)
                before.restore()
                assert everything(kernel) == then, (seed, call, plan)
                assert violations(kernel) == []
            execute(kernel, call)


def test_several_calls_are_undone_at_once_and_as_often_as_wanted():
    kernel = monitored(find("v7.0"))()
    kernel.spawn("P0")
    generator = swarm(Random("several"))
    for _ in range(10):
        execute(kernel, generator.call(kernel))
    before, then = Checkpoint(kernel), everything(kernel)
    for _ in range(3):
        for _ in range(12):
            execute(kernel, generator.call(kernel))
        assert everything(kernel) != then
        before.restore()
        assert everything(kernel) == then


def test_going_on_after_undoing_is_like_going_on_from_a_copy():
    kernel = monitored(find("v6.18"))()
    kernel.spawn("P0")
    generator = Generator(Random(5))
    for _ in range(30):
        copy, before, call = kernel.copy(), Checkpoint(kernel), generator.call(kernel)
        execute(kernel, call, Plan(1))
        before.restore()
        assert execute(kernel, call) == execute(copy, call)
        assert kernel.snapshot(canonical=False) == copy.snapshot(canonical=False)


def test_a_broken_state_is_left_behind_too():
    kernel = monitored(find("v6.18+v2"))()
    process = kernel.spawn("P0")
    process.write(process.mmap(1))
    before, then = Checkpoint(kernel), everything(kernel)
    kernel.slab.plan(2)
    with pytest.raises(OSError, match="memory"):
        process.fork("P1")
    kernel.slab.disarm()
    assert violations(kernel)
    before.restore()
    assert everything(kernel) == then
    assert violations(kernel) == []


def test_every_kind_of_object_of_the_model_is_noted():
    kinds = {
        kind
        for module in (objects, pagetable)
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    }
    holders = {pagetable.PageTable, pagetable.GuardMarker}  # its tables are noted; it has no fields
    assert kinds - holders <= set(rewind._OBJECTS)
