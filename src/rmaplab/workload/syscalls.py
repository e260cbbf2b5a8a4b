# SPDX-License-Identifier: GPL-2.0-only
"""The system calls a recording stops at, and the seccomp filter that does it.

Numbers: include/uapi/asm-generic/unistd.h (arm64 and every new call) and
arch/x86/entry/syscalls/syscall_64.tbl. Filter: include/uapi/linux/filter.h,
seccomp(2).
"""

import struct
from dataclasses import dataclass

__all__ = ["ABIS", "Abi", "filter_program"]


@dataclass(frozen=True)
class Abi:
    """One machine's numbering: its AUDIT_ARCH word and names by call number."""

    audit: int
    calls: dict[int, str]


# Numbered alike on every machine, since they came after the tables were joined.
_COMMON = {
    435: "clone3",
    440: "process_madvise",
    450: "set_mempolicy_home_node",
    453: "map_shadow_stack",
    462: "mseal",
}

_X86_64 = {
    9: "mmap",
    10: "mprotect",
    11: "munmap",
    12: "brk",
    25: "mremap",
    28: "madvise",
    30: "shmat",
    56: "clone",
    57: "fork",
    58: "vfork",
    59: "execve",
    67: "shmdt",
    149: "mlock",
    150: "munlock",
    151: "mlockall",
    152: "munlockall",
    157: "prctl",
    216: "remap_file_pages",
    237: "mbind",
    322: "execveat",
    325: "mlock2",
    329: "pkey_mprotect",
}

_AARCH64 = {
    167: "prctl",
    196: "shmat",
    197: "shmdt",
    214: "brk",
    215: "munmap",
    216: "mremap",
    220: "clone",
    221: "execve",
    222: "mmap",
    226: "mprotect",
    228: "mlock",
    229: "munlock",
    230: "mlockall",
    231: "munlockall",
    233: "madvise",
    234: "remap_file_pages",
    235: "mbind",
    281: "execveat",
    284: "mlock2",
    288: "pkey_mprotect",
}

ABIS = {
    "x86_64": Abi(0xC000003E, _X86_64 | _COMMON),
    "aarch64": Abi(0xC00000B7, _AARCH64 | _COMMON),
}
"""The numberings by uname's machine name."""

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_TRACE = 0x7FF00000  # SECCOMP_RET_TRACE
_ALLOW = 0x7FFF0000  # SECCOMP_RET_ALLOW
_OFFSET_NR, _OFFSET_ARCH = 0, 4  # struct seccomp_data
_X32 = 0x40000000  # __X32_SYSCALL_BIT


def filter_program(abi: Abi) -> bytes:
    """Return the filter as struct sock_filter[]: stop at ``abi``'s calls, let the rest run.

    Every call made through another ABI (32-bit code, x32) stops too, so that
    the recorder can say that it does not follow those.
    """
    numbers = sorted(abi.calls)
    program = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_EQUAL, 0, len(numbers) + 3, abi.audit),
        (_LOAD, 0, 0, _OFFSET_NR),
        (_AT_LEAST, len(numbers) + 1, 0, _X32),
    ]
    # Jumps count from the next instruction; after the tests come ALLOW, TRACE.
    program += [(_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _TRACE)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
