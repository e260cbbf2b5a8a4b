# SPDX-License-Identifier: GPL-2.0-only
"""How many objects of a slab cache the running kernel has: /sys/kernel/slab, or else /proc/slabinfo."""

from __future__ import annotations

from pathlib import Path

__all__ = ["objects", "source"]

SYSFS = Path("/sys/kernel/slab")
PROC = Path("/proc/slabinfo")


def source(cache: str = "anon_vma") -> Path | None:
    """The file that tells of a cache, None if none can be read: most machines show it to root only."""
    for path in (SYSFS / cache / "objects", PROC):
        if objects_in(path, cache) is not None:
            return path
    return None


def objects(cache: str) -> int | None:
    """Objects that are allocated, give or take what processors keep for themselves; None if nobody tells."""
    for path in (SYSFS / cache / "objects", PROC):
        found = objects_in(path, cache)
        if found is not None:
            return found
    return None


def objects_in(path: Path, cache: str) -> int | None:
    """The number in one of the two files."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        if path == PROC:
            lines = [line[len(cache) :] for line in lines if line.startswith(f"{cache} ")]
        return int(lines[0].split()[0])
    except (OSError, IndexError, ValueError):
        return None
