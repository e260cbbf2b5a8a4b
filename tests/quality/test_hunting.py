# SPDX-License-Identifier: GPL-2.0-only
"""Every bug of the zoo is found by who does not know it, and made as short as its history knows it."""

import pytest
from hunting import KNOWN, OWN, hunt, looked_for

from rmaplab.check.invariants import HARM
from rmaplab.check.run import run
from rmaplab.check.shrink import shrink
from rmaplab.scenario import parse
from rmaplab.series import ZOO, find

# What the double reuse leads to, as the fuzzer found it first (`fuzz --only harm`, seed 0).
MISSED = """\
P0 fork P1
P1 mmap A 1
P1 mmap B 1 at=0x7f0000001000
P1 write A[0]
P1 fork P2
P2 fork P3
P3 fork P4
P4 fork P5
P5 fork P6
P5 exit
P6 mprotect A[0] r
P4 exit
P6 fork P7
P7 fork P8
P6 exit
P8 write B[0]
P8 fork P9
P9 mprotect B[0] r
"""


def test_every_entry_is_looked_for():
    assert set(KNOWN) == set(ZOO)
    assert set(OWN) < set(ZOO)


@pytest.mark.parametrize("entry", ZOO)
def test_an_entry_is_found_blind_and_made_short(entry):
    found = hunt(entry, jobs=2)
    assert found is not None
    assert found.shrunk <= found.length
    assert found.shrunk <= KNOWN[entry]
    shown = {violation.id for violation in run(parse(found.scenario), find(entry)).violations}
    assert looked_for(entry) in shown
    assert looked_for(entry) not in {v.id for v in run(parse(found.scenario), find(ZOO[entry].parent)).violations}


def test_the_page_that_a_walk_misses_after_a_double_reuse_takes_fourteen_calls():
    smaller = shrink(find("zoo/Z23"), parse(MISSED), "AV-030")
    assert "AV-030" in HARM
    assert smaller.length == 14
    assert run(parse(smaller.scenario), find("v6.0")).violations == []
