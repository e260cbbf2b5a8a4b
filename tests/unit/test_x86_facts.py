# SPDX-License-Identifier: GPL-2.0-only
"""Where an x86-64 kernel sees its memory, read out of page tables that are made here."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from rmaplab.realkernel.guest.cache import Kernel
from rmaplab.realkernel.guest.wire import GuestError
from rmaplab.realkernel.layout import MEMBERS, SIZES, Layout
from rmaplab.realkernel.memory import FaultError, FileMemory, Segment
from rmaplab.realkernel.x86_facts import SYMBOLS, X86Facts, boot_segments

IMAGE = 0xFFFF_FFFF_8000_0000
DIRECT = 0xFFFF_8880_0000_0000
VMEMMAP = 0xFFFF_EA00_0000_0000
MIB, GIB = 1 << 20, 1 << 30
TABLES = 0x40_0000  # where the page tables lie
FACTS = {"page_offset_base": IMAGE + 0x1000, "vmemmap_base": IMAGE + 0x1008, "init_top_pgt": IMAGE + TABLES}


def entry(physical, *, large=False):
    return 0x8000_0000_0000_0063 | physical | (0x80 if large else 0)


def machine(path, size, *maps):
    """A file of ``size`` bytes, sparse; ``maps``: level, virtual address, what the entry says."""
    with path.open("wb") as file:
        file.truncate(size)

        def put(physical, value):
            file.seek(physical)
            file.write(struct.pack("<Q", value))

        put(0x1000, DIRECT)
        put(0x1008, VMEMMAP)
        tables = {(): TABLES}
        for level, address, value in maps:
            path_down = tuple(address >> 12 + 9 * up & 511 for up in (3, 2, 1, 0)[: 4 - level])
            for deep in range(1, len(path_down)):
                if path_down[:deep] not in tables:
                    tables[path_down[:deep]] = TABLES + 0x1000 * len(tables)
                    put(tables[path_down[: deep - 1]] + 8 * path_down[deep - 1], entry(tables[path_down[:deep]]))
            put(tables[path_down[:-1]] + 8 * path_down[-1], value)
    return path


def test_the_image_and_all_memory_are_seen(tmp_path):
    path = machine(tmp_path / "memory", 16 * MIB)
    assert boot_segments(path, 16 * MIB, FACTS) == [Segment(IMAGE, 16 * MIB, 0), Segment(DIRECT, 16 * MIB, 0)]


def test_memory_above_the_hole_is_behind_the_rest_in_the_file(tmp_path):
    high = 4 * GIB + 4 * MIB  # its struct pages lie above the hole
    path = machine(tmp_path / "memory", 6 * GIB, (1, VMEMMAP, entry(high, large=True)))
    assert boot_segments(path, 6 * GIB, FACTS) == [
        Segment(IMAGE, GIB, 0),
        Segment(DIRECT, 2 * GIB, 0),
        Segment(DIRECT + 4 * GIB, 4 * GIB, 2 * GIB),
        Segment(VMEMMAP, 2 * MIB, 2 * GIB + 4 * MIB),
    ]


def test_struct_pages_are_where_the_page_tables_say(tmp_path):
    size = 192 * MIB  # 3 MiB of struct pages: a large page, and small ones
    path = machine(
        tmp_path / "memory",
        size,
        (1, VMEMMAP, entry(8 * MIB, large=True)),
        (0, VMEMMAP + 2 * MIB, entry(0x70_0000)),
        (0, VMEMMAP + 2 * MIB + 0x2000, entry(0x6F_0000)),
    )
    assert boot_segments(path, size, FACTS)[2:] == [
        Segment(VMEMMAP, 2 * MIB, 8 * MIB),
        Segment(VMEMMAP + 2 * MIB, 0x1000, 0x70_0000),
        Segment(VMEMMAP + 2 * MIB + 0x2000, 0x1000, 0x6F_0000),
    ]


def test_struct_pages_in_huge_pages(tmp_path):
    path = machine(tmp_path / "memory", 64 * MIB, (2, VMEMMAP, entry(0, large=True)))
    assert boot_segments(path, 64 * MIB, FACTS)[2:] == [Segment(VMEMMAP, MIB, 0)]


def test_a_kernel_that_is_elsewhere_is_an_error(tmp_path):
    path = machine(tmp_path / "memory", 16 * MIB)
    with pytest.raises(GuestError, match="not where it should be"):
        boot_segments(path, 16 * MIB, FACTS | {"page_offset_base": IMAGE + GIB})


@pytest.fixture
def kernel(tmp_path):
    image = tmp_path / "vmlinuz"
    image.write_bytes(b"MZ")
    return Kernel("deb", "9.9-cloud", "qemu", image)


@pytest.fixture
def facts():
    sizes = dict.fromkeys(SIZES, 256)
    offsets = {name: 32 * at for at, name in enumerate(MEMBERS)}
    return X86Facts(Layout(sizes, offsets, {"PG_head": 6}), dict.fromkeys(SYMBOLS, IMAGE) | FACTS)


def test_what_was_learnt_is_kept_beside_the_kernel(kernel, facts):
    assert X86Facts.load(kernel) is None
    facts.save(kernel)
    assert X86Facts.load(kernel) == facts
    assert sorted(path.name for path in kernel.image.parent.iterdir()) == ["facts.json", "vmlinuz"]


def test_facts_of_another_kernel_are_not_taken(kernel, facts):
    facts.save(kernel)
    kernel.image.write_bytes(b"MZ, another")
    assert X86Facts.load(kernel) is None


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"not JSON", b"\xff"])
def test_damaged_facts_are_not_taken(kernel, facts, damage):
    facts.save(kernel)
    kernel.facts.write_bytes(damage)
    assert X86Facts.load(kernel) is None


def test_symbols_that_are_asked_for_since_are_learnt_anew(kernel, facts):
    fewer = {name: at for name, at in facts.symbols.items() if name != "vm_area_cachep"}
    dataclasses.replace(facts, symbols=fewer).save(kernel)
    assert X86Facts.load(kernel) is None


def test_a_target_knows_where_pages_are(tmp_path, facts):
    path = machine(tmp_path / "memory", 16 * MIB)
    memory = FileMemory(path, boot_segments(path, 16 * MIB, FACTS))
    target = facts.target(memory, "9.9")
    assert (target.machine.page_offset, target.machine.vmemmap, target.machine.levels) == (DIRECT, VMEMMAP, 4)
    assert target.init_task == IMAGE
    assert memory.read(DIRECT + 0x1000, 8) == memory.read(IMAGE + 0x1000, 8) == struct.pack("<Q", DIRECT)
    with pytest.raises(FaultError):
        memory.read(DIRECT + 16 * MIB - 4, 8)
    memory.close()


def test_symbols_that_are_missing_are_named():
    with pytest.raises(GuestError, match="lacks vmemmap_base, __stop_BTF"):
        X86Facts.learn(None, dict.fromkeys(SYMBOLS, 1) | {"vmemmap_base": 0, "__stop_BTF": 0})
