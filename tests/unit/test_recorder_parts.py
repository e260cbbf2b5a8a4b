# SPDX-License-Identifier: GPL-2.0-only
"""The recorder's parts: page map, system call filter, sets of runs."""

import ctypes
import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorder_runs import PAGE, _ptrace  # noqa: F401 (a fixture)

from rmaplab.workload import pagemap
from rmaplab.workload.runs import RunSet
from rmaplab.workload.syscalls import ABIS, filter_program


def test_pagemap_with_and_without_the_scan_ioctl_agree():
    area = mmap.mmap(-1, 4096 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    reserve = mmap.mmap(-1, 1 << 32, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=0)
    pages = (*range(3), 9, 1000, 4095)
    for page in pages:
        area[page * PAGE] = 1
    # Nothing but the area: what else there is in this process changes while it is read.
    place = ctypes.c_char.from_buffer(area)
    start = ctypes.addressof(place)
    span = start, start + 4096 * PAGE
    scanned, read = (pagemap.anonymous_runs(os.getpid(), span, scan=scan) for scan in (True, False))
    assert scanned == read
    found = {(at - start) // PAGE for first, after in read for at in range(first, after, PAGE)}
    assert found >= set(pages)
    assert pagemap.anonymous_runs(os.getpid(), scan=False)
    del place
    reserve.close()


def test_more_regions_than_a_scan_returns_come_once_and_in_order():
    pages = 2 * (1024 + 700)  # a call returns 1,024, and has a buffer for 512
    area = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(0, pages, 2):
        area[page * PAGE] = 1
    place = ctypes.c_char.from_buffer(area)
    start = ctypes.addressof(place)
    fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        regions = [
            run
            for run in pagemap._scanned(fd, (start, pagemap._whole(os.getpid())[1]))
            if run[0] < start + pages * PAGE
        ]
    except OSError as error:
        if error.errno not in pagemap._UNSUPPORTED:
            raise
        pytest.skip("this kernel has no PAGEMAP_SCAN")
    finally:
        os.close(fd)
    assert regions == [(start + page * PAGE, start + (page + 1) * PAGE) for page in range(0, pages, 2)]
    del place


def test_filter_jumps_stay_inside_and_end_in_a_verdict():
    for abi in ABIS.values():
        program = filter_program(abi)
        count = len(program) // 8
        for place in range(count - 2):
            assert place + 1 + max(program[place * 8 + 2 : place * 8 + 4]) < count
        assert [program[place * 8] for place in (count - 2, count - 1)] == [6, 6]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 10)), max_size=20), st.data())
def test_run_set_equals_a_set(operations, data):
    runs, model = RunSet(), set()
    for adds, start, length in operations:
        (runs.add if adds else runs.remove)(start, start + length)
        (model.update if adds else model.difference_update)(range(start, start + length))
    start = data.draw(st.integers(0, 40))
    end = data.draw(st.integers(start + 1, 50))
    missing = runs.missing(start, end)
    assert {item for low, high in missing for item in range(low, high)} == set(range(start, end)) - model
    assert all(low < high for low, high in missing)
