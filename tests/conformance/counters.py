# SPDX-License-Identifier: GPL-2.0-only
"""How many anon_vmas and AVCs a script leaves, per VMA: counted by the slab allocator, and by the model."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
    "EXPERIMENTS",
    "MARGIN",
    "ROWS",
    "Counts",
    "count_in_kernel",
    "count_in_model",
    "random_script",
    "table",
    "uncountable",
    "vmas_needed",
]

MARGIN = 0.1
"""How far counts per VMA may be from the model's, relative above 1."""

SLAB = Path("/sys/kernel/slab")
CACHE = SLAB / "anon_vma"
COMB = (0x7E00_0000_0000 - WINDOW) >> PAGE_SHIFT  # where the VMAs stand, far from everything, in pages
FAR = 1 << 24  # from there to where they are moved, in pages
STRIDE = 3  # two pages mapped, one left out: no VMA has a neighbour

ROWS = ("P0 map", "P0 read", "P0 write", "P0 fork P1", "P0 split", "P0 fork P2")
"""Read fault, write fault, fork, split of every VMA, fork of the split pairs."""

DAEMON = (
    *("P0 map", "P0 write", "P0 fork P1", "P1 fork P2", "P2 fork P3", "P3 fork P4", "P4 fork P5"),
    *("P1 exit", "P3 exit", "P5 fork P6", "P2 fork P7"),
)
"""Ancestors exit, descendants fork: the order of chains decides which anon_vma is reused."""


EXPERIMENTS = {
    "guards": ("P0 map", "P0 read", "P0 guard", "P0 fork P1", "P0 unguard", "P0 write"),
    "wiped on fork": ("P0 map", "P0 write", "P0 wipe", "P0 fork P1", "P1 write"),
    "not forked": ("P0 map", "P0 write", "P0 dontfork", "P0 fork P1", "P0 dofork", "P0 fork P2"),
    "neighbours": ("P0 map", "P0 execute", "P0 write", "P0 write-next", "P0 fork P1"),
    "left behind": ("P0 map", "P0 write", "P0 leave", "P0 write", "P0 fork P1", "P0 move", "P1 move"),
    "part left behind": ("P0 map", "P0 write", "P0 leave-next", "P0 write-next", "P0 fork P1"),
    "moved": ("P0 map", "P0 write", "P0 move", "P0 map", "P0 write", "P0 fork P1", "P0 move-next", "P0 exit"),
    "locked": ("P0 map", "P0 lock", "P0 lock-next", "P0 fork P1", "P1 lock"),
    "flags": ("P0 map", "P0 write", "P0 mark", "P0 fork P1", "P1 unmark", "P0 unmark", "P1 write-next"),
}
"""What advice, locks and moves add and take away, in parents and children."""


class Counts(NamedTuple):
    """Objects per VMA, more than there were before."""

    anon_vmas: float
    chains: float


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


def objects(name: str = "anon_vma") -> int:
    """The objects of a cache that are allocated, in the whole system."""
    return int((SLAB / name / "objects").read_text().split()[0])


def uncountable() -> str | None:
    """Why the objects cannot be counted here, or None."""
    try:
        objects(), objects("anon_vma_chain")
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


_STEPS = {
    "map": Call("", "mmap", 0, 2, "rw"),
    "read": Call("", "read"),
    "write": Call("", "write"),
    "write-next": Call("", "write", 1),
    "split": Call("", "mprotect", 1, 1, "r"),
    "join": Call("", "mprotect", 1, 1, "rw"),
    "cut": Call("", "munmap", 1, 1),
    "execute": Call("", "mprotect", 1, 1, "rwx"),
    "mark": Call("", "madvise", 1, 1, advice="dontdump"),
    "unmark": Call("", "madvise", 1, 1, advice="dodump"),
    "guard": Call("", "madvise", 0, 2, advice="guard-install"),
    "unguard": Call("", "madvise", 0, 2, advice="guard-remove"),
    "wipe": Call("", "madvise", 0, 2, advice="wipeonfork"),
    "dontfork": Call("", "madvise", 0, 2, advice="dontfork"),
    "dofork": Call("", "madvise", 0, 2, advice="dofork"),
    "lock": Call("", "mlock", 0, 1),
    "lock-next": Call("", "mlock", 1, 1),
    "leave": Call("", "mremap", 0, 2, to=-FAR, size=2, dontunmap=True),
    "leave-next": Call("", "mremap", 1, 1, to=-FAR, size=1, dontunmap=True),
    "move": Call("", "mremap", 0, 2, to=-2 * FAR, size=2),
    "move-next": Call("", "mremap", 1, 1, to=-FAR, size=1),
}


def steps(script: tuple[str, ...], vmas: int) -> Iterator[list[Call]]:
    """The calls of each step of a script: a process, what it does to all its VMAs, a child.

    ``split`` makes the second page read-only, ``join`` writable again,
    ``cut`` unmaps it; what ends in ``-next`` is done to it, too.
    """
    for step in script:
        process, verb, *child = step.split()
        if verb == "fork":
            yield [Call(process, verb, child=child[0])]
        elif verb == "exit":
            yield [Call(process, verb)]
        else:
            one, places = _STEPS[verb]._replace(process=process), range(COMB, COMB + STRIDE * vmas, STRIDE)
            yield [one._replace(first=at + one.first, to=None if one.to is None else at + one.to) for at in places]


def perform(performer: Performer, calls: list[Call]) -> None:
    """Make calls that succeed; mprotect may not, where a VMA was cut."""
    for call in calls:
        code = performer.call(call, allowed=True)
        if code and call.name != "mprotect":
            raise OSError(code, os.strerror(code), str(call))


def count_in_model(series: type[Kernel], script: tuple[str, ...], vmas: int = 4) -> list[Counts]:
    """Objects per VMA after each step; a few VMAs do, since all are alike."""
    model, counts = Model(series), []
    for calls in steps(script, vmas):
        perform(model, calls)
        kernel = model.kernel
        counts.append(Counts(len(kernel.live_anon_vmas) / vmas, len(kernel.live_anon_vma_chains) / vmas))
    return counts


def count_in_kernel(kernel: RunningKernel, script: tuple[str, ...], vmas: int) -> list[Counts]:
    """Objects per VMA after each step, more than there were before.

    Free objects of the slabs that a CPU has to hand count as allocated.  A
    process that stands by uses them up first.
    """
    kernel.start()
    perform(kernel, [Call("P0", "fork", child="filler")])
    for calls in steps(("filler map", "filler write"), vmas):
        perform(kernel, calls)
    before, counts = (objects("anon_vma"), objects("anon_vma_chain")), []
    for calls in steps(script, vmas):
        perform(kernel, calls)
        now = objects("anon_vma"), objects("anon_vma_chain")
        counts.append(Counts((now[0] - before[0]) / vmas, (now[1] - before[1]) / vmas))
    return counts


def table(script: tuple[str, ...], expected: list[Counts], measured: list[Counts]) -> str:
    """The counts of both, step by step."""
    rows = zip(script, expected, measured, strict=True)
    lines = (f"{s:12} {e[0]:8.2f} {m[0]:6.2f} {e[1]:8.2f} {m[1]:6.2f}" for s, e, m in rows)
    return "\n".join(["per VMA: anon_vmas in model, kernel; AVCs in model, kernel", *lines])
