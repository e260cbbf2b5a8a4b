# SPDX-License-Identifier: GPL-2.0-only
"""drgn finds the types that BTF tells, and variables, functions and symbols of a kernel without debug symbols."""

import struct

import pytest
from test_btf import Encoder, integer

from rmaplab.errors import InputError
from rmaplab.realkernel.btf import Btf, Kind
from rmaplab.realkernel.guest_symbols import KernelSymbols

drgn = pytest.importorskip("drgn", reason="needs drgn: pip install 'rmaplab[kernel]'")

from rmaplab.realkernel.drgn_types import DrgnTypes, register  # noqa: E402 (what drgn is needed for)

BASE = 0xFFFF_FFFF_8100_0000


def program(memory=b""):
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    if memory:
        prog.add_memory_segment(BASE, len(memory), lambda address, size, offset, _: memory[offset : offset + size])
    return prog


def made(encoder, symbols=(), memory=b""):
    """A Program that knows what was encoded, and symbols by name and address."""
    prog = program(memory)
    known = KernelSymbols([(address, name, "D") for name, address in symbols])
    register(prog, lambda _: (Btf(encoder.made()), known))
    return prog


@pytest.fixture
def encoder():
    return Encoder()


def test_a_structure_looks_as_in_c(encoder):
    word, number = integer(encoder, "long unsigned int", 8, 0), integer(encoder)
    letter = integer(encoder, "char", 1, 1)
    name = encoder.add(Kind.ARRAY, tail=[letter, number, 16])
    inner = encoder.compound(Kind.UNION, "", 8, [("flags", word, 0), ("count", number, 0)])
    proto = encoder.add(Kind.FUNC_PROTO, size=number, length=2, tail=[encoder.string("vma"), word, 0, 0])
    walk = encoder.add(Kind.PTR, size=proto)
    fixed = encoder.add(Kind.CONST, size=encoder.add(Kind.VOLATILE, size=number))
    whole = encoder.compound(
        Kind.STRUCT,
        "anon_vma",
        64,
        [("root", 11, 0), ("", inner, 64), ("name", name, 128), ("walk", walk, 256), ("fixed", fixed, 320)],
    )
    assert whole == 10
    encoder.add(Kind.PTR, size=whole)
    prog = made(encoder)
    assert str(prog.type("struct anon_vma")) == (
        "struct anon_vma {\n\tstruct anon_vma *root;\n\tunion {\n\t\tunsigned long flags;\n\t\tint count;\n\t};\n"
        "\tchar name[16];\n\tint (*walk)(unsigned long vma, ...);\n\tconst volatile int fixed;\n}"
    )
    assert drgn.sizeof(prog.type("struct anon_vma")) == 64
    assert drgn.offsetof(prog.type("struct anon_vma"), "count") == 8
    assert prog.type("struct anon_vma *").type.members[0].type.type_name() == "struct anon_vma *"
    with pytest.raises(LookupError):
        prog.type("struct missing")
    with pytest.raises(LookupError):
        prog.type("union anon_vma")
    with pytest.raises(LookupError):
        prog.type("struct anon_vma", "mm/rmap.c")


def test_bit_fields_old_and_new(encoder):
    word = integer(encoder, "unsigned int", 4, 0)
    encoder.compound(Kind.STRUCT, "new", 4, [("low", word, 3 << 24), ("high", word, 5 << 24 | 3)], flag=1)
    narrow = encoder.add(Kind.INT, "unsigned int", 4, tail=[2 << 16 | 7])  # 7 bits, from the second of the four bytes
    encoder.compound(Kind.STRUCT, "old", 4, [("whole", word, 0), ("part", narrow, 0)])
    prog = made(encoder, memory=struct.pack("<I", 0b10110_101))
    new = drgn.Object(prog, "struct new", address=BASE)
    assert (new.low.value_(), new.high.value_(), new.low.bit_field_size_) == (0b101, 0b10110, 3)
    part = prog.type("struct old").members[1]
    assert (part.bit_offset, part.bit_field_size) == (2, 7)


def test_an_array_at_the_end_may_be_flexible(encoder):
    letter = integer(encoder, "char", 1, 1)
    none = encoder.add(Kind.ARRAY, tail=[letter, letter, 0])
    fixed = encoder.add(Kind.CONST, size=none)
    encoder.compound(Kind.STRUCT, "names", 1, [("nothing", none, 0), ("length", letter, 0), ("name", none, 8)])
    encoder.compound(Kind.STRUCT, "fixed", 1, [("length", letter, 0), ("name", fixed, 8)])
    prog = made(encoder, memory=b"\3abc\0")
    assert [member.type.type_name() for member in prog.type("struct names").members] == [
        "char [0]",
        "char",
        "char []",
    ]
    assert drgn.Object(prog, "struct names", address=BASE).name.string_() == b"abc"
    assert prog.type("struct fixed").members[1].type.type_name() == "const char []"


def test_enumerators_are_constants(encoder):
    encoder.enum("pid_type", [("PIDTYPE_PID", 0), ("PIDTYPE_TGID", 1)])
    encoder.enum("", [("LESS", -2)], flag=1)
    encoder.add(Kind.ENUM64, "wide", 8, 1, tail=[encoder.string("FAR"), 5, 1])
    encoder.add(Kind.ENUM, "later", 4)
    prog = made(encoder)
    assert prog["PIDTYPE_TGID"].value_() == 1
    assert prog["PIDTYPE_TGID"].type_.type_name() == "enum pid_type"
    assert prog.constant("LESS").value_() == -2
    assert prog["FAR"].value_() == 5 + (1 << 32)
    assert (drgn.sizeof(prog.type("enum wide")), prog.type("enum later").is_complete()) == (8, False)
    with pytest.raises(LookupError):
        prog.variable("PIDTYPE_TGID")


def test_types_by_other_names(encoder):
    word = integer(encoder, "long long unsigned int", 8, 0)
    encoder.add(Kind.TYPEDEF, "u64", word)
    encoder.add(Kind.INT, "_Bool", 1, tail=[4 << 24 | 8])
    encoder.add(Kind.FLOAT, "double", 8)
    forward = encoder.add(Kind.FWD, "mm_struct")
    unknown = encoder.add(Kind.FWD, "secret", flag=1)
    tag = encoder.add(Kind.TYPE_TAG, "rcu", encoder.add(Kind.PTR, size=forward))
    encoder.compound(Kind.STRUCT, "task", 16, [("mm", tag, 0), ("secret", encoder.add(Kind.PTR, size=unknown), 64)])
    encoder.compound(Kind.STRUCT, "mm_struct", 8, [("pgd", word, 0)])
    prog = made(encoder)
    assert prog.type("u64").type.type_name() == "unsigned long long"
    assert (prog.type("_Bool").kind, prog.type("double").kind) == (drgn.TypeKind.BOOL, drgn.TypeKind.FLOAT)
    pointer, secret = (member.type for member in prog.type("struct task").members)
    assert drgn.offsetof(pointer.type, "pgd") == 0
    assert (secret.type_name(), secret.type.is_complete()) == ("union secret *", False)


def test_variables_and_functions_lie_where_their_symbols_do(encoder):
    number = integer(encoder)
    encoder.compound(Kind.STRUCT, "task_struct", 8, [("pid", number, 32)])
    encoder.add(Kind.VAR, "counter", number, tail=[1])
    proto = encoder.add(Kind.FUNC_PROTO, size=0, length=1, tail=[encoder.string("code"), number])
    encoder.add(Kind.FUNC, "do_exit", proto, length=1)
    symbols = [("init_task", BASE), ("counter", BASE + 8), ("do_exit", BASE + 16), ("untyped", BASE + 20)]
    prog = made(encoder, symbols, struct.pack("<5i", 0, 42, 7, 0, 0))
    assert prog["init_task"].pid.value_() == 42
    assert prog["counter"].value_() == 7
    assert prog["do_exit"].type_.type_name() == "void (int code)"
    assert prog.function("do_exit").address_ == BASE + 16
    for name in ("untyped", "missing"):
        with pytest.raises(LookupError):
            prog[name]
    with pytest.raises(LookupError):
        prog.variable("do_exit")


def test_symbols_by_name_and_by_address(encoder):
    prog = made(encoder, [("a", BASE), ("b", BASE), ("walk", BASE + 16), ("walk", BASE + 32)])
    assert prog.symbol("walk").address == BASE + 16
    assert [one.address for one in prog.symbols("walk")] == [BASE + 16, BASE + 32]
    assert prog.symbol(BASE + 17).name == "walk"
    assert [one.name for one in prog.symbols(BASE + 15)] == ["a", "b"]
    assert len(prog.symbols()) == 4
    for missing in ("missing", BASE - 1):
        with pytest.raises(LookupError):
            prog.symbol(missing)


def test_types_that_go_round_are_refused(encoder):
    encoder.add(Kind.TYPEDEF, "round", encoder.add(Kind.PTR, size=2))
    encoder.add(Kind.TYPEDEF, "beyond", 99)
    encoder.add(Kind.TYPEDEF, "code", encoder.add(Kind.FUNC, "f", 0, length=1))
    types = DrgnTypes(program(), Btf(encoder.made()))
    with pytest.raises(InputError, match="refers to itself"):
        types.type(2)
    with pytest.raises(InputError, match="refers to type 99"):
        types.type(3)
    with pytest.raises(InputError, match="type 4, FUNC f, stands where a type should"):
        types.type(5)


def test_nothing_is_learnt_before_it_is_asked_for(encoder):
    integer(encoder)
    encoder.add(Kind.TYPEDEF, "pid_t", 1)
    asked, prog = [], program()

    def learn(prog):
        asked.append(prog)
        with pytest.raises(LookupError):
            prog.type("pid_t")  # what is looked up meanwhile is not found
        return None if len(asked) == 1 else (Btf(encoder.made()), KernelSymbols([]))

    register(prog, learn)
    assert asked == []
    with pytest.raises(LookupError):
        prog.type("pid_t")
    assert drgn.sizeof(prog.type("pid_t")) == 4
    assert prog.type("pid_t").type.type_name() == "int"
    assert len(asked) == 2
    register(prog, lambda _: (Btf(Encoder().made()), KernelSymbols([(BASE, "anew", "D")])))
    assert prog.symbol("anew").address == BASE
