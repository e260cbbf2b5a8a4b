# SPDX-License-Identifier: GPL-2.0-only
"""Replaying traces: designs that crash, traces that are refused."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay_events import (
    ANONYMOUS,
    EXEC,
    EXIT,
    PAGE,
    PRIVATE,
    RW,
    A,
    _play,  # noqa: F401 (a fixture)
    anon,
    mmap,
    reuse,
)

from rmaplab.errors import InputError
from rmaplab.series import find
from rmaplab.workload.replay import replay


def test_crash_of_the_model_names_trace_and_event(play, tmp_path):
    design = tmp_path / "crash.py"
    design.write_text(
        "from rmaplab.kernel import Kernel\nfrom rmaplab.kernel.events import KernelBug\n"
        "class Crash(Kernel):\n    def anon_vma_fork(self, vma, pvma):\n        raise KernelBug('oops')\n"
    )
    with pytest.raises(InputError, match=r"hand\.trace: event 4: .*crash.py crashed here: oops"):
        play(EXEC, mmap(0, A, 1), anon(0, A), ["fork", 0, 1], series=str(design))


def test_an_exception_in_a_design_is_a_crash_too(play, tmp_path):
    design = tmp_path / "crash.py"
    design.write_text(
        "from rmaplab.kernel import Kernel\n"
        "class Crash(Kernel):\n    def anon_vma_fork(self, vma, pvma):\n        raise AttributeError('oops')\n"
    )
    with pytest.raises(InputError, match=r"event 4: .*crash.py crashed here: .*oops"):
        play(EXEC, mmap(0, A, 1), anon(0, A), ["fork", 0, 1], series=str(design))


def test_a_trace_with_larger_pages_is_refused(play):
    big = 4 * PAGE
    area = ["mmap", 0, A, 2 * big, RW, PRIVATE | ANONYMOUS, 0, None]
    with pytest.raises(InputError, match="pages of 16384 bytes"):
        play(EXEC, area, EXIT, page_size=big)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_traces_are_input_errors(tmp_path, play, data):
    play(*reuse(1))
    path = tmp_path / "hand.trace"
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path / "damaged.trace"
    damaged.write_bytes(content)
    with contextlib.suppress(InputError):
        replay([damaged], find("v7.0"))


@pytest.mark.parametrize("content", [b"", b"junk", bytes(range(256)), b"\x1f\x8b\x08\x00"])
def test_junk_is_refused(tmp_path, content):
    path = tmp_path / "junk.trace"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"junk\.trace"):
        replay([path], find("v7.0"))
