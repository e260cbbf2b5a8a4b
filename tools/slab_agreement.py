# SPDX-License-Identifier: GPL-2.0-only
"""Holds what a replay has against this machine, while real programs run: its slab counters, and its graph.

``make slab-agreement`` (root, or a machine whose slab counters may be read).
Each workload is recorded.  Before its work and at the height of it the
counters are read and the recorder is told to leave a mark; the replay of the
trace says how many objects there should be at the marks.  What is compared is
the growth from the first to the second.  Where the running kernel can be read
(``rmaplab inspect --live``), every VMA of every process is compared, too: its
place and the length of its chain.

Free objects that processors keep to hand count as allocated: a few hundred,
so the workloads are large; ``--flush`` has the kernel take them back before
each count.  A cache that the kernel has merged with
anon_vma_chain is counted apart, as far as its objects can be told from outside.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from tools.slab_workloads import WORKLOADS

from rmaplab.errors import InputError
from rmaplab.realkernel.guests import series_of_release
from rmaplab.realkernel.live import LiveTarget
from rmaplab.realkernel.reader import read_graph
from rmaplab.realkernel.slabinfo import objects
from rmaplab.report.text import table
from rmaplab.series import find
from rmaplab.workload.replay import Replay
from rmaplab.workload.sources import open_workload

if TYPE_CHECKING:
    from tools.slab_workloads import Workload

    from rmaplab.workload.result import Objects

RMAPLAB = str(Path(sys.executable).with_name("rmaplab"))
SETTLED = 40  # looks at the counters, a tenth of a second apart
WAIT = 120  # seconds for a workload to come to its height
SLAB = Path("/sys/kernel/slab")
CACHES = ("anon_vma", "anon_vma_chain")

Areas = list[tuple[int, int, int]]
"""Of one process: start and end (bytes) of each VMA, and the length of its chain."""


class Agreement(NamedTuple):
    """Growth of a cache in the model and on the machine; there ``merged`` of that was another cache's."""

    model: int
    machine: int
    merged: int = 0

    @property
    def error(self) -> float:
        """Relative to the machine."""
        own = self.machine - self.merged
        return (self.model - own) / own if own else 0.0


class Result(NamedTuple):
    """Of a workload: its caches, and the VMAs that are the same of those that the machine had (None: not read)."""

    caches: dict[str, Agreement]
    vmas: tuple[int, int] | None

    @property
    def told(self) -> str:
        """The VMAs as text."""
        return "not read" if self.vmas is None else f"{self.vmas[0]:,} of {self.vmas[1]:,}"


class Look(NamedTuple):
    """The machine at a mark: objects by cache, those of merged caches, and the areas by process (None: not read)."""

    objects: dict[str, int]
    merged: int
    areas: list[Areas] | None


def main() -> int:
    """Measure what was asked for, or all; exit code 1 if one is further off than allowed."""
    parser = argparse.ArgumentParser(description="hold predicted objects against this machine's slab counters")
    parser.add_argument("names", metavar="NAME", nargs="*", help="workloads by a part of their names (default: all)")
    parser.add_argument("--within", type=float, default=0.05, help="largest relative error (default 0.05)")
    parser.add_argument(
        "--flush",
        action="store_true",
        help="shrink the caches before each count: exact, and felt by the whole machine",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    if objects("anon_vma") is None:
        sys.exit("the slab counters of this machine cannot be read: run it as root")
    rows: list[list[object]] = [["workload", "cache", "model", "machine", "merged", "error", "VMAs the same"]]
    found: dict[str, Result] = {}
    for name, workload in WORKLOADS.items():
        if args.names and not any(part.lower() in name.lower() for part in args.names):
            continue
        if missing := [program for program in workload.needs if shutil.which(program) is None]:
            print(f"{name}: left out: {', '.join(missing)} not installed", file=sys.stderr)
            continue
        found[name] = measured(workload, args.flush)
        for cache, two in found[name].caches.items():
            rows.append([name, cache, two.model, two.machine, two.merged, f"{two.error:+.1%}", found[name].told])
    print("\n".join(table(rows)))
    if args.json:
        told = {
            name: {**{cache: two._asdict() for cache, two in result.caches.items()}, "vmas": result.vmas}
            for name, result in found.items()
        }
        Path(args.json).write_text(json.dumps(told) + "\n")
    worst = max((abs(two.error) for result in found.values() for two in result.caches.values()), default=0.0)
    return int(worst > args.within)


def measured(workload: Workload, flush: bool) -> Result:
    """Record one, look at the machine at two moments, and replay."""
    with tempfile.TemporaryDirectory(prefix="rmaplab-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        script = folder / "script"
        script.write_text(
            "set -eu\n" * (workload.interpreter == "/bin/sh") + workload.script.replace("{size}", str(workload.size))
        )
        (folder / "hold.sql").write_text("select pg_sleep(60);\n")
        command = [workload.interpreter, str(script)]
        if "setpriv" in workload.needs and os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        for pipe in ("go", "done"):
            os.mkfifo(folder / pipe)
            (folder / pipe).chmod(0o666)
        gate = f"cd {folder}; read -r _ <go || true; exec " + " ".join(command)
        trace = folder.with_suffix(".trace")
        recorder = subprocess.Popen([RMAPLAB, "record", "-q", "-o", str(trace), "--", "/bin/sh", "-c", gate])
        try:
            time.sleep(1.5)
            with Filler():
                before = look(recorder, flush)
                go_on(folder / "go")
                wait_for(folder / "ready", recorder)
                time.sleep(1)
                after = look(recorder, flush)
            go_on(folder / "done")
            recorder.wait(WAIT)
        finally:
            recorder.terminate()
            recorder.wait()
        try:
            (start, height), areas = replayed_to(trace, 2)
        finally:
            trace.unlink(missing_ok=True)
    merged = {"anon_vma": 0, "anon_vma_chain": after.merged - before.merged}
    caches = {
        cache: Agreement(
            getattr(height, cache) - getattr(start, cache),
            after.objects[cache] - before.objects[cache],
            merged[cache],
        )
        for cache in CACHES
    }
    return Result(caches, None if after.areas is None else same_vmas(areas, after.areas))


def replayed_to(trace: Path, mark: int) -> tuple[list[Objects], list[Areas]]:
    """The objects at the marks up to one, and the areas of the model's processes there."""
    replay = Replay([trace], find(series_of_release(platform.release())), reclaim="none")
    marks = replay.result.marks
    with open_workload(trace) as reader:
        for event in reader:
            replay.machine.play(event)
            if len(marks) == mark:
                break
    mms = dict.fromkeys(process.mm for process in replay.kernel.processes.values())
    return marks, [[(vma.vm_start, vma.vm_end, len(vma.anon_vma_chain)) for vma in mm.vmas] for mm in mms]


def same_vmas(model: list[Areas], machine: list[Areas]) -> tuple[int, int]:
    """How many VMAs of the machine the model has at the same place with as long a chain; of how many.

    Both have their processes in the order of their making.
    """
    if len(model) != len(machine):
        sys.exit(f"{len(machine)} processes ran at the mark, and the trace has {len(model)}")
    same = sum(len({*ours} & {*theirs}) for ours, theirs in zip(model, machine, strict=True))
    return same, sum(map(len, machine))


class Filler:
    """Processes that stand by with thousands of VMAs of their own: they use up what processors keep to hand."""

    SCRIPT = """
import mmap, sys, time
held = [mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | (number % 2 and mmap.PROT_EXEC),
                  flags=mmap.MAP_PRIVATE) for number in range(6000)]
for area in held:
    area[0] = 1
print(flush=True)
time.sleep(600)
"""

    def __enter__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", self.SCRIPT], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def look(recorder: subprocess.Popen[bytes], flush: bool) -> Look:
    """A mark in the trace, and the machine while it stands still: the counters steady for a while."""
    recorder.send_signal(signal.SIGUSR1)
    time.sleep(1)
    seen = []
    for _ in range(SETTLED):
        if flush:
            for cache in CACHES:
                (SLAB / cache / "shrink").write_text("1")
        seen.append([objects(cache) or 0 for cache in CACHES])
        time.sleep(0.1)
    counted = dict(zip(CACHES, (int(median(column)) for column in zip(*seen, strict=True)), strict=True))
    pids = tracees(recorder.pid)
    return Look(counted, merged(pids), live_areas(pids))


def tracees(recorder: int) -> list[int]:
    """The recorded processes, in the order of their making."""
    mark = f"\nTracerPid:\t{recorder}\n"
    found = []
    for path in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            if mark in path.read_text(encoding="utf-8", errors="replace"):
                found.append(int(path.parent.name))
    return sorted(found)


def live_areas(pids: list[int]) -> list[Areas] | None:
    """As the running kernel has them; None where it cannot be read."""
    try:
        with closing(LiveTarget()) as target:
            snapshot = read_graph(target, pids, folios=False).snapshot(layout=target.layout)
    except InputError as error:
        print(f"the graph is not compared: {error}", file=sys.stderr)
        return None
    processes = {int(process.name.rpartition(":")[2]): process for process in snapshot.processes}
    return [[(vma.start, vma.end, len(vma.chain)) for vma in processes[pid].vmas] for pid in pids]


# --- what else is in the cache of AVCs -------------------------------------------------------


def merged(pids: list[int]) -> int:
    """Objects of these processes in caches that the kernel has merged with anon_vma_chain, as far as known here.

    A process has a fs_struct; a file that an epoll instance watches, an eppoll_entry (fs/eventpoll.c).
    """
    avcs = (SLAB / "anon_vma_chain").resolve()
    together = {path.name for path in SLAB.iterdir() if path.is_symlink() and path.resolve() == avcs}
    count = len(pids) if "fs_cache" in together else 0
    return count + sum(watched(pid) for pid in pids if "eventpoll_pwq" in together)


def watched(pid: int) -> int:
    """Files that the epoll instances of a process watch, but for those that it has from its parent."""
    count = 0
    with suppress(OSError):
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        for path in Path(f"/proc/{pid}/fdinfo").iterdir():
            files = path.read_text().count("tfd:")
            if files and not is_same_file(pid, parent, int(path.name)):
                count += files
    return count


def is_same_file(pid: int, other: int, fd: int) -> bool:
    """Whether two processes have the same open file under a number: kcmp(2)."""
    kcmp, file = 312, 0  # on x86-64; KCMP_FILE
    return ctypes.CDLL(None).syscall(kcmp, pid, other, file, ctypes.c_ulong(fd), ctypes.c_ulong(fd)) == 0


def go_on(pipe: Path) -> None:
    """Let those who wait at a pipe go on."""
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def wait_for(path: Path, recorder: subprocess.Popen[bytes]) -> None:
    """Until a file is there."""
    for _ in range(WAIT * 10):
        if path.exists():
            return
        if recorder.poll() is not None:
            sys.exit(f"the workload ended early, with status {recorder.returncode}")
        time.sleep(0.1)
    sys.exit(f"the workload was not ready after {WAIT} s")


if __name__ == "__main__":
    sys.exit(main())
