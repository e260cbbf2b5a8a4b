# SPDX-License-Identifier: GPL-2.0-only
"""Records the workloads that rmaplab ships, and writes down where each trace comes from.

``make workloads`` runs the scripts of src/rmaplab/data/workloads one after
the other, each in a folder of its own making; ``make workloads WORKLOADS='redis make'``
those alone.  A script names the programs it needs; where one is missing, that
workload is left out, with a message.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rmaplab.workload.recorder import record

ROOT = Path(__file__).parents[1]
DATA = ROOT / "src" / "rmaplab" / "data"
PROVENANCE = DATA / "traces" / "provenance.json"
ELSEWHERE = ("/usr/sbin", "/usr/lib/postgresql/*/bin")


def main() -> int:
    """Record what was asked for, or all."""
    parser = argparse.ArgumentParser(description="record the workloads that rmaplab ships")
    parser.add_argument("names", metavar="NAME", nargs="*", help="workloads (default: all)")
    chosen = parser.parse_args().names
    scripts = {path.stem: path for path in sorted((DATA / "workloads").iterdir()) if path.suffix in (".py", ".sh")}
    if unknown := [name for name in chosen if name not in scripts]:
        parser.error(f"no script for {', '.join(unknown)}; there are {', '.join(scripts)}")
    known = json.loads(PROVENANCE.read_text(encoding="utf-8")) if PROVENANCE.exists() else {}
    failed = False
    for name in chosen or scripts:
        try:
            known[name] = recorded(name, scripts[name])
        except LookupError as error:
            failed = True
            print(f"{name}: left out: {error}", file=sys.stderr)
        PROVENANCE.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return int(failed)


def recorded(name: str, script: Path) -> dict[str, object]:
    """Run one under the recorder; :class:`LookupError` if a program is missing or the script fails."""
    text = script.read_text(encoding="utf-8")
    found = re.search(r"^(?:# )?Programs: ([\w ./-]+)", text, re.MULTILINE)
    programs = re.sub(r"\(.*", "", found[1]).split() if found else []
    versions = {program: version(program) for program in programs}
    trace = DATA / "traces" / f"{name}.trace"
    fresh = trace.with_suffix(".new")
    # The trace begins with the script's own interpreter: its name is not a path of this machine.
    os.chdir(script.parent)
    summary = record([f"./{script.name}"], fresh)
    if summary.status != 0 or summary.interrupted:
        fresh.unlink(missing_ok=True)
        raise LookupError(f"{script.name} ended with status {summary.status}")
    fresh.replace(trace)
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    told = {
        "script": f"workloads/{script.name}",
        "summary": summary_of(text),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "system": system,
        "programs": versions,
        "tasks": summary.tasks,
        "events": sum(summary.events.values()),
        "bytes": trace.stat().st_size,
        "sha256": hashlib.sha256(trace.read_bytes()).hexdigest(),
    }
    print(f"{name}: {told['events']:,} events of {told['tasks']} tasks, {told['bytes']:,} bytes")
    return told


def summary_of(text: str) -> str:
    """The sentence that a script begins with."""
    lines = [line.lstrip('#" ').rstrip() for line in text.splitlines()]
    return next(line for line in lines if line and not line.startswith(("!", "SPDX", "/")))


def version(program: str) -> str:
    """What a program says of its version; :class:`LookupError` if it is not there."""
    places = os.pathsep.join(
        [os.environ.get("PATH", ""), *(str(path) for place in ELSEWHERE for path in Path("/").glob(place[1:]))]
    )
    path = shutil.which(program, path=places)
    if path is None:
        raise LookupError(f"{program} is not installed")
    for option in ("--version", "-V", "-v"):
        done = subprocess.run([path, option], capture_output=True, text=True, check=False)
        if number := re.search(r"\d+\.[\d.]+\w*", done.stdout + done.stderr):
            return number[0]
    return "unknown"


if __name__ == "__main__":
    sys.exit(main())
