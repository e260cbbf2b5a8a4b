# SPDX-License-Identifier: GPL-2.0-only
"""Say what this machine can do for rmaplab, and how to get the rest."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmaplab.cli.common import add_output, emit
from rmaplab.errors import RmaplabError
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
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Look at everything; exit 0 whatever is missing."""
    findings = list(_examine())
    document: dict[str, Any] = {"checks": [finding._asdict() for finding in findings]}
    emit(args, "doctor", document, lambda: _text(findings))
    return 0


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
    yield _readable(
        "slab counters",
        "/sys/kernel/slab/anon_vma/objects",
        "comparing object counts with the running kernel",
        "run as root on a kernel with CONFIG_SLUB_DEBUG",
    )
    yield _readable(
        "type information",
        "/sys/kernel/btf/vmlinux",
        "inspecting the running kernel (a later version)",
        "boot a kernel with CONFIG_DEBUG_INFO_BTF",
    )
    yield _program("qemu-system-x86_64", "conformance with other kernels (a later version)", "qemu-system-x86")
    drgn = importlib.util.find_spec("drgn") is not None
    yield Finding(
        "drgn",
        drgn,
        "importable" if drgn else "not installed",
        "inspecting kernels and cores (a later version)",
        "pip install drgn",
    )
    release = os.uname().release
    symbols = Path(f"/usr/lib/debug/boot/vmlinux-{release}")
    yield Finding(
        "debug symbols",
        symbols.exists(),
        str(symbols) if symbols.exists() else f"none for {release}",
        "drgn on the running kernel (a later version)",
        f"apt-get install linux-image-{release}-dbg, if it is a Debian kernel",
    )


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
