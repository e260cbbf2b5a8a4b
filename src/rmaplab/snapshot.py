# SPDX-License-Identifier: GPL-2.0-only
"""An immutable, hashable value of a whole state: the one type that all sides share.

Identities are given in order of appearance (processes in order of creation,
their VMAs by address, the chains head first), so two states that differ only
in allocation history are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from rmaplab.notebook import HtmlTable

__all__ = [
    "AnonVmaView",
    "FolioView",
    "GuardView",
    "KsmItemView",
    "KsmView",
    "Naming",
    "ProcessView",
    "PteView",
    "SlabView",
    "Snapshot",
    "SwapPteView",
    "SwapView",
    "VmaView",
]

_WORD = 1 << 64


class Naming(dict[Any, str]):
    """Names objects ``PREFIX0``, ``PREFIX1`` and so on, in the order in which they are first asked for."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def __missing__(self, key: object) -> str:
        name = self[key] = f"{self.prefix}{len(self)}"
        return name


@dataclass(frozen=True, slots=True)
class VmaView:
    """A VMA: bytes [start, end), ``pgoff`` in pages; ``chain`` are anon_vma ids, head first.

    ``anon_pgoff`` is the offset of its anonymous pages: the same, but for private files since v7.3.
    """

    id: str
    start: int
    end: int
    pgoff: int
    anon_pgoff: int
    flags: str
    file: str | None
    anon_vma: str | None
    chain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProcessView:
    """A process and its VMAs by address; tasks with one ``mm`` share an address space."""

    name: str
    mm: str
    vmas: tuple[VmaView, ...]


@dataclass(frozen=True, slots=True)
class AnonVmaView:
    """An anon_vma; ``tree`` are VMA ids in visiting order, ``?`` one that no process has.

    ``degree`` is the one counter of v3.19 to v5.19; the two others are 0 then.
    """

    id: str
    root: str
    parent: str
    refcount: int
    num_children: int
    num_active_vmas: int
    degree: int
    tree: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PteView:
    """A present entry: mm id, address in bytes, subpage; ``pages`` is above 1 for a PMD."""

    mm: str
    address: int
    writable: bool
    page: int = 0
    pages: int = 1


@dataclass(frozen=True, slots=True)
class FolioView:
    """An anonymous folio that is mapped somewhere or in the swap cache; ``index`` in pages.

    ``mapping`` is None for a page that KSM merged; ``ksm`` is its content then.
    ``exclusive``: all of its 2**order pages are; ``pins`` are long-term ones.
    """

    id: str
    mapping: str | None
    index: int
    mapcount: int
    exclusive: bool
    ptes: tuple[PteView, ...]
    order: int = 0
    pins: int = 0
    ksm: str | None = None


@dataclass(frozen=True, slots=True)
class SwapPteView:
    """A swap entry: mm id, address in bytes, whether the page was exclusive."""

    mm: str
    address: int
    exclusive: bool


@dataclass(frozen=True, slots=True)
class SwapView:
    """A swap slot: how many entries name it, and the folio it has in the swap cache."""

    id: str
    count: int
    folio: str | None
    ptes: tuple[SwapPteView, ...]


@dataclass(frozen=True, slots=True)
class GuardView:
    """A guard page: mm id and address in bytes."""

    mm: str
    address: int


@dataclass(frozen=True, slots=True)
class KsmItemView:
    """A place that ksmd merged, and the anon_vma it holds a reference to."""

    mm: str
    address: int
    anon_vma: str


@dataclass(frozen=True, slots=True)
class KsmView:
    """A page of KSM's stable tree by its content."""

    content: str
    items: tuple[KsmItemView, ...]


@dataclass(frozen=True, slots=True)
class SlabView:
    """Live objects, and the bytes they take in their slabs."""

    anon_vma: int
    anon_vma_chain: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot(HtmlTable):
    """The whole state."""

    processes: tuple[ProcessView, ...]
    anon_vmas: tuple[AnonVmaView, ...]
    folios: tuple[FolioView, ...]
    slab: SlabView
    swap: tuple[SwapView, ...] = ()
    guards: tuple[GuardView, ...] = ()
    ksm: tuple[KsmView, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The state as JSON-ready dictionaries and lists."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_dict` made, and JSON made of that; more keys do not matter.

        :class:`KeyError`, :class:`TypeError` or :class:`ValueError` for anything else.
        """
        found: Self = _of_json(cls, document)
        return found


@cache
def _members(view: type) -> dict[str, tuple[Any, bool]]:
    """The type of each member of a class of views, and whether it may be left out."""
    hints = get_type_hints(view)
    return {field.name: (hints[field.name], field.default is not MISSING) for field in fields(view)}


def _of_json(kind: Any, value: Any) -> Any:  # noqa: ANN401 (any JSON)
    """A value as a view, a tuple of views, or a plain value of that type."""
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise TypeError(f"{_short(value)} is not a {kind.__name__}")
        members = _members(kind)
        return kind(
            **{
                name: _of_json(member, value[name])
                for name, (member, may_lack) in members.items()
                if name in value or not may_lack
            }
        )
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{_short(value)} is not a list")
        return tuple([_of_json(get_args(kind)[0], one) for one in value])
    if get_origin(kind) is UnionType:  # something or None
        return None if value is None else _of_json(get_args(kind)[0], value)
    if type(value) is not kind:
        raise TypeError(f"{_short(value)} is not of the type {kind.__name__}")
    if kind is int and not -_WORD < value < _WORD:
        raise ValueError(f"{_short(value)} does not fit into 64 bits")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
