# SPDX-License-Identifier: GPL-2.0-only
"""The history: what each series changes, and that no change is seen where none was meant."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from rmaplab.check.execute import NO_PLAN, Plan, execute
from rmaplab.check.monitor import monitored
from rmaplab.check.state import fingerprint
from rmaplab.errors import InputError, UsageError
from rmaplab.kernel import Kernel
from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.scenario import Exit, Fork, Mmap, Mprotect, Munmap, Pages, Read, Walk, Write
from rmaplab.series import DEFAULT, SERIES, changed_functions, find

BASE = 0x10000000
PAGES = 2  # of an area; areas touch
AREAS = "ABCD"
PROTECTIONS = (*["rw"] * 6, *["r"] * 5, "rwx", "none")
HISTORIES = 12
CALLS = 100
ALONE = 20  # calls before the first fork: only a VMA that was not inherited merges freely

SAME_CLONE_ORDER = ("v6.18", "v6.18+1", "v6.18+2", "v6.18+3", "v6.18+4", "v6.18+5", "v6.18+6", "v6.18+7")
MIRRORED = ("v6.18+8", "v6.18+9", "v6.18+v2", "v7.0")
REUSED = "anon_vma reused by fork"


# --- the classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "functions"),
    [
        ("v6.12", []),
        ("v6.18", ["is_mergeable_anon_vma"]),
        ("v6.18+1", ["check_anon_vma_clone", "check_unlink_anon_vmas", "cleanup_partial_anon_vmas"]),
        ("v6.18+2", ["anon_vma_fork"]),
        ("v6.18+3", ["anon_vma_clone", "unlink_anon_vmas"]),
        (
            "v6.18+4",
            [
                "anon_vma_clone",
                "clone_chain",
                "lock_anon_vma_root",
                "unlink_anon_vmas",
                "unlink_chain",
                "unlock_anon_vma_root",
            ],
        ),
        ("v6.18+5", ["anon_vma_merge", "unlink_removed_vma"]),
        ("v6.18+6", []),
        ("v6.18+7", []),
        ("v6.18+8", ["anon_vma_chain_link", "anon_vma_clone", "cleanup_partial_anon_vmas"]),
        ("v6.18+9", ["anon_vma_clone", "check_anon_vma_clone", "count_active_vma", "try_reuse_anon_vma"]),
        ("v6.18+v2", ["anon_vma_fork"]),
        ("v7.0", ["cleanup_partial_anon_vmas", "dup_mmap_failed"]),
    ],
)
def test_a_series_changes_these_functions_of_its_parent(series, functions):
    assert changed_functions(SERIES[series]) == functions


def test_parents_form_one_chain_with_the_v2_posting_beside_it():
    line, name = [], DEFAULT
    while name is not None:
        line.append(name)
        name = SERIES[name].parent
    assert line[::-1] == ["v6.12", "v6.18", *(f"v6.18+{patch}" for patch in range(1, 10)), "v7.0"]
    assert set(SERIES) - set(line) == {"v6.18+v2"}
    assert SERIES["v6.18+v2"].parent == "v6.18+9"


def test_the_register_lists_parents_before_children():
    names = list(SERIES)
    for name, series in SERIES.items():
        assert series.name == name
        assert series.parent is None or names.index(series.parent) < names.index(name)


def test_every_commit_belongs_to_one_series():
    commits = Counter(commit for series in SERIES.values() for commit in series.commits)
    assert set(commits.values()) == {1}
    assert [SERIES[f"v6.18+{patch}"].commits for patch in (2, 8)] == [("91901a441fa1",), ("bfc2b13b05a1",)]
    assert all(len(commit) == 12 for commit in commits)


def test_what_a_series_is_can_be_said_for_each():
    for series in SERIES.values():
        assert issubclass(series, Kernel)
        assert series.summary
        assert "summary" in vars(series)


def test_a_series_is_found_by_name_and_a_near_miss_is_answered_with_the_name_meant():
    assert find("v6.18+3") is SERIES["v6.18+3"]
    with pytest.raises(UsageError, match=r"v6\.18\+3"):
        find("v6.18+33")
    with pytest.raises(UsageError, match="rmaplab list series"):
        find("nonsense")


def test_a_file_without_a_series_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        find(str(tmp_path / "absent.py"))
    empty = tmp_path / "empty.py"
    empty.write_text("answer = 42\n")
    with pytest.raises(InputError, match="no class derived from a series"):
        find(str(empty))


# --- random histories -----------------------------------------------------------------------------


class Chance:
    """Draws calls from a seed; what it may draw depends on the state, the rest is up to the seed."""

    def __init__(self, seed):
        self.random = Random(seed)
        self.made = 0
        self.drawn = 0
        self.agenda = []

    def call(self, kernel):
        self.drawn += 1
        if self.drawn % 25 == 1:
            self.agenda = self.faulted_beside_unfaulted(self.random.choice(list(kernel.processes)))
        if self.agenda:
            return self.agenda.pop(0)
        processes = list(kernel.processes.values())
        process = self.random.choices(processes, range(1, len(processes) + 1))[0]  # rather a young one: deep trees
        kind = self.random.choices(
            ("mmap", "write", "read", "mprotect", "munmap", "fork", "exit"), (4, 7, 2, 8, 2, 6, 4)
        )[0]
        if kind == "fork" and len(kernel.processes) < 7 and self.drawn > ALONE:
            self.made += 1
            return Fork(process.name, f"P{self.made}")
        if kind == "exit" and len(kernel.processes) > 1:
            return Exit(process.name)
        if kind == "mmap" or not process.areas:
            return self.mmap(process)
        pages = self.pages(process)
        match kind:
            case "munmap":
                return Munmap(process.name, pages)
            case "mprotect":
                return Mprotect(process.name, pages, self.random.choice(PROTECTIONS))
            case "read":
                return Read(process.name, pages)
        return Write(process.name, pages)

    def mmap(self, process):
        number = self.random.randrange(len(AREAS))
        return Mmap(
            process.name,
            AREAS[number],
            PAGES,
            at=BASE + number * PAGES * PAGE_SIZE,
            prot=self.random.choice(PROTECTIONS),
            file=self.random.choice((None, None, None, None, None, "f")),
            shared=self.random.random() < 0.05,
        )

    def faulted_beside_unfaulted(self, name):
        """Rarely met by chance: two VMAs that become mergeable, one with an anon_vma and one without."""
        number = self.random.randrange(len(AREAS) - 1)
        low, high = (Mmap(name, AREAS[at], PAGES, at=BASE + at * PAGES * PAGE_SIZE) for at in (number, number + 1))
        first, whole = Pages(high.area, 0, 0), Pages(high.area, 0, PAGES - 1)
        return [high, Write(name, first), Mprotect(name, whole, "r"), low, Mprotect(name, first, "rw")]

    def pages(self, process):
        first, last = sorted(self.random.choices(range(PAGES), k=2))
        return Pages(self.random.choice(sorted(process.areas)), first, last)

    def plan(self):
        return Plan(self.random.randint(1, 8), self.random.random() < 0.3)


def machine(series):
    kernel = monitored(SERIES[series])()
    kernel.spawn()
    return kernel


def end_all(kernel):
    """Every process exits; nothing is left."""
    for name in list(kernel.processes):
        assert execute(kernel, Exit(name)).violations == []
    assert not kernel.live_anon_vmas


@pytest.mark.parametrize("seed", range(HISTORIES))
@pytest.mark.parametrize("series", ["v6.12", "v6.18", "v6.18+2", "v7.0"])
def test_no_history_with_a_failing_allocation_in_each_call_breaks_an_invariant(series, seed):
    kernel, chance = machine(series), Chance(seed)
    for step in range(CALLS):
        call, plan = chance.call(kernel), chance.plan()
        if step % 3 == 0:
            plan = NO_PLAN
        if series == "v6.18+2" and isinstance(call, Mprotect | Mmap):
            plan = plan._replace(nowait=True)  # a merge that fails for good is a known bug of this series
        outcome = execute(kernel, call, plan)
        assert outcome.violations == [], (step, call, plan)
    end_all(kernel)


@pytest.mark.parametrize("series", ["v6.12", "v6.18", "v6.18+2", "v7.0"])
def test_those_histories_reach_what_they_are_meant_to_reach(series):
    kernels = []
    for seed in range(HISTORIES):
        kernel, chance = machine(series), Chance(seed)
        for step in range(CALLS):
            execute(kernel, chance.call(kernel), chance.plan() if step % 3 else NO_PLAN, check=False)
        kernels.append(kernel)
    reached = sum((kernel.reached for kernel in kernels), Counter())
    wanted = {
        REUSED,
        "fork failed",
        "neighbour's anon_vma shared",
        "own anon_vma made by fork",
        "page copied on write",
        "page reused by its last mapper",
        "VMA split",
        "VMAs merged",
    }
    if series != "v7.0":
        wanted.add("GFP_NOWAIT failed and the GFP_KERNEL retry served")
    if series != "v6.12":
        wanted.add("links duplicated into an unfaulted VMA")
    assert not {what for what in wanted if not reached[what]}


def histories_of(series, seed):
    """The calls of a random history without failures, and the state after each."""
    kernel, chance = machine(series), Chance(seed)
    for _ in range(CALLS):
        call = chance.call(kernel)
        outcome = execute(kernel, call, check=False)
        yield call, outcome.errno, kernel


@pytest.mark.parametrize("seed", range(HISTORIES))
@pytest.mark.parametrize(
    ("first", "others"), [(SAME_CLONE_ORDER[0], SAME_CLONE_ORDER[1:]), (MIRRORED[0], MIRRORED[1:])]
)
def test_without_failures_patches_1_to_7_and_8_and_later_are_invisible(first, others, seed):
    replicas = {name: machine(name) for name in others}
    for call, errno, kernel in histories_of(first, seed):
        expected = kernel.snapshot()
        for name, replica in replicas.items():
            outcome = execute(replica, call)
            assert outcome == (errno, None, []), (name, call)
            assert replica.snapshot() == expected, (name, call)
    for replica in replicas.values():
        end_all(replica)


def without_chain_order(kernel):
    """The state under the kernel's own numbers, each chain sorted."""
    snapshot = kernel.snapshot(canonical=False)
    processes = tuple(
        replace(process, vmas=tuple(replace(vma, chain=tuple(sorted(vma.chain))) for vma in process.vmas))
        for process in snapshot.processes
    )
    return replace(snapshot, processes=processes, anon_vmas=tuple(sorted(snapshot.anon_vmas, key=lambda av: av.id)))


def test_patch_8_is_invisible_but_for_the_order_of_chains_until_the_first_reuse():
    compared, reused, mirrored = 0, 0, 0
    for seed in range(2 * HISTORIES):
        newer = machine("v6.18+8")
        for call, errno, kernel in histories_of("v6.18+7", seed):
            assert execute(newer, call) == (errno, None, [])
            assert newer.reached[REUSED] > 0 if kernel.reached[REUSED] else newer.reached[REUSED] == 0
            if kernel.reached[REUSED]:
                reused += 1
                break
            compared += 1
            mirrored += newer.snapshot() != kernel.snapshot()
            assert without_chain_order(newer) == without_chain_order(kernel), call
    assert compared > 500
    assert mirrored > 50
    assert reused > 5


def test_up_to_6_15_the_merge_rule_alone_differs():
    differing = 0
    for seed in range(HISTORIES):
        newer = machine("v6.18")
        for call, errno, kernel in histories_of("v6.12", seed):
            assert execute(newer, call).errno == errno
            if newer.snapshot() != kernel.snapshot():
                assert newer.reached["links duplicated into an unfaulted VMA"]
                differing += 1
                break
    assert differing


# --- copies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("series", SERIES)
def test_a_copy_is_equal_and_goes_on_alike(series):
    for seed in range(5):
        chance = Chance(seed)
        kernel = machine(series)
        for _ in range(CALLS // 2):
            execute(kernel, chance.call(kernel))
        copy = kernel.copy()
        assert copy.snapshot() == kernel.snapshot()
        assert copy.snapshot(canonical=False) == kernel.snapshot(canonical=False)
        assert fingerprint(copy) == fingerprint(kernel)
        for step in range(CALLS):
            call = chance.call(kernel)
            plan = chance.plan() if step % 2 else NO_PLAN
            first, second = execute(kernel, call, plan), execute(copy, call, plan)
            assert first == second, (step, call, plan)
            assert copy.snapshot(canonical=False) == kernel.snapshot(canonical=False), (step, call, plan)
            assert fingerprint(copy) == fingerprint(kernel)
            if first.violations:
                break


@pytest.mark.parametrize("series", SERIES)
def test_a_copy_and_its_original_do_not_see_each_other(series):
    kernel, chance = machine(series), Chance(7)
    for _ in range(CALLS):
        execute(kernel, chance.call(kernel))
    before, mark = kernel.snapshot(canonical=False), fingerprint(kernel)
    copy = kernel.copy()
    for _ in range(CALLS):
        execute(copy, chance.call(copy))
    assert fingerprint(copy) != mark
    assert kernel.snapshot(canonical=False) == before
    assert fingerprint(kernel) == mark
    end_all(copy)
    assert kernel.snapshot(canonical=False) == before
    end_all(kernel)


def test_a_copy_keeps_what_a_failed_call_left_behind():
    kernel = machine("v6.18+v2")
    execute(kernel, Mmap("P0", "A", 1))
    execute(kernel, Write("P0", Pages("A", 0, 0)))
    assert execute(kernel, Fork("P0", "P1"), Plan(2)).errno == "ENOMEM"
    copy = kernel.copy()
    assert len(copy.live_anon_vma_chains) == 2
    assert fingerprint(copy) == fingerprint(kernel)
    found = execute(kernel, Walk("P0", Pages("A", 0, 0)))
    assert {report.id for report in found.violations} >= {"AV-001", "AV-015"}
    assert execute(copy, Walk("P0", Pages("A", 0, 0))).violations == found.violations


def test_two_tasks_of_one_address_space_are_copied_as_such():
    kernel = machine("v7.0")
    process = kernel.processes["P0"]
    area = process.mmap(1)
    process.share("P1")
    copy = kernel.copy()
    assert copy.processes["P0"].mm is copy.processes["P1"].mm
    assert copy.processes["P0"].mm is not process.mm
    copy.processes["P1"].write(area)
    copy.processes["P0"].exit()
    assert copy.processes["P1"].mm.users == 1
    assert process.mm.users == 2
    assert process.mm.page_table.get(area.start) is None
