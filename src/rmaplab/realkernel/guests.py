# SPDX-License-Identifier: GPL-2.0-only
"""Guests by name, and which series their kernels follow."""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING

from rmaplab.errors import UsageError
from rmaplab.realkernel.guest.cache import KERNELS, Kernel, find, missing
from rmaplab.realkernel.guest.wire import GuestError

if TYPE_CHECKING:
    from rmaplab.realkernel.guest.wire import Guest

__all__ = ["HOST", "can_fail", "lacking", "open_guest", "release_of", "series_of", "series_of_release"]

HOST = "host"
"""The running kernel, as a guest among others."""

# From which release on a kernel follows a series.
_SINCE = (
    ((7, 3), "v7.3"),
    ((7, 0), "v7.0"),
    ((6, 16), "v6.18"),  # merging; a move of several VMAs is 6.17's
    ((6, 13), "v6.12"),
    ((6, 12, 112), "v6.12.112"),
    ((6, 4), "v6.12"),
    ((6, 1), "v6.1"),
    ((6, 0), "v6.0"),
    ((5, 5), "v5.5"),
    ((4, 0), "v4.0"),
)
_GUARDS_SINCE = (6, 13)  # MADV_GUARD_INSTALL
_HUGE_PAGES = frozenset({"hugepage", "nohugepage"})


def series_of_release(release: str) -> str:
    """The series whose rules a release such as ``6.12.117-amd64`` follows; the oldest for what is older."""
    version = _numbers(release)
    return next((series for since, series in _SINCE if version >= since), "v3.19")


def _numbers(release: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    return tuple(int(number or 0) for number in found.groups()) if found else (0,)


def release_of(name: str) -> str:
    """The release of a guest's kernel, which need not run for that; as :func:`open_guest`."""
    return platform.release() if name == HOST else _kernel(name).version


def series_of(name: str) -> str:
    """The series that a guest's kernel follows."""
    return series_of_release(release_of(name))


def _kernel(name: str) -> Kernel:
    kernel = find(name)
    if kernel is None:
        raise (GuestError if name in KERNELS else UsageError)(missing(name))
    return kernel


def open_guest(name: str) -> Guest:
    """Boot a guest, or begin a family of processes on the running kernel.

    :class:`rmaplab.errors.UsageError` for a name that means nothing,
    :class:`GuestError` for a kernel that is not there or does not boot.
    """
    if name == HOST:
        from rmaplab.realkernel.guest.host import HostGuest

        return HostGuest()
    kernel = _kernel(name)
    if kernel.kind == "um":
        from rmaplab.realkernel.guest.um import UmGuest

        return UmGuest(kernel)
    from rmaplab.realkernel.guest.qemu import QemuGuest

    return QemuGuest(kernel)


def can_fail(name: str) -> bool:
    """Whether a guest's allocations can be made to fail."""
    return name != HOST and _kernel(name).config.get("CONFIG_FAILSLAB") == "y"


def lacking(name: str) -> frozenset[str]:
    """Calls and advice that a guest's kernel is without."""
    without = set() if _numbers(release_of(name)) >= _GUARDS_SINCE else {"guard"}
    if name != HOST and _kernel(name).config.get("CONFIG_TRANSPARENT_HUGEPAGE") != "y":
        without |= _HUGE_PAGES
    return frozenset(without)
