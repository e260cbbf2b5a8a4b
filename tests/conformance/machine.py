# SPDX-License-Identifier: GPL-2.0-only
"""Settings of the whole machine, changed for a moment: swap space, and ksmd.

Only where the environment variable ``RMAPLAB_CONFORMANCE_MACHINE`` is set.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import puppet

from rmaplab.kernel.flags import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Ksmd", "forbidden", "ksmd", "swap_space"]

_KSM = Path("/sys/kernel/mm/ksm")
_HASTE = {"sleep_millisecs": "0", "pages_to_scan": "10000", "smart_scan": "0", "use_zero_pages": "0"}
_SCANS = 4  # one that had begun, one for checksums, one that merges, one that looks at what was merged late
_PATIENCE = 20.0  # seconds


def forbidden() -> str | None:
    """Why the machine's settings may not be changed, or None."""
    if not os.environ.get("RMAPLAB_CONFORMANCE_MACHINE"):
        return "changes settings of the whole machine: set RMAPLAB_CONFORMANCE_MACHINE=1 to allow it"
    if os.geteuid() != 0:
        return "only root may change settings of the machine"
    return None


@contextlib.contextmanager
def swap_space(directory: Path, pages: int = 8192) -> Iterator[None]:
    """A swap file of so many pages for as long as this lasts; OSError if the kernel refuses it."""
    libc = ctypes.CDLL(None, use_errno=True)
    file = directory / "swap"
    header = bytearray(PAGE_SIZE)
    struct.pack_into("<III", header, 1024, 1, pages - 1, 0)  # version, last page, bad pages
    header[-10:] = b"SWAPSPACE2"
    with file.open("wb") as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(header + bytes(PAGE_SIZE) * (pages - 1))
        os.fsync(out.fileno())
    if libc.swapon(os.fsencode(file), 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(file))
    try:
        yield
    finally:
        libc.swapoff(os.fsencode(file))
        file.unlink()


class Ksmd:
    """ksmd, which runs when it is told to."""

    def scan(self) -> None:
        """Let it scan all there is, until it finds nothing more to merge."""
        (_KSM / "run").write_text("1")
        first, began = self.full_scans(), time.monotonic()
        while self.full_scans() < first + _SCANS:
            if time.monotonic() > began + _PATIENCE:
                raise TimeoutError("ksmd does not scan")
            time.sleep(0.001)
        (_KSM / "run").write_text("0")

    def full_scans(self) -> int:
        """How often it has scanned all there is."""
        return int((_KSM / "full_scans").read_text())


@contextlib.contextmanager
def ksmd() -> Iterator[Ksmd]:
    """ksmd at rest, in haste once it is woken; as it was before at the end. OSError without CONFIG_KSM."""
    old = {name: (_KSM / name).read_text() for name in ("run", *_HASTE) if name == "run" or (_KSM / name).exists()}
    try:
        (_KSM / "run").write_text("0")
        for name in old.keys() & _HASTE.keys():
            (_KSM / name).write_text(_HASTE[name])
        with mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE) as memory:
            memory.madvise(puppet.ADVICE["mergeable"])  # or it sleeps while nobody has anything for it
            yield Ksmd()
    finally:
        for name, value in old.items():
            (_KSM / name).write_text(value)
