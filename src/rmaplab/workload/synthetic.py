# SPDX-License-Identifier: GPL-2.0-only
"""Generated workloads: the shapes that people argue about, with their sizes as parameters.

None of this was recorded, and nothing is random but what a seed decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from inspect import signature
from random import Random
from typing import TYPE_CHECKING

from rmaplab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rmaplab.workload.trace import Event

__all__ = ["GENERATORS", "Synthetic"]

PAGE = 4096
RW, R = 3, 1
PRIVATE, ANONYMOUS = 0x02, 0x20
BASE = 0x7F00_0000_0000
GAP = 16  # pages between VMAs that shall not merge


def zygote(apps: int = 24, vmas: int = 300, own: int = 250, written: int = 40) -> Iterator[Event]:
    """A process with ``vmas`` VMAs, half of files, forks ``apps``; each writes ``written`` and maps ``own`` more."""
    yield ["exec", 0, "zygote", []]
    for number in range(vmas):
        if number % 2:  # the data of a library stands at any page of its first 2 MiB
            yield _mmap(0, _place(number, 4), 4, file=f"lib{number}.so", offset=number * 37 % 512)
        else:
            yield _mmap(0, _place(number, 4), 4)
        yield _touch(0, _place(number, 4), 2)
    for app in range(1, apps + 1):
        yield ["fork", 0, app]
        for number in range(written):
            yield _touch(app, _place((number * 7) % vmas, 4))
        for number in range(own):
            yield _mmap(app, _place(vmas + number, 4), 4)
            yield _touch(app, _place(vmas + number, 4))


def splits(vmas: int = 2000) -> Iterator[Event]:
    """One anonymous mapping that mprotect of every other page cuts into ``vmas`` VMAs with one anon_vma; no fork."""
    yield ["exec", 0, "splits", []]
    yield _mmap(0, BASE, vmas)
    yield _touch(0, BASE, vmas)
    for number in range(1, vmas, 2):
        yield ["mprotect", 0, BASE + number * PAGE, PAGE, R]
    yield ["exit", 0]


def thousand(vmas: int = 1000, children: int = 1, levels: int = 1) -> Iterator[Event]:
    """``vmas`` VMAs, then fork: ``children`` of each process, for ``levels`` generations."""
    yield ["exec", 0, "thousand", []]
    for number in range(vmas):
        yield _mmap(0, _place(number, 1), 1)
        yield _touch(0, _place(number, 1))
    created, parents = 1, [0]
    for _ in range(levels):
        heirs = []
        for parent in parents:
            for _ in range(children):
                yield ["fork", parent, created]
                heirs.append(created)
                created += 1
        parents = heirs
    for task in range(created):
        yield ["exit", task]


def aim7(processes: int = 100, pages: int = 100) -> Iterator[Event]:
    """AIM7-like: a parent with ``pages`` pages forks ``processes`` children, which all write to all of them."""
    yield ["exec", 0, "aim7", []]
    yield _mmap(0, BASE, pages)
    yield _touch(0, BASE, pages)
    for child in range(1, processes + 1):
        yield ["fork", 0, child]
        yield _touch(child, BASE, pages)
    for task in range(processes + 1):
        yield ["exit", task]


def daemon(generations: int = 200, vmas: int = 10) -> Iterator[Event]:
    """A daemon that forks and lets the parent exit, ``generations`` times, with ``vmas`` VMAs that it writes to."""
    yield ["exec", 0, "daemon", []]
    for number in range(vmas):
        yield _mmap(0, _place(number, 2), 2)
        yield _touch(0, _place(number, 2), 2)
    for task in range(generations):
        yield ["fork", task, task + 1]
        yield ["exit", task]
        for number in range(vmas):
            yield _touch(task + 1, _place(number, 2))
    yield ["exit", generations]


def mixed(events: int = 100_000, processes: int = 40, seed: int = 0) -> Iterator[Event]:
    """About ``events`` random calls of up to ``processes`` processes: for a replay's speed, not for its figures."""
    random = Random(seed)
    yield ["exec", 0, "mixed", []]
    created, places = 1, {0: 0}
    for _ in range(events):
        task = random.choice(list(places))
        kind = random.random()
        if kind < 0.02 and len(places) < processes:
            yield ["fork", task, created]
            places[created] = places[task]
            created += 1
        elif kind < 0.03 and len(places) > 1:
            yield ["exit", task]
            del places[task]
        elif kind < 0.1 or not places[task]:
            places[task] += 1
            yield _mmap(task, _place(places[task] % 64, 8), 8)
        else:
            yield _touch(task, _place(random.randint(1, min(63, places[task])), 8) + random.randrange(8) * PAGE)


def churn(events: int = 300_000, processes: int = 150, seed: int = 0) -> Iterator[Event]:
    """About ``events`` random calls of up to ``processes`` processes, every fourth a fork or an exit: long chains."""
    random = Random(seed).random
    areas, pages = 4, 8
    yield ["exec", 0, "churn", []]
    for area in range(areas):
        yield _mmap(0, _place(area, pages), pages)
        yield _touch(0, _place(area, pages), 2)
    created, tasks = 1, [0]
    for _ in range(events):
        kind, at = random(), int(len(tasks) * random())
        task, place = tasks[at], _place(int(areas * random()), pages)
        page = place + int(pages * random()) * PAGE
        if kind < 0.26 and len(tasks) < processes:
            yield ["fork", task, created]
            tasks.append(created)
            created += 1
        elif kind < 0.26 and len(tasks) > 1:
            yield ["exit", task]
            del tasks[at]
        elif kind < 0.265:
            yield ["mprotect", task, page, PAGE, R if kind < 0.2625 else RW]
        elif kind < 0.266:
            yield ["munmap", task, page, PAGE]
            yield _mmap(task, page, 1)
        elif kind < 0.2815:
            yield _mmap(task, place, pages)
        else:
            yield _touch(task, page)


GENERATORS: dict[str, Callable[..., Iterator[Event]]] = {
    "aim7": aim7,
    "churn": churn,
    "daemon": daemon,
    "mixed": mixed,
    "splits": splits,
    "thousand": thousand,
    "zygote": zygote,
}


@dataclass(frozen=True)
class Synthetic:
    """A generator by name, with the sizes that differ from its defaults; :class:`UsageError` for unknown ones."""

    kind: str
    sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = signature(GENERATORS[self.kind]).parameters
        for name, value in self.sizes.items():
            if name not in known:
                raise UsageError(f"{self}: no size {name!r}; there are {', '.join(known)}")
            if value < 1 and name != "seed":
                raise UsageError(f"{self}: {name} has to be 1 at least")

    def __str__(self) -> str:
        sizes = ",".join(f"{name}={value}" for name, value in sorted(self.sizes.items()))
        return f"{self.kind}:{sizes}" if sizes else self.kind

    def events(self) -> Iterator[Event]:
        """Its events, from the first on."""
        return GENERATORS[self.kind](**self.sizes)

    @property
    def summary(self) -> str:
        """What it does, and its sizes."""
        return " ".join((GENERATORS[self.kind].__doc__ or "").split())

    @property
    def defaults(self) -> dict[str, int]:
        """Its sizes when nobody says otherwise."""
        return {name: parameter.default for name, parameter in signature(GENERATORS[self.kind]).parameters.items()}


def _place(number: int, pages: int) -> int:
    """Where VMA ``number`` of so many pages begins, apart from its neighbours (bytes)."""
    return BASE + number * (pages + GAP) * PAGE


def _mmap(task: int, address: int, pages: int, file: str | None = None, offset: int = 0) -> Event:
    flags = PRIVATE if file else PRIVATE | ANONYMOUS
    return ["mmap", task, address, pages * PAGE, RW, flags, offset * PAGE, file]


def _touch(task: int, address: int, pages: int = 1) -> Event:
    return ["anon", task, [[address, pages]]]
