# SPDX-License-Identifier: GPL-2.0-only
"""Addresses of a kernel's symbols, out of its own memory (kernel/kallsyms.c, scripts/kallsyms.c).

VMCOREINFO tells where the tables are since v6.0 (kernel/vmcore_info.c).  Names
are stored as indexes of tokens, each a few letters that are frequent.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.realkernel.memory import FaultError

if TYPE_CHECKING:
    from collections.abc import Collection

    from rmaplab.realkernel.memory import Memory

__all__ = ["Vmcoreinfo", "find_symbols"]

_TOKENS = 256
_TABLE = 1 << 12  # bytes that all tokens take, and more
_MOST_SYMBOLS = 1 << 22
_STEP = 1 << 16


class Vmcoreinfo:
    """VMCOREINFO: lines of ``SYMBOL(name)=hexadecimal`` and ``NUMBER(name)=decimal``."""

    def __init__(self, text: str) -> None:
        self.symbols = {
            name: int(value, 16) for name, value in re.findall(r"^SYMBOL\((\w+)\)=([0-9a-f]+)$", text, re.M)
        }
        self.numbers = {name: int(value) for name, value in re.findall(r"^NUMBER\((\w+)\)=(-?\d+)$", text, re.M)}
        found = re.search(r"^OSRELEASE=(.+)$", text, re.M)
        self.release = found[1] if found else ""


def find_symbols(memory: Memory, info: Vmcoreinfo, wanted: Collection[str]) -> dict[str, int]:
    """Addresses of symbols, as far as the kernel knows them; :class:`InputError` if it does not tell its tables."""
    tables = ("names", "num_syms", "token_table", "token_index", "offsets", "relative_base")
    missing = [f"kallsyms_{name}" for name in tables if f"kallsyms_{name}" not in info.symbols]
    if missing:
        raise InputError(f"VMCOREINFO lacks {', '.join(missing)}: kernels from 6.0 on tell; give the vmlinux instead")
    at = {name: info.symbols[f"kallsyms_{name}"] for name in tables}
    try:
        (count,) = struct.unpack("<I", memory.read(at["num_syms"], 4))
        if not 0 < count < _MOST_SYMBOLS:
            raise InputError(f"kallsyms_num_syms is {count}: not the memory that VMCOREINFO is of")
        tokens = _tokens(memory, at["token_table"], at["token_index"])
        places = _places(memory, at["names"], count, tokens, set(wanted) | {"_stext"})
        (base,) = struct.unpack("<Q", memory.read(at["relative_base"], 8))
        offsets = {name: memory.read(at["offsets"] + 4 * place, 4) for name, place in places.items()}
    except FaultError as error:
        raise InputError(f"the tables of kallsyms cannot be read: {error}") from error
    signed = _is_signed(offsets, base, info)
    return {name: _address(raw, base, signed=signed) for name, raw in offsets.items() if name in wanted}


def _tokens(memory: Memory, table: int, index: int) -> list[bytes]:
    starts = struct.unpack(f"<{_TOKENS}H", memory.read(index, 2 * _TOKENS))
    text = memory.read(table, _TABLE)
    return [text[start : text.find(b"\0", start)] for start in starts]


def _places(memory: Memory, start: int, count: int, tokens: list[bytes], wanted: set[str]) -> dict[str, int]:
    """The number of each symbol that is wanted; a name begins with the letter of its type."""
    names = {name.encode(): name for name in wanted}
    found: dict[str, int] = {}
    data, at = b"", 0
    for number in range(count):
        if len(data) - at < 2 + (1 << 14):
            data, at = data[at:] + _read_ahead(memory, start), 0
            start += _STEP
        length = data[at]
        at += 1
        if length & 0x80:  # two bytes of length, since v6.1
            length = length & 0x7F | data[at] << 7
            at += 1
        name = b"".join([tokens[token] for token in data[at : at + length]])[1:]
        at += length
        if name in names:
            found.setdefault(names[name], number)
            if len(found) == len(names):
                break
    return found


def _read_ahead(memory: Memory, start: int) -> bytes:
    pages = memory.read_many([start + at for at in range(0, _STEP, 4096)], 4096)
    return b"".join([page if page is not None else bytes(4096) for page in pages])


def _is_signed(offsets: dict[str, bytes], base: int, info: Vmcoreinfo) -> bool:
    """Whether offsets are of the older form, in which those of per-CPU variables are addresses (until v6.14)."""
    known = info.symbols.get("_stext")
    return known is not None and "_stext" in offsets and _address(offsets["_stext"], base, signed=False) != known


def _address(raw: bytes, base: int, *, signed: bool) -> int:
    if not signed:
        return base + int.from_bytes(raw, "little")
    offset = int.from_bytes(raw, "little", signed=True)
    return offset if offset >= 0 else base - 1 - offset
