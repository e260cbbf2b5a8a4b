# SPDX-License-Identifier: GPL-2.0-only
"""A specification's kernel that hands every system call on to a twin as it makes it."""

from __future__ import annotations

from functools import cache
from zlib import crc32

from rmaplab.check.monitor import monitored
from rmaplab.engine import calls
from rmaplab.engine.mmap import (
    DONTNEED,
    GUARD_INSTALL,
    GUARD_REMOVE,
    PRIVATE_ANONYMOUS_FLAGS,
    PRIVATE_FLAGS,
    SET_FLAGS,
    UNMERGEABLE,
)
from rmaplab.kernel.madvise import _FLAGS as FLAGS
from rmaplab.kernel.madvise import ADVICE

KINDS = {"wipeonfork": PRIVATE_ANONYMOUS_FLAGS, "mergeable": PRIVATE_FLAGS, "unmergeable": UNMERGEABLE}
RANGES = {"dontneed": DONTNEED, "guard-install": GUARD_INSTALL, "guard-remove": GUARD_REMOVE}


class _Mirror:
    """Hands system calls on; ``twin`` is who compares."""

    def do_mmap(self, mm, start, end, flags, file=None, pgoff=None):
        number = self.twin.machine.file(file)
        arguments = (start, end, flags, number, -1 if pgoff is None else pgoff)
        return self.twin.both(calls.MMAP, mm, arguments, super().do_mmap, mm, start, end, flags, file, pgoff)

    def do_munmap(self, mm, start, end):
        return self.twin.both(calls.MUNMAP, mm, (start, end), super().do_munmap, mm, start, end)

    def do_mprotect(self, mm, start, end, access):
        return self.twin.both(calls.MPROTECT, mm, (start, end, access), super().do_mprotect, mm, start, end, access)

    def do_brk(self, mm, old_end, new_end):
        return self.twin.both(calls.BRK, mm, (old_end, new_end, 0), super().do_brk, mm, old_end, new_end)

    def do_mremap(
        self, mm, addr, old_len, new_len, *, new_addr=None, dontunmap=False, maymove=True, unmapped_area=None
    ):
        flags = dontunmap + 2 * maymove
        places = [-1 if place is None else place for place in (new_addr, unmapped_area)]
        arguments = (addr, old_len, new_len, places[0], flags, places[1])
        options = {"new_addr": new_addr, "dontunmap": dontunmap, "maymove": maymove, "unmapped_area": unmapped_area}
        return self.twin.both(calls.MREMAP, mm, arguments, super().do_mremap, mm, addr, old_len, new_len, **options)

    def do_madvise(self, mm, start, end, advice):
        if advice not in ADVICE or advice in self.unknown_advice:
            return super().do_madvise(mm, start, end, advice)
        kind = RANGES.get(advice, KINDS.get(advice, SET_FLAGS))
        added, removed = FLAGS.get(advice, (0, 0))
        arguments = (start, end, kind, added, removed)
        return self.twin.both(calls.MADVISE, mm, arguments, super().do_madvise, mm, start, end, advice)

    def do_user_addr_fault(self, mm, address, write, *, force=False):
        arguments = (address, write + 2 * force)
        return self.twin.both(calls.FAULT, mm, arguments, super().do_user_addr_fault, mm, address, write, force=force)

    def reclaim_page(self, mm, address, *, cached):
        return self.twin.both(calls.RECLAIM, mm, (address, cached), super().reclaim_page, mm, address, cached=cached)

    def handle_mm_fault(self, mm, address, write, *, force=False, unshare=False):
        fault, options = super().handle_mm_fault, {"force": force, "unshare": unshare}
        return self.twin.both(calls.SWAPIN, mm, (address,), fault, mm, address, write, **options)

    def migrate_pages(self, mm, start, end):
        return self.twin.both(calls.MIGRATE, mm, (start, end), super().migrate_pages, mm, start, end)

    def pin_user_page(self, mm, address, *, write):
        return self.twin.both(calls.PIN, mm, (address, write), super().pin_user_page, mm, address, write=write)

    def unpin_user_page(self, mm, address):
        return self.twin.both(calls.UNPIN, mm, (address,), super().unpin_user_page, mm, address)

    def ksm_merge_range(self, mm, start, end, content):
        arguments = (start, end, crc32(content.encode()))
        return self.twin.both(calls.KSM, mm, arguments, super().ksm_merge_range, mm, start, end, content)

    def dup_mm(self, oldmm):
        return self.twin.both(calls.FORK, oldmm, (len(self.twin.rows) + 1,), super().dup_mm, oldmm)

    def add_process(self, name, mm):
        process = super().add_process(name, mm)
        self.twin.added(name, mm)
        return process

    def rmap_walk_anon(self, folio):
        visits = super().rmap_walk_anon(folio)
        self.twin.walked(folio, visits)
        return visits

    def rmap_walk_ksm(self, folio, rwc=None, by=None):
        if rwc is not None:
            return super().rmap_walk_ksm(folio, rwc, by)
        visits = None
        try:
            visits = super().rmap_walk_ksm(folio, by=by)
        finally:
            self.twin.walked_ksm(folio, visits)
        return visits


@cache
def mirrored(series):
    """The watched series with a mirror around it."""
    return type(f"Mirrored{series.__name__}", (_Mirror, monitored(series)), {"twin": None})
