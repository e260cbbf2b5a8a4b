# SPDX-License-Identifier: GPL-2.0-only
"""Holds the model's numbers of objects against the slab counters of this machine, while real programs run.

``make slab-agreement`` (root, or a machine whose slab counters may be read).
Each workload is recorded.  Before its work and at the height of it the
counters are read and the recorder is told to leave a mark; the replay of the
trace says how many objects there should be at the marks.  What is compared is
the growth from the first to the second.

Free objects that processors keep to hand count as allocated: a few hundred,
so the workloads are large.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rmaplab.realkernel.guests import series_of_release
from rmaplab.realkernel.slabinfo import objects
from rmaplab.report.text import table
from rmaplab.series import find
from rmaplab.workload.replay import replay

RMAPLAB = str(Path(sys.executable).with_name("rmaplab"))
SETTLED = 40  # looks at the counters, a tenth of a second apart
WAIT = 120  # seconds for a workload to come to its height

MEMORY = """
import mmap, os, sys, time
# Neighbours differ in their rights, so that none merge.
memory = [mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE, prot=3 | (4 if number % 2 else 0)) for number in range(60)]
def write(number):
    for block in memory:
        block[0] = number
write(0)
"""

POOL = (
    MEMORY
    + """
holds = []
for number in range({size}):
    readable, writable = os.pipe()
    if os.fork() == 0:
        write(number % 256)
        os.close(writable)
        os.read(readable, 1)
        os._exit(0)
    os.close(readable)
    holds.append(writable)
open("ready", "w").close()
while not os.path.exists("done"):
    time.sleep(0.1)
for writable in holds:
    os.close(writable)
for _ in holds:
    os.wait()
"""
)

FAMILY = (
    MEMORY
    + """
def live(depth):
    write(depth)
    if depth == {size}:
        open("ready", "w").close()
    elif os.fork() == 0:
        live(depth + 1)
    while not os.path.exists("done"):
        time.sleep(0.1)
    os._exit(0)
live(0)
"""
)

POSTGRES = r"""
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
initdb -D data --no-sync --auth=trust >/dev/null
cat >>data/postgresql.conf <<END
listen_addresses = ''
unix_socket_directories = '$PWD'
shared_buffers = 16MB
fsync = off
max_connections = {size}
END
postgres -D data >log 2>&1 &
server=$!
until psql -h "$PWD" -d postgres -c 'select 1' >/dev/null 2>&1; do sleep 0.2; done
pgbench -h "$PWD" -i -q -s 1 postgres >/dev/null 2>&1
pgbench -h "$PWD" -n -c $(({size} - 10)) -T 4 -f hold.sql postgres >/dev/null 2>&1 &
sleeping="select count(*) from pg_stat_activity where query like '%sleep%'"
until [ "$(psql -h "$PWD" -d postgres -Atc "$sleeping")" -gt $(({size} - 11)) ]; do sleep 0.3; done
: >ready
until [ -e done ]; do sleep 0.2; done
kill -INT $server
wait
"""

PREFORK = r"""
modules=/usr/lib/apache2/modules
cat >httpd.conf <<END
ServerRoot "$PWD"
ServerName localhost
Listen 127.0.0.1:18432
PidFile "$PWD/pid"
ErrorLog "$PWD/error.log"
DocumentRoot "$PWD"
LoadModule mpm_prefork_module $modules/mod_mpm_prefork.so
LoadModule authz_core_module $modules/mod_authz_core.so
StartServers {size}
MinSpareServers {size}
MaxSpareServers {size}
ServerLimit {size}
MaxRequestWorkers {size}
END
[ "$(id -u)" != 0 ] || printf 'User www-data\nGroup www-data\n' >>httpd.conf
setsid apache2 -DFOREGROUND -f "$PWD/httpd.conf" >/dev/null 2>&1 &
server=$!
until ab -q -n 2000 -c 50 http://127.0.0.1:18432/ >/dev/null 2>&1; do sleep 0.2; done
sleep 1
: >ready
until [ -e done ]; do sleep 0.2; done
kill -TERM $server
wait
"""


class Workload(NamedTuple):
    """A script with a ``{size}``, the program that runs it, the programs it needs."""

    script: str
    interpreter: str
    size: int
    needs: tuple[str, ...]


WORKLOADS = {
    "pool of forked workers": Workload(POOL, sys.executable, 150, ()),
    "family, all generations alive": Workload(FAMILY, sys.executable, 60, ()),
    "PostgreSQL": Workload(POSTGRES, "/bin/sh", 150, ("pgbench", "setpriv")),
    "Apache, prefork": Workload(PREFORK, "/bin/sh", 400, ("apache2", "ab", "setsid")),
}


class Agreement(NamedTuple):
    """Growth of a cache, as the model has it and as the machine counted it."""

    model: int
    machine: int

    @property
    def error(self) -> float:
        """Relative to the machine."""
        return (self.model - self.machine) / self.machine if self.machine else 0.0


def main() -> int:
    """Measure what was asked for, or all; exit code 1 if one is further off than allowed."""
    parser = argparse.ArgumentParser(description="hold predicted objects against this machine's slab counters")
    parser.add_argument("names", metavar="NAME", nargs="*", help="workloads by a part of their names (default: all)")
    parser.add_argument("--within", type=float, default=0.05, help="largest relative error (default 0.05)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    if objects("anon_vma") is None:
        sys.exit("the slab counters of this machine cannot be read: run it as root")
    rows: list[list[object]] = [["workload", "cache", "model", "machine", "error"]]
    found = {}
    worst = 0.0
    for name, workload in WORKLOADS.items():
        missing = [program for program in workload.needs if shutil.which(program) is None]
        if missing or (args.names and not any(part.lower() in name.lower() for part in args.names)):
            if missing:
                print(f"{name}: left out: {', '.join(missing)} not installed", file=sys.stderr)
            continue
        found[name] = measured(workload)
        for cache, agreement in found[name].items():
            rows.append([name, cache, agreement.model, agreement.machine, f"{agreement.error:+.1%}"])
            worst = max(worst, abs(agreement.error))
    print("\n".join(table(rows)))
    if args.json:
        Path(args.json).write_text(
            json.dumps({name: {cache: two._asdict() for cache, two in both.items()} for name, both in found.items()})
            + "\n"
        )
    return int(worst > args.within)


def measured(workload: Workload) -> dict[str, Agreement]:
    """Record one, read the counters at two moments, and replay."""
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
        gate = f"cd {folder}; until [ -e go ]; do sleep 0.1; done; exec " + " ".join(command)
        trace = folder.with_suffix(".trace")
        recorder = subprocess.Popen([RMAPLAB, "record", "-q", "-o", str(trace), "--", "/bin/sh", "-c", gate])
        try:
            time.sleep(1.5)
            with Filler():
                before = marked(recorder)
                (folder / "go").touch()
                wait_for(folder / "ready", recorder)
                time.sleep(1)
                after = marked(recorder)
            (folder / "done").touch()
            recorder.wait(WAIT)
        finally:
            recorder.terminate()
            recorder.wait()
        try:
            result = replay([trace], find(series_of_release(platform.release())), reclaim="none")
        finally:
            trace.unlink(missing_ok=True)
    start, height = result.marks
    return {
        cache: Agreement(getattr(height, cache) - getattr(start, cache), after[cache] - before[cache])
        for cache in ("anon_vma", "anon_vma_chain")
    }


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


def marked(recorder: subprocess.Popen[bytes]) -> dict[str, int]:
    """The counters, steady for a while, and a mark in the trace."""
    recorder.send_signal(signal.SIGUSR1)
    time.sleep(1)
    seen = []
    for _ in range(SETTLED):
        seen.append((objects("anon_vma") or 0, objects("anon_vma_chain") or 0))
        time.sleep(0.1)
    return {"anon_vma": int(median(one for one, _ in seen)), "anon_vma_chain": int(median(two for _, two in seen))}


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
