# SPDX-License-Identifier: GPL-2.0-only
"""Say what this machine can do for rmaplab, and how to get the rest.

With --series: which series the running kernel follows, by its release and by
what can be seen of it; exit code 1 if the two do not fit together.  With
--compile: compile the fast engine, once, so that it is ready when it is wanted.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmaplab.cli.common import add_output, emit, note
from rmaplab.engine.choice import (
    MISSING,
    histories_are_compiled,
    outdated_folders,
    replay_is_compiled,
    search_is_compiled,
)
from rmaplab.errors import RmaplabError, UsageError
from rmaplab.realkernel.bpf import BTF
from rmaplab.realkernel.guest.cache import KERNELS, find, missing
from rmaplab.realkernel.hostseries import host_series
from rmaplab.realkernel.slabinfo import source
from rmaplab.workload.recorder import record

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["prepare_parser", "run"]


class Finding(NamedTuple):
    """One ability: whether it is there, what was seen, what it is for, and how to get it."""

    name: str
    ok: bool
    found: str
    used_for: str
    remedy: str


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--series", action="store_true", help="only say which series the running kernel follows")
    parser.add_argument("--compile", action="store_true", help="only compile the fast engine (a minute, once)")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Look at everything; exit 0 whatever is missing."""
    if args.series:
        return _series(args)
    if args.compile:
        return _compile(args)
    findings = list(_examine())
    document: dict[str, Any] = {"checks": [finding._asdict() for finding in findings]}
    emit(args, "doctor", document, lambda: _text(findings))
    return 0


def _series(args: argparse.Namespace) -> int:
    host = host_series()
    document = {"checks": [], "series": host.name, "agrees": host.agrees, "evidence": list(host.evidence)}
    text = f"{host.name}\n" + "".join(f"  {line}\n" for line in host.evidence)
    if not host.agrees:
        text += "  what is seen is not what the release says: a kernel with patches of its own?\n"
    emit(args, "doctor", document, lambda: text)
    return 0 if host.agrees else 1


def _compile(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("numba") is None:
        raise UsageError(MISSING)
    began = time.perf_counter()
    if not _engine().ok:
        note(args, "compiling the fast engine; this takes about a minute, and once for each version")
        _compile_all()
    finding = _engine()
    emit(args, "doctor", {"checks": [finding._asdict()]}, lambda: _text([finding]))
    note(args, f"{time.perf_counter() - began:.0f} s")
    return 0


def _compile_all() -> None:
    """Use everything once, and remove what was compiled of other sources."""
    from rmaplab.check.fast_explore import compile_search
    from rmaplab.check.fast_fuzz import compile_histories
    from rmaplab.workload.fast_replay import compile_replay

    compile_search()
    compile_histories()
    compile_replay()
    for folder in outdated_folders():
        shutil.rmtree(folder, ignore_errors=True)


def _engine() -> Finding:
    """Nothing is loaded to find out."""
    used_for = "check, replay and compare, where there is much to do, and fuzz --engine fast"
    if importlib.util.find_spec("numba") is None:
        return Finding("fast engine", False, "no Numba", used_for, "pip install 'rmaplab[fast]'")
    ready = search_is_compiled() and histories_are_compiled() and replay_is_compiled()
    found = "compiled" if ready else "not compiled yet"
    return Finding("fast engine", ready, found, used_for, "rmaplab doctor --compile")


def _text(findings: list[Finding]) -> str:
    lines = []
    for finding in findings:
        lines.append(f"{'ok     ' if finding.ok else 'missing'}  {finding.name}: {finding.found}")
        if not finding.ok:
            lines += [f"         for: {finding.used_for}", f"         get: {finding.remedy}"]
    return "\n".join(lines) + "\n"


def _examine() -> Iterator[Finding]:
    version = platform.python_version()
    yield Finding("python", sys.version_info >= (3, 11), version, "everything", "apt-get install python3")
    yield _ptrace()
    yield _readable(
        "pagemap", "/proc/self/pagemap", "record: which pages are anonymous", "run where /proc is mounted"
    )
    counters = source()
    yield Finding(
        "slab counters",
        counters is not None,
        str(counters or "neither /sys/kernel/slab nor /proc/slabinfo can be read"),
        "doctor --series: what the running kernel does when it forks",
        "run as root",
    )
    yield _bpf()
    drgn = importlib.util.find_spec("drgn") is not None
    yield Finding(
        "drgn",
        drgn,
        "importable" if drgn else "not installed",
        "inspect --core, --qmp, --um, --kcore",
        "pip install 'rmaplab[kernel]'",
    )
    yield _engine()
    yield _readable("/proc/kcore", "/proc/kcore", "inspect --kcore", "run as root on a kernel with CONFIG_PROC_KCORE")
    yield _program("gcc", "conform: the program that guests run", "gcc libc6-dev")
    yield _program("qemu-system-x86_64", "conform with Debian's kernels", "qemu-system-x86")
    for name in KERNELS:
        yield _kernel(name)


def _bpf() -> Finding:
    """Nothing is loaded to find out."""
    lacking = []
    if not BTF.exists():
        lacking.append("no BTF (CONFIG_DEBUG_INFO_BTF)")
    if platform.machine() != "x86_64":
        lacking.append(f"{platform.machine()} instead of x86-64")
    if os.geteuid() != 0:
        lacking.append("not root")
    used_for = "inspect --live, conform --host: BPF programs that read the running kernel"
    return Finding(
        "live kernel", not lacking, "; ".join(lacking) or "root, and BTF is there", used_for, "run as root"
    )


def _kernel(name: str) -> Finding:
    try:
        kernel = find(name)
    except RmaplabError as error:
        return Finding(f"kernel {name}", False, str(error), "conform", f"make kernels KERNELS={name}")
    found = "not made" if kernel is None else f"{kernel.version}, {kernel.image}"
    used_for = "conform, allocations that fail in it" if name.startswith("um") else "conform"
    return Finding(f"kernel {name}", kernel is not None, found, used_for, missing(name))


def _ptrace() -> Finding:
    used_for = "record, and the live part of demo"
    program = shutil.which("true") or sys.executable
    command = [program] if program != sys.executable else [program, "-c", ""]
    with tempfile.TemporaryDirectory(prefix="rmaplab-") as folder:
        try:
            summary = record(command, Path(folder) / "trace")
        except RmaplabError as error:
            return Finding("ptrace", False, str(error), used_for, "allow ptrace of own children (no root needed)")
    return Finding("ptrace", True, f"recorded {sum(summary.events.values())} events of {command[0]}", used_for, "")


def _readable(name: str, path: str, used_for: str, remedy: str) -> Finding:
    ok = os.access(path, os.R_OK)
    return Finding(name, ok, path if ok else f"{path} is not readable", used_for, remedy)


def _program(name: str, used_for: str, package: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, path is not None, path or "not installed", used_for, f"apt-get install {package}")
