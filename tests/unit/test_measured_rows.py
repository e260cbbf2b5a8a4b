# SPDX-License-Identifier: GPL-2.0-only
"""What was measured on a running 6.18.44 kernel, each row a scenario.

The experiments had 2000 VMAs and more, and looked at the slabs before and
after; here one VMA is enough.  VMAs were counted in /proc/self/maps.
"""

import pytest

from rmaplab.check.run import run
from rmaplab.scenario import parse
from rmaplab.series import find

FAULTED = """\
P0 mmap A 2
P0 write A
expect anon_vmas 1
expect anon_vma_chains 1
"""
SPLIT = f"""\
{FAULTED}
P0 madvise A[1] dontdump
expect P0 vmas 2
"""
NEIGHBOURS = """\
P0 mmap A 1 at=0x7f0000000000
P0 mmap B 1 at=0x7f0000001000
P0 madvise B dontdump
expect P0 vmas 2
"""
PREV_FAULTED = f"{NEIGHBOURS}P0 write A\n"
MODIFIED_FAULTED = f"{NEIGHBOURS}P0 write B\n"

ADDED = {  # experiment: what it is done to, what is done, and the anon_vmas and AVCs added for each VMA
    "read-touch of an unfaulted VMA": ("P0 mmap A 1", "P0 read A", 0, 0),
    "then write-touch": ("P0 mmap A 1\nP0 read A", "P0 write A", 1, 1),
    "guard-install on an untouched VMA": ("P0 mmap A 1", "P0 madvise A guard-install", 1, 1),
    "fork of a faulted VMA": (FAULTED, "P0 fork P1", 1, 2),
    "fork with wipe-on-fork": (f"{FAULTED}P0 madvise A wipeonfork", "P0 fork P1\nexpect P1 vmas 1", 0, 0),
    "fork with don't-fork": (f"{FAULTED}P0 madvise A dontfork", "P0 fork P1\nexpect P1 vmas 0", 0, 0),
    "split of a faulted VMA": (FAULTED, "P0 madvise A[1] dontdump", 0, 1),
    "fork of the split pair": (SPLIT, "P0 fork P1", 2, 4),
    "fault of a neighbour that differs only in EXEC": (
        "P0 mmap A 2\nP0 mprotect A[1] rwx\nP0 write A[0]\nexpect P0 vmas 2",
        "P0 write A[1]\nexpect P0 vmas 2",
        0,
        1,
    ),
    "mremap of the whole VMA with DONTUNMAP": (FAULTED, "P0 mremap A B dontunmap\nexpect P0 vmas 2", 0, 0),
    "then refault of the old VMA": (f"{FAULTED}P0 mremap A B dontunmap", "P0 write A", 1, 1),
    "plain mremap": (FAULTED, "P0 mremap A B\nexpect P0 vmas 1", 0, 0),
}

VMAS = {  # case: what there is, the process that changes it, how, and its VMAs before and after
    "prev unfaulted, modified VMA faulted": (MODIFIED_FAULTED, "P0 madvise B dodump", 2, 1),
    "prev faulted, modified VMA unfaulted": (PREV_FAULTED, "P0 madvise B dodump", 2, 1),
    "prev unfaulted, in the child": (f"{MODIFIED_FAULTED}P0 fork P1", "P1 madvise B dodump", 2, 2),
    "prev faulted, in the child": (f"{PREV_FAULTED}P0 fork P1", "P1 madvise B dodump", 2, 2),
    "prev unfaulted, in the parent after fork": (f"{MODIFIED_FAULTED}P0 fork P1", "P0 madvise B dodump", 2, 1),
    "prev faulted, in the parent after fork": (f"{PREV_FAULTED}P0 fork P1", "P0 madvise B dodump", 2, 1),
    "split pair, in the parent": (f"{SPLIT}P0 fork P1", "P0 madvise A[1] dodump", 2, 1),
    "split pair, in the child": (f"{SPLIT}P0 fork P1", "P1 madvise A[1] dodump", 2, 2),
    "heap growth in a fork child": ("P0 brk +1\nP0 write heap\nP0 fork P1", "P1 brk +1", 1, 2),
    "heap growth without fork": ("P0 brk +1\nP0 write heap", "P0 brk +1", 1, 1),
}


def judged(text, series="v6.18"):
    """The run of a text in which every expectation must be met; its counts at the end."""
    result = run(parse(text), find(series))
    assert [(one.text, one.found) for one in result.expects if not one.ok] == []
    assert [one for one in result.statements if one.errno] == []
    assert result.violations == []
    kernel = result.kernel
    return len(kernel.live_anon_vmas), len(kernel.live_anon_vma_chains)


@pytest.mark.parametrize("row", ADDED)
def test_objects_per_vma(row):
    before, experiment, anon_vmas, avcs = ADDED[row]
    had = judged(before)
    judged(
        f"{before}\n{experiment}\n"
        f"expect anon_vmas {had[0] + anon_vmas}\nexpect anon_vma_chains {had[1] + avcs}\nexpect invariants hold\n"
    )


@pytest.mark.parametrize("row", VMAS)
def test_vmas_before_and_after(row):
    before, change, vmas, left = VMAS[row]
    process = change.split()[0]
    judged(
        f"{before}\nexpect {process} vmas {vmas}\n{change}\nexpect {process} vmas {left}\nexpect invariants hold\n"
    )


SCRIPT = ("P0 fork P1", "P1 fork P2", "P2 fork P3", "P3 fork P4", "P4 fork P5", "P1 exit", "P3 exit", "P5 fork P6")
COUNTED = (1, 2, 3, 4, 5, 6, 6, 6, 6, 7)  # 0.96 1.98 2.97 4.01 5.04 6.05 6.05 6.05 6.05 7.09 for each VMA


@pytest.mark.parametrize(("series", "last"), [("v6.18", (7, 25)), ("v7.0", (6, 24))])
def test_script_of_nine_forks_and_exits(series, last):
    lines = ["P0 mmap A 1", "P0 write A"]
    for call, anon_vmas in zip((*SCRIPT, "P2 fork P7"), (*COUNTED[1:9], last[0]), strict=True):
        lines += [call, f"expect anon_vmas {anon_vmas}"]
    assert judged("\n".join(lines), series) == last


def test_before_6_16_the_faulted_vma_stays_apart_so_the_row_tells_releases_apart():
    before, change, _, _ = VMAS["prev unfaulted, modified VMA faulted"]
    judged(f"{before}\n{change}\nexpect P0 vmas 2", "v6.12")
