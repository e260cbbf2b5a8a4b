# SPDX-License-Identifier: GPL-2.0-only
"""Where the model once differed from a running kernel (6.18.44), each as a scenario."""

import pytest

from rmaplab.check.run import run
from rmaplab.scenario import parse
from rmaplab.series import find

FOUND = {
    "mprotect copies the pages of a locked VMA that becomes writable": """\
P0 mmap A 2 prot=r
P0 mlock A
expect anon_vmas 0
P0 mprotect A rw
expect anon_vmas 1
expect folios 2""",
    "and so it does for pages that a child shares": """\
P0 mmap A 2
P0 write A
P0 mprotect A r
P0 fork P1
P1 mlock A
P1 mprotect A rw
expect folios 4""",
    "what ends where the heap begins is not the heap": """\
P0 mmap A 1 at=0x555555555000
P0 brk +2
expect P0 vmas 2
P0 brk +1
expect P0 vmas 2""",
}


@pytest.mark.parametrize("case", FOUND)
def test_the_model_does_what_the_kernel_did(case):
    result = run(parse(FOUND[case] + "\nexpect invariants hold\n"), find("v6.18"))
    assert [(one.text, one.found) for one in result.expects if not one.ok] == []
    assert [one for one in result.statements if one.errno] == []
    assert result.violations == []
