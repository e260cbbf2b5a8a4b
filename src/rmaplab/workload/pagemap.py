# SPDX-License-Identifier: GPL-2.0-only
"""Which pages of a process are anonymous: /proc/PID/maps and /proc/PID/pagemap.

No privilege is needed for one's own tracee: only the frame numbers are kept
from ordinary users, and the flags are what counts here. Entry layout and the
PAGEMAP_SCAN ioctl: Documentation/admin-guide/mm/pagemap.rst.
"""

import errno
import fcntl
import os
import struct
from array import array
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Area", "Run", "anonymous_runs", "read_areas"]

Run = tuple[int, int]
"""A run of pages: its first byte's address and the address after its last."""

_PAGE = os.sysconf("SC_PAGESIZE")
_CHUNK = 1 << 17  # pages read at a time: 1 MiB of entries
_GAP = 512  # pages; two runs closer than this are read at once
_HUGE = 1 << 30  # bytes; without the ioctl, such an area is read only if smaps finds something in it
_UNSUPPORTED = (errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EPERM)


class Area(NamedTuple):
    """One line of /proc/PID/maps; addresses and offset in bytes."""

    start: int
    end: int
    protection: str
    offset: int
    name: str


def read_areas(pid: int) -> list[Area]:
    """Return the areas of a process in ascending order, without [vsyscall].

    Raises OSError when the process is gone or its maps are closed to us.
    """
    with open(f"/proc/{pid}/maps", "rb") as file:
        lines = file.read().splitlines()
    areas = [_area(line) for line in lines]
    return [area for area in areas if area.name != "[vsyscall]"]


def anonymous_runs(pid: int, within: Run | None = None, *, scan: bool = True) -> list[Run]:
    """Return the runs of anonymous pages of a process, or of a range of it.

    A page counts when it is present, mapped exclusively and no file's page,
    or when it is swapped and no file's. Neither the shared zero page nor a
    page still shared with a fork relative counts.

    ``scan=False`` does without the PAGEMAP_SCAN ioctl (Linux 6.7), which
    passes over holes of any size at once. Raises OSError when the process is
    gone or its pagemap is closed to us.
    """
    fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _joined(run for candidate in _candidates(pid, fd, within, scan) for run in _decoded(fd, candidate))
    finally:
        os.close(fd)


def _area(line: bytes) -> Area:
    span, protection, offset, _device, _inode, *name = line.split(None, 5)
    start, end = span.split(b"-")
    text = os.fsdecode(name[0].replace(b"\\012", b"\n")) if name else ""
    return Area(int(start, 16), int(end, 16), protection.decode(), int(offset, 16), text)


def _candidates(pid: int, fd: int, within: Run | None, scan: bool) -> list[Run]:
    """Return the runs that may hold anonymous pages, close ones joined."""
    if scan:
        span = within or _whole(pid)
        try:
            return _joined(_scanned(fd, span), gap=_GAP * _PAGE)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    return _private(pid, within)


def _whole(pid: int) -> Run:
    areas = read_areas(pid)
    return (areas[0].start, areas[-1].end) if areas else (0, 0)


def _private(pid: int, within: Run | None) -> list[Run]:
    low, high = within or (0, 1 << 64)
    areas = [area for area in read_areas(pid) if area.protection[3] == "p" and area.start < high and low < area.end]
    if any(area.end - area.start >= _HUGE for area in areas):
        filled = _filled(pid)
        areas = [area for area in areas if area.end - area.start < _HUGE or area.start in filled]
    return [(max(area.start, low), min(area.end, high)) for area in areas]


def _filled(pid: int) -> set[int]:
    """Return the starts of the areas in which smaps counts anonymous memory."""
    filled: set[int] = set()
    start = 0
    with open(f"/proc/{pid}/smaps", "rb") as file:
        for line in file:
            key, _, rest = line.partition(b" ")
            if not key.endswith(b":"):
                start = int(key.partition(b"-")[0], 16)
            elif key in (b"Anonymous:", b"Swap:") and int(rest.split()[0]):
                filled.add(start)
    return filled


# struct pm_scan_arg and struct page_region of include/uapi/linux/fs.h.
_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg)
_SCAN_ARG = struct.Struct("=12Q")
_IS_FILE, _IS_PRESENT, _IS_SWAPPED, _IS_PFNZERO = 1 << 2, 1 << 3, 1 << 4, 1 << 5
_REGIONS = 1024


def _scanned(fd: int, span: Run) -> Iterator[Run]:
    """Yield the regions of ``span`` that hold something other than file and zero pages, ascending.

    Where a call has stopped is told by its last region: the kernel's own word
    (walk_end) is that of its last full buffer, and may lie far before it (6.18).
    """
    start, end = span
    never, either = _IS_FILE | _IS_PFNZERO, _IS_PRESENT | _IS_SWAPPED
    regions = array("Q", bytes(24 * _REGIONS))
    vector, _ = regions.buffer_info()
    count = _REGIONS
    while start < end and count == _REGIONS:
        words = (_SCAN_ARG.size, 0, start, end, 0, vector, _REGIONS, 0, never, never, either, either)
        count = fcntl.ioctl(fd, _SCAN, bytearray(_SCAN_ARG.pack(*words)))
        for index in range(0, 3 * count, 3):
            yield regions[index], regions[index + 1]
        start = regions[3 * count - 2]


def _is_anonymous(top: int) -> bool:
    """Decide by the highest byte of a pagemap entry (bits 56 to 63)."""
    exclusive, guard, file, swapped, present = (top >> bit & 1 for bit in (0, 2, 5, 6, 7))
    return not file and not guard and bool((present and exclusive) or swapped)


_ANONYMOUS = bytes(_is_anonymous(top) for top in range(256))


def _decoded(fd: int, span: Run) -> Iterator[Run]:
    """Yield the runs of anonymous pages in ``span``.

    Entries are little-endian words, so every eighth byte has all the flags;
    slicing, translating and searching those bytes runs at C speed.
    """
    start, end = span
    while start < end:
        pages = min((end - start) // _PAGE, _CHUNK)
        data = os.pread(fd, pages * 8, start // _PAGE * 8)
        if not data:
            return
        yield from _runs(data[7::8].translate(_ANONYMOUS), start)
        start += len(data) // 8 * _PAGE


def _runs(flags: bytes, base: int) -> Iterator[Run]:
    first = flags.find(1)
    while first >= 0:
        after = flags.find(0, first)
        if after < 0:
            after = len(flags)
        yield base + first * _PAGE, base + after * _PAGE
        first = flags.find(1, after)


def _joined(runs: Iterator[Run], gap: int = 0) -> list[Run]:
    """Join ascending runs that lie within ``gap`` bytes of each other."""
    joined: list[Run] = []
    for start, end in runs:
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
