# SPDX-License-Identifier: GPL-2.0-only
"""What a function of a series allocates, frees and locks, and machines whose chains have a given length."""

import pytest
from machine_parts import BEFORE_6_16, SINCE_6_0

from rmaplab.series import SERIES

CLONE_THEN_ALLOCATE = (*BEFORE_6_16, "v6.18", "v6.18+1")  # fork before patch 2
LEAKS = ("v6.18+v2",)  # fork before patch 2, clone and unlink after patch 9
PER_AVC_LOCK = (*BEFORE_6_16, "v6.18", "v6.18+1", "v6.18+2", "v6.18+3")  # clone allocates once before it locks
ONE_LOCK = ("v6.18+4", "v6.18+5", "v6.18+6", "v6.18+7")  # clone locks, then allocates
TWO_PHASES = ("v6.18+8", "v6.18+9", "v7.0", "v7.3")  # clone allocates everything, then locks
ALLOCATE_AHEAD = tuple(name for name in SINCE_6_0 if name not in CLONE_THEN_ALLOCATE + LEAKS)
STALE_IF_REUSED = ("v6.18+1", "v6.18+2", "v6.18+3", *ONE_LOCK)
LENGTHS = (1, 2, 3, 4)
REUSABLE_LENGTHS = (3, 4)  # shorter chains have no ancestor without an owner but the root

every_series = pytest.mark.parametrize("series", SINCE_6_0)
every_length = pytest.mark.parametrize("n", LENGTHS)


class Recorder:
    """Events of one function: ``avc`` allocated, ``-avc`` freed, ``!avc`` failed, ``[`` ``]`` the anon_vma lock."""

    def __init__(self, kernel, function):
        self.kernel = kernel
        self.function = getattr(kernel, function)
        self.events = []
        self.results = []
        self.arguments = []
        setattr(kernel, function, self)

    def __call__(self, *arguments, **named):
        self.kernel.events.listeners.append(self.listen)
        try:
            self.results.append(self.function(*arguments, **named))
        finally:
            self.kernel.events.listeners.remove(self.listen)
        self.arguments.append(arguments)
        return self.results[-1]

    def listen(self, event):
        kind = "avc" if event.object.startswith(("avc", "anon_vma_chain")) else "av"
        match event.verb, event.detail:
            case "alloc", _:
                self.events.append(kind)
            case "free", _:
                self.events.append(f"-{kind}")
            case "fail", _:
                self.events.append(f"!{kind}")
            case "lock", "anon_vma write":
                self.events.append("[")
            case "unlock", "anon_vma":
                self.events.append("]")
            case "lock", "page_table_lock write":
                self.events.append("(")
            case "unlock", "page_table_lock":
                self.events.append(")")

    @property
    def locks(self):
        return self.events.count("[")

    @property
    def allocations(self):
        return [event for event in self.events if event in ("av", "avc")]


def machine(series):
    kernel = SERIES[series]()
    return kernel, kernel.spawn()


def generations(series, n, pages=1):
    """A kernel whose newest process has a VMA with a chain of length n: itself and its living ancestors."""
    kernel, process = machine(series)
    area = process.mmap(pages)
    process.write(area)
    for _ in range(n - 1):
        process = process.fork()
    assert [len(vma.anon_vma_chain) for vma in process.mm.vmas] == [n]
    return kernel, process, area


def with_reusable_ancestor(series, n):
    """The same, with the first child of the root dead: its anon_vma has no owner and one child."""
    kernel, process, area = generations(series, n)
    kernel.processes["P1"].exit()
    return kernel, process, area


def cloned_avcs(series, n):
    """Events of a clone of n links that succeeds: where the lock is taken depends on the revision."""
    if series in PER_AVC_LOCK:
        return ["avc", "[", *["avc"] * (n - 1), "]"]
    if series in ONE_LOCK:
        return ["[", *["avc"] * n, "]"]
    return [*["avc"] * n, "[", "]"]
