# SPDX-License-Identifier: GPL-2.0-only
"""The shrinker: the same violation, smaller, and nothing left that could go."""

import pytest

from rmaplab.check.fuzz import fuzz
from rmaplab.check.run import run
from rmaplab.check.shrink import shrink, violated
from rmaplab.check.steps import steps_of
from rmaplab.scenario import parse
from rmaplab.series import find

LONG = """\
P0 mmap C 4
P0 write C
P0 mmap A 3 at=0x7f0000000000
P0 fork P1
P1 write A[0..1]
P0 write A[0..2]
P1 exit
P0 mprotect A r
P0 mmap B 2 at=0x7f0000003000
P0 fork P2
P2 exit
fail 1
P0 mprotect A rw
"""


def test_a_long_one_becomes_the_known_one():
    result = shrink(find("v6.18+9"), parse(LONG), "AV-003")
    assert (result.id, result.before) == ("AV-003", 12)
    assert result.length == 4
    assert not result.interrupted
    assert set(result.ids) >= {"AV-003"}
    shown = run(parse(result.scenario), find("v6.18+9"))
    assert "AV-003" in {violation.id for violation in shown.violations}


@pytest.mark.parametrize(("series", "seed"), [("zoo/Z23", 1), ("zoo/Z25", 2), ("zoo/Z12", 3), ("zoo/Z01", 4)])
def test_no_call_can_be_left_out_of_what_it_gives(series, seed):
    logic = find(series)
    finding = fuzz(series, seed=seed, histories=3000).findings[0]
    ident = finding.ids[0]
    result = shrink(logic, parse(finding.scenario), ident)
    steps = steps_of(parse(result.scenario))
    assert ident in violated(logic, steps)
    assert len(steps) == result.length <= finding.length
    for at in range(len(steps) - 1):
        assert ident not in violated(logic, steps[:at] + steps[at + 1 :])
    again = shrink(logic, parse(result.scenario), ident)
    assert again.length == result.length


def test_without_an_id_the_first_violation_is_kept():
    assert shrink(find("v6.18+9"), parse(LONG)).id == "AV-003"


@pytest.mark.parametrize(("series", "ident"), [("v7.0", None), ("v7.0", "AV-003"), ("v6.18+9", "AV-030")])
def test_what_is_not_violated_cannot_be_shrunk(series, ident):
    assert shrink(find(series), parse(LONG), ident) is None


def test_ctrl_c_gives_the_smallest_so_far_and_that_can_be_gone_on_from():
    def stop(length, tries):
        if tries > 12:
            raise KeyboardInterrupt

    cut = shrink(find("v6.18+9"), parse(LONG), "AV-003", progress=stop)
    assert cut.interrupted
    assert 4 < cut.length < 12
    rest = shrink(find("v6.18+9"), parse(cut.scenario), "AV-003")
    assert rest.length == shrink(find("v6.18+9"), parse(LONG), "AV-003").length


def test_the_same_in_the_same_out():
    assert shrink(find("v6.18+9"), parse(LONG)) == shrink(find("v6.18+9"), parse(LONG))


def test_a_crash_of_a_design_is_shrunk_too(tmp_path):
    path = tmp_path / "crash.py"
    path.write_text(
        "from rmaplab.kernel import Kernel\n\n\nclass Mine(Kernel):\n    def anon_vma_fork(self, vma, pvma):\n"
        "        if len(pvma.anon_vma_chain) > 1:\n            raise ValueError('boom')\n"
        "        return super().anon_vma_fork(vma, pvma)\n"
    )
    scenario = "P0 mmap B 4\nP0 write B\nP0 mmap A 1\nP0 write A\nP0 fork P1\nP0 write A\nP1 write A\nP1 fork P2\n"
    result = shrink(find(str(path)), parse(scenario))
    assert (result.id, result.length) == ("AV-045", 4)
    assert result.detail == "ValueError: boom (crash.py:7, in anon_vma_fork)"
