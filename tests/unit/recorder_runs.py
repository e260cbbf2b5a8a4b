# SPDX-License-Identifier: GPL-2.0-only
"""Recordings of small commands, and what to look for in their events."""

import os
import sys
import textwrap
from copy import deepcopy
from pathlib import Path

import pytest

from rmaplab.errors import InputError
from rmaplab.workload.recorder import record
from rmaplab.workload.runs import RunSet
from rmaplab.workload.trace import TraceReader

PAGE = os.sysconf("SC_PAGESIZE")
SCRIPT = "import sys\nfrom pathlib import Path\nfrom rmaplab.workload.recorder import record\n"


@pytest.fixture(scope="module", autouse=True)
def _ptrace(tmp_path_factory):
    try:
        record(["true"], tmp_path_factory.mktemp("probe") / "t")
    except InputError as error:
        if "refused" in str(error) or "cannot record on" in str(error):
            pytest.skip(f"no ptrace here: {error}")
        raise


@pytest.fixture(params=[True, False], ids=["filter", "every-call"], name="trace")
def _trace(request, tmp_path):
    """Record a command; return summary, events and end."""

    def run(*command):
        path = tmp_path / "out.trace"
        summary = record(command, path, use_filter=request.param)
        with TraceReader(path) as reader:
            events = list(reader)
        assert sum(summary.events.values()) == len(events) == reader.end.events
        assert summary.status == reader.end.status
        assert reader.header.command == command
        assert os.listdir(tmp_path) == ["out.trace"]
        return summary, events, reader.end

    return run


def python(source, *arguments):
    return sys.executable, "-I", "-c", textwrap.dedent(source), *map(str, arguments)


def kinds(events, *wanted):
    return [event for event in events if event[0] in wanted]


def layout(events):
    """Follow every address space; return the mapped set of each task when it ended."""
    spaces, ended = {}, {}
    for kind, task, *rest in events:
        space = spaces.get(task)
        if kind == "exec":
            space = spaces[task] = RunSet()
            for start, end, *_ in rest[1]:
                space.add(start, end)
        elif kind == "fork":
            spaces[rest[0]] = deepcopy(space)
        elif kind == "share":
            spaces[rest[0]] = space
        elif kind == "mmap":
            run = rest[0], rest[0] + rest[1]
            if not rest[3] & 0x10:
                assert space.missing(*run) == [run], "a new mapping lies on an old one: calls out of order"
            space.add(*run)
        elif kind == "munmap":
            space.remove(rest[0], rest[0] + rest[1])
        elif kind == "mremap":
            space.remove(rest[0], rest[0] + rest[1])
            space.add(rest[4], rest[4] + rest[2])
        elif kind == "brk":
            old, new = (-(-end // PAGE) * PAGE for end in rest)
            (space.add if old < new else space.remove)(*sorted((old, new))) if old != new else None
        elif kind == "anon":
            for address, pages in rest[0]:
                grown_stack = address > (1 << 47) - (1 << 24)
                assert grown_stack or not space.missing(address, address + pages * PAGE)
        elif kind == "exit":
            ended[task] = space
    return ended


def anonymous(events, task):
    pages = RunSet()
    for _, owner, runs in kinds(events, "anon"):
        if owner == task:
            for address, count in runs:
                pages.add(address, address + count * PAGE)
    return pages


def gone(pid):
    """Wait until a process is no more (a zombie counts)."""
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return
