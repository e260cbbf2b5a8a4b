# SPDX-License-Identifier: GPL-2.0-only
"""Reads BTF, the types that a kernel carries with it (Documentation/bpf/btf.rst, include/uapi/linux/btf.h).

Only a table of offsets is made at first, and types are decoded when they are
asked for: a kernel has more than a hundred thousand.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from rmaplab.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Btf", "BtfType", "Kind", "Member"]

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MAGIC = 0xEB9F
_LONGEST_CHAIN = 64  # typedefs and qualifiers on top of each other, or structs within each other
_SECTION = struct.Struct("<IIQQQQIIQQ")


class Kind(IntEnum):
    """What a type is; the names of btf.h without BTF_KIND_."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Bytes behind the header of a type: so many, and so many for each of its elements.
_TAIL = {
    **{Kind.INT: (4, 0), Kind.ARRAY: (12, 0), Kind.VAR: (4, 0), Kind.DECL_TAG: (4, 0)},
    **{Kind.STRUCT: (0, 12), Kind.UNION: (0, 12), Kind.ENUM: (0, 8), Kind.FUNC_PROTO: (0, 8)},
    **{Kind.DATASEC: (0, 12), Kind.ENUM64: (0, 12)},
}
_ALIASES = {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG}


class BtfType(NamedTuple):
    """A type: ``size`` in bytes, or the type it refers to; ``length``: of its elements, ``flag`` of its kind."""

    kind: Kind
    name: str
    size: int
    length: int
    flag: bool
    tail: int


class Member(NamedTuple):
    """A member of a struct or union: the id of its type, its offset, and, of a bit field, its size, in bits."""

    name: str
    type: int
    bit_offset: int
    bit_size: int


class Btf:
    """The types of one kernel; :class:`InputError` for anything else."""

    def __init__(self, data: bytes, name: str = "BTF") -> None:
        self.name = name
        try:
            magic, _, _, header, types, types_size, strings, strings_size = _HEADER.unpack_from(data)
        except struct.error as error:
            raise InputError(f"{name}: too short for BTF") from error
        if magic != _MAGIC:
            raise InputError(f"{name}: not BTF in this machine's byte order: it begins with {data[:4].hex()}")
        self._strings = data[header + strings : header + strings + strings_size]
        self._types = data[header + types : header + types + types_size]
        if len(self._strings) != strings_size or len(self._types) != types_size:
            raise InputError(f"{name}: ends at byte {len(data)}, before its types do")
        self._at = [0]  # of each type; 0 is void and has no place
        self._by_name: dict[str, list[int]] = {}
        self._enumerators: dict[str, int] | None = None
        self._index()

    @classmethod
    def of_file(cls, path: Path | str) -> Self:
        """From a file of BTF alone, such as /sys/kernel/btf/vmlinux, or the section .BTF of an ELF file."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        if data[:4] == b"\x7fELF":
            return cls(_section(data, b".BTF", str(path)), str(path))
        return cls(data, str(path))

    def _index(self) -> None:
        types, at = self._types, 0
        end, tails = len(types), {int(kind): tail for kind, tail in _TAIL.items()}
        unpack, place = _TYPE.unpack_from, self._at.append
        names: dict[int, list[int]] = {}  # by the offset of the string
        try:
            while at < end:
                name, info, _ = unpack(types, at)
                kind = info >> 24 & 0x1F
                if not 1 <= kind <= Kind.ENUM64:
                    raise InputError(f"{self.name}: a type of the unknown kind {kind} at byte {at} of its types")
                if name:
                    names.setdefault(name, []).append(len(self._at))
                place(at)
                fixed, each = tails.get(kind, (0, 0))
                at += 12 + fixed + each * (info & 0xFFFF)
        except struct.error as error:
            raise InputError(f"{self.name}: a type is cut off at byte {at} of its types") from error
        if at != end:
            raise InputError(f"{self.name}: its last type is cut off")
        for offset, ids in names.items():
            self._by_name.setdefault(self.string(offset), []).extend(ids)

    def string(self, offset: int) -> str:
        """A name by its offset; empty beyond the last."""
        end = self._strings.find(b"\0", offset)
        return self._strings[offset:end].decode("utf-8", "replace") if end >= 0 else ""

    def __len__(self) -> int:
        return len(self._at)

    # --- types -----------------------------------------------------------------------------------

    def type(self, ident: int) -> BtfType:
        """A type by its id, from 1; :class:`InputError` for one that is not there."""
        if not 0 < ident < len(self._at):
            raise InputError(f"{self.name}: refers to type {ident} and has {len(self._at) - 1}")
        at = self._at[ident]
        name, info, size = _TYPE.unpack_from(self._types, at)
        return BtfType(
            Kind(info >> 24 & 0x1F), self.string(name), size, info & 0xFFFF, bool(info >> 31), at + _TYPE.size
        )

    def find(self, name: str, *kinds: Kind) -> int:
        """The id of the first type of a name and one of some kinds; :class:`KeyError`."""
        for ident in self._by_name.get(name, ()):
            if self.type(ident).kind in kinds:
                return ident
        raise KeyError(name)

    def named(self, name: str) -> list[int]:
        """The ids of all types of a name."""
        return self._by_name.get(name, [])

    def members(self, ident: int) -> list[Member]:
        """Of a struct or union."""
        about = self.type(ident)
        found = []
        for name, kind, offset in struct.iter_unpack("<III", self._body(about, 12)):
            bits = offset >> 24 if about.flag else 0
            found.append(Member(self.string(name), kind, offset & 0xFFFFFF if about.flag else offset, bits))
        return found

    def enumerators(self, ident: int) -> list[tuple[str, int]]:
        """Names and values of an enum; ``flag`` of its type says whether they are signed."""
        about = self.type(ident)
        if about.kind is Kind.ENUM64:
            words = struct.iter_unpack("<III", self._body(about, 12))
            values = [(name, low | high << 32) for name, low, high in words]
            bits = 64
        else:
            values, bits = list(struct.iter_unpack("<II", self._body(about, 8))), 32
        sign = 1 << bits - 1 if about.flag else 0
        return [(self.string(name), (value ^ sign) - sign if sign else value) for name, value in values]

    def parameters(self, ident: int) -> list[tuple[str, int]]:
        """Names and types of a function's parameters; a last one without both stands for ``...``."""
        body = self._body(self.type(ident), 8)
        return [(self.string(name), kind) for name, kind in struct.iter_unpack("<II", body)]

    def array(self, ident: int) -> tuple[int, int, int]:
        """Type of an array's elements, type of its index, number of its elements."""
        element, index, count = struct.unpack_from("<III", self._types, self.type(ident).tail)
        return element, index, count

    def integer(self, ident: int) -> tuple[int, int, int]:
        """Encoding (1 signed, 2 char, 4 bool), bit offset and bits of an integer."""
        (word,) = struct.unpack_from("<I", self._types, self.type(ident).tail)
        return word >> 24 & 15, word >> 16 & 255, word & 255

    def _body(self, about: BtfType, each: int) -> bytes:
        return self._types[about.tail : about.tail + each * about.length]

    def resolved(self, ident: int) -> int:
        """Behind typedefs and qualifiers."""
        for _ in range(_LONGEST_CHAIN):
            if ident == 0 or (about := self.type(ident)).kind not in _ALIASES:
                return ident
            ident = about.size
        raise InputError(f"{self.name}: type {ident} refers to itself")

    # --- what readers ask for -----------------------------------------------------------------------

    def offset(self, path: str) -> int:
        """Offset in bytes of ``structure.member.member``, anonymous members looked into; :class:`KeyError`."""
        first, *rest = path.split(".")
        ident, bits = self.find(first, Kind.STRUCT, Kind.UNION), 0
        for name in rest:
            found = self._member(ident, name, _LONGEST_CHAIN)
            if found is None:
                raise KeyError(path)
            bits += found[0]
            ident = found[1]
        return bits // 8

    def _member(self, ident: int, name: str, depth: int) -> tuple[int, int] | None:
        ident = self.resolved(ident)
        if depth == 0 or ident == 0 or self.type(ident).kind not in (Kind.STRUCT, Kind.UNION):
            return None
        for member in self.members(ident):
            if member.name == name:
                return member.bit_offset, member.type
            if not member.name and (found := self._member(member.type, name, depth - 1)):
                return member.bit_offset + found[0], found[1]
        return None

    def size(self, structure: str) -> int:
        """Size in bytes; :class:`KeyError`."""
        return self.type(self.find(structure, Kind.STRUCT, Kind.UNION)).size

    def enum_value(self, enumerator: str) -> int:
        """The value of an enumerator of whatever enum; :class:`KeyError`."""
        if self._enumerators is None:
            self._enumerators = dict(reversed(list(self._each_enumerator())))
        return self._enumerators[enumerator]

    def _each_enumerator(self) -> Iterator[tuple[str, int]]:
        for ident in range(1, len(self._at)):
            if self._types[self._at[ident] + 7] & 0x1F in (Kind.ENUM, Kind.ENUM64):
                yield from self.enumerators(ident)

    def function(self, name: str) -> int:
        """The id of a function, which is how BPF programs name it; :class:`KeyError`."""
        return self.find(name, Kind.FUNC)


def _section(data: bytes, wanted: bytes, name: str) -> bytes:
    """A section of an ELF file of 64 bits; :class:`InputError` if there is none."""
    try:
        (table,) = struct.unpack_from("<Q", data, 0x28)
        size, count, names = struct.unpack_from("<HHH", data, 0x3A)
        headers = [_SECTION.unpack_from(data, table + size * number) for number in range(count)]
        strings = headers[names][4]
        for at, _, _, _, offset, length, *_ in headers:
            start = strings + at
            if data[start : data.index(b"\0", start)] == wanted:
                return data[offset : offset + length]
    except (struct.error, IndexError, ValueError) as error:
        raise InputError(f"{name}: not a whole ELF file of 64 bits") from error
    raise InputError(f"{name}: has no section {wanted.decode()}; build it with CONFIG_DEBUG_INFO_BTF")
