# SPDX-License-Identifier: GPL-2.0-only
"""The first and last line of a trace, and the format's version."""

from dataclasses import dataclass

__all__ = ["FORMAT_VERSION", "MAGIC", "End", "Header", "reason"]

FORMAT_VERSION = 1
MAGIC = "rmaplab-trace"
"""The header's key that holds the version."""


@dataclass(frozen=True)
class Header:
    """What was recorded and where: the first line of a trace.

    ``arch`` and ``kernel`` are uname's machine and release, ``page_size`` is
    in bytes.
    """

    command: tuple[str, ...]
    arch: str
    kernel: str
    page_size: int = 4096
    version: int = FORMAT_VERSION


@dataclass(frozen=True)
class End:
    """How the recording ended: the last line of a trace.

    ``status`` is the command's exit status, 128 + N when signal N killed it,
    or None when it was not seen to end.
    """

    events: int
    interrupted: bool
    status: int | None


def reason(error: OSError | ValueError) -> str:
    """Return why the system refused, without the path that Python adds."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
