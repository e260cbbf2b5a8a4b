# SPDX-License-Identifier: GPL-2.0-only
"""Where KASLR put the direct map and the struct pages is found by page tables, which are made here."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaplab.realkernel.kernel_map import find_machine, translate
from rmaplab.realkernel.layout import Layout
from rmaplab.realkernel.memory import FaultError, read_each
from rmaplab.realkernel.target import Machine

GIB, PAGE = 1 << 30, 4096
TABLE, LARGE, SUPERVISOR = 0x67, 0xE3, 0x63  # bits of entries: present, writable, accessed, dirty; user; large
USER = 0x7F12_3456_7000
ANON_VMA = 0xFFFF_8881_0123_4560
STRUCT_PAGE, MAPPING = 64, 24
LAYOUT = Layout({"page": STRUCT_PAGE}, {"folio.mapping": MAPPING})


class Computer:
    """Physical memory of ``size`` bytes, sparse, with page tables; the kernel sees what its tables map."""

    def __init__(self, levels, direct, vmemmap, size=8 * GIB, pgd=5 * GIB + 0x7000, frame=0x1_8000_0000):
        self.levels, self.pages, self.next, self.pgd = levels, {}, pgd, pgd
        self.new()
        self.direct, self.vmemmap, self.size = direct, vmemmap, size
        for at in range(0, size, GIB):
            self.map(direct + at, at, 2)
        for at in range(0, size // PAGE * STRUCT_PAGE, 2 << 20):
            self.map(vmemmap + at, GIB + at, 1)
        self.map(USER, frame, 0)
        self.write(GIB + frame // PAGE * STRUCT_PAGE + MAPPING, ANON_VMA | 1)

    def new(self):
        self.pages[self.next] = bytearray(PAGE)
        self.next += PAGE
        return self.next - PAGE

    def write(self, physical, value):
        page = self.pages.setdefault(physical & -PAGE, bytearray(PAGE))
        struct.pack_into("<Q", page, physical & PAGE - 1, value)

    def map(self, address, physical, level):
        table = self.pgd
        for up in range(self.levels - 1, level, -1):
            at = table + 8 * (address >> 12 + 9 * up & 511)
            (entry,) = struct.unpack_from("<Q", self.pages[at & -PAGE], at & PAGE - 1)
            if not entry:
                entry = self.new() | TABLE
                self.write(at, entry)
            table = entry & ~0xFFF
        self.write(table + 8 * (address >> 12 + 9 * level & 511), physical | (LARGE if level else SUPERVISOR))

    def read(self, address, size):
        address &= (1 << 64) - 1
        data = b""
        while size:
            physical = self.physical(address)
            if physical is None:
                raise FaultError(address)
            part = min(size, PAGE - physical % PAGE)
            page = self.pages.get(physical & -PAGE, bytes(PAGE))
            data += page[physical % PAGE : physical % PAGE + part]
            address, size = address + part, size - part
        return data

    def physical(self, address):
        for base, start, length in (
            (self.direct, 0, self.size),
            (self.vmemmap, GIB, self.size // PAGE * STRUCT_PAGE),
        ):
            if base <= address < base + length:
                return start + address - base
        return None

    def read_many(self, addresses, size):
        return read_each(self, addresses, size)

    def find(self, page=USER, anon_vma=ANON_VMA):
        return find_machine(self, LAYOUT, self.direct + self.pgd, page, anon_vma)


BASES = {4: (0xFFFF_8880_0000_0000, 0xFFFF_EA00_0000_0000), 5: (0xFF11_0000_0000_0000, 0xFFD4_0000_0000_0000)}


@given(st.sampled_from([4, 5]), st.integers(0, 5000), st.integers(0, 5000))
@settings(max_examples=10, deadline=None)
def test_wherever_they_are_they_are_found(levels, first, second):
    direct, vmemmap = (base + GIB * step for base, step in zip(BASES[levels], (first, second), strict=True))
    assert Computer(levels, direct, vmemmap).find() == Machine("x86_64", levels, direct, vmemmap)


@pytest.mark.parametrize(("pgd", "frame"), [(0x1000, 0x2000), (7 * GIB, 7 * GIB + 0x5000), (3 * GIB, 0x9_F000)])
def test_tables_and_pages_may_lie_anywhere(pgd, frame):
    assert Computer(4, *BASES[4], pgd=pgd, frame=frame).find() == Machine("x86_64", 4, *BASES[4])


def test_what_is_not_found_stays_unknown():
    computer = Computer(4, *BASES[4])
    assert computer.find(anon_vma=ANON_VMA + 64) == Machine(page_offset=BASES[4][0])
    assert computer.find(page=USER + PAGE) == Machine(page_offset=BASES[4][0])
    assert not computer.find(page=USER + PAGE).knows_pages
    computer.write(computer.pgd + 8 * (BASES[4][0] >> 39 & 511), 0)
    assert computer.find() == Machine()


def test_the_direct_map_is_not_taken_for_the_struct_pages():
    """It has them as well, here at a multiple of 1 GiB, like the region that is looked for."""
    computer = Computer(4, *BASES[4])
    place = 0x1_8000_0000 // PAGE * STRUCT_PAGE + MAPPING
    assert computer.read(BASES[4][0] + GIB + place, 8) == computer.read(BASES[4][1] + place, 8)
    assert computer.find() == Machine("x86_64", 4, *BASES[4])


def test_regions_with_other_contents_are_not_taken():
    computer = Computer(4, *BASES[4])
    computer.map(BASES[4][0] + 64 * GIB, 2 * GIB, 2)  # vmalloc, say
    assert computer.find() == Machine("x86_64", 4, *BASES[4])


@pytest.mark.parametrize(
    ("address", "physical"),
    [
        (USER + 5, 0x1_8000_0005),
        (BASES[4][0] + 3 * GIB + 0x1234567, 3 * GIB + 0x1234567),
        (BASES[4][1] + 0x345678, GIB + 0x345678),
        (USER - PAGE, None),
        (0x1000, None),
    ],
)
def test_addresses_are_translated_by_entries_of_every_size(address, physical):
    computer = Computer(4, *BASES[4])
    assert translate(computer, computer.direct + computer.pgd, computer.direct, 4, address) == physical


def test_tables_that_cannot_be_read_map_nothing():
    computer = Computer(4, *BASES[4])
    at = computer.pgd + 8 * (USER >> 39 & 511)
    computer.write(at, 64 * GIB | TABLE)
    assert translate(computer, computer.direct + computer.pgd, computer.direct, 4, USER) is None
    assert computer.find() == Machine(page_offset=BASES[4][0])
