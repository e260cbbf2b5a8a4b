# SPDX-License-Identifier: GPL-2.0-only
"""The engine does what the specification does, call for call."""

from importlib.resources import files

import pytest

pytest.importorskip("numba", reason="the fast engine takes Numba (extra `fast`)")

import twins
from twins import SUPPORTED, DiffersError, Twin, play

from rmaplab.check.execute import NO_PLAN, Plan
from rmaplab.engine.layout import PARAMS
from rmaplab.scenario import Call, Fail, Ksmd, Walk, load, parse
from rmaplab.series import SERIES, ZOO, find

FOLDER = files("rmaplab").joinpath("data/zoo")


@pytest.mark.parametrize("name", SUPPORTED)
def test_random_histories_are_the_same(name):
    assert sum(play(find(name), f"{name} {seed}") for seed in range(1000, 1003)) > 50


@pytest.mark.parametrize("number", sorted(name.removeprefix("zoo/") for name in ZOO))
@pytest.mark.parametrize("series", ["its own", "the fixed one", "v7.0", "v6.18", "v2.6.34"])
def test_zoo_scenarios_are_the_same(number, series):
    entry = ZOO[f"zoo/{number}"]
    logic = {"its own": entry, "the fixed one": find(entry.parent)}.get(series) or find(series)
    found = zoo(Twin(logic), number)
    assert bool(found) or series != "its own"


def zoo(twin, number):
    """Run an entry's scenario on both; what it violates."""
    plan, last = NO_PLAN, set()
    for statement in load(str(FOLDER.joinpath(f"{number}.rmap"))).statements:
        if isinstance(statement, Fail):
            plan = Plan(statement.n, statement.nowait, statement.kind)
        elif isinstance(statement, Call | Walk | Ksmd):
            last |= twin.make(statement, plan, snapshots=True)
            plan = NO_PLAN
        if 45 in last:
            break
    return last


CALLS = {
    "moves of whole tables, and walks": """
        P0 mmap A 1024 at=0x7f0000000000
        P0 write A[0..2]
        P0 write A[700]
        P0 fork P1
        P1 mremap A B at=0x7f0010000000
        walk P1 B[1]
        walk P0 A[700]
        P1 mremap B[1..600] C at=0x7f0020001000
        walk P1 C[0]
    """,
    "one VMA between two": """
        P0 mmap A 1 at=0x7f0000000000
        P0 mmap C 1 at=0x7f0000002000
        P0 write C
        P0 mmap B 1 at=0x7f0000001000
    """,
    "VMAs of 34 terabytes": """
        P0 mmap A 8321499392 at=0x100000000000
        P0 write A[5]
        P0 fork P1
        P1 munmap A[0..2]
    """,
    "a page of KSM's is unmerged": """
        P0 mmap A 4 at=0x1000000000
        P0 write A[3]
        P0 madvise A[3] mergeable
        P0 ksm A[3] zeros
        P0 madvise A[3] unmergeable
    """,
    "KSM knows of two processes that are gone": """
        P0 mmap A 2 at=0x1000000000
        P0 write A
        P0 madvise A mergeable
        P0 ksm A[0] zeros
        P0 fork P1
        P1 ksm A[1] zeros
        P1 fork P2
        P0 exit
        P1 exit
    """,
    "guards in a file": """
        P0 mmap F 2 file=f
        P0 madvise F[0] guard-install
        P0 fork P1
        P1 write F[1]
    """,
}
SEEN = (  # in a few histories; what the others change takes many, or shows in assertions that never fire
    "cleanup",
    "clone",
    "clone_mirrors",
    "clone_walks_unfaulted",
    "counts",
    "expand_forgets_source",
    "failed_fork_waits",
    "fork",
    "import_late",
    "keeps_account",
    "lists",
    "merge_in_two_rounds",
    "merge_rule",
    "mmap_asks_behind",
    "no_dontunmap",
    "no_exclusive",
    "put",
    "rmap_locks",
    "root_unpinned",
    "split_forgets_failure",
    "stack_lock",
    "unlink",
    "unlink_checks",
    "unlocked_walk",
    "young_names",
)


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("name", [name for name in SUPPORTED if name in SERIES])
def test_what_random_histories_seldom_do_is_the_same(name, calls):
    scenario(Twin(find(name)), calls)


@pytest.mark.parametrize("parameter", SEEN)
def test_a_wrong_parameter_does_not_go_unnoticed(parameter, monkeypatch):
    users = [name for name in SUPPORTED if Twin(find(name)).machine.m[PARAMS][parameter]]
    assert users, "no series has it"
    machine = twins.Machine

    def wrong(*args, **options):
        made = machine(*args, **options)
        made.m[PARAMS][parameter] = 0
        return made

    monkeypatch.setattr(twins, "Machine", wrong)
    assert differs(users[:: len(users) // 4 + 1])


def differs(users):
    """Whether the two part in a scenario above, in one of the zoo, or in a few random histories."""
    try:
        for name in users:
            for calls in CALLS:
                scenario(Twin(find(name)), calls)
            if name in ZOO:
                zoo(Twin(find(name)), name.removeprefix("zoo/"))
        for seed in range(8):
            for name in users:
                play(find(name), f"{name} {seed}")
    except (DiffersError, StopIteration):
        return True
    return False


def scenario(twin, calls):
    for statement in parse("\n".join(line.strip() for line in CALLS[calls].strip().splitlines())).statements:
        twin.make(statement, snapshots=True)
