# SPDX-License-Identifier: GPL-2.0-only
"""The symbols of a kernel out of its own memory: VMCOREINFO tells where its kallsyms tables are.

VMCOREINFO is a text that a kernel keeps for those who read its dumps
(Documentation/admin-guide/kdump/vmcoreinfo.rst); it names the tables since v6.0.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from rmaplab.errors import InputError
from rmaplab.realkernel.btf import Btf
from rmaplab.realkernel.memory import FaultError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from mmap import mmap

    from rmaplab.realkernel.memory import Memory

__all__ = ["KernelSymbol", "KernelSymbols", "VmcoreInfo", "btf_in", "find_note", "read_symbols"]

_NAME = b"VMCOREINFO\0\0"  # of the note, padded to four bytes
_BEGINS = b"OSRELEASE="
_LONGEST_NOTE = 1 << 16
_TABLES = ("names", "num_syms", "token_table", "token_index", "offsets")
_MOST_SYMBOLS = 1 << 24
_TOKENS = 256
_LONGEST_TOKEN = 512  # KSYM_NAME_LEN
_LONGEST_NAME = 2 + (1 << 14)  # bytes of a packed name with its length
_PAGE = 4096
_AHEAD = 64  # pages of names that are read at once
_LARGEST_BTF = 1 << 28


@dataclass(frozen=True, slots=True)
class VmcoreInfo:
    """What VMCOREINFO says, by its words: ``SYMBOL(init_uts_ns)``, ``OSRELEASE``."""

    values: dict[str, str]

    @classmethod
    def parse(cls, text: bytes | str) -> Self:
        """Read its lines ``WORD=VALUE``; :class:`InputError` if there is none."""
        lines = (text.decode("utf-8", "replace") if isinstance(text, bytes) else text).strip("\0").splitlines()
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        if "OSRELEASE" not in values:
            raise InputError("VMCOREINFO does not name a release: not the dump of a Linux kernel?")
        return cls(values)

    @property
    def release(self) -> str:
        """As ``uname -r`` says it."""
        return self.values["OSRELEASE"]

    def symbol(self, name: str) -> int:
        """The address of a symbol; :class:`KeyError`."""
        return self._number(f"SYMBOL({name})", 16)

    def number(self, name: str) -> int:
        """A number that the kernel tells; :class:`KeyError`."""
        return self._number(f"NUMBER({name})", 0)

    def known(self, kind: str) -> dict[str, int]:
        """All that it tells of a kind: ``SIZE`` of structures or ``OFFSET`` of members, in bytes."""
        found = {}
        for word in self.values:
            if word.startswith(kind + "(") and word.endswith(")"):
                found[word[len(kind) + 1 : -1]] = self._number(word, 0)
        return found

    def _number(self, word: str, base: int) -> int:
        try:
            return int(self.values[word], base)
        except ValueError as error:
            raise InputError(f"VMCOREINFO: {word} is {self.values[word]!r}, which is no number") from error


def find_note(data: bytes | mmap) -> bytes | None:
    """The text of a VMCOREINFO note somewhere in ``data``, such as a guest's memory; None if there is none."""
    at = data.find(_NAME + _BEGINS)
    while at >= 0:
        if at >= 12:
            name, size, kind = struct.unpack("<III", data[at - 12 : at])
            start = at + len(_NAME)
            if (name, kind) == (len(_NAME) - 1, 0) and size <= min(_LONGEST_NOTE, len(data) - start):
                return data[start : start + size]
        at = data.find(_NAME + _BEGINS, at + 1)
    return None


class KernelSymbol(NamedTuple):
    """A symbol: ``letter`` says what it is as in nm(1), ``size`` is how far the next one is, in bytes."""

    name: str
    address: int
    size: int
    letter: str


class KernelSymbols:
    """Symbols by name and by address."""

    def __init__(self, found: Sequence[tuple[int, str, str]]) -> None:
        """From (address, name, letter), in whatever order."""
        self._sorted = sorted(found)
        self._starts = [address for address, _, _ in self._sorted]
        self._by_name: dict[str, list[int]] = {}
        for place, (_, name, _) in enumerate(self._sorted):
            self._by_name.setdefault(name, []).append(place)

    def __len__(self) -> int:
        return len(self._sorted)

    def address(self, name: str) -> int:
        """The address of the first of a name; :class:`KeyError`."""
        return self._starts[self._by_name[name][0]]

    def named(self, name: str) -> list[KernelSymbol]:
        """All of a name: static ones may share it."""
        return [self._symbol(place) for place in self._by_name.get(name, ())]

    def at(self, address: int) -> list[KernelSymbol]:
        """Those that an address lies in: several if they begin together."""
        place = bisect_right(self._starts, address) - 1
        if place < 0:
            return []
        start, found = self._starts[place], []
        while place >= 0 and self._starts[place] == start:
            symbol = self._symbol(place)
            if address == start or address < start + symbol.size:
                found.append(symbol)
            place -= 1
        return found[::-1]

    def all(self) -> list[KernelSymbol]:
        """All of them, by address."""
        return [self._symbol(place) for place in range(len(self._sorted))]

    def _symbol(self, place: int) -> KernelSymbol:
        address, name, letter = self._sorted[place]
        following = bisect_right(self._starts, address)
        size = self._starts[following] - address if following < len(self._starts) else 0
        return KernelSymbol(name, address, size, letter)


def read_symbols(memory: Memory, info: VmcoreInfo) -> KernelSymbols:
    """All symbols of the kernel itself, without those of its modules (kernel/kallsyms.c, v6.1 to v7.3).

    :class:`InputError` for a kernel that does not tell where they are, or whose
    tables are not in the dump.
    """
    try:
        names, count, table, index, offsets = (info.symbol(f"kallsyms_{name}") for name in _TABLES)
        stext = info.symbol("_stext")
    except KeyError as error:
        raise InputError(
            f"{info.release}: VMCOREINFO lacks {error.args[0]}, so the kernel's symbols are not found: "
            "it tells them from v6.0 on, with CONFIG_KALLSYMS; give its vmlinux"
        ) from error
    try:
        (number,) = struct.unpack("<I", memory.read(count, 4))
        if not 0 < number <= _MOST_SYMBOLS:
            raise InputError(f"{info.release}: kallsyms_num_syms is {number}: not the memory that VMCOREINFO is of")
        found = _names(memory, names, number, _tokens(memory, table, index))
        numbers = struct.unpack(f"<{number}i", memory.read(offsets, 4 * number))
        base = None
        if "SYMBOL(kallsyms_relative_base)" in info.values:
            (base,) = struct.unpack("<Q", memory.read(info.symbol("kallsyms_relative_base"), 8))
    except FaultError as error:
        raise InputError(
            f"{info.release}: the symbol tables are not in its memory, at {error.address:#x}; give its vmlinux"
        ) from error
    addresses = _addresses(
        numbers, offsets, base, {place for place, name in enumerate(found) if name[1:] == "_stext"}, stext
    )
    return KernelSymbols([(address, name[1:], name[0]) for address, name in zip(addresses, found, strict=True)])


def _tokens(memory: Memory, table: int, index: int) -> list[bytes]:
    """What each byte of a packed name stands for."""
    starts = struct.unpack(f"<{_TOKENS}H", memory.read(index, 2 * _TOKENS))
    data = memory.read(table, max(starts))
    last = _most(memory, table + max(starts), 1)[:_LONGEST_TOKEN]
    data += last
    tokens = []
    for start in starts:
        end = data.find(b"\0", start)
        if end < 0:
            raise InputError(f"the tokens of kallsyms at {table:#x} do not end")
        tokens.append(data[start:end])
    return tokens


def _most(memory: Memory, address: int, pages: int) -> bytes:
    """From an address on, what can be read of it and of so many pages behind its own."""
    end = (address & -_PAGE) + _PAGE
    data = memory.read(address, end - address)
    for more in memory.read_many(range(end, end + pages * _PAGE, _PAGE), _PAGE):
        if more is None:
            break
        data += more
    return data


def _names(memory: Memory, address: int, count: int, tokens: list[bytes]) -> list[str]:
    """Letter and name of each symbol, unpacked."""
    found: list[str] = []
    data, at, end = b"", 0, address
    token = tokens.__getitem__
    while len(found) < count:
        if len(data) - at < _LONGEST_NAME and end is not None:
            try:
                more = _most(memory, end, _AHEAD)
            except FaultError:
                more = b""
            data, at, end = data[at:] + more, 0, end + len(more)
        if at + 2 > len(data):
            raise FaultError(end)
        length, at = data[at], at + 1
        if length & 0x80:
            length, at = length & 0x7F | data[at] << 7, at + 1
        packed = data[at : at + length]
        if len(packed) != length:
            raise FaultError(end)
        at += length
        name = b"".join(map(token, packed)).decode("utf-8", "replace")
        if len(name) < 2:
            raise InputError(
                f"symbol {len(found)} has no name: the tables of kallsyms at {address:#x} are overwritten"
            )
        found.append(name)
    return found


def _addresses(numbers: Sequence[int], table: int, base: int | None, markers: set[int], stext: int) -> list[int]:
    """Of all symbols, by whichever of the ways to number them gives ``_stext`` its address."""
    ways: list[Callable[[int, int], int]]
    if base is None:  # v6.18 or so: relative to the table's own entry
        ways = [lambda place, number: table + 4 * place + number]
    else:
        ways = [
            lambda _, number: base + (number & 0xFFFF_FFFF),
            lambda _, number: number if number >= 0 else base - 1 - number,  # CONFIG_KALLSYMS_ABSOLUTE_PERCPU
        ]
    for way in ways:
        if any(way(place, numbers[place]) == stext for place in markers):
            return [way(place, number) & (1 << 64) - 1 for place, number in enumerate(numbers)]
    raise InputError(f"the tables of kallsyms do not have _stext at {stext:#x}, where VMCOREINFO has it")


def btf_in(memory: Memory, symbols: KernelSymbols, name: str) -> Btf:
    """The BTF that the kernel carries with it; :class:`InputError` if it has none or the dump has not."""
    try:
        start, stop = symbols.address("__start_BTF"), symbols.address("__stop_BTF")
    except KeyError as error:
        raise InputError(
            f"{name}: its kernel has no BTF (CONFIG_DEBUG_INFO_BTF): give its vmlinux, or its BTF in a file"
        ) from error
    if not 0 < stop - start <= _LARGEST_BTF:
        raise InputError(f"{name}: BTF of {stop - start} bytes: the tables of kallsyms are overwritten")
    try:
        return Btf(memory.read(start, stop - start), f"BTF of {name}")
    except FaultError as error:
        raise InputError(
            f"{name}: its BTF is not in its memory, at {error.address:#x}: give its vmlinux, or its BTF in a file"
        ) from error
