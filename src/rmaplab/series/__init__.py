# SPDX-License-Identifier: GPL-2.0-only
"""The history: every series as a class that overrides what it had otherwise.

``v7.0`` is the plain text of :mod:`rmaplab.kernel`.  An older class derives
from the next newer one; ``parent`` names the one it was built on.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from rmaplab.errors import InputError, UsageError
from rmaplab.kernel import Kernel
from rmaplab.series.v2_6_32 import V2_6_32
from rmaplab.series.v2_6_34 import V2_6_34
from rmaplab.series.v3_19 import V3_19
from rmaplab.series.v4_0 import V4_0
from rmaplab.series.v5_5 import V5_5
from rmaplab.series.v6_0 import V6_0
from rmaplab.series.v6_1 import V6_1
from rmaplab.series.v6_12 import V6_12
from rmaplab.series.v6_12_112 import V6_12_112
from rmaplab.series.v6_18 import V6_18
from rmaplab.series.v6_18_1 import V6_18_1
from rmaplab.series.v6_18_3 import V6_18_2, V6_18_3
from rmaplab.series.v6_18_4 import V6_18_4
from rmaplab.series.v6_18_7 import V6_18_5, V6_18_6, V6_18_7
from rmaplab.series.v6_18_8 import V6_18_8
from rmaplab.series.v6_18_9 import V6_18_9
from rmaplab.series.v6_18_v2 import V6_18_V2
from rmaplab.series.v7_3 import V7_3
from rmaplab.series.zoo import ZOO

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["DEFAULT", "SERIES", "ZOO", "changed_functions", "designs", "find", "is_foreign"]

_OLDEST_FIRST: tuple[type[Kernel], ...] = (
    V2_6_32,
    V2_6_34,
    V3_19,
    V4_0,
    V5_5,
    V6_0,
    V6_1,
    V6_12,
    V6_12_112,
    V6_18,
    V6_18_1,
    V6_18_2,
    V6_18_3,
    V6_18_4,
    V6_18_5,
    V6_18_6,
    V6_18_7,
    V6_18_8,
    V6_18_9,
    V6_18_V2,
    Kernel,
    V7_3,
)
SERIES: dict[str, type[Kernel]] = {series.name: series for series in _OLDEST_FIRST}
DEFAULT = Kernel.name


def find(name: str) -> type[Kernel]:
    """The logic of a series, a zoo entry or a design by its name, or from a Python file that subclasses one.

    A design's name may be written with hyphens.  Raises :class:`UsageError` for a name that does not exist and
    :class:`InputError` for a file that cannot be used.
    """
    known = {**SERIES, **ZOO}
    if name in known:
        return known[name]
    if name.endswith(".py"):
        return _from_file(Path(name))
    installed = {point.name: point for point in designs()}
    for spelling in (name, name.replace("-", "_")):
        if spelling in installed:
            return _loaded(installed[spelling])
    known |= dict.fromkeys(installed, Kernel)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else "`rmaplab list series` shows them"
    raise UsageError(f"unknown series {name!r}; {hint}")


def designs() -> tuple[EntryPoint, ...]:
    """The designs that installed packages offer, by entry point in the group ``rmaplab.designs``."""
    from importlib import metadata  # slow to load

    return tuple(sorted(metadata.entry_points(group="rmaplab.designs"), key=lambda point: point.name))


def _loaded(point: EntryPoint) -> type[Kernel]:
    """The class that an entry point names."""
    try:
        design = point.load()
    except Exception as error:
        raise InputError(f"design {point.name}: {point.value} cannot be imported: {_told(error)}") from error
    if not (isinstance(design, type) and issubclass(design, Kernel)):
        raise InputError(f"design {point.name}: {point.value} is no class derived from a series")
    return _ready(design, point.name, f"design {point.name}")


def _from_file(path: Path) -> type[Kernel]:
    """The last class in the file that is derived from a series, executed as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"rmaplab_design_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path}: no such file; name a Python file with a class derived from a series")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # worker processes and dataclasses look it up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(f"{path}{_line_in(error, path)}: cannot be imported: {_told(error)}") from error
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Kernel) and value.__module__ == spec.name
    ]
    if not found:
        raise InputError(f"{path}: no class derived from a series; start with `class Mine(Kernel):`")
    return _ready(found[-1], str(path), str(path))


def _ready(design: type[Kernel], name: str, place: str) -> type[Kernel]:
    """The class under that name, if it can start and overrides what it seems to."""
    design.name = name
    for own in vars(design):
        if not own.startswith("_") and callable(getattr(design, own)) and not hasattr(Kernel, own):
            close = difflib.get_close_matches(own, dir(Kernel), n=1, cutoff=0.8)
            if close and not any(hasattr(base, own) for base in design.__mro__[1:]):
                raise InputError(
                    f"{place}: {design.__name__}.{own} overrides nothing; did you mean {close[0]}? "
                    "(a helper of its own begins with _)"
                )
    try:
        design()
    except Exception as error:
        raise InputError(f"{place}: {design.__name__} cannot start: {_told(error)}") from error
    return design


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _line_in(error: BaseException, path: Path) -> str:
    """``:LINE`` of the file where an error came from, if it did."""
    if isinstance(error, SyntaxError):
        return "" if error.lineno is None else f":{error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.resolve())
    ]
    return f":{lines[-1]}" if lines else ""


def is_foreign(series: type) -> bool:
    """Whether the logic comes from a user's file: an exception in it is a crash of that logic, not our bug."""
    return not series.__module__.startswith("rmaplab.")


def changed_functions(series: type[Kernel]) -> list[str]:
    """Functions of the specification that differ from those of the series' parent, sorted."""
    if series.parent is None:
        return []
    parent = find(series.parent)
    names = {name for name in (*dir(series), *dir(parent)) if not name.startswith("__")}
    pairs = ((name, getattr(series, name, None), getattr(parent, name, None)) for name in names)
    return sorted(name for name, own, old in pairs if own is not old and (callable(own) or callable(old)))
