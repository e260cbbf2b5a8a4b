# SPDX-License-Identifier: GPL-2.0-only
"""Reads BTF, the types that a kernel carries with it (Documentation/bpf/btf.rst, include/uapi/linux/btf.h).

Only a table of offsets is made at first, and types are decoded when they are
asked for: a kernel has more than a hundred thousand.
"""

from __future__ import annotations

import mmap
import struct
import sys
from array import array
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, Self

from rmaplab.errors import InputError

__all__ = ["Btf", "BtfType", "Kind", "Member"]

_HEADER = struct.Struct("<HBBIIIII")
_LAYOUT = struct.Struct("<II")
_MAGIC = 0xEB9F
_LONGEST_CHAIN = 64  # typedefs and qualifiers on top of each other
_ELF64_LITTLE = b"\x7fELF\x02\x01"
_SECTION = struct.Struct("<IIQQQQIIQQ")


class Kind(IntEnum):
    """What a type is; the names of btf.h without BTF_KIND_.

    UNKN is also what came after ENUM64: in v7.3 a section of the file tells
    how long types of each kind are, so that older readers can pass over them.
    """

    UNKN = 0
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
_TAIL: dict[int, tuple[int, int]] = {
    **{kind: (0, 0) for kind in Kind if kind is not Kind.UNKN},
    **{Kind.INT: (4, 0), Kind.ARRAY: (12, 0), Kind.VAR: (4, 0), Kind.DECL_TAG: (4, 0)},
    **{Kind.STRUCT: (0, 12), Kind.UNION: (0, 12), Kind.ENUM: (0, 8), Kind.FUNC_PROTO: (0, 8)},
    **{Kind.DATASEC: (0, 12), Kind.ENUM64: (0, 12)},
}
_KINDS = [*Kind, *[Kind.UNKN] * (128 - len(Kind))]
_ALIASES = {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG}


class BtfType(NamedTuple):
    """A type.

    ``size``: in bytes, or the id of the type it refers to; ``length``: number
    of its elements; ``flag``: that of its kind; ``tail``: where what belongs to
    the kind begins, in bytes from the first type.
    """

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
            raise InputError(f"{name}: too short for BTF: {len(data)} bytes") from error
        if magic != _MAGIC:
            raise InputError(f"{name}: not BTF in this machine's byte order: it begins with {data[:4].hex()}")
        self._strings = data[header + strings : header + strings + strings_size]
        self._types = data[header + types : header + types + types_size]
        if len(self._strings) != strings_size or len(self._types) != types_size:
            raise InputError(f"{name}: ends at byte {len(data)}, before its types do")
        if types_size % 4:
            raise InputError(f"{name}: its last type is cut off: {types_size} bytes of types are not whole words")
        self._words = array("I", self._types)
        if sys.byteorder == "big":
            self._words.byteswap()
        self._at = self._places(_TAIL | _more_kinds(data, header))
        self._by_name: dict[str, list[int]] | None = None
        self._enumerators: dict[str, int] | None = None

    @classmethod
    def of_file(cls, path: Path | str) -> Self:
        """From a file of BTF alone, such as /sys/kernel/btf/vmlinux, or the section .BTF of an ELF file."""
        try:
            with Path(path).open("rb") as file:
                data = file.read(len(_ELF64_LITTLE))
                if data[:4] == b"\x7fELF":
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                        return cls(_section(whole, b".BTF", str(path)), str(path))
                data += file.read()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        return cls(data, str(path))

    def _places(self, tails: dict[int, tuple[int, int]]) -> list[int]:
        """Where each type begins, in words; 0, which is void, has no place."""
        words, at, places = self._words, 0, [0]
        end, place = len(words), places.append
        fixed = [3 + tails[kind][0] // 4 if kind in tails else 0 for kind in range(128)]
        each = [tails.get(kind, (0, 0))[1] // 4 for kind in range(128)]
        try:
            while at < end:
                info = words[at + 1]
                kind = info >> 24 & 0x7F
                if not fixed[kind]:
                    raise InputError(f"{self.name}: a type of the unknown kind {kind} at byte {4 * at} of its types")
                place(at)
                at += fixed[kind] + each[kind] * (info & 0xFFFFFF)
        except IndexError:
            at = end + 1
            place(end - 1)
        if at != end:
            raise InputError(f"{self.name}: a type is cut off at byte {4 * places[-1]} of its types")
        return places

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
        name, info, size = self._words[at : at + 3]
        kind = _KINDS[info >> 24 & 0x7F]
        return BtfType(kind, self.string(name), size, info & 0xFFFFFF, bool(info >> 31), 4 * at + 12)

    def find(self, name: str, *kinds: Kind) -> int:
        """The id of the first type of a name and one of some kinds; :class:`KeyError`."""
        for ident in self.named(name):
            if self.type(ident).kind in kinds:
                return ident
        raise KeyError(name)

    def named(self, name: str) -> list[int]:
        """The ids of all types of a name."""
        if self._by_name is None:
            words, ids = self._words, dict[int, list[int]]()
            for ident, at in enumerate(self._at[1:], 1):
                if (offset := words[at]) in ids:
                    ids[offset].append(ident)
                elif offset:
                    ids[offset] = [ident]
            self._by_name = {}
            for offset, some in ids.items():
                self._by_name.setdefault(self.string(offset), []).extend(some)
        return self._by_name.get(name, [])

    def members(self, ident: int) -> list[Member]:
        """Of a struct or union."""
        about = self._of_kind(ident, Kind.STRUCT, Kind.UNION)
        found = []
        for name, kind, offset in struct.iter_unpack("<III", self._body(about, 12)):
            bits = offset >> 24 if about.flag else 0
            found.append(Member(self.string(name), kind, offset & 0xFFFFFF if about.flag else offset, bits))
        return found

    def enumerators(self, ident: int) -> list[tuple[str, int]]:
        """Names and values of an enum; ``flag`` of its type says whether they are signed."""
        return [(self.string(name), value) for name, value in self._values(ident)]

    def _values(self, ident: int) -> list[tuple[int, int]]:
        """Offsets of the names, and values."""
        about = self._of_kind(ident, Kind.ENUM, Kind.ENUM64)
        if about.kind is Kind.ENUM64:
            words = struct.iter_unpack("<III", self._body(about, 12))
            values = [(name, low | high << 32) for name, low, high in words]
            bits = 64
        else:
            values, bits = list(struct.iter_unpack("<II", self._body(about, 8))), 32
        sign = 1 << bits - 1 if about.flag else 0
        return [(name, (value ^ sign) - sign) for name, value in values] if sign else values

    def parameters(self, ident: int) -> list[tuple[str, int]]:
        """Names and types of the parameters of a FUNC_PROTO; a last one without both stands for ``...``."""
        body = self._body(self._of_kind(ident, Kind.FUNC_PROTO), 8)
        return [(self.string(name), kind) for name, kind in struct.iter_unpack("<II", body)]

    def array(self, ident: int) -> tuple[int, int, int]:
        """Type of an array's elements, type of its index, number of its elements."""
        element, index, count = struct.unpack_from("<III", self._types, self._of_kind(ident, Kind.ARRAY).tail)
        return element, index, count

    def integer(self, ident: int) -> tuple[int, int, int]:
        """Encoding (1 signed, 2 char, 4 bool), bit offset and bits of an integer."""
        (word,) = struct.unpack_from("<I", self._types, self._of_kind(ident, Kind.INT).tail)
        return word >> 24 & 15, word >> 16 & 255, word & 255

    def _of_kind(self, ident: int, *kinds: Kind) -> BtfType:
        about = self.type(ident)
        if about.kind not in kinds:
            wanted = " or ".join(kind.name for kind in kinds)
            raise InputError(f"{self.name}: type {ident} is of the kind {about.kind.name}, not {wanted}")
        return about

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
            found = self._member(ident, name, set())
            if found is None:
                raise KeyError(path)
            bits += found[0]
            ident = found[1]
        return bits // 8

    def _member(self, ident: int, name: str, seen: set[int]) -> tuple[int, int] | None:
        """Bit offset and type of a member; each of the types is looked into once."""
        ident = self.resolved(ident)
        if ident in seen or ident == 0 or self.type(ident).kind not in (Kind.STRUCT, Kind.UNION):
            return None
        seen.add(ident)
        for member in self.members(ident):
            if member.name == name:
                return member.bit_offset, member.type
            if not member.name and (found := self._member(member.type, name, seen)):
                return member.bit_offset + found[0], found[1]
        return None

    def size(self, structure: str) -> int:
        """Size in bytes; :class:`KeyError`."""
        return self.type(self.find(structure, Kind.STRUCT, Kind.UNION)).size

    def enum_value(self, enumerator: str) -> int:
        """The value of an enumerator of whatever enum; :class:`KeyError`."""
        if self._enumerators is None:
            words, kinds = self._words, (Kind.ENUM, Kind.ENUM64)
            enums = [ident for ident, at in enumerate(self._at[1:], 1) if words[at + 1] >> 24 & 0x7F in kinds]
            self._enumerators = {
                name: value for ident in reversed(enums) for name, value in reversed(self.enumerators(ident))
            }
        return self._enumerators[enumerator]

    def function(self, name: str) -> int:
        """The id of a function, which is how BPF programs name it; :class:`KeyError`."""
        return self.find(name, Kind.FUNC)


def _more_kinds(data: bytes, header: int) -> dict[int, tuple[int, int]]:
    """How long types of kinds are that this module does not know, as far as the file tells."""
    if header < _HEADER.size + _LAYOUT.size or len(data) < header:
        return {}
    offset, size = _LAYOUT.unpack_from(data, _HEADER.size)
    begin = header + offset
    known = {}
    for kind in range(Kind.ENUM64 + 1, min(len(_KINDS), size // 4, (len(data) - begin) // 4)):
        at = begin + 4 * kind
        known[kind] = (data[at], data[at + 1])
    return known


def _section(data: mmap.mmap, wanted: bytes, name: str) -> bytes:
    """A section of an ELF file of 64 bits; :class:`InputError` if there is none."""
    try:
        if data[: len(_ELF64_LITTLE)] != _ELF64_LITTLE:
            raise InputError(f"{name}: an ELF file, but not of 64 bits in little endian")
        (table,) = struct.unpack_from("<Q", data, 0x28)
        size, count, names = struct.unpack_from("<HHH", data, 0x3A)
        headers = [_SECTION.unpack_from(data, table + size * number) for number in range(count)]
        strings = headers[names][4] if headers else 0
        for at, _, _, _, offset, length, *_ in headers:
            start = strings + at
            if data[start : start + len(wanted) + 1] == wanted + b"\0":
                return data[offset : offset + length]
    except (struct.error, IndexError, OverflowError) as error:
        raise InputError(f"{name}: not a whole ELF file of 64 bits") from error
    raise InputError(f"{name}: has no section {wanted.decode()}; build it with CONFIG_DEBUG_INFO_BTF")
