# SPDX-License-Identifier: GPL-2.0-only
"""BPF programs put together by hand: no compiler, no libbpf, nothing to install (include/uapi/linux/bpf.h).

The kernel checks them before it takes them, they write nothing but their own
maps, and they are gone when the last descriptor is closed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from errno import EACCES, EINVAL, ENOSYS, EPERM
from pathlib import Path

from rmaplab.errors import InputError

__all__ = ["Code", "call_bpf", "create_array", "load", "obstacles", "probe_read", "run"]

_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _PROG_LOAD, _PROG_TEST_RUN = 0, 5, 10
_MAP_TYPE_ARRAY, _MMAPABLE = 2, 1 << 10
_ATTR = 160
_LOG = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)

PROBE_READ_KERNEL = 113  # helper functions
SEQ_WRITE = 127

BTF = Path("/sys/kernel/btf/vmlinux")
_STATUS, _LOCKDOWN = Path("/proc/self/status"), Path("/sys/kernel/security/lockdown")
_CAPABILITIES = {"CAP_PERFMON": 38, "CAP_BPF": 39}
_CAP_SYS_ADMIN = 21  # stands for both


def call_bpf(command: int, attributes: bytes) -> int:
    """bpf(2); :class:`OSError`."""
    number = _SYS_BPF.get(platform.machine())
    if number is None:
        raise OSError(ENOSYS, f"bpf(2) is not known on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes.ljust(_ATTR, b"\0"), _ATTR)
    result: int = _libc.syscall(number, command, buffer, _ATTR)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class Code:
    """A program under construction: instructions, and labels that jumps are filled in for.

    Registers are numbers; r10 is the frame, r1 to r5 are lost in a call.
    """

    def __init__(self) -> None:
        self.words: list[bytes | tuple[int, int, int, int, str]] = []
        self.labels: dict[str, int] = {}

    def op(self, code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        """One instruction as it is encoded."""
        self.words.append(struct.pack("<BBhi", code, src << 4 | dst, off, imm))

    def label(self, name: str) -> None:
        """Jumps to ``name`` come here."""
        self.labels[name] = len(self.words)

    def jump(self, code: int, dst: int, to: str, *, src: int = 0, imm: int = 0) -> None:
        """A jump, conditional or not."""
        self.words.append((code, dst, src, imm, to))

    def move(self, dst: int, src: int) -> None:
        """Dst = src."""
        self.op(0xBF, dst, src)

    def set(self, dst: int, value: int) -> None:
        """Dst = value, of 31 bits."""
        self.op(0xB7, dst, imm=value)

    def add(self, dst: int, value: int) -> None:
        """Dst += value."""
        self.op(0x07, dst, imm=value)

    def load64(self, dst: int, src: int, off: int = 0) -> None:
        """Dst = the 8 bytes at src + off."""
        self.op(0x79, dst, src, off)

    def load32(self, dst: int, src: int, off: int = 0) -> None:
        """Dst = the 4 bytes at src + off."""
        self.op(0x61, dst, src, off)

    def multiply(self, dst: int, value: int) -> None:
        """Dst *= value."""
        self.op(0x27, dst, imm=value)

    def add_register(self, dst: int, src: int) -> None:
        """Dst += src."""
        self.op(0x0F, dst, src)

    def store64(self, dst: int, src: int, off: int = 0) -> None:
        """The 8 bytes at dst + off = src."""
        self.op(0x7B, dst, src, off)

    def store_value(self, dst: int, value: int, off: int = 0) -> None:
        """The 8 bytes at dst + off = value."""
        self.op(0x7A, dst, off=off, imm=value)

    def map_value(self, dst: int, fd: int) -> None:
        """Dst = the address of the value of an array's only element."""
        self.op(0x18, dst, 2, imm=fd)
        self.op(0)

    def call(self, helper: int) -> None:
        """r0 = helper(r1, ...)."""
        self.op(0x85, imm=helper)

    def exit(self) -> None:
        """Return r0."""
        self.op(0x95)

    def assembled(self) -> bytes:
        """The instructions, jumps filled in."""
        parts = []
        for at, word in enumerate(self.words):
            if isinstance(word, tuple):
                code, dst, src, imm, to = word
                word = struct.pack("<BBhi", code, src << 4 | dst, self.labels[to] - at - 1, imm)
            parts.append(word)
        return b"".join(parts)


ALWAYS, IF_EQUAL, IF_GREATER, IF_NOT_LESS, IF_SAME, IF_REACHED, IF_BELOW = 0x05, 0x15, 0x25, 0x35, 0x1D, 0x3D, 0xAD
"""Jumps: always; dst ==, >, >= imm; dst ==, >=, < src; all without sign."""


def probe_read(code: Code, frame: int, size: int) -> None:
    """Copy ``size`` bytes at the kernel address in r3 to the frame at offset ``frame``."""
    code.move(1, 10)
    code.add(1, frame)
    code.set(2, size)
    code.call(PROBE_READ_KERNEL)


def create_array(size: int) -> int:
    """A descriptor of an array of one value of ``size`` bytes that user space can map; :class:`InputError`."""
    try:
        return call_bpf(_MAP_CREATE, struct.pack("<IIIII", _MAP_TYPE_ARRAY, 4, size, 1, _MMAPABLE))
    except OSError as error:
        raise _refused("an array", error, "") from error


def load(kind: int, code: Code, *, name: bytes, flags: int = 0, attach_type: int = 0, attach_to: int = 0) -> int:
    """A descriptor of the program; :class:`InputError` with what the kernel's verifier said last."""
    program = code.assembled()
    instructions, log = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(_LOG)
    licence = ctypes.create_string_buffer(b"GPL")
    address = ctypes.addressof
    attributes = struct.pack(
        "<IIQQIIQII16sIIIIQIIQII",
        *(kind, len(program) // 8, address(instructions), address(licence), 0, 0, 0),
        *(0, flags, name, 0, attach_type, 0, 0, 0, 0, 0, 0, 0, attach_to),
    )
    try:
        return call_bpf(_PROG_LOAD, attributes)
    except OSError as first:
        if first.errno not in (EINVAL, EACCES):
            raise _refused("a program", first, "") from first
    told = bytearray(attributes)
    struct.pack_into("<IIQ", told, 24, 1, _LOG, address(log))
    try:
        return call_bpf(_PROG_LOAD, bytes(told))
    except OSError as error:
        lines = log.value.decode("utf-8", "replace").strip().splitlines()
        said = next((line for line in reversed(lines) if not line.startswith("processed")), "")
        raise _refused("a program", error, said) from error


def run(program: int) -> None:
    """Run a program of the type SYSCALL once; :class:`OSError`."""
    call_bpf(_PROG_TEST_RUN, struct.pack("<I", program))


def obstacles() -> list[str]:
    """What keeps us from loading programs that read kernel memory, as far as files tell.

    security/lockdown/lockdown.c: only "confidentiality" keeps BPF from reading.
    """
    found = []
    if not BTF.exists():
        found.append(f"{BTF} is not there: the kernel was built without CONFIG_DEBUG_INFO_BTF")
    words = dict(line.split(":", 1) for line in _text(_STATUS).splitlines() if ":" in line)
    effective = int(words.get("CapEff", "0").strip(), 16)
    if not effective >> _CAP_SYS_ADMIN & 1:
        missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
        if missing:
            found.append(f"we lack {' and '.join(missing)}: be root")
    if "[confidentiality]" in _text(_LOCKDOWN):
        found.append(f'{_LOCKDOWN} says "confidentiality": boot with lockdown=integrity or without')
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _refused(what: str, error: OSError, said: str) -> InputError:
    """What the kernel did not take, and what to do about that."""
    remedy = "; ".join(obstacles())
    if error.errno == ENOSYS and not remedy:
        remedy = "it was built without CONFIG_BPF_SYSCALL"
    elif error.errno == EPERM and not remedy:
        remedy = "a container or a security module forbids it: run it outside"
    parts = [f"the running kernel does not take {what} of BPF: {error.strerror}", said and f"({said})"]
    return InputError(" ".join(filter(None, parts)) + (f"; {remedy}" if remedy else ""))
