# SPDX-License-Identifier: GPL-2.0-only
"""The same calls on the specification and on the engine, compared after each: `make twins`.

The specification's kernel hands every system call on to the engine as it
makes it.  Compared are results, all objects with their order, counters of
slab and locks, what was reached and what is violated.
"""

from __future__ import annotations

import errno
import sys
import time
from contextlib import contextmanager
from random import Random
from zlib import crc32

import numpy as np
from mirror import mirrored

from rmaplab.check.execute import NO_PLAN, Plan, execute
from rmaplab.check.invariants import violations
from rmaplab.check.monitor import REACHED
from rmaplab.check.pool import tasks_in_processes
from rmaplab.check.registry import INVARIANTS
from rmaplab.check.state import fingerprint
from rmaplab.cli.common import jobs_default
from rmaplab.engine import calls
from rmaplab.engine.choice import why_not
from rmaplab.engine.jit import entry
from rmaplab.engine.layout import IDS, LOCKS, MACHINE, PAGES, SLAB
from rmaplab.engine.layout import REACHED as REACHED_ROW
from rmaplab.engine.machine import Machine
from rmaplab.engine.search.fingerprint import fingerprint as fingerprint_of
from rmaplab.engine.search.judge import HAS_ROOT_LOCK, judge
from rmaplab.engine.search.mark import mark
from rmaplab.engine.search.naming import notes
from rmaplab.engine.search.seats import PLACE, SEAT
from rmaplab.engine.unmap import REFERENCED, _rmap_walk_ksm
from rmaplab.engine.view import take_snapshot
from rmaplab.engine.walk import rmap_walk_anon
from rmaplab.kernel.events import KernelBug
from rmaplab.kernel.locking import Lock
from rmaplab.kernel.rewind import Checkpoint
from rmaplab.scenario import Exec, Exit, Ksmd
from rmaplab.scenario.generator import CORE, Generator
from rmaplab.scenario.scope import Scope
from rmaplab.scenario.tokens import Line
from rmaplab.series import SERIES, ZOO, find

EXTRA = {"read": 2, "mremap": 6, "flags": 4, "dontneed": 2, "guard": 2, "brk": 3, "stack-grow": 2}
BEHIND = {"swap": 6, "migrate": 3, "pin": 3, "ksm": 6, "exec": 1}
CONTENTS = {crc32(name.encode()): name for name in ("zeros", "ones")}
MANY = 1 << 20  # places: more than there are


@entry
def _fingerprint(m, c, s, shapes, out, walk_order):
    return fingerprint_of(m, c, s, shapes, out, walk_order)


@entry
def _mark_and_judge(m, c, s, seats, places, promises):
    marked = mark(m, c, s, seats, places)
    return marked, judge(m, c, s, promises)


MARKS, FINGERPRINTS = {}, {}  # of all states met: what mark() makes of a fingerprint, and the other way round


@entry
def _walk(m, c, folio, visited):
    return rmap_walk_anon(m, c, folio, visited)


@entry
def _walk_ksm(m, c, folio):
    m[LOCKS].folio_locks += 1
    m[PAGES].walk_left = MANY
    _rmap_walk_ksm(m, c, folio, REFERENCED)
    return MANY - m[PAGES].walk_left


class DiffersError(AssertionError):
    """The two part."""


class Twin:
    """A specification's kernel and a machine of the engine; ``rows`` are processes by their mm."""

    def __init__(self, series):
        self.series = series
        self.machine = Machine(series, 1024, 4096, keeps=True, watched=True)
        self.notes, self.shapes, self.out = notes(1024), np.zeros(1 << 15, np.int64), np.zeros(1 << 15, np.int64)
        self.seats, self.places = np.zeros(64, SEAT), np.zeros(1 << 15, PLACE)
        self.rows, self.names = {}, {}
        self.busy = self.crashed = False
        self.forked = None
        self.allowed = {int(ident[3:]) for ident, one in INVARIANTS.items() if one.holds_for(series)}
        self.kernel = mirrored(series)()
        self.kernel.twin = self
        self.kernel.anon_orders = ()
        self.events = 0
        self.slab_plan = self.kernel.slab.plan
        self.kernel.slab.plan = self.plan
        self.kernel.spawn("P0")

    # --- on the way ------------------------------------------------------------------------------

    def plan(self, n, *, nowait_only=False, kind="rmap"):
        self.slab_plan(n, nowait_only=nowait_only, kind=kind)
        self.machine.plan(n, nowait_only=nowait_only)
        self.machine.m[MACHINE]["reports"] = self.machine.m[MACHINE]["crashed"] = 0

    def both(self, call, mm, arguments, function, *given, **options):
        """One system call of the specification, then the same on the engine, unless it is a part of another."""
        if self.busy:
            return function(*given, **options)
        self.busy = True
        try:
            result = function(*given, **options)
        except KernelBug:
            result = None
            raise
        finally:
            self.busy = False
            found = self.machine.call(call, self.rows[mm], *arguments)
            crashed = bool(self.machine.m[MACHINE]["crashed"])
            self.must(crashed == (result is None), f"crashed: {crashed}")
        if call == calls.FORK:
            self.must((found > 0) == (not isinstance(result, int)), f"fork: {found}, {result}")
            self.forked = found
            return result
        self.must(found == result, f"call {call} {arguments}: {found} instead of {result}")
        return result

    def added(self, name, mm):
        row, self.forked = self.forked, None
        self.rows[mm] = self.machine.call(calls.SPAWN, 0, len(self.rows)) if row is None else row
        self.names[self.rows[mm]] = name

    def walked(self, folio, visits):
        """A walk has the same length, and as many of its places map the page."""
        m = self.machine.m
        visited = np.zeros((256, 3), np.int64)
        length, maps = _walk(m, self.machine.c, self._row_of(folio), visited)
        expected = [(visit.vma.vm_start, visit.address, visit.maps) for visit in visits]
        found = [(int(m[vma]["key"]), address, bool(hit)) for vma, address, hit in visited[:length].tolist()]
        self.must(found == expected, f"a walk visits {found} instead of {expected}")
        self.must(maps == sum(visit.maps for visit in visits), "a walk finds other places")

    def walked_ksm(self, folio, visits):
        """A walk of a page of KSM's finds as many places that map it; where one crashes, so does the other."""
        maps = _walk_ksm(self.machine.m, self.machine.c, self._row_of(folio))
        crashed = bool(self.machine.m[MACHINE]["crashed"])
        self.must(crashed == (visits is None), f"crashed: {crashed}")
        self.must(crashed or maps == sum(visit.maps for visit in visits), "a walk of KSM's finds other places")

    def _row_of(self, folio):
        """The engine's row of a folio, by an entry that maps it."""
        mm, address = next(
            (mm, address)
            for mm in self.rows
            for address, entry in mm.page_table
            if getattr(entry, "folio", None) is folio
        )
        m = self.machine.m
        leaf = next(row for row in self._leaves(int(m[self.rows[mm]]["mm"])) if m[row]["key"] == address >> 16)
        return int(m[leaf]["pte"][address >> 12 & 15]) >> 1

    def _leaves(self, mm):
        waiting = [int(self.machine.m[mm]["leaves"])]
        while waiting:
            row = waiting.pop()
            if row:
                yield row
                waiting += [int(self.machine.m[row]["left"]), int(self.machine.m[row]["right"])]

    # --- after a call ------------------------------------------------------------------------------

    def make(self, call, plan=NO_PLAN, *, snapshots=False):
        """Make a call on both, and compare; what it violates."""
        self.events += 1
        kernel = self.kernel
        m = self.machine.m
        reached = np.array(m[REACHED_ROW]["reached"])
        kernel.reached.clear()
        row = None
        if isinstance(call, Exit | Exec) and call.process in kernel.processes:
            row = self.rows[kernel.processes[call.process].mm]
        self.busy = isinstance(call, Exit | Exec | Ksmd)
        outcome = execute(kernel, call, plan, check=False)
        if self.busy:
            self.busy = False
            how = {Exit: calls.EXIT, Exec: calls.EXECVE, Ksmd: calls.KSMD}[type(call)]
            if row is not None or how == calls.KSMD:
                m[SLAB]["fail_at"] = plan.n
                result = self.machine.call(how, row or 0)
                self.must(outcome.errno == (errno.errorcode[-result] if result < 0 else None), f"{call}: {result}")
            self.rows = {mm: own for mm, own in self.rows.items() if own != row}
            if row is not None and call.process in kernel.processes:
                self.rows[kernel.processes[call.process].mm] = row
        crashed = any(report.id == "AV-045" for report in outcome.violations)
        if crashed:
            return {45}
        found = {number for number in range(64) if int(m[MACHINE]["reports"]) >> number & 1} & self.allowed
        if m[MACHINE]["number_held"]:
            found.add(29)
            m[MACHINE]["number_held"] = 0
        promises = HAS_ROOT_LOCK if self.series.has_root_lock else 0
        c = self.machine.c
        marked, judged = _mark_and_judge(m, c, self.notes, self.seats, self.places, promises)
        found |= {number for number in range(64) if judged >> number & 1} & self.allowed
        expected = {int(report.id[3:]) for report in [*outcome.violations, *violations(kernel)]}
        self.must(found == expected, f"violated: {sorted(found)} instead of {sorted(expected)}")
        self.compare_counts(reached)
        state = _fingerprint(m, c, self.notes, self.shapes, self.out, False)
        same = MARKS.setdefault(state, marked) == marked and FINGERPRINTS.setdefault(marked, state) == state
        self.must(same, "states that are the same for the engine's explorer are not for the specification, or others")
        files = any(vma.file for process in kernel.processes.values() for vma in process.mm.vmas)
        if snapshots or files:
            self.must(
                take_snapshot(self.machine, self.names, CONTENTS) == kernel.snapshot(),
                "another snapshot",
            )
        if not files:  # the engine's fingerprint knows none
            own = _fingerprint(m, c, self.notes, self.shapes, self.out, True)
            self.must(own == fingerprint(kernel), "another state")
        return found

    def compare_counts(self, before):
        """What the services counted, and what was reached."""
        m, slab, locks = self.machine.m, self.kernel.slab, self.kernel.locks
        pairs = {
            "allocations": (m[SLAB]["count"], slab.count),
            "failed": (m[SLAB]["failed"], slab.failed),
            "anon_vmas made": (m[IDS]["anon_vmas"], slab.anon_vma.made),
            "AVCs made": (m[IDS]["avcs"], slab.anon_vma_chain.made),
            "anon_vmas": (m[SLAB]["live_anon_vmas"], slab.anon_vma.in_use),
            "AVCs": (m[SLAB]["live_avcs"], slab.anon_vma_chain.in_use),
            "bytes": (m[SLAB]["bytes"], slab.bytes),
            "in vain": (m[SLAB]["wasted"], slab.anon_vma.wasted + slab.anon_vma_chain.wasted),
            "mmap locks": (m[LOCKS]["mmap_locks"], locks.acquisitions[Lock.MMAP_LOCK]),
            "folio locks": (m[LOCKS]["folio_locks"], locks.acquisitions[Lock.FOLIO_LOCK]),
            "anon_vma locks": (m[LOCKS]["anon_vma_locks"], locks.acquisitions[Lock.ANON_VMA]),
            "page_table_locks": (m[LOCKS]["page_table_locks"], locks.acquisitions[Lock.PAGE_TABLE_LOCK]),
            "tree operations": (m[LOCKS]["tree_operations"], locks.tree_operations),
            "longest hold": (m[LOCKS]["longest_hold"], locks.longest_hold),
            "allocations under lock": (m[LOCKS]["allocations_under_lock"], locks.allocations_under_lock),
        }
        for what, (own, expected) in pairs.items():
            self.must(own == expected, f"{what}: {own} instead of {expected}")
        reached = (m[REACHED_ROW]["reached"] - before).tolist()
        reached = {name: count for name, count in zip(REACHED, reached, strict=True) if count}
        self.must(reached == +self.kernel.reached, f"reached {reached} instead of {self.kernel.reached}")

    def must(self, holds, what):
        if not holds:
            raise DiffersError(f"{self.series.name}: {what}")

    @contextmanager
    def undone(self):
        """What is done inside is not done afterwards, but for counts of locks and of what was in vain."""
        before = Checkpoint(self.kernel)
        m, c = self.machine.m.copy(), self.machine.c.copy()
        rows, names, crashed = self.rows.copy(), self.names.copy(), self.crashed
        yield
        before.restore()
        wasted, locks = self.machine.m[SLAB]["wasted"].copy(), self.machine.m[LOCKS].copy()
        reached = self.machine.m[REACHED_ROW].copy()
        self.machine.m, self.machine.c = m, c
        m[LOCKS], m[REACHED_ROW] = locks, reached
        m[SLAB]["wasted"] = wasted
        self.rows, self.names, self.crashed = rows, names, crashed


def play(series, seed, length=30):
    """A random history with every allocation of every call failing once; the number of calls compared."""
    random = Random(seed)
    extra = EXTRA | (BEHIND if random.random() < 0.5 else {})
    generator = Generator(random, CORE, extra, processes=5, size=random.choice((1, 2, 4)), homing=True)
    twin, scope = Twin(series), Scope()
    for number in range(length):
        if not twin.kernel.processes:
            break
        call = generator.call(twin.kernel)
        if not isinstance(call, Ksmd) and not scope.allows(call):
            continue
        with twin.undone():
            if twin.make(call) == {45}:
                break
            count = twin.kernel.slab.count
        for n in range(1, count + 1):
            with twin.undone():
                twin.make(call, Plan(n))
                again = twin.kernel.slab.failed > 1
            if again:
                with twin.undone():
                    twin.make(call, Plan(n, nowait=True))
        plan = Plan(random.randint(1, count)) if count and random.random() < 0.05 else NO_PLAN
        if twin.make(call, plan, snapshots=number % 4 == 0):
            break  # broken: what comes now is not promised to be the same
        if not isinstance(call, Ksmd):
            scope.called(Line("-", 0, ""), call)
    return twin.events


SUPPORTED = [name for name in (*SERIES, *ZOO) if not why_not(find(name))]


def _play(name_and_seed):
    name, seed = name_and_seed
    try:
        return play(find(name), f"{name} {seed}")
    except DiffersError as error:
        raise DiffersError(f'{error}: play(find("{name}"), "{name} {seed}")') from error


def main(events):
    """Play histories of all series, on all processors, until so many calls have been compared."""
    done, began, seed = 0, time.monotonic(), 0
    with tasks_in_processes(_play, jobs_default()) as play_all:
        while done < events:
            for number in play_all([(name, seed) for name in SUPPORTED]):
                done += number
            seed += 1
            print(
                f"\r{done:,} events, {done / (time.monotonic() - began):.0f}/s", end="", file=sys.stderr, flush=True
            )
    print(f"\n{done:,} events on {len(SUPPORTED)} series, no difference")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
