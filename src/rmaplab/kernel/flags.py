# SPDX-License-Identifier: GPL-2.0-only
"""Constants of include/linux/mm.h and friends that the reverse map depends on.

Values are the kernel's own, so that a flag word read out of a real kernel
means the same here.
"""

__all__ = [
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "TASK_SIZE",
    "VM_ACCESS_FLAGS",
    "VM_ACCOUNT",
    "VM_DONTCOPY",
    "VM_EXEC",
    "VM_GROWSDOWN",
    "VM_IGNORE_MERGE",
    "VM_NORESERVE",
    "VM_READ",
    "VM_SHARED",
    "VM_WIPEONFORK",
    "VM_WRITE",
    "flags_name",
    "prot_flags",
]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
TASK_SIZE = (1 << 47) - PAGE_SIZE  # x86-64, four-level page tables

VM_READ = 0x1
VM_WRITE = 0x2
VM_EXEC = 0x4
VM_SHARED = 0x8
VM_GROWSDOWN = 0x100
VM_DONTCOPY = 0x20000
VM_ACCOUNT = 0x100000
VM_NORESERVE = 0x200000
VM_WIPEONFORK = 0x2000000
VM_SOFTDIRTY = 0x8000000

VM_ACCESS_FLAGS = VM_READ | VM_WRITE | VM_EXEC
VM_IGNORE_MERGE = VM_SOFTDIRTY  # bits that never keep two VMAs apart

_PROT = {"r": VM_READ, "w": VM_WRITE, "x": VM_EXEC}
# The two-letter codes of the VmFlags line in /proc/PID/smaps.
_CODES = (
    (VM_READ, "rd"),
    (VM_WRITE, "wr"),
    (VM_EXEC, "ex"),
    (VM_SHARED, "sh"),
    (VM_GROWSDOWN, "gd"),
    (VM_DONTCOPY, "dc"),
    (VM_ACCOUNT, "ac"),
    (VM_NORESERVE, "nr"),
    (VM_WIPEONFORK, "wf"),
)


def prot_flags(prot: str) -> int:
    """VM_READ/WRITE/EXEC bits of a protection such as ``rw``, ``r`` or ``none``."""
    return 0 if prot == "none" else sum({_PROT[letter] for letter in prot})


def flags_name(flags: int) -> str:
    """A flag word as /proc/PID/smaps writes it: ``rd wr ac``."""
    return " ".join(code for bit, code in _CODES if flags & bit)
