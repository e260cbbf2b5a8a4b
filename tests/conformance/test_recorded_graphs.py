# SPDX-License-Identifier: GPL-2.0-only
"""What a replay of a recording has, VMA by VMA, while the recorded programs stand still and the kernel is read.

Reading the running kernel is on request only: RMAPLAB_LIVE=1.
"""

import os
import signal
import subprocess
import sys
import time

import pytest
from tools.slab_agreement import RMAPLAB, live_areas, replayed_to, same_vmas, tracees
from tools.slab_workloads import WORKLOADS

from rmaplab.realkernel import bpf

REASON = "; ".join(bpf.obstacles()) or None
if os.environ.get("RMAPLAB_LIVE") != "1":
    REASON = "loads BPF programs into the running kernel: RMAPLAB_LIVE=1 allows it"
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

SIZE = 8
PATIENCE = 60  # seconds


@pytest.mark.parametrize("name", ["pool of forked workers", "family, all generations alive"])
def test_every_vma_and_every_chain_is_that_of_the_machine(tmp_path, name):
    os.mkfifo(tmp_path / "done")
    (tmp_path / "script").write_text(WORKLOADS[name].script.replace("{size}", str(SIZE)))
    trace = tmp_path / "a.trace"
    command = [RMAPLAB, "record", "-q", "-o", str(trace), "--", sys.executable, str(tmp_path / "script")]
    recorder = subprocess.Popen(command, cwd=tmp_path)
    try:
        for _ in range(PATIENCE * 10):
            if (tmp_path / "ready").exists():
                break
            time.sleep(0.1)
        time.sleep(0.5)  # all of them have come to the place where they wait
        recorder.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        areas = live_areas(tracees(recorder.pid))
        os.close(os.open(tmp_path / "done", os.O_WRONLY))
        assert recorder.wait(PATIENCE) == 0
    finally:
        recorder.kill()
        recorder.wait()
    _, modelled = replayed_to(trace, 1)
    same, all_of_them = same_vmas(modelled, areas)
    assert len(areas) == SIZE + 1
    assert same == all_of_them > 50 * (SIZE + 1)
