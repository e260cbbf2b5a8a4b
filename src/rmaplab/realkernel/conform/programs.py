# SPDX-License-Identifier: GPL-2.0-only
"""Random programs: drawn call by call on the model, so that most of them make sense."""

from __future__ import annotations

import dataclasses
from random import Random
from typing import TYPE_CHECKING, NamedTuple, cast

from rmaplab.check.execute import NO_PLAN, Plan
from rmaplab.realkernel.conform.lowering import ARENA
from rmaplab.realkernel.conform.performers import ModelSide
from rmaplab.scenario import Fail, Mmap, Read, Write
from rmaplab.scenario.generator import Generator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel import Kernel
    from rmaplab.scenario import Call

__all__ = ["CALLS", "MIXES", "PROCESSES", "Mix", "draw", "drawing"]

CALLS = 40
"""The longest program."""
PROCESSES = 8
"""The most processes alive at a time."""


_FAILING = 0.15  # share of the calls that get an order to fail, where there are any


class Mix(NamedTuple):
    """Which kinds of calls a program draws from: ``always`` with these weights, and some of ``sometimes``."""

    always: dict[str, int]
    sometimes: dict[str, int]


MIXES = {
    "everything": Mix(
        {"neighbours": 1, "mmap": 5, "write": 9, "mprotect": 6, "munmap": 3, "fork": 5, "exit": 3},
        {"read": 2, "mremap": 6, "flags": 4, "dontneed": 2, "guard": 2, "mlock": 1, "brk": 3},
    ),
    "family": Mix({"mmap": 1, "write": 4, "fork": 8, "exit": 5}, {"munmap": 1, "mprotect": 1, "mremap": 1}),
}
"""``family``: many forks and exits, which is where anon_vmas are used again."""


def drawing(
    side: ModelSide, seed: int, *, without: frozenset[str] = frozenset(), failing: bool = False
) -> Iterator[Call | Fail]:
    """The program of a seed, of up to :data:`CALLS` calls; every third is of the mix ``family``.

    Each call depends on the state that those before it led to: who asks for the
    next has carried out the last on ``side``.  ``without`` are kinds of calls,
    or advice, that the kernel was built without.  With ``failing``, some calls
    run out of memory.
    """
    random = Random(seed)
    mix = MIXES["family" if seed % 3 == 2 else "everything"]
    generator = Generator(
        random,
        core={kind: weight for kind, weight in mix.always.items() if kind not in without},
        extra={kind: weight for kind, weight in mix.sometimes.items() if kind not in without},
        processes=PROCESSES,
        without=without,
        base=ARENA,
    )
    for _ in range(random.randint(CALLS // 4, CALLS)):
        call = cast("Call", generator.call(side.kernel))
        if isinstance(call, Mmap) and call.file is None and call.shared:
            call = dataclasses.replace(call, shared=False)  # it would end where the mapping did; the model's do not
        if failing and random.random() < _FAILING:
            n, nowait, kind = random.randint(1, 6), random.random() < 0.4, random.choice(("rmap", "rmap", "vma"))
            yield Fail(n, nowait and kind == "rmap", kind)
            if isinstance(call, Read | Write):  # what fails at a later page of several is tried again by the kernel
                call = dataclasses.replace(call, range=dataclasses.replace(call.range, last=call.range.first))
        yield call


def draw(
    series: type[Kernel], seed: int, *, without: frozenset[str] = frozenset(), failing: bool = False
) -> list[Call | Fail]:
    """The program of a seed as :func:`drawing` gives it, carried out on a model of its own."""
    side, program, plan = ModelSide(series), [], NO_PLAN
    for statement in drawing(side, seed, without=without, failing=failing):
        program.append(statement)
        if isinstance(statement, Fail):
            plan = Plan(statement.n, statement.nowait, statement.kind)
        else:
            side.perform(statement, plan)
            plan = NO_PLAN
    return program
