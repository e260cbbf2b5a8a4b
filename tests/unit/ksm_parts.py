# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of KSM begin with, and what they look at."""

from machine_parts import written

from rmaplab.check.invariants import violations


def mergeable(process, pages=1, at=None):
    """An area that was written to and may be merged."""
    area = written(process, pages, at)
    process.madvise(area, "mergeable")
    return area


def merged(process, pages=1, content="X", at=None):
    """An area whose pages are all one."""
    area = mergeable(process, pages, at)
    process.ksm_merge(area, content)
    return area


def node(kernel, content="X"):
    return kernel.stable_tree[content]


def items(kernel, content="X"):
    """Which places are noted, the latest first, and with which anon_vma."""
    return [(item.mm, item.address, item.anon_vma) for item in node(kernel, content).items]


def visited(process, area, page=0, by=None):
    """What a walk visits: VMA, address, whether it maps the page."""
    return [tuple(visit) for visit in process.walk(area, page, by)]


def found(process, area, page=0, by=None):
    """Where a walk finds the page: address space and address."""
    return {(visit.vma.vm_mm, visit.address) for visit in process.walk(area, page, by) if visit.maps}


def holds(kernel):
    """Every invariant, now."""
    assert violations(kernel) == []
    return True


def gone(kernel):
    """Whether nothing is left of the reverse map."""
    return not kernel.live_anon_vmas and not kernel.live_anon_vma_chains


def end(kernel):
    """Everybody exits and ksmd scans once: then nothing is left."""
    for process in list(kernel.processes.values()):
        process.exit()
        holds(kernel)
    kernel.ksmd()
    holds(kernel)
    assert gone(kernel)
    assert not kernel.stable_tree
