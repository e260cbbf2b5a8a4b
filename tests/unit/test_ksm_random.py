# SPDX-License-Identifier: GPL-2.0-only
"""Random calls on memory that is merged, with pins, swap, moves, forks and allocations that fail."""

from collections import Counter
from random import Random

import pytest
from ksm_parts import end, holds

from rmaplab.check.monitor import monitored
from rmaplab.series import SERIES

STEPS = 150
CALLS = {  # call: how often
    "write": 4,
    "ksm": 8,
    "ksmd": 2,
    "unmergeable": 1,
    "mergeable": 2,
    "mremap": 3,
    "munmap": 1,
    "mmap": 3,
    "fork": 2,
    "exit": 1,
    "swapout": 2,
    "cached": 2,
    "read": 4,
    "migrate": 2,
    "pin": 1,
    "unpin": 2,
    "mprotect": 2,
}


class Calls:
    """Draws calls from a seed and makes them."""

    def __init__(self, kernel, seed):
        self.kernel = kernel
        self.random = Random(seed)
        self.areas = {}
        self.made = Counter()

    def step(self):
        process = self.random.choice(list(self.kernel.processes.values()))
        areas = self.areas.setdefault(process.name, [])
        call = self.random.choices(list(CALLS), CALLS.values())[0] if areas else "mmap"
        kind = self.random.choice(("rmap", "page", "vma", "tree", "table"))
        self.kernel.slab.plan(self.random.choice((0, 0, 0, 1, 2)), kind=kind)
        try:
            self.make(process, areas, call)
            self.made[call] += 1
        except OSError:
            self.made[f"{call} refused"] += 1
        self.kernel.slab.disarm()

    def make(self, process, areas, call):
        random = self.random
        area = random.choice(areas) if areas else None
        if area is not None:
            first = random.randrange(area.pages)
            area = area.part(first, random.randrange(first, area.pages))
        match call:
            case "mmap":
                areas.append(process.mmap(2))
                process.write(areas[-1])
                process.madvise(areas[-1], "mergeable")
            case "fork":
                if len(self.kernel.processes) < 4:
                    child = process.fork()
                    self.areas[child.name] = list(areas)
            case "exit":
                if len(self.kernel.processes) > 1:
                    process.exit()
            case "ksmd":
                self.kernel.ksmd()
            case "ksm":
                process.ksm_merge(area, random.choice("XY"))
            case "mergeable" | "unmergeable":
                process.madvise(area, call)
            case "cached":
                process.swapout(area, cached=True)
            case "mremap":
                to = random.choice((None, *(other.start for other in areas)))
                areas.append(process.mremap(area, at=to, dontunmap=random.random() < 0.2))
            case "mprotect":
                process.mprotect(area, random.choice(("r", "rw")))
            case "pin":
                process.pin(area, write=random.random() < 0.5)
            case _:
                getattr(process, call)(area)


@pytest.mark.parametrize("seed", [0, 3, 148])
@pytest.mark.parametrize("series", ["v6.12", "v6.18", "v7.0"])
def test_every_invariant_holds_whatever_becomes_of_merged_pages(series, seed):
    kernel = monitored(SERIES[series])()
    kernel.spawn()
    calls = Calls(kernel, seed)
    for _ in range(STEPS):
        calls.step()
        assert holds(kernel)
        for node in kernel.stable_tree.values():
            assert found(kernel, node.folio, "offset") <= found(kernel, node.folio, "whole")
    assert calls.made["ksm"]
    end(kernel)


def found(kernel, folio, by):
    return {(visit.vma, visit.address) for visit in kernel.rmap_walk_ksm(folio, by=by) if visit.maps}
