# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of facts look at in a machine, and the few calls that they begin with."""

from rmaplab.series import SERIES

BASE = 0x10000000
SINCE_6_0 = tuple(name for name, logic in SERIES.items() if logic.counts_apart)
BEFORE_6_16 = ("v6.0", "v6.1", "v6.12", "v6.12.112")  # of those; the older merge rule


def vma(process, index=0):
    return process.mm.vmas[index]


def folio(process, area, page=0):
    return process.mm.page_table.get(area.page(page)).folio


def chain(process, index=0):
    return [avc.anon_vma for avc in vma(process, index).anon_vma_chain]


def counters(anon_vma):
    return anon_vma.refcount, anon_vma.num_children, anon_vma.num_active_vmas


def written(process, pages=1, at=None):
    area = process.mmap(pages, at=at)
    process.write(area)
    return area


def descendants(process, count):
    """Straight forks; the generations, oldest first."""
    line = [process]
    for _ in range(count):
        line.append(line[-1].fork())
    return line


class Delta:
    """What was added to the live anon_vmas and AVCs since."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.anon_vmas, self.avcs = self.now()

    def now(self):
        return len(self.kernel.live_anon_vmas), len(self.kernel.live_anon_vma_chains)

    def __call__(self):
        before, (self.anon_vmas, self.avcs) = (self.anon_vmas, self.avcs), self.now()
        return self.anon_vmas - before[0], self.avcs - before[1]
