# SPDX-License-Identifier: GPL-2.0-only
"""Carries out BPF programs without a kernel: the few instructions and helpers that ours have."""

import struct

WORD = (1 << 64) - 1
FRAME, STACK = 0x7000_0000_0000, 512
MAP = 0x6000_0000_0000
PROBE_READ_KERNEL, SEQ_WRITE = 113, 127
_LOADS, _STORES, _VALUES = {0x61: 4, 0x79: 8}, {0x63: 4, 0x7B: 8}, {0x7A: 8}
_ARITHMETIC = {
    0x00: lambda dst, src: dst + src,
    0x20: lambda dst, src: dst * src,
    0x50: lambda dst, src: dst & src,
    0x60: lambda dst, src: dst << (src & 63),
    0x70: lambda dst, src: dst >> (src & 63),
    0xB0: lambda dst, src: src,
}
_JUMPS = {
    0x00: lambda dst, src: True,
    0x10: lambda dst, src: dst == src,
    0x20: lambda dst, src: dst > src,
    0x30: lambda dst, src: dst >= src,
    0xA0: lambda dst, src: dst < src,
}


class FaultError(Exception):
    """The verifier or the processor would have stopped it here."""


class BpfMachine:
    """Memory in pieces: {address: bytearray}; ``output`` is what went to the iterator's file."""

    def __init__(self, memory, map_bytes):
        self.memory = {MAP: bytearray(map_bytes), **memory}
        self.output = b""
        self.steps = 0

    def piece(self, address, size):
        for base, data in self.memory.items():
            if base <= address and address + size <= base + len(data):
                return data, address - base
        raise FaultError(f"{size} bytes at {address:#x}")

    def load(self, address, size):
        data, at = self.piece(address, size)
        return int.from_bytes(data[at : at + size], "little")

    def store(self, address, size, value):
        if not (FRAME - STACK <= address < FRAME or MAP <= address < FRAME - STACK):
            raise FaultError(f"a write to {address:#x}, which is not the program's own")
        data, at = self.piece(address, size)
        data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def run(self, program, context=0):
        """r0 at the end."""
        self.memory[FRAME - STACK] = bytearray(STACK)
        registers = [0, context, *[None] * 8, FRAME]
        at, code = 0, [struct.unpack("<BBhi", program[n : n + 8]) for n in range(0, len(program), 8)]
        while True:
            self.steps += 1
            op, both, off, imm = code[at]
            dst, src = both & 15, both >> 4
            at += 1
            kind = op & 7
            if op == 0x95:
                return registers[0]
            if op == 0x18:
                assert src == 2, "the value of a map"
                registers[dst], at = MAP, at + 1
            elif op == 0x85:
                registers[0] = self.call(imm, *registers[1:6])
                registers[1:6] = [None] * 5
            elif op in _LOADS:
                registers[dst] = self.load(registers[src] + off, _LOADS[op])
            elif op in _STORES:
                self.store(registers[dst] + off, _STORES[op], registers[src])
            elif op in _VALUES:
                self.store(registers[dst] + off, _VALUES[op], imm)
            elif kind in (5, 7):
                other = registers[src] if op & 8 else imm & WORD
                if kind == 7:
                    registers[dst] = _ARITHMETIC[op & 0xF0](registers[dst] or 0, other) & WORD
                elif _JUMPS[op & 0xF0](registers[dst], other):
                    at += off
            else:
                raise FaultError(f"instruction {op:#x}")

    def call(self, helper, *arguments):
        if helper == PROBE_READ_KERNEL:
            to, size, source = arguments[:3]
            try:
                data, at = self.piece(source, size)
                found, result = bytes(data[at : at + size]), 0
            except FaultError:
                found, result = bytes(size), -14 & WORD
            self.store(to, size, int.from_bytes(found, "little"))
            return result
        assert helper == SEQ_WRITE
        _, source, size = arguments[:3]
        data, at = self.piece(source, size)
        self.output += bytes(data[at : at + size])
        return 0
