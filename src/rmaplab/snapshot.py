# SPDX-License-Identifier: GPL-2.0-only
"""An immutable, hashable value of a whole state: the one type that all sides share.

Identities are given in order of appearance (processes in order of creation,
their VMAs by address, the chains head first), so two states that differ only
in allocation history are equal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rmaplab.notebook import HtmlTable

__all__ = [
    "AnonVmaView",
    "FolioView",
    "ProcessView",
    "PteView",
    "SlabView",
    "Snapshot",
    "VmaView",
]


@dataclass(frozen=True, slots=True)
class VmaView:
    """A VMA: bytes [start, end), ``pgoff`` in pages; ``chain`` are anon_vma ids, head first."""

    id: str
    start: int
    end: int
    pgoff: int
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
    """An anon_vma; ``tree`` are VMA ids in visiting order, ``?`` one that no process has."""

    id: str
    root: str
    parent: str
    refcount: int
    num_children: int
    num_active_vmas: int
    tree: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PteView:
    """A present page-table entry: mm id and address in bytes."""

    mm: str
    address: int
    writable: bool


@dataclass(frozen=True, slots=True)
class FolioView:
    """An anonymous folio that is mapped somewhere; ``index`` in pages."""

    id: str
    mapping: str
    index: int
    mapcount: int
    exclusive: bool
    ptes: tuple[PteView, ...]


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

    def as_dict(self) -> dict[str, Any]:
        """The state as JSON-ready dictionaries and lists."""
        return asdict(self)
