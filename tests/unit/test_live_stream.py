# SPDX-License-Identifier: GPL-2.0-only
"""What a reader makes of the running kernel's records when processes change meanwhile; no kernel is asked here."""

import importlib.resources
import struct
from pathlib import Path

import pytest

from rmaplab.realkernel.bpf_iterator import ChainEnd, ChainLinks, MappedVma
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.live import _Stream
from rmaplab.realkernel.reader import GraphReader
from rmaplab.realkernel.target import Machine, Target, Task

LAYOUT = Layout.of_file(Path(str(importlib.resources.files("rmaplab") / "data/layouts/x86_64-6.18.json")))
MM, OTHER, VMA, AVC, AV = 0x1000, 0x2000, 0x3000, 0x40000, 0x5000
AVC_BYTES = 64


class Memory:
    """AVCs by address, and zeros in place of anything else that is asked for."""

    def __init__(self):
        self.avcs = {}

    def read_many(self, addresses, size):
        start = LAYOUT.fields("anon_vma_chain", ("vma", "Q")).start
        return [
            self.avcs.get(at - start, bytes(AVC_BYTES))[start : start + size].ljust(size, b"\0") for at in addresses
        ]


def words(size, structure, **values):
    data = bytearray(size)
    for name, value in values.items():
        struct.pack_into("<Q", data, LAYOUT.offset(f"{structure}.{name}"), value)
    return bytes(data)


def same_vma(avc):
    return avc + LAYOUT.offset("anon_vma_chain.same_vma")


def head(vma):
    return vma + LAYOUT.offset("vm_area_struct.anon_vma_chain")


def mapped(pid, mm=MM, vma=VMA, start=0x10000, comm="cat"):
    raw = words(LAYOUT.size("vm_area_struct"), "vm_area_struct", vm_start=start, vm_end=start + 0x1000, anon_vma=AV)
    return MappedVma(pid, mm, 0, vma, comm, raw)


def avc_bytes(vma, following, anon_vma=AV):
    return words(AVC_BYTES, "anon_vma_chain", vma=vma, anon_vma=anon_vma, same_vma=following)


def links(vma, *avcs, end=None):
    """A run of links, each to the next, the last to ``end``, by default the head."""
    nexts = [*map(same_vma, avcs[1:]), head(vma) if end is None else end]
    return ChainLinks(
        vma,
        b"".join(
            struct.pack("<QQQ", 2, vma, same_vma(avc)) + avc_bytes(vma, after)
            for avc, after in zip(avcs, nexts, strict=True)
        ),
    )


def taken(*records, memory=None, lo=0, hi=1 << 64):
    reader = GraphReader(Target(memory or Memory(), LAYOUT, Machine()), lo, hi)
    _Stream(reader, AVC_BYTES).take(iter(records))
    return reader.graph


def test_a_vma_and_its_chain():
    graph = taken(mapped(7), links(VMA, AVC, AVC + 64, AVC + 128), mapped(7, vma=VMA + 256, start=0x20000))
    assert graph.tasks == [Task(7, "cat", MM)]
    assert [(vma.address, vma.start, vma.anon_vma, vma.chain) for vma in graph.vmas] == [
        (VMA, 0x10000, AV, [AVC, AVC + 64, AVC + 128]),
        (VMA + 256, 0x20000, AV, []),
    ]
    assert graph.avcs[AVC + 64][:3] == (VMA, AV, same_vma(AVC + 128))
    assert (graph.remarks, list(graph.pgds)) == ([], [MM])


def test_members_of_an_avc_are_told_apart():
    rb = LAYOUT.offset("anon_vma_chain.rb")
    raw = bytearray(avc_bytes(VMA, head(VMA)))
    struct.pack_into("<QQQ", raw, rb, 0xAA, 0xBB, 0xCC)  # rb_node: parent and colour, right, left
    graph = taken(mapped(7), ChainLinks(VMA, struct.pack("<QQQ", 2, VMA, same_vma(AVC)) + raw))
    assert (graph.avcs[AVC].left, graph.avcs[AVC].right) == (0xCC, 0xBB)


def test_a_chain_goes_on_in_memory():
    memory = Memory()
    memory.avcs = {AVC + 64: avc_bytes(VMA, same_vma(AVC + 128)), AVC + 128: avc_bytes(VMA, head(VMA))}
    first = links(VMA, AVC, end=same_vma(AVC + 64))
    graph = taken(mapped(7), first, ChainEnd(VMA, same_vma(AVC + 64)), memory=memory)
    assert graph.vmas[0].chain == [AVC, AVC + 64, AVC + 128]
    assert graph.remarks == []


def test_threads_and_vfork_share_an_address_space():
    """Two processes with one mm: its VMAs are told twice, and are those of the first."""
    graph = taken(mapped(7), links(VMA, AVC), mapped(9, comm="sh"), links(VMA, AVC))
    assert graph.tasks == [Task(7, "cat", MM), Task(9, "sh", MM)]
    assert [(vma.task, vma.chain) for vma in graph.vmas] == [(0, [AVC])]
    assert graph.remarks == []


def test_a_process_of_which_no_vma_is_wanted():
    aside = mapped(7)._replace(raw=b"")
    graph = taken(aside, aside._replace(address=VMA + 256), mapped(9, OTHER, VMA + 512))
    assert ([task.pid for task in graph.tasks], [vma.task for vma in graph.vmas]) == ([7, 9], [1])


@pytest.mark.parametrize(
    "changed",
    [
        mapped(7, start=0x11000),  # grown or split: told again, as it is no longer the one that was told last
        mapped(7, mm=OTHER, vma=VMA + 256),  # exec
    ],
)
def test_a_process_that_changes_is_a_remark(changed):
    graph = taken(mapped(7), links(VMA, AVC), changed, links(changed.address, AVC + 64))
    assert graph.remarks == ["process 7: its VMAs changed while they were read"]
    assert [(vma.start, vma.chain) for vma in graph.vmas] == [(0x10000, [AVC])]


def test_a_vma_that_was_freed_and_is_anothers_now_is_a_remark():
    graph = taken(mapped(7), mapped(9, OTHER))
    assert graph.remarks == ["process 9: its VMAs changed while they were read"]
    assert [vma.task for vma in graph.vmas] == [0]


@pytest.mark.parametrize("avcs", [(AVC, AVC + 64, AVC), (AVC, AVC)])
def test_a_chain_in_a_circle_is_a_remark(avcs):
    graph = taken(mapped(7), links(VMA, *avcs), links(VMA, *avcs), ChainEnd(VMA, same_vma(AVC)))
    assert len(graph.remarks) == 1
    assert "AVC 0x40000 is on two lists, or twice on one" in graph.remarks[0]
    assert graph.vmas[0].chain == list(dict.fromkeys(avcs))


def test_an_avc_on_two_chains_is_a_remark():
    other = mapped(7, vma=VMA + 256, start=0x20000)
    graph = taken(mapped(7), links(VMA, AVC), other, links(VMA + 256, AVC + 64, AVC))
    assert [vma.chain for vma in graph.vmas] == [[AVC], [AVC + 64]]
    assert ["0x20000" in remark for remark in graph.remarks] == [True]
