# SPDX-License-Identifier: GPL-2.0-only
"""Traces written by hand: their events, and the replay of them."""

import pytest

from rmaplab.series import find
from rmaplab.workload.replay import replay
from rmaplab.workload.trace import Header, TraceWriter

PAGE = 4096
A, B = 0x100 * PAGE, 0x200 * PAGE  # far apart
PRIVATE, SHARED, ANONYMOUS = 0x02, 0x01, 0x20
R, RW = 1, 3
DONTNEED, DONTFORK, MERGEABLE, HUGEPAGE, NOHUGEPAGE = 4, 10, 12, 14, 15
DONTDUMP, WIPEONFORK, COLD, GUARD_INSTALL = 16, 18, 20, 102
EXEC = ["exec", 0, "/bin/prog", []]
EXIT = ["exit", 0]


def mmap(task, address, pages, prot=RW, flags=PRIVATE | ANONYMOUS, offset=0, name=None):
    return ["mmap", task, address, pages * PAGE, prot, flags, offset, name]


def anon(task, address, pages=1):
    return ["anon", task, [[address, pages]]]


@pytest.fixture(name="play")
def _play(tmp_path):
    """Write events to a trace, replay it, return the result."""

    def write_and_replay(*events, series="v7.0", page_size=PAGE, **options):
        path = tmp_path / "hand.trace"
        with TraceWriter(path, Header(("prog",), "x86_64", "6.18.0", page_size)) as writer:
            for event in events:
                writer.write(event)
            writer.close(status=0)
        return replay([path], find(series), **options)

    return write_and_replay


def final(result):
    return result.final.anon_vma, result.final.anon_vma_chain


def reuse(times):
    """Generations: each child forks a successor and exits, so the successor's forks find an anon_vma to adopt."""
    events = [EXEC, mmap(0, A, 1), anon(0, A)]
    for task in range(times + 1):
        events += [["fork", task, task + 1], ["exit", task]]
    return events
