# SPDX-License-Identifier: GPL-2.0-only
"""The calls of a random program, and the few pages that they are about."""

from __future__ import annotations

from typing import NamedTuple

from rmaplab.kernel.flags import PAGE_SHIFT

__all__ = ["HEAP", "PAGES", "WINDOW", "Call"]

# Low enough to stand before everything else that is mapped, so that smaps shows it first;
# neither a huge page nor a neighbour's VMA fits.
WINDOW = 0x10_0000
PAGES = 6
HEAP = 2  # the page of the window where every process's heap begins


class Call(NamedTuple):
    """One call of one process; pages are counted from the start of the window."""

    process: str
    name: str
    first: int = 0  # of brk: the page where the heap shall end
    pages: int = 1
    prot: str = ""
    file: str | None = None
    child: str = ""
    shared: bool = False
    to: int | None = None  # of mremap: the first page of the new place, None for the old one
    size: int = 0  # and the new number of pages
    dontunmap: bool = False
    advice: str = ""
    stack: bool = False  # mapped so that it grows down

    @property
    def target(self) -> int | None:
        """Address of the new place, in bytes."""
        return None if self.to is None else WINDOW + (self.to << PAGE_SHIFT)

    @property
    def start(self) -> int:
        """Address of the first page, in bytes."""
        return WINDOW + (self.first << PAGE_SHIFT)

    def __str__(self) -> str:
        """The call as a line of a scenario in which W is the window, or a comment if scenarios cannot say it."""
        where = f"W[{self.first}..{self.first + self.pages - 1}]" if self.pages > 1 else f"W[{self.first}]"
        match self.name:
            case "mmap":
                options = f" file={self.file}" * bool(self.file) + " shared" * self.shared + "  # stack" * self.stack
                return f"{self.process} mmap M {self.pages} at={self.start:#x} prot={self.prot}{options}"
            case "mprotect":
                return f"{self.process} mprotect {where} {self.prot}"
            case "madvise":
                return f"{self.process} madvise {where} {self.advice}"
            case "fork":
                return f"{self.process} fork {self.child}"
            case "brk":
                return f"# {self.process} brk to {self.start:#x}"
            case "exit":
                return f"{self.process} exit"
            case "uffd_move":
                return f"# {self.process} UFFDIO_MOVE of {where} to W[{self.to}]"
            case "ksmd":
                return "# ksmd finds all pages that were written to equal"
            case "mremap" if self.target is None:
                return f"{self.process} mremap {where} M pages={self.size}  # where it is, without leave to move"
            case "mremap":
                options = f"at={self.target:#x}" + " dontunmap" * self.dontunmap
                return f"{self.process} mremap {where} M {options} pages={self.size}"
        return f"{self.process} {self.name} {where}"
