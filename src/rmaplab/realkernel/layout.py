# SPDX-License-Identifier: GPL-2.0-only
"""Where the members of the kernel's structures lie, in bytes: from BTF, from DWARF, or from a file."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Self

from rmaplab.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from rmaplab.realkernel.btf import Btf

__all__ = ["ASKED", "ENUMERATORS", "MEMBERS", "OPTIONAL", "Fields", "Layout"]

MEMBERS = (
    *("task_struct.tasks", "task_struct.tgid", "task_struct.pid", "task_struct.comm", "task_struct.mm"),
    *("mm_struct.mm_mt.ma_root", "mm_struct.pgd"),
    *("maple_range_64.pivot", "maple_range_64.slot", "maple_arange_64.pivot", "maple_arange_64.slot"),
    *("vm_area_struct.vm_start", "vm_area_struct.vm_end", "vm_area_struct.vm_flags", "vm_area_struct.vm_pgoff"),
    *("vm_area_struct.vm_file", "vm_area_struct.anon_vma", "vm_area_struct.anon_vma_chain"),
    *("anon_vma_chain.vma", "anon_vma_chain.anon_vma", "anon_vma_chain.same_vma", "anon_vma_chain.rb"),
    *("anon_vma.root", "anon_vma.refcount", "anon_vma.parent", "anon_vma.rb_root"),
    *("folio.flags", "folio.mapping", "folio._mapcount"),
)
"""The members that are read; the kernel has had them since 6.1 (mm_types.h, rmap.h, maple_tree.h, sched.h)."""

OPTIONAL = (
    *("anon_vma.num_children", "anon_vma.num_active_vmas"),  # since v6.0
    "anon_vma.degree",  # until v5.19
    *("vm_area_struct.__vm_anon_pgoff_lo", "vm_area_struct.__vm_anon_pgoff_hi"),  # since v7.3
    *("folio.index", "folio.__folio_index"),  # one of them
    *("page.compound_head", "page.compound_info"),  # the second since v7.1
    *("folio._flags_1", "folio._large_mapcount", "folio._entire_mapcount", "folio._pincount"),
    *("folio._folio_order", "folio._total_mapcount"),  # until v6.5, and of v6.1: of entries for the whole folio
    *("ksm_stable_node.hlist", "ksm_rmap_item.anon_vma"),
)
"""Members that some releases have."""

SIZES = ("vm_area_struct", "anon_vma", "anon_vma_chain", "page", "task_struct", "mm_struct")
ENUMERATORS = ("PG_anon_exclusive", "PG_head", "PG_double_map")
"""Bits of a folio's flags (page-flags.h); the last until v6.1."""
ASKED = hashlib.sha256(" ".join((*MEMBERS, *OPTIONAL, *SIZES, *ENUMERATORS)).encode()).hexdigest()[:16]
"""Changes with the names above: what was learnt of a kernel before is to be learnt again."""

_NODE_BYTES = 256  # of a maple tree


@dataclass(frozen=True, slots=True)
class Fields:
    """Reads several members of one structure at once, as unsigned numbers."""

    start: int
    size: int
    unpack: Callable[[bytes], tuple[Any, ...]]


@dataclass(frozen=True)
class Layout:
    """Sizes of structures and offsets of members, in bytes; values of enumerators."""

    sizes: dict[str, int]
    offsets: dict[str, int]
    enums: dict[str, int] = field(default_factory=dict)
    made: dict[tuple[object, ...], Fields] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def collect(
        cls, offset: Callable[[str], int | None], size: Callable[[str], int | None], enum: Callable[[str], int | None]
    ) -> Self:
        """Ask for everything; the callables answer None for what the kernel does not have.

        :class:`InputError` names what is missing.
        """
        offsets = {name: at for name in (*MEMBERS, *OPTIONAL) if (at := offset(name)) is not None}
        sizes = {name: value for name in SIZES if (value := size(name)) is not None}
        enums = {name: value for name in ENUMERATORS if (value := enum(name)) is not None}
        missing = [name for name in MEMBERS if name not in offsets] + [name for name in SIZES if name not in sizes]
        if missing:
            raise InputError(
                f"the kernel's types lack {', '.join(missing)}: what is read are kernels from 6.1 on, "
                "with the types of vmlinux"
            )
        return cls(sizes, offsets, enums)

    @classmethod
    def of_btf(cls, btf: Btf) -> Self:
        """From the BTF of a kernel."""

        def lookup(find: Callable[[str], int]) -> Callable[[str], int | None]:
            def found(name: str) -> int | None:
                try:
                    return find(name)
                except KeyError:
                    return None

            return found

        return cls.collect(lookup(btf.offset), lookup(btf.size), lookup(btf.enum_value))

    @classmethod
    def of_drgn(cls, prog: Any) -> Self:  # noqa: ANN401 (drgn is an optional part)
        """From the types of a drgn Program: DWARF, or whatever type finder it has."""
        import drgn

        def offset(name: str) -> int | None:
            structure, member = name.split(".", 1)
            try:
                return int(drgn.offsetof(prog.type(f"struct {structure}"), member))
            except LookupError:
                return None

        def size(name: str) -> int | None:
            try:
                return int(prog.type(f"struct {name}").size)
            except LookupError:
                return None

        def enum(name: str) -> int | None:
            try:
                return int(prog.constant(name).value_())
            except LookupError:
                return None

        return cls.collect(offset, size, enum)

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """From a file that :meth:`save` wrote; :class:`InputError`."""
        try:
            return cls.of_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a layout of kernel types: {error}") from error

    @classmethod
    def of_dict(cls, document: dict[str, Any]) -> Self:
        """From what :meth:`as_dict` made; more keys do not matter, :class:`KeyError` for one that lacks."""
        return cls(document["sizes"], document["offsets"], document["enums"])

    def as_dict(self) -> dict[str, Any]:
        """The offsets and sizes, ready for JSON."""
        return {"sizes": self.sizes, "offsets": self.offsets, "enums": self.enums}

    def save(self, path: Path, **about: str) -> None:
        """Write it as JSON, with where it is from."""
        path.write_text(json.dumps({**about, **self.as_dict()}, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def has(self, member: str) -> bool:
        """Whether this kernel has it, such as ``anon_vma.degree``."""
        return member in self.offsets

    def offset(self, member: str) -> int:
        """Offset in bytes of ``structure.member``."""
        return self.offsets[member]

    def size(self, structure: str) -> int:
        """Size in bytes."""
        return _NODE_BYTES if structure == "maple_node" else self.sizes[structure]

    def fields(self, structure: str, *members: tuple[str, str]) -> Fields:
        """Reader of members given as (path, format letter of :mod:`struct`), in their order in memory.

        ``+8`` after a path means so many bytes behind it; members that this
        kernel does not have read as 0.
        """
        key = (structure, *members)
        if key not in self.made:
            self.made[key] = self._make(structure, members)
        return self.made[key]

    def _make(self, structure: str, members: Iterable[tuple[str, str]]) -> Fields:
        wanted = []
        for order, (path, letter) in enumerate(members):
            name, _, extra = path.partition("+")
            at = self.offsets.get(f"{structure}.{name}")
            wanted.append((-1 if at is None else at + int(extra or 0), letter, order))
        present = sorted(one for one in wanted if one[0] >= 0)
        start = present[0][0]
        text, at = "<", start
        for offset, letter, _ in present:
            text += f"{offset - at}x{letter}"
            at = offset + struct.calcsize("<" + letter)
        unpack = struct.Struct(text).unpack_from
        if [order for _, _, order in present] == list(range(len(wanted))):
            return Fields(start, at - start, unpack)
        places = {order: place for place, (_, _, order) in enumerate(present)}
        picks = [places.get(order, len(present)) for order in range(len(wanted))]

        pick = itemgetter(*picks)

        def reordered(data: bytes) -> tuple[Any, ...]:
            picked: tuple[Any, ...] = pick((*unpack(data), 0))
            return picked

        return Fields(start, at - start, reordered)
