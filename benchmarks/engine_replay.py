# SPDX-License-Identifier: GPL-2.0-only
"""Speed and size of the engine's replay, beside the specification's.

Each function is one run.  Those that tell bytes or build millions of objects
do it in a process of their own: ``python -m benchmarks.engine_replay WHAT``
prints what :func:`alone` asks for.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rmaplab.engine.calls import EXIT, FORK, MMAP, SPAWN
from rmaplab.engine.jit import entry
from rmaplab.engine.layout import SLAB
from rmaplab.engine.machine import Machine
from rmaplab.engine.pagetable import pte_get
from rmaplab.engine.reclaim import NEVER
from rmaplab.engine.replay import ANON, BEGINS, ENDS, WIDTH, Player
from rmaplab.engine.walk import rmap_walk_anon
from rmaplab.gcpause import paused_gc
from rmaplab.series import find
from rmaplab.workload.fast_replay import FastReplay
from rmaplab.workload.replay import Replay
from rmaplab.workload.synthetic import Synthetic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmaplab.workload.trace import Event

PAGE = 4096
BASE = 0x7F00_0000_0000
APART = 17 * PAGE
R, RW = 1, 3
VMAS, GENERATIONS = 200, 316  # with all of them alive that is ten million AVCs


# --- events a second -------------------------------------------------------------------------


@cache
def churn() -> list[Event]:
    """The events of the generator, in memory."""
    return list(Synthetic("churn").events())


def churning(engine: str, events: Sequence[Event] | None = None) -> float:
    """Events a second from memory, by ``fast`` or ``reference``: with all figures, without reading and checking."""
    events = churn() if events is None else events
    if engine == "fast":
        fast = FastReplay([], find("v7.0"))
        began = time.perf_counter()
        with paused_gc():
            fast.play(events)
        return int(fast.player.tally[0]["events"]) / (time.perf_counter() - began)
    replay = Replay([], find("v7.0"))
    began = time.perf_counter()
    with paused_gc():
        for event in events:
            replay.machine.play(event)
            replay._look()
    return replay.result.events / (time.perf_counter() - began)


def end_to_end(engine: str) -> float:
    """Events a second of the whole replay: the events are made and checked, too."""
    kind = FastReplay if engine == "fast" else Replay
    result = kind([Synthetic("churn")], find("v7.0")).run()
    return result.events / result.seconds


# --- large machines ----------------------------------------------------------------------------


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def rows(*calls: tuple[int, Any, Any, Any]) -> Any:  # noqa: ANN401 (numpy tells no shapes)
    """Calls as rows for the engine: kind, task, and two arguments, each a number or an array of them."""
    told = []
    for kind, task, first, second in calls:
        number = max(np.size(task), np.size(first), np.size(second))
        part = np.zeros((number, WIDTH), np.int64)
        part[:, 0], part[:, 1], part[:, 2], part[:, 3] = kind | BEGINS | ENDS, task, first, second
        if kind == ANON:
            part[:, 0] = kind | ENDS
        if kind == MMAP:
            part[:, 4], part[:, 6] = RW, -1
        told.append(part)
    return np.concatenate(told)


def player(tasks: int) -> Player:
    """A machine that takes no samples and walks no pages, and has compiled what it needs."""
    made = Player(Machine(find("v7.0")), NEVER)
    made.reserve(tasks, 0)
    made.tally[0]["until_sample"] = 1 << 60
    return made


def play(player: Player, events: Any) -> float:  # noqa: ANN401 (numpy tells no shapes)
    """Seconds of some rows."""
    began, at = time.perf_counter(), 0
    while at < len(events):
        at = player.play(events, at)
    return time.perf_counter() - began


def generations() -> dict[str, float]:
    """A process with many VMAs forks a child that forks a child: all live, and write to each VMA."""
    places = BASE + np.arange(VMAS) * APART
    begin = rows((SPAWN, 0, 0, 0), (MMAP, 0, places, places + PAGE), (ANON, 0, places, 1))
    build = [begin]
    build += [rows((FORK, task, task + 1, 0), (ANON, task + 1, places, 1)) for task in range(GENERATIONS - 1)]
    events, ends = np.concatenate(build), rows((EXIT, np.arange(GENERATIONS), 0, 0))
    machine = player(GENERATIONS)
    before = resident()
    built = play(machine, events)
    grown, avcs = resident() - before, int(machine.machine.m[SLAB]["live_avcs"])
    unlinked = play(machine, ends)
    assert machine.machine.m[SLAB]["live_avcs"] == 0
    return {"avcs": avcs, "bytes": grown / avcs, "build": built, "unlink": unlinked}


def million(vmas: int = 1_000_000) -> dict[str, float]:
    """So many VMAs of one page in one process: mapped, written, forked, gone."""
    places = BASE + np.arange(vmas) * 2 * PAGE
    build = rows((SPAWN, 0, 0, 0), (MMAP, 0, places, places + PAGE), (ANON, 0, places, 1), (FORK, 0, 1, 0))
    ends = rows((EXIT, np.arange(2), 0, 0))
    machine = player(2)
    before = resident()
    seconds = play(machine, build)
    grown, live = resident() - before, int(machine.machine.m[SLAB]["live_anon_vmas"])
    assert live == 2 * vmas
    return {"seconds": seconds + play(machine, ends), "bytes": grown / vmas}


@cache
def alone(what: str) -> dict[str, float]:
    """What a function of this module tells in a process of its own; asked once."""
    command = [sys.executable, "-m", "benchmarks.engine_replay", what]
    told: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return told


def of_ten_million(figure: str) -> float:
    """Of a graph of ten million AVCs: ``bytes`` of memory for each, seconds of its ``build`` and to ``unlink`` it."""
    alone.cache_clear()
    return alone("generations")[figure]


def of_a_million_vmas(figure: str) -> float:
    """Of a process with a million VMAs and its child: ``seconds`` of its life, ``bytes`` for each VMA of the two."""
    alone.cache_clear()
    return alone("million")[figure]


# --- walks -----------------------------------------------------------------------------------


@entry
def _walk_all(m: Any, c: Any, mm: int, addresses: Any, visited: Any) -> int:  # noqa: ANN401 (Numba's types)
    maps = 0
    for address in addresses:
        maps += rmap_walk_anon(m, c, pte_get(m, mm, address) >> 1, visited)[1]
    return maps


@cache
def cut(ranges: int) -> FastReplay:
    """A machine whose one anon_vma has so many ranges: an area that mprotect of every other page has cut."""
    replay = FastReplay([], find("v7.0"))
    replay.play(
        [
            ["exec", 0, "cut", []],
            ["mmap", 0, BASE, ranges * PAGE, RW, 0x22, 0, None],
            ["anon", 0, [[BASE, ranges]]],
            *(["mprotect", 0, BASE + page * PAGE, PAGE, R] for page in range(1, ranges, 2)),
        ]
    )
    return replay


def walking(ranges: int, walks: int = 200_000) -> float:
    """Nanoseconds of a walk for a random page of an anon_vma with so many ranges."""
    replay = cut(ranges)
    m, c = replay.machine.m, replay.machine.c
    assert m[SLAB]["live_avcs"] == ranges
    assert m[SLAB]["live_anon_vmas"] == 1
    mm = int(m[replay.player.tasks[0]]["mm"])
    addresses = BASE + np.random.default_rng(0).integers(0, ranges, walks) * PAGE
    visited = np.zeros((0, 3), np.int64)
    _walk_all(m, c, mm, addresses[:1], visited)
    began = time.perf_counter()
    assert _walk_all(m, c, mm, addresses, visited) == walks
    return 1e9 * (time.perf_counter() - began) / walks


if __name__ == "__main__":
    print(json.dumps({"generations": generations, "million": million}[sys.argv[1]]()))
