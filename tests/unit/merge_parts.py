# SPDX-License-Identifier: GPL-2.0-only
"""Three VMAs side by side, with the anon_vmas that a test asks for, and what may become of them.

A pattern such as ``XUY`` says what prev, middle and next have: U nothing, X
and Y an anon_vma each.  Only the middle one is left out of core dumps, which
keeps the three apart until it is flipped.
"""

import os

from machine_parts import BASE

from rmaplab.check.monitor import monitored
from rmaplab.kernel.flags import PAGE_SIZE, VM_DONTDUMP, VM_READ, VM_WRITE
from rmaplab.kernel.locking import MMAP_LOCK
from rmaplab.kernel.process import Area
from rmaplab.series import SERIES

RW = VM_READ | VM_WRITE
PATTERNS = sorted(
    {"".join(three) for three in ((a, b, c) for a in "UX" for b in "UX" for c in "UX")}
    | {"YXU", "YUX", "YXX", "UYX", "XYU", "XYX", "UXY", "XUY", "XXY"}
)
FAR = BASE + 64 * PAGE_SIZE
PREV, MIDDLE, NEXT = (Area(BASE + at * PAGE_SIZE, 2) for at in (0, 2, 4))
ALL = Area(BASE, 6)


def flip(process, area):
    """As madvise does: the other value of VM_DONTDUMP for an area within one VMA."""
    kernel, mm = process.kernel, process.mm
    vma = mm.lookup(area.start)
    flags = vma.vm_flags ^ VM_DONTDUMP
    kernel.locks.acquire(MMAP_LOCK, mm)
    modified = kernel.vma_modify_flags(vma, area.start, area.end, flags)
    kernel.locks.release(MMAP_LOCK, mm)
    if isinstance(modified, int):
        raise OSError(-modified, os.strerror(-modified))
    modified.vm_flags = flags


class Three:
    """A process with prev, middle and next; ``names`` tells which anon_vma is X and which Y."""

    def __init__(self, pattern, series="v7.0", forked=False):
        self.kernel = monitored(SERIES[series])()
        self.process = self.kernel.spawn()
        self.names = {None: "U"}
        if "X" in pattern:
            self.share(pattern, forked)
        for area, name in zip((PREV, MIDDLE, NEXT), pattern, strict=True):
            if name != "X":
                self.map(area)
        for area, name in zip((PREV, MIDDLE, NEXT), pattern, strict=True):
            if name == "Y":
                self.process.write(area)
                self.names[self.process.mm.lookup(area.start).anon_vma] = "Y"

    def share(self, pattern, forked):
        """One VMA with one anon_vma for all three; those that are not X are replaced later."""
        self.process.mmap(6, at=BASE)
        for area, name in zip((PREV, MIDDLE, NEXT), pattern, strict=True):
            if name == "X":
                self.process.write(area)
        if forked:
            self.process = self.process.fork()
        self.names[self.process.mm.vmas[0].anon_vma] = "X"
        self.flip(MIDDLE)

    def map(self, area):
        flags = RW | VM_DONTDUMP if area == MIDDLE else RW
        assert self.kernel.do_mmap(self.process.mm, area.start, area.end, flags) == 0

    def flip(self, area):
        flip(self.process, area)

    def take_away(self):
        """Move the middle VMA to where nothing touches it, and make it like the others."""
        away = self.process.mremap(MIDDLE, at=FAR)
        self.flip(away)
        return away

    def shape(self):
        """First page, end and anon_vma of each VMA near prev, middle and next."""
        return [
            ((vma.vm_start - BASE) // PAGE_SIZE, (vma.vm_end - BASE) // PAGE_SIZE, self.names[vma.anon_vma])
            for vma in self.process.mm.vmas
            if vma.vm_start < FAR
        ]

    def state(self):
        """All that a failed call must leave as it was, besides the graph."""
        vmas = [
            (vma.id, vma.vm_start, vma.vm_end, vma.vm_pgoff, vma.vm_flags, vma.anon_vma)
            for vma in self.process.mm.vmas
        ]
        return vmas, [(address, pte.folio, pte.writable) for address, pte in self.process.mm.page_table]

    def folios(self):
        return sorted(pte.folio.id for _, pte in self.process.mm.page_table)


def may_absorb(target, source, forked, old_rule):
    """The table: may a VMA with ``target`` take over a range with ``source``?"""
    if target == source:
        return True
    if "U" not in (target, source):
        return False
    if target == "U" and old_rule:
        return False
    return not (forked and "X" in (target, source))


def expected(pattern, part, forked=False, old_rule=False):
    """What shape() becomes when a part of the middle (whole, first or last page) fits its neighbours."""
    prev, middle, following = pattern
    left = part != "last" and may_absorb(prev, middle, forked, old_rule)
    right = part != "first" and may_absorb(following, middle, forked, old_rule)
    if left and right and "U" not in (prev, following) and prev != following:
        right = False
    low = {"whole": 2, "first": 2, "last": 3}[part]
    high = {"whole": 4, "first": 3, "last": 4}[part]
    pieces = [(0, 2, prev), (2, low, middle), (low, high, middle), (high, 4, middle), (4, 6, following)]
    if right:
        pieces[2:5] = [join(pieces[2], pieces[4])]
    if left:
        pieces[0:3] = [join(pieces[0], pieces[2])]
    return [piece for piece in pieces if piece[0] < piece[1]]


def join(low, high):
    return low[0], high[1], ({low[2], high[2]} - {"U"} or {"U"}).pop()
