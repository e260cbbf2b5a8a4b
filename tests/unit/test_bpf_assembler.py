# SPDX-License-Identifier: GPL-2.0-only
"""BPF programs are put together as the kernel wants them, and do what they are for; none is loaded here."""

import errno
import re
import struct

import pytest
from bpf_machine import MAP, BpfMachine
from hypothesis import given
from hypothesis import strategies as st

from rmaplab.errors import InputError
from rmaplab.realkernel import bpf, bpf_iterator, bpf_memory

NEVER = 1 << 62  # where nothing is


def instructions(code):
    return [code.assembled()[at : at + 8].hex() for at in range(0, len(code.assembled()), 8)]


def test_instructions_are_encoded_as_in_the_manual():
    """The encodings of Documentation/bpf/standardization/instruction-set.rst."""
    code = bpf.Code()
    code.move(6, 1)  # r6 = r1
    code.set(3, -2)
    code.add(10, 8)
    code.load64(7, 6, 16)
    code.load32(1, 8, -4)
    code.store64(10, 7, -8)
    code.store_value(10, 5, -16)
    code.multiply(1, 16)
    code.add_register(3, 1)
    code.map_value(9, 77)
    code.call(bpf.PROBE_READ_KERNEL)
    code.exit()
    assert instructions(code) == [
        *("bf16000000000000", "b7030000feffffff", "070a000008000000", "7967100000000000", "6181fcff00000000"),
        *("7b7af8ff00000000", "7a0af0ff05000000", "2701000010000000", "0f13000000000000"),
        *("182900004d000000", "0000000000000000", "8500000071000000", "9500000000000000"),
    ]


def test_jumps_lead_to_their_labels():
    code = bpf.Code()
    code.label("top")
    code.jump(bpf.IF_EQUAL, 7, "out", imm=3)
    code.jump(bpf.IF_SAME, 8, "out", src=9)
    code.jump(bpf.ALWAYS, 0, "top")
    code.label("out")
    code.exit()
    assert instructions(code) == ["1507020003000000", "1d98010000000000", "0500fdff00000000", "9500000000000000"]


@given(st.integers(0, 50), st.integers(0, 20))
def test_a_loop_runs_as_often_as_it_should(count, most):
    code = bpf.Code()
    code.set(0, 0)
    code.set(7, 0)
    code.label("next")
    code.jump(bpf.IF_NOT_LESS, 7, "out", imm=most)
    code.jump(bpf.IF_REACHED, 7, "out", src=1)
    code.add(0, 3)
    code.add(7, 1)
    code.jump(bpf.ALWAYS, 0, "next")
    code.label("out")
    code.exit()
    assert BpfMachine({}, 0).run(code.assembled(), context=count) == 3 * min(count, most)


# The program that reads memory.


class Served(bpf_memory.BpfMemory):
    """Its program is carried out here, not by a kernel."""

    def __init__(self, memory, monkeypatch):
        self.machine = BpfMachine(memory, bpf_memory._DATA + bpf_memory._ROOM)
        self.map, self.shared, self.places, self.program = 3, self.machine.memory[MAP], {}, 4
        self.runs = 0
        monkeypatch.setattr(bpf, "run", self.run)

    def run(self, program):
        assert program == self.program
        self.runs += 1
        assert self.machine.run(bpf_memory._reader(self.map).assembled()) == 0


@pytest.fixture
def served(monkeypatch):
    return Served({0x1000: bytearray(range(256)) * 64}, monkeypatch)


def test_many_are_read_in_a_run(served):
    addresses = [0x1000 + 8 * number for number in range(1500)] + [NEVER, -16, 1 << 70, 0x1003]
    found = served.read_many(addresses, 8)
    assert found[:1500] == [bytes((8 * number + at) % 256 for at in range(8)) for number in range(1500)]
    assert found[1500:] == [None, None, None, bytes(range(3, 11))]
    assert served.runs == 2
    assert served.read_many([], 8) == []


def test_sizes_may_change_from_run_to_run(served):
    for size in (8, 4096, 8, 1):
        assert served.read_many([0x1000, NEVER, 0x1100], size) == [
            bytes(range(256)) * 16 if size == 4096 else bytes(range(size)),
            None,
            bytes(range(256)) * 16 if size == 4096 else bytes(range(size)),
        ]


def test_one_that_is_larger_than_a_page(served):
    assert served.read(0x1000, 10000) == (bytes(range(256)) * 40)[:10000]
    with pytest.raises(bpf_memory.FaultError, match="0x5000 "):
        served.read(0x1000, 0x4001)


def test_places_of_several_sizes_in_one_run(served):
    assert served.read_places([(0x1000, 3), (0x1101, 4096), (0x1010, 1)]) == b"".join(
        [bytes(range(3)), (bytes(range(256)) * 17)[1:4097], b"\x10"]
    )
    assert served.runs == 1
    assert served.read_places([(0x1000, 3), (NEVER, 8)]) is None
    assert served.read_places([(0x1000, 1)] * 1025) is None


# The program that goes over VMAs.

SEQ, CONTEXT, TASK, SIGNAL, PID, VMA, MM = (0x100_0000 * number for number in range(1, 8))
AVCS = 0x2000_0000
COMM = b"cat\0".ljust(16, b"\0")


OFFSETS = {
    **{"task_struct.tgid": 12, "task_struct.comm": 40, "task_struct.signal": 64},
    **{"signal_struct.pids": 16, "pid.numbers": 24, "upid.nr": 4},
    **{"vm_area_struct.vm_start": 8, "vm_area_struct.vm_mm": 32, "vm_area_struct.anon_vma_chain": 48},
    **{"anon_vma_chain.same_vma": 16},
}


class Types:
    """Offsets that no kernel has."""

    def offset(self, path):
        return OFFSETS[path]

    def size(self, structure):
        return {"upid": 16, "anon_vma_chain": 64}[structure]


def words(size, **at):
    data = bytearray(size)
    for place, value in at.items():
        struct.pack_into("<Q", data, int(place[1:]), value)
    return data


def kernel(links, start=0x5000):
    """A VMA with a chain of so many links, as the iterator finds it."""
    avcs = [AVCS + 0x100 * number for number in range(links)]
    heads = [avc + 16 for avc in avcs] + [VMA + 48]
    memory = {
        CONTEXT: words(24, _0=SEQ, _8=TASK, _16=VMA),
        SEQ: words(8, _0=0x77),
        TASK: words(72, _8=7 << 32, _64=SIGNAL),
        SIGNAL: words(32, _24=PID),
        PID: words(64, _24=7 << 32, _40=3 << 32),
        VMA: words(64, _8=start, _32=MM, _48=heads[0]),
    }
    memory[TASK][40:56] = COMM
    memory |= {avc: words(64, _0=VMA, _16=after) for avc, after in zip(avcs, heads[1:], strict=True)}
    return memory, avcs


def told(memory, avcs):
    """What is written of links."""
    return b"".join(struct.pack("<QQQ", 2, VMA, avc + 16) + bytes(memory[avc]) for avc in avcs)


def records(memory, lo=0, hi=(1 << 64) - 1, level=0, most=8, context=CONTEXT):
    """What the program writes, read as user space reads it, in pieces that end anywhere."""
    machine = BpfMachine(memory, 24)
    struct.pack_into("<QQQ", machine.memory[MAP], 0, lo, hi, level)
    program = bpf_iterator._Program(Types(), 3, 64, 64, most).whole().assembled()
    assert machine.run(program, context) == 0
    reader = object.__new__(bpf_iterator.VmaIterator)
    reader.vma_bytes, reader.avc_bytes = 64, 64
    for piece in (1, 100, 200, 1 << 20):
        found, rest = [], b""
        for at in range(0, len(machine.output), piece):
            parts = reader._whole(rest + machine.output[at : at + piece])
            while True:
                try:
                    found.append(next(parts))
                except StopIteration as end:
                    rest = end.value
                    break
        assert rest == b""
        assert b"".join(one.raw for one in found if isinstance(one, bpf_iterator.ChainLinks)) in machine.output
    return found


@pytest.mark.parametrize("links", [0, 1, 7, 8])
def test_a_vma_is_told_with_its_chain(links):
    memory, avcs = kernel(links)
    vma = bpf_iterator.MappedVma(7, MM, TASK, VMA, "cat", bytes(memory[VMA]))
    assert records(memory) == [vma, *[bpf_iterator.ChainLinks(VMA, told(memory, avcs))] * bool(links)]


def test_a_chain_that_is_longer_says_where_it_goes_on():
    memory, avcs = kernel(12)
    assert records(memory)[1:] == [
        bpf_iterator.ChainLinks(VMA, told(memory, avcs[:8])),
        bpf_iterator.ChainEnd(VMA, avcs[8] + 16),
    ]


def test_a_chain_in_a_circle_ends():
    memory, avcs = kernel(3)
    struct.pack_into("<Q", memory[avcs[2]], 16, avcs[0] + 16)
    assert records(memory)[-1] == bpf_iterator.ChainEnd(VMA, avcs[2] + 16)


def test_a_link_that_cannot_be_read_is_told_empty():
    memory, avcs = kernel(2)
    struct.pack_into("<Q", memory[avcs[0]], 16, NEVER)
    link = struct.pack("<QQQ", 2, VMA, NEVER) + bytes(64)
    assert records(memory)[1].raw[: 2 * len(link)] == told(memory, avcs[:1]) + link


@pytest.mark.parametrize(
    ("lo", "hi", "inside"), [(0x5000, 0x5001, True), (0x5001, 1 << 63, False), (0, 0x5000, False), (0, 0, False)]
)
def test_of_a_vma_out_of_bounds_only_its_process_is_told(lo, hi, inside):
    memory, _ = kernel(2)
    found = records(memory, lo, hi)
    assert found[0][:5] == (7, MM, TASK, VMA, "cat")
    assert (len(found), bool(found[0].raw)) == ((2, True) if inside else (1, False))


def test_bounds_are_without_sign():
    memory, _ = kernel(0, start=0xFFFF_8000_0000_0000)
    assert records(memory, lo=1 << 63)[0].raw
    assert not records(memory, hi=1 << 63)[0].raw


def test_ids_are_those_of_the_namespace():
    assert records(kernel(1)[0], level=1)[0].pid == 3


@pytest.mark.parametrize("missing", [8, 16])
def test_at_the_end_there_is_nothing(missing):
    memory, _ = kernel(1)
    struct.pack_into("<Q", memory[CONTEXT], missing, 0)
    assert records(memory) == []


def test_a_vmas_records_fit_into_the_kernels_buffer():
    """32 KiB (bpf_iter.c: seq->size); more of one VMA is an error there, E2BIG."""
    assert 56 + 400 + bpf_iterator.MOST * (24 + 64) + 24 < 8 * 4096


# What stands in the way.


@pytest.fixture
def files(tmp_path, monkeypatch):
    status, lockdown, btf = tmp_path / "status", tmp_path / "lockdown", tmp_path / "btf"
    status.write_text("Name:\tx\nCapEff:\t000001ffffffffff\n")
    btf.write_text("")
    monkeypatch.setattr(bpf, "_STATUS", status)
    monkeypatch.setattr(bpf, "_LOCKDOWN", lockdown)
    monkeypatch.setattr(bpf, "BTF", btf)
    return status, lockdown, btf


@pytest.mark.parametrize(
    ("capabilities", "words"),
    [
        (0, "we lack CAP_PERFMON and CAP_BPF: be root"),
        (1 << 39, "we lack CAP_PERFMON: be root"),
        (1 << 38, "we lack CAP_BPF: be root"),
        (1 << 38 | 1 << 39, None),
        (1 << 21, None),
    ],
)
def test_capabilities_that_are_missing(files, capabilities, words):
    files[0].write_text(f"CapPrm:\t0\nCapEff:\t{capabilities:016x}\n")
    found = bpf.obstacles()
    assert found == [] if words is None else re.match(words, found[0])


def test_other_obstacles(files):
    _, lockdown, btf = files
    lockdown.write_text("none [integrity] confidentiality\n")
    assert bpf.obstacles() == []
    lockdown.write_text("none integrity [confidentiality]\n")
    btf.unlink()
    assert [re.search("CONFIG_DEBUG_INFO_BTF|lockdown=integrity", one)[0] for one in bpf.obstacles()] == [
        "CONFIG_DEBUG_INFO_BTF",
        "lockdown=integrity",
    ]


def refusing(code, log=b""):
    def call(command, attributes):
        if log and command == 5 and (address := struct.unpack_from("<Q", attributes, 32)[0]):
            bpf.ctypes.memmove(address, log, len(log))
        raise OSError(code, bpf.os.strerror(code))

    return call


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSYS, "Function not implemented; it was built without CONFIG_BPF_SYSCALL"),
        (errno.EPERM, "Operation not permitted; a container or a security module forbids it"),
        (errno.ENOMEM, "an array of BPF: Cannot allocate memory$"),
    ],
)
def test_a_refusal_names_the_remedy(files, monkeypatch, code, words):
    monkeypatch.setattr(bpf, "call_bpf", refusing(code))
    with pytest.raises(InputError, match=words):
        bpf.create_array(8)


def test_a_refusal_names_the_capabilities(files, monkeypatch):
    files[0].write_text("CapEff:\t0\n")
    monkeypatch.setattr(bpf, "call_bpf", refusing(errno.EPERM))
    with pytest.raises(
        InputError, match="a program of BPF: Operation not permitted; we lack CAP_PERFMON and CAP_BPF"
    ):
        bpf.load(31, bpf.Code(), name=b"x")


def test_what_the_verifier_says_is_told(files, monkeypatch):
    log = b"0: (79) r1 = *(u64 *)(r2 +0)\nR2 !read_ok\nprocessed 1 insns (limit 1000000)\n"
    monkeypatch.setattr(bpf, "call_bpf", refusing(errno.EACCES, log))
    with pytest.raises(InputError, match=r"Permission denied \(R2 !read_ok\)$"):
        bpf.load(31, bpf.Code(), name=b"x")


def test_machines_whose_number_of_bpf_is_not_known(monkeypatch):
    monkeypatch.setattr(bpf.platform, "machine", lambda: "vax")
    with pytest.raises(InputError, match=r"bpf\(2\) is not known on vax"):
        bpf.create_array(8)
