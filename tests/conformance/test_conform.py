# SPDX-License-Identifier: GPL-2.0-only
"""The model held against real kernels by `conform`: those of the cache, and on request the one that runs here.

RMAPLAB_CONFORM_PROGRAMS=N tries more than a few random programs on each;
RMAPLAB_LIVE=1 allows the BPF programs that read the running kernel.
"""

import dataclasses
import json
import os
from itertools import islice

import pytest

from rmaplab.cli.main import main
from rmaplab.errors import RmaplabError
from rmaplab.realkernel.conform.campaign import Campaign, conform
from rmaplab.realkernel.conform.failing import failing_programs
from rmaplab.realkernel.conform.given import program_of
from rmaplab.realkernel.conform.run import Pair
from rmaplab.realkernel.guest.cache import KERNELS, find, missing
from rmaplab.realkernel.guests import HOST, can_fail, open_guest, series_of
from rmaplab.scenario import Fail, parse
from rmaplab.series import find as find_series

USER_MODE = [name for name in KERNELS if name.startswith("um")]
OTHERS = [name for name in KERNELS if name not in USER_MODE]
PROGRAMS = int(os.environ.get("RMAPLAB_CONFORM_PROGRAMS", "0"))


def needs(name):
    if name == HOST:
        if os.environ.get("RMAPLAB_LIVE") != "1" or os.geteuid() != 0:
            pytest.skip("loads BPF programs into the running kernel: as root, with RMAPLAB_LIVE=1")
    elif find(name) is None:
        pytest.skip(missing(name))


@pytest.fixture(name="pair", scope="module")
def _pair(request):
    """A guest that lives for a module, and the model of its kernel."""
    needs(request.param)
    try:
        guest = open_guest(request.param)
    except RmaplabError as error:
        pytest.skip(str(error))
    with guest:
        yield Pair(find_series(series_of(request.param)), guest)


def campaign(name, programs, series=None, failing=None):
    needs(name)
    what = Campaign.on(name, series)
    if failing is not None:
        what = dataclasses.replace(what, failing=failing)
    return conform(what, range(programs), workers=2 if programs > 20 else 1)


def told(result):
    return "\n\n".join(found.scenario() + "\n".join(found.what) for found in result.mismatches)


@pytest.mark.parametrize("name", [*USER_MODE, *OTHERS, HOST])
def test_random_programs_make_the_same_graphs(name):
    few = 150 if name in USER_MODE else 200 if name == HOST else 8
    result = campaign(name, PROGRAMS or few)
    assert result.mismatches == [], told(result)
    assert (result.programs, result.incomplete, result.deaths) == (PROGRAMS or few, 0, [])
    assert result.snapshots > 10 * result.programs
    assert all(f"{call} ok" in result.calls for call in ("mmap", "write", "fork", "exit", "munmap", "mprotect"))
    assert not can_fail(name) or result.failures > 0


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("um-7.3", "v6.18"), ("um-6.12", "v7.0"), ("um-6.12", "v6.0"), ("um-7.3", "v6.12.112"), (HOST, "v7.0")],
)
def test_the_wrong_model_is_found_out_and_the_program_shortened(name, wrong):
    result = campaign(name, 12, wrong, failing=False)
    assert result.mismatches
    shortest = min(result.mismatches, key=lambda found: len(found.program))
    assert len(shortest.program) <= 8
    assert shortest.what


@pytest.mark.parametrize("pair", USER_MODE, indirect=True)
def test_every_allocation_that_fails_leaves_what_the_model_leaves(pair):
    """fork, splits, merges, mremap and faults, with chains of one to four, each allocation of each failing once."""
    calls, failures = set(), 0
    for case, fail, program in failing_programs(pair.series):
        found = pair.run(program)
        assert found is None, f"{case.what}, {case.chain}, {fail}:\n{found.scenario()}" + "\n".join(found.what)
        calls.add((case.what, case.chain))
        failures += 1
    assert failures > 200
    assert {chain for what, chain in calls if what == "fork"} == {1, 2, 3, 4}
    assert pair.tally.failures >= failures


@pytest.mark.parametrize("pair", ["deb-6.12"], indirect=True)
def test_allocations_of_a_kernel_without_failslab_fail_through_the_gdb_stub(pair):
    programs = ((case, program) for case, fail, program in failing_programs(pair.series) if fail.kind == "rmap")
    for case, program in islice((one for one in programs if one[0].chain == 2), 25):
        found = pair.run(program)
        if pair.tally.deaths:  # an emulator may end by itself: a kernel that dies of the program does so again
            pair.tally.deaths.clear()
            found = pair.run(program)
        assert found is None, f"{case.what}:\n{found.scenario()}" + "\n".join(found.what)


FOUND = {
    "a page table that is freed and made again": (
        "P0 mmap A 4 at=0x10000000\nP0 write A[3]\nP0 munmap A[0..2]\nP0 mmap B 2 at=0x11000000\nP0 write B[1]\n"
        "P0 mremap B[0] A pages=2 at=0x10003000\nP0 write A[0]\n"
    ),
    "a child's VMA, wiped, at the offset of another place": (
        "P0 mmap A 2 at=0x10000000\nP0 write A\nP0 mremap A B at=0x10400000\nP0 madvise B wipeonfork\nP0 fork P1\n"
        "P1 munmap B[0]\n"
    ),
    "a copy beside its source, which stays": "P0 mmap A 8 at=0x10000000\nP0 mremap A[0] B at=0x10003000 dontunmap\n",
    "two files": "P0 mmap A 2 file=f\nP0 mmap B 2 file=g\nP0 write A\nP0 mmap C 2 file=g shared\n",
    "rights taken and given back": "P0 mmap A 2\nP0 write A[0]\nP0 mprotect A r\nP0 mprotect A rw\nP0 write A\n",
    "a move that is refused": (
        "P0 mmap A 3\nP0 mprotect A[2] r\nP0 mmap C 4\nP0 write C\nP0 mremap A B pages=4 fixed=C[0]\n"
    ),
}


@pytest.mark.parametrize("pair", [*USER_MODE, *OTHERS, HOST], indirect=True)
def test_what_once_parted_model_and_kernel(pair):
    for what, text in FOUND.items():
        found = pair.run(program_of(parse(text)))
        assert found is None, f"{what}: {found.what}"


SEED = "P0 mmap A 1\nP0 write A[0]\nP0 fork P1\nP1 write A[0]\nfail {n}\nP1 fork P2\n"


@pytest.mark.parametrize("pair", USER_MODE, indirect=True)
def test_a_failed_fork_unwinds_as_the_mail_says(pair):
    """Before the series and since: out of memory at each allocation of a fork, the family is as it was."""
    for number in range(1, 5):
        program = program_of(parse(SEED.format(n=number)))
        assert any(isinstance(statement, Fail) for statement in program)
        found = pair.run(program)
        assert found is None, "\n".join(found.what)


@pytest.mark.parametrize("name", OTHERS)
def test_a_core_dump_opens_validates_clean_and_becomes_a_page(name, tmp_path, capsys):
    needs(name)
    core, page = tmp_path / "core", tmp_path / "page.html"
    with open_guest(name) as guest:
        pair = Pair(find_series(series_of(name)), guest)
        assert pair.run(program_of(parse("P0 mmap A 2\nP0 write A\nP0 fork P1\nP1 write A[0]\nP1 fork P2\n"))) is None
        pid = guest.pids[1]
        guest.dump(core)
    assert main(["inspect", "--core", str(core), "--validate", "--html", str(page), "--json", "-q"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], document["violations"], document["incomplete"]) == ("snapshot", [], [])
    assert any(process["name"].endswith(f":{pid}") for process in document["processes"])
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
