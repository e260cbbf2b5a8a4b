# SPDX-License-Identifier: GPL-2.0-only
"""How many anon_vma objects a script leaves, per VMA: counted by the slab allocator, and by the model."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from calls import WINDOW, Call
from model import Model

from rmaplab.kernel.flags import PAGE_SHIFT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from running import RunningKernel
    from views import Performer

    from rmaplab.kernel import Kernel

__all__ = [
    "DAEMON",
    "MARGIN",
    "ROWS",
    "count_in_kernel",
    "count_in_model",
    "random_script",
    "table",
    "uncountable",
    "vmas_needed",
]

MARGIN = 0.1
"""How far counts per VMA may be from the model's, relative above 1."""

CACHE = Path("/sys/kernel/slab/anon_vma")
COMB = (0x7E00_0000_0000 - WINDOW) >> PAGE_SHIFT  # where the VMAs stand, far from everything, in pages
STRIDE = 3  # two pages mapped, one left out: no VMA has a neighbour

ROWS = ("P0 map", "P0 read", "P0 write", "P0 fork P1", "P0 split", "P0 fork P2")
"""Read fault, write fault, fork, split of every VMA, fork of the split pairs."""

DAEMON = (
    *("P0 map", "P0 write", "P0 fork P1", "P1 fork P2", "P2 fork P3", "P3 fork P4", "P4 fork P5"),
    *("P1 exit", "P3 exit", "P5 fork P6", "P2 fork P7"),
)
"""Ancestors exit, descendants fork: the order of chains decides which anon_vma is reused."""


def random_script(seed: int, processes: int = 6, length: int = 40) -> tuple[str, ...]:
    """Forks and exits of a family whose VMAs are split, joined, written to and cut."""
    rng = random.Random(f"script:{seed}")
    names, alive, script = [f"P{n}" for n in range(processes)], ["P0"], ["P0 map", "P0 write"]
    while len(script) < length:
        verb = rng.choices(("fork", "exit", "split", "join", "write", "cut"), (12, 8, 2, 1, 1, 1))[0]
        ages = sorted(rng.randrange(len(alive)) for _ in range(2))
        process = alive[ages[verb == "fork"]]  # the young fork, the old exit: long lines of descent
        free = [name for name in names if name not in alive]
        if verb == "fork" and free:
            alive.append(free[0])
            script.append(f"{process} fork {free[0]}")
        elif verb == "exit" and len(alive) > 1:
            alive.remove(process)
            script.append(f"{process} exit")
        elif verb not in {"fork", "exit"}:
            script.append(f"{process} {verb}")
    return tuple(script)


def objects() -> int:
    """The anon_vma objects that are allocated, in the whole system."""
    return int((CACHE / "objects").read_text().split()[0])


def uncountable() -> str | None:
    """Why the objects cannot be counted here, or None."""
    try:
        objects()
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None


def vmas_needed() -> int:
    """How many VMAs a process has to have so that what the allocator keeps per CPU is below some per cent."""
    slack = int((CACHE / "objs_per_slab").read_text())
    sheaves = CACHE / "sheaf_capacity"
    if sheaves.exists():
        slack += 16 * int(sheaves.read_text())  # free objects in per-CPU and per-node sheaves look allocated
    return min(max(1000, 10 * slack), 15_000)


def noise(times: int = 5) -> int:
    """How far the count wanders by itself within a short while."""
    seen = []
    for _ in range(times):
        seen.append(objects())
        time.sleep(0.05)
    return max(seen) - min(seen)


def steps(script: tuple[str, ...], vmas: int) -> Iterator[list[Call]]:
    """The calls of each step of a script: a process, what it does to all its VMAs, a child.

    ``split`` makes the second page read-only, ``join`` writable again, ``cut`` unmaps it.
    """
    for step in script:
        process, verb, *child = step.split()
        if verb == "fork":
            yield [Call(process, verb, child=child[0])]
        elif verb == "exit":
            yield [Call(process, verb)]
        else:
            name, page, pages, prot = _VERBS.get(verb, (verb, 0, 1, ""))
            yield [Call(process, name, COMB + STRIDE * n + page, pages, prot) for n in range(vmas)]


_VERBS = {
    "map": ("mmap", 0, 2, "rw"),
    "split": ("mprotect", 1, 1, "r"),
    "join": ("mprotect", 1, 1, "rw"),
    "cut": ("munmap", 1, 1, ""),
}


def perform(performer: Performer, calls: list[Call]) -> None:
    """Make calls that succeed; mprotect may not, where a VMA was cut."""
    for call in calls:
        code = performer.call(call, allowed=True)
        if code and call.name != "mprotect":
            raise OSError(code, os.strerror(code), str(call))


def count_in_model(series: type[Kernel], script: tuple[str, ...], vmas: int = 4) -> list[float]:
    """anon_vmas per VMA after each step; a few VMAs do, since all are alike."""
    model, counts = Model(series), []
    for calls in steps(script, vmas):
        perform(model, calls)
        counts.append(len(model.kernel.live_anon_vmas) / vmas)
    return counts


def count_in_kernel(kernel: RunningKernel, script: tuple[str, ...], vmas: int) -> list[float]:
    """anon_vmas per VMA after each step, more than there were before.

    Free objects of the slabs that a CPU has to hand count as allocated.  A
    process that stands by uses them up first.
    """
    kernel.start()
    perform(kernel, [Call("P0", "fork", child="filler")])
    for calls in steps(("filler map", "filler write"), vmas):
        perform(kernel, calls)
    before, counts = objects(), []
    for calls in steps(script, vmas):
        perform(kernel, calls)
        counts.append((objects() - before) / vmas)
    return counts


def table(script: tuple[str, ...], expected: list[float], measured: list[float]) -> str:
    """The counts of both, step by step."""
    rows = zip(script, expected, measured, strict=True)
    return "\n".join(["anon_vmas per VMA: model, kernel", *(f"{s:12} {e:6.2f} {m:6.2f}" for s, e, m in rows)])
