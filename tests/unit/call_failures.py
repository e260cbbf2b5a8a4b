# SPDX-License-Identifier: GPL-2.0-only
"""A call made again and again, each time with another of its allocations failing."""

from typing import NamedTuple

from rmaplab.check.invariants import violations
from rmaplab.check.monitor import monitored
from rmaplab.check.state import graph
from rmaplab.kernel import Kernel
from rmaplab.kernel.slab import KINDS


class Failed(NamedTuple):
    """One of them: which allocation, whose call, what there was before, and the errno (None: all went well).

    A picture is the graph, the VMAs, and the page-table entries.
    """

    kind: str
    n: int
    process: object
    before: tuple
    errno: int | None

    @property
    def point(self):
        return self.kind, self.n

    @property
    def vmas(self):
        return spans(self.process)

    @property
    def unchanged(self):
        return picture(self.process) == self.before


def refused(call, *arguments, **options):
    """The errno of a call, None if it succeeds."""
    try:
        call(*arguments, **options)
    except OSError as error:
        return error.errno
    return None


def spans(process):
    """Start, end, offset, flags and anon_vma of each VMA."""
    return [(vma.vm_start, vma.vm_end, vma.vm_pgoff, vma.vm_flags, vma.anon_vma) for vma in process.mm.vmas]


def entries(process):
    """Page-table entries of every kind: address, class, and what it says."""
    return [
        (address, type(entry), *(getattr(entry, name) for name in entry.__slots__))
        for address, entry in process.mm.page_table
    ]


def picture(process):
    return graph(process.kernel), spans(process), entries(process)


def failures(prepare, call, *, series=Kernel, kinds=KINDS):
    """Every failure of ``call``, which is given what ``prepare`` returned for a new process.

    After each all invariants hold.  There must be at least one.
    """
    points = []
    for kind in kinds:
        for n in range(1, 60):
            kernel = monitored(series)()
            process = kernel.spawn()
            prepared = prepare(process)
            before = picture(process)
            kernel.slab.plan(n, kind=kind)
            error = None
            try:
                call(prepared)
            except OSError as caught:
                error = caught.errno
            failed = kernel.slab.failed
            kernel.slab.disarm()
            assert violations(kernel) == [], (kind, n)
            if not failed:
                assert error is None
                break
            points.append(Failed(kind, n, process, before, error))
    assert points
    return points
