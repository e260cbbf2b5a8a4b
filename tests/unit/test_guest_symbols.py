# SPDX-License-Identifier: GPL-2.0-only
"""Symbols come out of kallsyms tables however a release numbers them, and out of nothing else."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_btf import Encoder, integer

from rmaplab.errors import InputError
from rmaplab.realkernel.guest_symbols import KernelSymbols, VmcoreInfo, btf_in, find_note, read_symbols
from rmaplab.realkernel.memory import FaultError, read_each

IMAGE = 0xFFFF_FFFF_8100_0000
NAMES, COUNT, TOKENS, INDEX, OFFSETS, BASE, BTF = (IMAGE + 0x10_0000 * number for number in range(1, 8))
SYMBOLS = [
    ("A", "fixed_percpu_data", 0),
    ("T", "_stext", IMAGE),
    ("T", "_text", IMAGE),
    ("t", "walk", IMAGE + 0x40),
    ("T", "anon_vma_fork", IMAGE + 0x100),
    ("t", "walk", IMAGE + 0x200),
    ("D", "init_task", IMAGE + 0x4000),
    ("d", "x" * 300, IMAGE + 0x6000),
]
WAYS = ("relative", "per-CPU absolute", "to itself")


class Pieces:
    """Memory of some pieces by their addresses."""

    def __init__(self, pieces):
        self.pieces = dict(pieces)

    def read(self, address, size):
        for start, data in self.pieces.items():
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        raise FaultError(address)

    def read_many(self, addresses, size):
        return read_each(self, addresses, size)


def tokens():
    """Table and index: each byte stands for its own letter, but 1 and 2 for longer ones."""
    texts = [chr(byte) if 32 <= byte < 127 else "" for byte in range(256)]
    texts[1], texts[2] = "anon_vma", "xxxxxxxxxx"
    table, index = b"", []
    for text in texts:
        index.append(len(table))
        table += text.encode() + b"\0"
    return table, struct.pack("<256H", *index)


def packed(letter, name):
    data = (letter + name).replace("anon_vma", "\x01").encode()
    length = len(data)
    return (bytes([length]) if length < 0x80 else bytes([length & 0x7F | 0x80, length >> 7])) + data


def offset(way, place, address):
    if way == "relative":
        return (address - IMAGE) & 0xFFFF_FFFF
    if way == "per-CPU absolute":
        return (address if address < IMAGE else IMAGE - 1 - address) & 0xFFFF_FFFF
    return (address - (OFFSETS + 4 * place)) & 0xFFFF_FFFF


def kernel(way, symbols=SYMBOLS, **words):
    """Memory and VMCOREINFO of a kernel with some symbols."""
    table, index = tokens()
    names = b"".join(packed(letter, name) for letter, name, _ in symbols)
    numbers = [offset(way, place, address) for place, (_, _, address) in enumerate(symbols)]
    pieces = {
        NAMES: names + bytes(-len(names) % 4096),
        COUNT: struct.pack("<I", len(symbols)),
        TOKENS: table + bytes(-len(table) % 4096),
        INDEX: index,
        OFFSETS: struct.pack(f"<{len(numbers)}I", *numbers),
        BASE: struct.pack("<Q", IMAGE),
    }
    told = {
        **{"kallsyms_names": NAMES, "kallsyms_num_syms": COUNT, "kallsyms_token_table": TOKENS},
        **{"kallsyms_token_index": INDEX, "kallsyms_offsets": OFFSETS, "_stext": IMAGE},
        **({} if way == "to itself" else {"kallsyms_relative_base": BASE}),
        **words,
    }
    lines = ["OSRELEASE=6.12.0-test", *(f"SYMBOL({name})={address:x}" for name, address in told.items() if address)]
    return Pieces(pieces), VmcoreInfo.parse("\n".join(lines))


@pytest.mark.parametrize("way", WAYS)
def test_symbols_are_where_they_were_put(way):
    symbols = SYMBOLS[way != "per-CPU absolute" :]
    found = read_symbols(*kernel(way, symbols))
    assert len(found) == len(symbols)
    assert [(one.letter, one.name, one.address) for one in found.all()] == sorted(symbols, key=lambda one: one[::-1])
    assert found.address("init_task") == IMAGE + 0x4000
    assert [one.address for one in found.named("walk")] == [IMAGE + 0x40, IMAGE + 0x200]
    assert found.named("missing") == []
    with pytest.raises(KeyError):
        found.address("missing")


def test_an_address_belongs_to_the_symbol_before_it():
    found = KernelSymbols([(address, name, letter) for letter, name, address in SYMBOLS[1:]])
    assert [one.name for one in found.at(IMAGE + 0x3F)] == ["_stext", "_text"]
    assert [(one.name, one.size) for one in found.at(IMAGE + 0x4001)] == [("init_task", 0x2000)]
    assert found.at(IMAGE - 1) == []
    assert [one.name for one in found.at(IMAGE + 0x6000)] == ["x" * 300]
    assert found.at(IMAGE + 0x6001) == []


def test_names_go_on_over_many_pages():
    symbols = [("T", "_stext", IMAGE), *(("t", f"function_{n}" * 20, IMAGE + 16 * n) for n in range(1, 4000))]
    found = read_symbols(*kernel("relative", symbols))
    assert len(found) == 4000
    assert found.address("function_3999" * 20) == IMAGE + 16 * 3999


@pytest.mark.parametrize("word", ["kallsyms_names", "kallsyms_offsets", "_stext"])
def test_a_kernel_that_does_not_tell_its_tables(word):
    with pytest.raises(InputError, match=rf"6.12.0-test: VMCOREINFO lacks SYMBOL\({word}\).*give its vmlinux"):
        read_symbols(*kernel("relative", **{word: 0}))


@pytest.mark.parametrize("piece", [NAMES, COUNT, TOKENS, INDEX, OFFSETS, BASE])
def test_tables_that_are_not_in_the_dump(piece):
    memory, info = kernel("relative")
    del memory.pieces[piece]
    with pytest.raises(InputError, match="the symbol tables are not in its memory"):
        read_symbols(memory, info)


def test_tables_of_another_kernel():
    memory, info = kernel("relative", _stext=IMAGE + 8)
    with pytest.raises(InputError, match=f"do not have _stext at {IMAGE + 8:#x}"):
        read_symbols(memory, info)
    memory.pieces[COUNT] = bytes(4)
    with pytest.raises(InputError, match="kallsyms_num_syms is 0"):
        read_symbols(memory, info)


@given(st.sampled_from([NAMES, COUNT, TOKENS, INDEX, OFFSETS, BASE]), st.integers(0, 4095), st.binary(max_size=64))
def test_overwritten_tables_raise_nothing_but_an_error(piece, at, garbage):
    memory, info = kernel("relative")
    old = memory.pieces[piece]
    memory.pieces[piece] = old[:at] + garbage + old[at + len(garbage) :]
    try:
        found = read_symbols(memory, info)
    except InputError:
        return
    assert len(found) == len(SYMBOLS)


# --- VMCOREINFO ----------------------------------------------------------------------------------


def note(text, name=b"VMCOREINFO\0\0", size=None):
    return struct.pack("<III", 11, len(text) if size is None else size, 0) + name + text


def test_a_note_is_found_in_memory():
    text = b"OSRELEASE=6.12.0\nPAGESIZE=4096\n"
    assert find_note(bytes(100) + note(text) + bytes(100)) == text
    # The kernel's strings, and a note that was overwritten, look nearly like it.
    deceptive = b"VMCOREINFO\0\0OSRELEASE=%s\n\0" + note(text, size=1 << 30) + note(text, b"VMCOREINFX\0\0")
    assert find_note(deceptive) is None
    assert find_note(deceptive + note(text)) == text
    assert find_note(b"VMCOREINFO\0\0OSRELEASE=") is None


def test_what_vmcoreinfo_says():
    info = VmcoreInfo.parse(
        b"OSRELEASE=6.12.0\nBUILD-ID=7f76\nSYMBOL(_stext)=ffffffff81000000\nNUMBER(VMALLOC_START)=0xffffc90000000000\n"
        b"NUMBER(phys_base)=-4096\nSIZE(page)=64\nOFFSET(page.lru)=8\nLENGTH(node_data)=1024\n\0\0"
    )
    assert (info.release, info.values["BUILD-ID"]) == ("6.12.0", "7f76")
    assert info.symbol("_stext") == IMAGE
    assert (info.number("VMALLOC_START"), info.number("phys_base")) == (0xFFFF_C900_0000_0000, -4096)
    assert (info.known("SIZE"), info.known("OFFSET")) == ({"page": 64}, {"page.lru": 8})
    with pytest.raises(KeyError):
        info.symbol("missing")
    with pytest.raises(InputError, match="does not name a release"):
        VmcoreInfo.parse(b"PAGESIZE=4096")
    with pytest.raises(InputError, match=r"SYMBOL\(_stext\) is 'nonsense', which is no number"):
        VmcoreInfo.parse("OSRELEASE=6\nSYMBOL(_stext)=nonsense").symbol("_stext")


# --- BTF in memory ----------------------------------------------------------------------------------


def with_btf(data, stop=None):
    places = [(BTF, "__start_BTF", "r"), (BTF + (len(data) if stop is None else stop), "__stop_BTF", "r")]
    return Pieces({BTF: data}), KernelSymbols(places)


def test_btf_is_read_out_of_memory():
    encoder = Encoder()
    word = integer(encoder, "long", 8)
    encoder.compound(4, "anon_vma", 16, [("root", word, 64)])
    assert btf_in(*with_btf(encoder.made()), "a dump").offset("anon_vma.root") == 8


def test_btf_that_is_not_there():
    with pytest.raises(InputError, match="a dump: its kernel has no BTF"):
        btf_in(Pieces({}), KernelSymbols([]), "a dump")
    with pytest.raises(InputError, match="a dump: its BTF is not in its memory"):
        btf_in(*with_btf(bytes(10), stop=20), "a dump")
    with pytest.raises(InputError, match="BTF of -5 bytes"):
        btf_in(*with_btf(bytes(10), stop=-5), "a dump")
    with pytest.raises(InputError, match="BTF of a dump: "):
        btf_in(*with_btf(bytes(100)), "a dump")
