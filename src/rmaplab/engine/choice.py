# SPDX-License-Identifier: GPL-2.0-only
"""Whether the engine is there, is compiled, and knows a series: what can be told without loading Numba."""

from __future__ import annotations

import hashlib
import os
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rmaplab.engine.parameters import patched_function, unknown_function
from rmaplab.kernel import flags

if TYPE_CHECKING:
    from rmaplab.kernel import Kernel

__all__ = [
    "ENGINES",
    "HEAD_START",
    "MISSING",
    "OPERATIONS",
    "UnsupportedError",
    "cache_folder",
    "histories_are_compiled",
    "outdated_folders",
    "replay_is_compiled",
    "search_is_compiled",
    "why_not",
]

ENGINES = ("auto", "fast", "reference")
HEAD_START = 2.0
"""Seconds that `auto` gives the specification before it turns to the engine, which takes as long to load."""

MISSING = "the fast engine takes Numba, which is not here: pip install 'rmaplab[fast]'"
OPERATIONS = (
    "exit",
    "fork",
    "mmap",
    "mprotect",
    "munmap",
    "read",
    "write",
    "rwx",
    "half",
    "mremap",
    "fork-advice",
    "swap",
    "migrate",
    "pin",
    "ksm",
    "exec",
)
"""What histories on the engine can be made of."""


class UnsupportedError(Exception):
    """A state that the engine cannot hold; ``str()`` says what it is."""


_HERE = Path(__file__).parent
_CONSTANTS = Path(flags.__file__)  # part of what is compiled


def cache_folder(package: Path = _HERE) -> Path:
    """Where compiled functions of these very sources are kept: those of a package and of what they may be made of.

    The engine itself knows nothing of its explorer; all others may.  Beside
    the sources if they can be written there, else in the user's cache.
    """
    told = os.environ.get("NUMBA_CACHE_DIR")
    if told:
        return Path(told)
    digest = hashlib.sha256(f"{metadata.version('numba')} {sys.version}".encode())
    sources = {*_HERE.glob("*.py" if package == _HERE else "**/*.py"), *package.glob("*.py"), _CONSTANTS}
    for source in sorted(sources):
        digest.update(source.read_bytes())
    name = f"compiled-{digest.hexdigest()[:16]}"
    if os.access(package, os.W_OK):
        return package / "__pycache__" / name
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rmaplab" / name


def replay_is_compiled() -> bool:
    """Whether replays can begin at once."""
    return _is_compiled("replay.py", "_play")


def search_is_compiled() -> bool:
    """Whether explorations can begin at once."""
    return _is_compiled("search/explore.py", "expand")


def histories_are_compiled() -> bool:
    """Whether random histories can begin at once."""
    return _is_compiled("search/random_history.py", "play")


def outdated_folders() -> list[Path]:
    """What was compiled of other sources than the engine's present ones, and is beside them still."""
    return [
        folder
        for package in (_HERE, _HERE / "search")
        for folder in sorted((package / "__pycache__").glob("compiled-*"))
        if folder.name != cache_folder(package).name
    ]


def _is_compiled(source: str, function: str) -> bool:
    """Whether an entry of the engine is compiled already."""
    path = _HERE / source
    return find_spec("numba") is not None and any(cache_folder(path.parent).glob(f"**/{path.stem}.{function}-*.nbi"))


def why_not(series: type[Kernel]) -> str:
    """Why a series cannot run on the engine; empty if it can."""
    if find_spec("numba") is None:
        return MISSING
    if not series.__module__.startswith("rmaplab."):
        return f"{series.name} is logic of its own, which runs on the specification"
    name = unknown_function(series) or patched_function(series)
    return f"{series.name} has its own {name}, which the fast engine does not know" if name else ""
