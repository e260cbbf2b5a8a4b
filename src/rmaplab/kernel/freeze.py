# SPDX-License-Identifier: GPL-2.0-only
"""A machine as bytes, to go on with later: pickle, object by object.

The structures point at each other in chains as long as there are objects, and
pickle follows them by recursion.  So each object is written as the values of
its slots, with the objects in them as numbers, and one after the other.
"""

from __future__ import annotations

import io
import pickle
from collections import Counter
from typing import TYPE_CHECKING, Any

from rmaplab.kernel.area import Area
from rmaplab.kernel.interval_tree import IntervalTree
from rmaplab.kernel.locking import Lock, Mode
from rmaplab.kernel.objects import (
    FILE_PAGE,
    ZERO_PAGE,
    AnonVma,
    AnonVmaChain,
    Folio,
    KsmRmapItem,
    Mm,
    StableNode,
    SwapSlot,
    Vma,
)
from rmaplab.kernel.pagetable import GuardMarker, MigrationPte, PageTable, Pte, SwapPte
from rmaplab.kernel.process import Process

if TYPE_CHECKING:
    from rmaplab.kernel.kernel import Kernel

__all__ = ["FrozenError", "freeze", "thaw"]

_KINDS: tuple[type, ...] = (
    AnonVma,
    AnonVmaChain,
    Folio,
    GuardMarker,
    IntervalTree,
    KsmRmapItem,
    MigrationPte,
    Mm,
    PageTable,
    Process,
    Pte,
    StableNode,
    SwapPte,
    SwapSlot,
    Vma,
)
_PLAIN: dict[tuple[str, str], type] = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (Area, Counter, Lock, Mode, AnonVma, Folio, Mm, Vma, SwapSlot, StableNode)
}
_SERVICES = {
    "slab": ("bytes", "peak_bytes"),
    "locks": ("acquisitions", "allocations_under_lock", "tree_operations", "longest_hold"),
}
_CACHE = ("live", "made", "embedded", "spared", "peak", "wasted")
_CACHES = ("anon_vma", "anon_vma_chain")
_STATE = ("processes", "stable_tree", "idents", "anon_orders", "data_default_flags")


class FrozenError(ValueError):
    """Bytes that are not what :func:`freeze` made."""


class _Writer(pickle.Pickler):
    """Writes objects of the specification as numbers, and notes those that it meets."""

    def __init__(self, file: io.BytesIO, met: dict[object, int], kernel: Kernel) -> None:
        super().__init__(file, protocol=5)
        self.met = met
        self.kernel = kernel

    def persistent_id(self, obj: Any) -> int | str | None:  # noqa: ANN401 (anything)
        if obj is self.kernel:
            return "kernel"
        if obj is ZERO_PAGE or obj is FILE_PAGE:
            return "zero" if obj is ZERO_PAGE else "file"
        return self.met.setdefault(obj, len(self.met)) if isinstance(obj, _KINDS) else None


class _Reader(pickle.Unpickler):
    """Reads numbers as objects; builds nothing but what the specification is made of."""

    def __init__(self, data: bytes, objects: list[object], kernel: Kernel) -> None:
        super().__init__(io.BytesIO(data))
        self.objects = objects
        self.special = {"kernel": kernel, "zero": ZERO_PAGE, "file": FILE_PAGE}

    def persistent_load(self, pid: Any) -> object:  # noqa: ANN401 (anything)
        return self.objects[pid] if isinstance(pid, int) else self.special[pid]

    def find_class(self, module: str, name: str) -> object:
        return _PLAIN[module, name]


def freeze(kernel: Kernel, more: object) -> bytes:
    """The whole state of a machine between two calls, and ``more`` that names objects of it."""
    met: dict[object, int] = {}
    caches = {name: [getattr(getattr(kernel.slab, name), field) for field in _CACHE] for name in _CACHES}
    services = {
        name: [getattr(getattr(kernel, name), field) for field in fields] for name, fields in _SERVICES.items()
    }
    state = [getattr(kernel, name) for name in _STATE]
    parts = [_written((state, caches, services, more), met, kernel)]
    kinds: list[str] = []
    while len(kinds) < len(met):  # each object may lead to others
        for obj in list(met)[len(kinds) :]:
            kinds.append(type(obj).__qualname__)
            names = [name for base in type(obj).__mro__ for name in getattr(base, "__slots__", ())]
            parts.append(_written({name: getattr(obj, name) for name in names if hasattr(obj, name)}, met, kernel))
    return pickle.dumps((kinds, parts), protocol=5)


def _written(value: object, met: dict[object, int], kernel: Kernel) -> bytes:
    file = io.BytesIO()
    _Writer(file, met, kernel).dump(value)
    return file.getvalue()


def thaw(data: bytes, kernel: Kernel) -> Any:  # noqa: ANN401 (whatever was given to freeze)
    """Give a fresh machine of the same logic the state, and return ``more``; or raise :class:`FrozenError`."""
    known: dict[str, Any] = {kind.__qualname__: kind for base in _KINDS for kind in (base, *base.__subclasses__())}
    try:
        kinds, parts = _Reader(data, [], kernel).load()
        objects: list[object] = [known[kind].__new__(known[kind]) for kind in kinds]
        for obj, part in zip(objects, parts[1:], strict=True):
            for name, value in _Reader(part, objects, kernel).load().items():
                setattr(obj, name, value)
        state, caches, services, more = _Reader(parts[0], objects, kernel).load()
        for name, value in zip(_STATE, state, strict=True):
            setattr(kernel, name, value)
        for name, values in caches.items():
            for field, value in zip(_CACHE, values, strict=True):
                setattr(getattr(kernel.slab, name), field, value)
        for name, fields in _SERVICES.items():
            for field, value in zip(fields, services[name], strict=True):
                setattr(getattr(kernel, name), field, value)
    except (pickle.UnpicklingError, KeyError, ValueError, TypeError, AttributeError, IndexError, EOFError) as error:
        raise FrozenError(f"not the state of a machine: {error!r}") from error
    return more
