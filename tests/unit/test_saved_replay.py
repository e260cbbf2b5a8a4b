# SPDX-License-Identifier: GPL-2.0-only
"""Replays that are interrupted, kept in a file, and gone on with: the end is the same."""

import json
import os
import signal
from pathlib import Path
from random import Random

import pytest
from cli_calls import _call, _file, _in_a_folder_of_its_own, _trace  # noqa: F401 (fixtures)

from rmaplab.check.execute import execute
from rmaplab.check.invariants import violations
from rmaplab.errors import InputError
from rmaplab.kernel.freeze import FrozenError, freeze, thaw
from rmaplab.report.documents import replay_result
from rmaplab.scenario.generator import Generator
from rmaplab.series import find
from rmaplab.workload.replay import Replay, replay
from rmaplab.workload.saved import load_replay, save_replay
from rmaplab.workload.sources import find_workload

WORKLOADS = ("daemon:generations=20", "mixed:events=3000", "generations")


def figures(result):
    found = replay_result(result)
    del found["seconds"]
    return found


class Stopping(Replay):
    """Ends after so many events."""

    def __init__(self, *args, after, **options):
        super().__init__(*args, **options)
        self.after = after

    def _look(self):
        self.after -= 1
        if self.after == 0:
            self.stop()
        super()._look()


@pytest.mark.parametrize("series", ["v7.0", "v2.6.32", "v6.0", "lazy", "cow_context"])
@pytest.mark.parametrize("reclaim", ["exit", "clock"])
def test_a_replay_in_pieces_ends_as_one(tmp_path, series, reclaim):
    workloads = [find_workload(name) for name in WORKLOADS]
    whole = figures(replay(workloads, find(series), reclaim=reclaim))
    path, pieces = tmp_path / "saved", 0
    while True:
        part = Stopping(workloads, find(series), reclaim=reclaim, after=701)
        if pieces:
            load_replay(path, part)
        part.keep = lambda part=part: save_replay(path, part)
        result, pieces = part.run(), pieces + 1
        if not result.interrupted:
            break
    assert pieces > 4
    assert figures(result) == whole


@pytest.mark.parametrize("seed", range(6))
def test_any_state_is_thawed_as_it_was_frozen(seed):
    """Swap, KSM, pins, guards and large folios included: both go on alike."""
    kernel = find("v7.0")()
    kernel.spawn()
    generator = Generator(Random(seed))
    generator.configure(kernel)
    for _ in range(150):
        if not kernel.processes:
            break
        execute(kernel, generator.call(kernel))
    other = type(kernel)()
    assert thaw(freeze(kernel, {"some": list(kernel.processes.values())}), other)["some"] == list(
        other.processes.values()
    )
    assert other.snapshot() == kernel.snapshot()
    assert violations(other) == []
    for name in list(kernel.processes):
        for machine in (kernel, other):
            machine.processes[name].exit()
        assert other.snapshot() == kernel.snapshot()


@pytest.mark.parametrize("data", [b"", b"\x80", b"garbage", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x05]."])
def test_garbage_is_no_machine(data):
    with pytest.raises(FrozenError):
        thaw(data, find("v7.0")())


def test_ctrl_c_saves_and_resume_goes_on(call, monkeypatch):
    whole = json.loads(call("replay", "mixed:events=4000", "--json").out)["results"]["v7.0"]
    real = Replay._look

    def interrupted(self):
        if self.event == 1000:
            os.kill(os.getpid(), signal.SIGINT)
        real(self)

    monkeypatch.setattr(Replay, "_look", interrupted)
    first = call("replay", "mixed:events=4000", "--save", "kept")
    assert first.code == 130
    assert "--resume kept goes on" in first.err
    monkeypatch.setattr(Replay, "_look", real)
    done = call("replay", "mixed:events=4000", "--resume", "kept", "--json")
    assert done.code == 0
    found = json.loads(done.out)["results"]["v7.0"]
    del whole["seconds"], found["seconds"]
    assert found == whole
    for wrong in (
        ("mixed:events=5000",),
        ("mixed:events=4000", "--series", "v6.18"),
        ("daemon", "--reclaim", "clock"),
    ):
        told = call("replay", *wrong, "--resume", "kept")
        assert told.code == 4
        assert "saved by a replay with another" in told.err


def test_damaged_files_are_refused(call, tmp_path):
    assert call("replay", "daemon:generations=3", "--resume", "none").code == 4
    part = Stopping([find_workload("daemon:generations=3")], find("v7.0"), after=5)
    part.keep = lambda: save_replay(Path("kept"), part)
    part.run()
    whole = Path("kept").read_bytes()
    for data in (b"", b"{}\n", b"[]", whole[:-20], whole.replace(b"\n", b"\nx", 1), b"\0" * 100):
        Path("kept").write_bytes(data)
        told = call("replay", "daemon:generations=3", "--resume", "kept")
        assert told.code == 4
        assert "remove it to begin afresh" in told.err
    with pytest.raises(InputError, match="cannot be written"):
        save_replay(tmp_path / "no" / "where", part)


def test_several_series_are_not_saved(call):
    assert call("replay", "daemon", "--series", "v7.0", "--series", "v6.18", "--save", "x").code == 2
