# SPDX-License-Identifier: GPL-2.0-only
"""Types are read from BTF as include/uapi/linux/btf.h lays them out, and garbage is refused."""

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmaplab.errors import InputError
from rmaplab.realkernel.btf import Btf, Kind

RUNNING = Path("/sys/kernel/btf/vmlinux")


class Encoder:
    """Writes BTF: ``add`` answers the id of the type."""

    def __init__(self):
        self.strings, self.types, self.count = b"\0", b"", 0

    def string(self, text):
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text.encode()) - 1

    def add(self, kind, name="", size=0, length=0, flag=0, tail=()):
        self.types += struct.pack("<III", self.string(name), flag << 31 | int(kind) << 24 | length, size)
        self.types += b"".join(struct.pack("<i" if word < 0 else "<I", word) for word in tail)
        self.count += 1
        return self.count

    def compound(self, kind, name, size, members, flag=0):
        tail = [word for one, of, at in members for word in (self.string(one), of, at)]
        return self.add(kind, name, size, len(members), flag, tail)

    def enum(self, name, values, flag=0):
        tail = [word for one, value in values for word in (self.string(one), value)]
        return self.add(Kind.ENUM, name, 4, len(values), flag, tail)

    def made(self, layout=b""):
        header = 24 + 8 * bool(layout)
        data = struct.pack("<HBBI", 0xEB9F, 1, 0, header)
        data += struct.pack("<IIII", 0, len(self.types), len(self.types), len(self.strings))
        if layout:
            data += struct.pack("<II", len(self.types) + len(self.strings), len(layout))
        return data + self.types + self.strings + layout


@pytest.fixture
def encoder():
    return Encoder()


def integer(encoder, name="int", size=4, encoding=1):
    return encoder.add(Kind.INT, name, size, tail=[encoding << 24 | 8 * size])


def some_types():
    """One of each kind."""
    encoder = Encoder()
    number = integer(encoder)
    pointer = encoder.add(Kind.PTR, size=number)
    array = encoder.add(Kind.ARRAY, tail=[pointer, number, 3])
    encoder.compound(Kind.STRUCT, "list", 32, [("next", pointer, 0), ("rest", array, 64)])
    encoder.compound(Kind.UNION, "either", 8, [("one", pointer, 0)])
    encoder.enum("colour", [("RED", 1), ("LESS", -2)], flag=1)
    encoder.add(Kind.FWD, "later")
    alias = encoder.add(Kind.TYPEDEF, "number_t", number)
    for kind in (Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG):
        alias = encoder.add(kind, "__user" * (kind is Kind.TYPE_TAG), alias)
    proto = encoder.add(Kind.FUNC_PROTO, size=number, length=2, tail=[encoder.string("vma"), pointer, 0, 0])
    encoder.add(Kind.FUNC, "walk", proto, length=1)
    variable = encoder.add(Kind.VAR, "counter", number, tail=[1])
    encoder.add(Kind.DATASEC, ".data", 8, 1, tail=[variable, 0, 4])
    encoder.add(Kind.FLOAT, "double", 8)
    encoder.add(Kind.DECL_TAG, "rcu", number, tail=[-1])
    encoder.add(Kind.ENUM64, "wide", 8, 1, tail=[encoder.string("FAR"), 5, 1])
    return encoder


def test_every_kind_is_read():
    encoder = some_types()
    btf = Btf(encoder.made())
    assert len(btf) == encoder.count + 1
    assert {btf.type(ident).kind for ident in range(1, len(btf))} == set(Kind) - {Kind.UNKN}
    assert btf.integer(btf.find("int", Kind.INT)) == (1, 0, 32)
    assert btf.array(3) == (2, 1, 3)
    assert [(one.name, one.bit_offset) for one in btf.members(btf.find("list", Kind.STRUCT))] == [
        ("next", 0),
        ("rest", 64),
    ]
    assert btf.enumerators(btf.find("colour", Kind.ENUM)) == [("RED", 1), ("LESS", -2)]
    assert (btf.enum_value("LESS"), btf.enum_value("FAR")) == (-2, 5 + (1 << 32))
    assert btf.type(btf.resolved(12)).name == "int"
    assert btf.parameters(13) == [("vma", 2), ("", 0)]
    assert btf.type(btf.type(btf.function("walk")).size).kind is Kind.FUNC_PROTO
    assert (btf.size("list"), btf.offset("list.rest"), btf.offset("either.one")) == (32, 8, 0)


def test_anonymous_members_are_looked_into(encoder):
    word = integer(encoder, "long", 8)
    inner = encoder.compound(Kind.STRUCT, "", 16, [("start", word, 0), ("end", word, 64)])
    alias = encoder.add(Kind.CONST, size=encoder.add(Kind.TYPEDEF, "inner_t", inner))
    union = encoder.compound(Kind.UNION, "", 16, [("rcu", word, 0), ("", alias, 0)])
    encoder.compound(Kind.STRUCT, "vma", 32, [("mm", word, 0), ("", union, 64), ("named", inner, 192)])
    btf = Btf(encoder.made())
    assert [btf.offset(f"vma.{path}") for path in ("mm", "start", "end", "rcu", "named.end")] == [0, 8, 16, 8, 32]
    for path in ("vma.missing", "vma.mm.deeper", "vma.named.rcu", "missing.start"):
        with pytest.raises(KeyError):
            btf.offset(path)


def test_a_bit_field_has_a_size_and_an_offset(encoder):
    word = integer(encoder)
    ident = encoder.compound(Kind.STRUCT, "bits", 8, [("low", word, 3 << 24 | 5), ("whole", word, 32)], flag=1)
    members = Btf(encoder.made()).members(ident)
    assert [(one.name, one.bit_offset, one.bit_size) for one in members] == [("low", 5, 3), ("whole", 32, 0)]


def test_without_the_flag_all_bits_are_the_offset(encoder):
    ident = encoder.compound(Kind.STRUCT, "large", 1 << 28, [("far", integer(encoder), 3 << 24)])
    assert Btf(encoder.made()).members(ident)[0][2:] == (3 << 24, 0)


def test_enumerators_without_a_sign(encoder):
    ident = encoder.enum("flags", [("ALL", 0xFFFFFFFF)])
    assert Btf(encoder.made()).enumerators(ident) == [("ALL", 0xFFFFFFFF)]


def test_the_first_of_a_name_counts_and_all_are_told(encoder):
    structure = encoder.compound(Kind.STRUCT, "same", 8, [])
    encoder.enum("one", [("TWICE", 1)])
    second = encoder.compound(Kind.STRUCT, "same", 16, [])
    encoder.enum("two", [("TWICE", 2)])
    alias = encoder.add(Kind.TYPEDEF, "same", structure)
    btf = Btf(encoder.made())
    assert btf.named("same") == [structure, second, alias]
    assert (btf.size("same"), btf.enum_value("TWICE"), btf.find("same", Kind.TYPEDEF)) == (8, 1, alias)
    assert btf.named("") == btf.named("missing") == []
    with pytest.raises(KeyError):
        btf.enum_value("NOWHERE")


def test_a_type_may_have_more_elements_than_65535(encoder):
    """BTF_INFO_VLEN has 24 bits in v7.3, and 16 in v6.12."""
    encoder.enum("many", [("E", number) for number in range(65540)])
    encoder.compound(Kind.STRUCT, "behind", 24, [])
    btf = Btf(encoder.made())
    assert btf.type(1).length == 65540
    assert btf.enumerators(1)[-1] == ("E", 65539)
    assert btf.size("behind") == 24


def test_kinds_of_later_kernels_are_passed_over_by_the_layout(encoder):
    encoder.add(20, "new", 0, 2, tail=[1, 2, 3, 4, 5])  # one word, and two for each element
    encoder.compound(Kind.STRUCT, "behind", 24, [])
    layout = bytes(80) + bytes([4, 8, 0, 0])
    btf = Btf(encoder.made(layout))
    assert btf.type(1)[:2] == (Kind.UNKN, "new")
    assert btf.size("behind") == 24
    with pytest.raises(InputError, match=r"unknown kind 20 at byte 0"):
        Btf(encoder.made())
    with pytest.raises(InputError, match=r"unknown kind 20 at byte 0"):
        Btf(encoder.made(layout[:80]))


# What is not BTF, or not whole.


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too short for BTF: 0 bytes"),
        (b"\x9f\xeb\x01\0", "too short for BTF: 4 bytes"),
        (b"\xeb\x9f\x01\0" + bytes(20), "begins with eb9f0100"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1), "ends at byte 24"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 3, 3, 1) + bytes(4), "not whole words"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 4, 4, 1) + bytes(5), "cut off at byte 0"),
    ],
)
def test_garbage_is_refused(data, words):
    with pytest.raises(InputError, match=words):
        Btf(data, "the file")


def test_a_type_that_is_cut_off_is_named(encoder):
    integer(encoder)
    encoder.compound(Kind.STRUCT, "half", 8, [("one", 1, 0), ("two", 1, 32)])
    whole = encoder.types
    for length in range(20, len(whole), 4):
        encoder.types = whole[:length]
        with pytest.raises(InputError, match="cut off at byte 16 of its types"):
            Btf(encoder.made())


def test_types_that_lead_nowhere(encoder):
    alias = encoder.add(Kind.TYPEDEF, "around", 1)
    inner = encoder.count + 1
    encoder.compound(Kind.STRUCT, "within", 8, [("", inner, 0), ("", inner, 0), ("", 99, 0)])
    btf = Btf(encoder.made())
    with pytest.raises(InputError, match="refers to itself"):
        btf.resolved(alias)
    with pytest.raises(InputError, match="refers to type 99 and has 2"):
        btf.offset("within.missing")
    with pytest.raises(InputError, match="type 1 is of the kind TYPEDEF, not STRUCT or UNION"):
        btf.members(alias)
    with pytest.raises(InputError, match="refers to type 0"):
        btf.type(0)


def test_a_deep_web_of_anonymous_structs_is_searched_once(encoder):
    """Each struct has the next one twice: without a memory this takes 2**40 steps."""
    for depth in range(40):
        encoder.compound(Kind.STRUCT, "" if depth else "top", 8, [("", depth + 2, 0), ("", depth + 2, 0)])
    encoder.compound(Kind.STRUCT, "", 8, [])
    with pytest.raises(KeyError):
        Btf(encoder.made()).offset("top.missing")


def ask_everything(btf):
    """Everything that a reader may ask."""
    for ident in range(1, len(btf)):
        match (about := btf.type(ident)).kind:
            case Kind.STRUCT | Kind.UNION:
                btf.members(ident)
            case Kind.ENUM | Kind.ENUM64:
                btf.enumerators(ident)
            case Kind.FUNC_PROTO:
                btf.parameters(ident)
            case Kind.ARRAY:
                btf.array(ident)
            case Kind.INT:
                btf.integer(ident)
        btf.named(about.name)
        with contextlib.suppress(KeyError):
            btf.resolved(ident)
            btf.offset(f"{about.name}.next")
    with contextlib.suppress(KeyError):
        btf.enum_value("RED")


SOME = some_types().made(bytes(80) + bytes([4, 8, 0, 0]))


@given(st.data())
def test_damaged_files_are_refused_or_read(data):
    damaged = bytearray(SOME)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(SOME) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(SOME)))
    for part in (damaged, damaged[:cut]):
        try:
            ask_everything(Btf(bytes(part)))
        except InputError as error:
            assert str(error).startswith("BTF: ")  # noqa: PT017 (either way is fine)


@given(st.binary(max_size=200))
def test_any_types_are_refused_or_read(types):
    encoder = Encoder()
    encoder.types, encoder.strings = types[: len(types) // 4 * 4], b"\0next\0RED\0"
    try:
        ask_everything(Btf(encoder.made()))
    except InputError as error:
        assert str(error).startswith("BTF: ")  # noqa: PT017 (either way is fine)


def test_a_layout_that_says_it_is_huge_is_read_to_its_end_alone():
    damaged = bytearray(SOME)
    struct.pack_into("<I", damaged, 28, 0xFFFF_FFFC)  # where a loop over all of it takes minutes
    assert len(Btf(bytes(damaged))) == len(Btf(SOME))


# Files.


def elf(sections):
    """An ELF file of 64 bits with sections of these names."""
    names, data, headers = b"\0", bytes(64), []
    for name, content in [*sections.items(), (".shstrtab", None)]:
        at = len(names)
        names += name.encode() + b"\0"
        content = names if content is None else content
        headers.append(struct.pack("<IIQQQQIIQQ", at, 1, 0, 0, len(data), len(content), 0, 0, 1, 0))
        data += content
    about = struct.pack("<QIHHHHHH", len(data), 0, 64, 0, 0, 64, len(headers), len(headers) - 1)
    return b"\x7fELF\x02\x01\x01" + bytes(33) + about + data[64:] + b"".join(headers)


def test_a_blob_and_the_section_of_an_elf_file_are_the_same(tmp_path, encoder):
    encoder.compound(Kind.STRUCT, "only", 40, [])
    blob, vmlinux = tmp_path / "btf", tmp_path / "vmlinux"
    blob.write_bytes(encoder.made())
    vmlinux.write_bytes(elf({".text": b"code", ".BTF_ids": bytes(8), ".BTF": encoder.made()}))
    assert Btf.of_file(blob).size("only") == Btf.of_file(vmlinux).size("only") == 40
    assert Btf.of_file(blob).name == str(blob)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"", "too short"),
        (b"\x7fELF", "not of 64 bits"),
        (b"\x7fELF\x01\x01" + bytes(60), "not of 64 bits"),
        (elf({".text": b""}), r"no section \.BTF; build it with CONFIG_DEBUG_INFO_BTF"),
        (elf({".BTF": b""})[:-65], "not a whole ELF file"),
        (elf({".BTF": b"\x9f\xeb"}), "too short for BTF: 2 bytes"),
        (b"\x7fELF\x02\x01" + bytes(58), r"no section \.BTF"),
        (b"\x7fELF\x02\x01" + bytes(34) + b"\xff" * 24, "not a whole ELF file"),
    ],
)
def test_files_without_types_are_refused(tmp_path, content, words):
    path = tmp_path / "vmlinux"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        Btf.of_file(path)
    assert str(caught.value).startswith(str(path))


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        Btf.of_file(tmp_path)


@pytest.mark.skipif(not RUNNING.exists(), reason=f"{RUNNING} is not there: CONFIG_DEBUG_INFO_BTF")
def test_types_of_the_running_kernel():
    btf = Btf.of_file(RUNNING)
    assert btf.offset("anon_vma_chain.vma") == 0
    assert btf.offset("anon_vma.root") < btf.size("anon_vma")
    assert btf.enum_value("PG_locked") == 0
    assert btf.type(btf.find("list_head", Kind.STRUCT)).length == 2
