# SPDX-License-Identifier: GPL-2.0-only
"""Writes archives that the kernel unpacks as its first file system (initramfs): cpio's ``newc`` format.

Documentation/driver-api/early-userspace/buffer-format.rst describes it.
Device nodes are entries like others, so nobody has to be root.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Entry", "archive", "initramfs"]

_MAGIC = "070701"
_TRAILER = "TRAILER!!!"


class Entry(NamedTuple):
    """A file: name without a leading slash, mode with its type, contents, and of a device its numbers."""

    name: str
    mode: int
    data: bytes = b""
    major: int = 0
    minor: int = 0


def archive(entries: Iterable[Entry]) -> bytes:
    """The bytes of an archive; the same entries give the same bytes."""
    parts = [_record(number, entry) for number, entry in enumerate(entries, start=1)]
    return b"".join([*parts, _record(0, Entry(_TRAILER, 0))])


def initramfs(init: bytes, modules: Mapping[str, bytes]) -> bytes:
    """A file system with the program ``/init``, kernel modules in ``/modules``, and a console."""
    folder, program = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    return archive(
        [
            *(Entry(name, folder) for name in ("dev", "modules", "proc", "sys")),
            Entry("dev/console", stat.S_IFCHR | 0o600, major=5, minor=1),
            Entry("init", program, init),
            *(Entry(f"modules/{name}", stat.S_IFREG | 0o644, data) for name, data in sorted(modules.items())),
        ]
    )


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    fields = (
        *(inode, entry.mode, 0, 0, 1 if inode else 0, 0, len(entry.data)),
        *(0, 0, entry.major, entry.minor, len(name), 0),
    )
    head = (_MAGIC + "".join(f"{value:08X}" for value in fields)).encode() + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
