# SPDX-License-Identifier: GPL-2.0-only
"""Constants of include/linux/mm.h and friends that the reverse map depends on.

Values are the kernel's own, so that a flag word read out of a real kernel
means the same here.
"""

from functools import cache

__all__ = [
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "PMD_ORDER",
    "PMD_SHIFT",
    "PMD_SIZE",
    "TASK_SIZE",
    "VM_ACCESS_FLAGS",
    "VM_ACCOUNT",
    "VM_DONTCOPY",
    "VM_DONTDUMP",
    "VM_EXEC",
    "VM_GROWSDOWN",
    "VM_HUGEPAGE",
    "VM_IGNORE_MERGE",
    "VM_LOCKED",
    "VM_MAYBE_GUARD",
    "VM_MERGEABLE",
    "VM_NOHUGEPAGE",
    "VM_NORESERVE",
    "VM_RAND_READ",
    "VM_READ",
    "VM_SEQ_READ",
    "VM_SHARED",
    "VM_STACK_INCOMPLETE_SETUP",
    "VM_STICKY",
    "VM_WIPEONFORK",
    "VM_WRITE",
    "flags_name",
    "parse_flags",
    "prot_flags",
]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PMD_SHIFT = 21  # x86-64: one PMD entry spans 2 MiB
PMD_SIZE = 1 << PMD_SHIFT
PMD_ORDER = PMD_SHIFT - PAGE_SHIFT
TASK_SIZE = (1 << 47) - PAGE_SIZE  # x86-64, four-level page tables

VM_READ = 0x1
VM_WRITE = 0x2
VM_EXEC = 0x4
VM_SHARED = 0x8
VM_GROWSDOWN = 0x100
VM_MAYBE_GUARD = 0x800  # v6.19
VM_LOCKED = 0x2000
VM_SEQ_READ = 0x8000
VM_RAND_READ = 0x10000
VM_DONTCOPY = 0x20000
VM_ACCOUNT = 0x100000
VM_NORESERVE = 0x200000
VM_WIPEONFORK = 0x2000000
VM_DONTDUMP = 0x4000000
VM_SOFTDIRTY = 0x8000000
VM_HUGEPAGE = 0x20000000
VM_NOHUGEPAGE = 0x40000000
VM_MERGEABLE = 0x80000000

VM_ACCESS_FLAGS = VM_READ | VM_WRITE | VM_EXEC
VM_STACK_INCOMPLETE_SETUP = VM_RAND_READ | VM_SEQ_READ  # both: exec's stack before its move
VM_STICKY = VM_SOFTDIRTY | VM_MAYBE_GUARD  # bits that a merged VMA has if one of its parts had them (v6.19)
VM_IGNORE_MERGE = VM_STICKY  # bits that never keep two VMAs apart

_PROT = {"r": VM_READ, "w": VM_WRITE, "x": VM_EXEC}
# The two-letter codes of the VmFlags line in /proc/PID/smaps.
_CODES = (
    (VM_READ, "rd"),
    (VM_WRITE, "wr"),
    (VM_EXEC, "ex"),
    (VM_SHARED, "sh"),
    (VM_GROWSDOWN, "gd"),
    (VM_MAYBE_GUARD, "gu"),
    (VM_LOCKED, "lo"),
    (VM_SEQ_READ, "sr"),
    (VM_RAND_READ, "rr"),
    (VM_DONTCOPY, "dc"),
    (VM_ACCOUNT, "ac"),
    (VM_NORESERVE, "nr"),
    (VM_WIPEONFORK, "wf"),
    (VM_DONTDUMP, "dd"),
    (VM_HUGEPAGE, "hg"),
    (VM_NOHUGEPAGE, "nh"),
    (VM_MERGEABLE, "mg"),
)


def prot_flags(prot: str) -> int:
    """VM_READ/WRITE/EXEC bits of a protection such as ``rw``, ``r`` or ``none``."""
    return 0 if prot == "none" else sum({_PROT[letter] for letter in prot})


@cache
def flags_name(flags: int) -> str:
    """A flag word as /proc/PID/smaps writes it: ``rd wr ac``."""
    return " ".join(code for bit, code in _CODES if flags & bit)


def parse_flags(name: str) -> int:
    """The flag word of what :func:`flags_name` wrote; :class:`ValueError` for a code that it does not write."""
    bits = {code: bit for bit, code in _CODES}
    unknown = set(name.split()) - bits.keys()
    if unknown:
        raise ValueError(f"unknown flags {' '.join(sorted(unknown))}; known are {' '.join(bits)}")
    return sum(bits[code] for code in set(name.split()))
