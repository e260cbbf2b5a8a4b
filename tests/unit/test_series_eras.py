# SPDX-License-Identifier: GPL-2.0-only
"""The eras: what the kernels from 2.6.32 on had otherwise, each against its neighbours in time."""

from dataclasses import replace

import pytest
from random_calls import CALLS, Chance, end_all, machine

from rmaplab.check.execute import NO_PLAN, execute
from rmaplab.check.run import run
from rmaplab.scenario import Mmap, parse
from rmaplab.series import SERIES, find
from rmaplab.workload.replay import replay
from rmaplab.workload.sources import shipped_traces

HISTORIES = 12
ERAS = ("v2.6.32", "v2.6.34", "v3.19", "v4.0", "v5.5", "v6.0", "v6.1", "v6.12", "v6.12.112")
DEGREE = ("v3.19", "v4.0", "v5.5")
Z23 = {"AV-008", "AV-043"}  # what its double reuse violates at once
LISTS = ("v2.6.32", "v2.6.34")
NEIGHBOURS = [("v3.19", "v4.0"), ("v4.0", "v5.5"), ("v6.0", "v6.1")]
DAEMON = "".join(f"P{n} fork P{n + 1}\nP{n} exit\n" for n in range(12))
WRITTEN = "P0 mmap A 2\nP0 write A\n"


def outcome(series, text):
    result = run(parse(text), find(series))
    return result, {violation.id for violation in result.violations}


def kernel_after(series, text):
    result, violated = outcome(series, text)
    assert violated == set()
    return result.kernel


def chain(kernel, process, index=0):
    return [avc.anon_vma for avc in kernel.processes[process].mm.vmas[index].anon_vma_chain]


def counted(kernel):
    return len(kernel.live_anon_vmas), len(kernel.live_anon_vma_chains)


def orders(kernel):
    """Order of the VMAs on each list of more than two."""
    lists = [tuple(avc.vma.id for avc in anon_vma.rb_root) for anon_vma in kernel.live_anon_vmas.values()]
    return {order for order in lists if len(order) > 2}


def events_of(series, text, verbs):
    events = []
    run(parse(text), find(series), on_event=lambda line, event: events.append(event))
    return [event for event in events if event.verb in verbs]


# --- random histories ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(HISTORIES))
@pytest.mark.parametrize("series", [*ERAS, "v7.3"])
def test_no_history_breaks_an_invariant_that_holds_for_the_era(series, seed):
    kernel, chance = machine(series), Chance(seed)
    for step in range(CALLS):
        call, plan = chance.call(kernel), chance.plan()
        if step % 3 == 0 or series == "v3.19":  # whose failures miscount (Z11)
            plan = NO_PLAN
        violated = {report.id for report in execute(kernel, call, plan).violations}
        if series in DEGREE and violated and violated <= Z23:
            return
        assert violated == set(), (step, call, plan)
    end_all(kernel)


@pytest.mark.parametrize("seed", range(HISTORIES))
@pytest.mark.parametrize(("first", "second"), NEIGHBOURS)
def test_without_failures_these_neighbours_make_the_same_graph(first, second, seed):
    older, newer, chance = machine(first), machine(second), Chance(seed)
    for _ in range(CALLS):
        call = chance.call(older)
        assert execute(older, call).errno == execute(newer, call).errno
        assert older.snapshot() == newer.snapshot(), call


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_without_files_v7_3_makes_the_graph_of_v7_0(seed):
    older, newer, chance = machine("v7.0"), machine("v7.3"), Chance(seed)
    for _ in range(CALLS):
        call = chance.call(older)
        if isinstance(call, Mmap):
            call = replace(call, file=None, shared=False)
        assert execute(older, call).errno == execute(newer, call).errno
        assert older.snapshot() == newer.snapshot(), call


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_the_stable_hybrid_is_v6_12_with_failures_too(seed):
    older, newer, chance = machine("v6.12"), machine("v6.12.112"), Chance(seed)
    for _ in range(CALLS):
        call, plan = chance.call(older), chance.plan()
        assert execute(older, call, plan)[:2] == execute(newer, call, plan)[:2]
        assert older.snapshot() == newer.snapshot(), call


# --- the attributes --------------------------------------------------------------------------------------


def test_what_came_when():
    came = {
        "has_chains": "v2.6.34",
        "has_root_lock": "v3.19",
        "has_interval_trees": "v3.19",
        "spares_fork_children": "v3.19",
        "reuses": "v3.19",
        "counts_apart": "v6.0",
    }
    line = [name for name in SERIES if name not in ("v6.12.112", "v6.18+v2")]
    for attribute, first in came.items():
        have = [getattr(SERIES[name], attribute) for name in line]
        assert have == [line.index(name) >= line.index(first) for name in line], attribute
    assert [name for name in line if SERIES[name].counts_together] == list(DEGREE)


# --- v2.6.32 ---------------------------------------------------------------------------------------------


def test_a_family_shares_one_anon_vma_and_takes_no_memory_for_links():
    kernel = kernel_after("v2.6.32", WRITTEN + "P0 fork P1\nP1 fork P2\nP2 mprotect A[1] r\nP1 write A")
    assert counted(kernel) == (1, 0)
    (anon_vma,) = kernel.live_anon_vmas.values()
    assert {vma.anon_vma for process in kernel.processes.values() for vma in process.mm.vmas} == {anon_vma}
    assert [len(chain(kernel, name)) for name in kernel.processes] == [1, 1, 1]
    assert len(anon_vma.rb_root) == 4


def test_the_anon_vma_goes_with_its_last_vma():
    kernel = kernel_after("v2.6.32", WRITTEN + "P0 fork P1\nP0 exit")
    assert counted(kernel) == (1, 0)
    kernel.processes["P1"].exit()
    assert counted(kernel) == (0, 0)


@pytest.mark.parametrize("call", ["P0 fork P1", "P0 mprotect A[0] r", "P0 munmap A[0]"])
def test_nothing_but_a_first_fault_can_run_out_of_rmap_memory(call):
    result, violated = outcome("v2.6.32", WRITTEN + f"fail 1\n{call}")
    assert violated == set()
    assert [statement.errno for statement in result.statements] == [None] * 3
    result, _ = outcome("v2.6.32", "P0 mmap A 1\nfail 1\nP0 write A")
    assert result.statements[-1].errno == "ENOMEM"


@pytest.mark.parametrize(("series", "visited"), [("v2.6.32", 3), ("v2.6.34", 1), ("v7.0", 1)])
def test_chains_let_a_walk_of_a_childs_page_leave_its_relatives_out(series, visited):
    text = "P0 mmap A 1\nP0 write A\nP0 fork P1\nP0 fork P2\nP2 write A\nwalk P2 A[0]"
    result, violated = outcome(series, text)
    assert violated == set()
    walk = result.statements[-1].walk
    assert len(walk) == visited
    assert [process for process, _, maps in walk if maps] == ["P2"]


# --- lists -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("series", "visited"), [("v2.6.32", 2), ("v2.6.34", 2), ("v3.19", 1), ("v7.0", 1)])
def test_a_list_meets_both_halves_of_a_split_vma_and_a_tree_the_one_that_maps_the_page(series, visited):
    result, _ = outcome(series, WRITTEN + "P0 mprotect A[1] r\nwalk P0 A[1]")
    walk = result.statements[-1].walk
    assert [maps for _, _, maps in walk].count(True) == 1
    assert len(walk) == visited


@pytest.mark.parametrize("series", LISTS)
def test_a_shifted_boundary_leaves_the_order_of_the_list(series):
    text = "P0 mmap A 3\nP0 write A\nP0 mprotect A[1..2] r\nP0 fork P1\n"
    before = kernel_after(series, text)
    (order,) = orders(before)
    after = kernel_after(series, text + "P0 mprotect A[1] rw")
    assert len(before.processes["P0"].mm.vmas) == len(after.processes["P0"].mm.vmas) == 2
    assert orders(after) == {order}


def test_in_2_6_34_alone_a_first_fault_goes_to_the_head_of_a_shared_list():
    text = "P0 mmap A 1 at=0x10000000\nP0 mmap B 1 at=0x10001000 prot=rwx\nP0 write A\nP0 write B"
    for series, lent_first in (("v2.6.32", False), ("v2.6.34", True)):
        kernel = kernel_after(series, text)
        (anon_vma,) = kernel.live_anon_vmas.values()
        owners = [kernel.processes["P0"].areas[name].start for name in "AB"]
        order = [owners.index(avc.vma.vm_start) for avc in anon_vma.rb_root]
        assert order == ([1, 0] if lent_first else [0, 1])


@pytest.mark.parametrize("series", LISTS)
def test_each_anon_vma_is_locked_by_itself(series):
    text = WRITTEN + "P0 fork P1\nP1 fork P2\nP2 exit"
    locked = {event.object for event in events_of(series, text, {"lock"}) if event.detail.startswith("anon_vma")}
    assert len(locked) == (1 if series == "v2.6.32" else 3)
    locked = {event.object for event in events_of("v3.19", text, {"lock"}) if event.detail.startswith("anon_vma")}
    assert len(locked) == 1


@pytest.mark.parametrize("series", LISTS)
def test_what_ksm_keeps_needs_no_root(series):
    kernel = kernel_after(series, WRITTEN + "P0 fork P1")
    own = kernel.processes["P1"].mm.vmas[0].anon_vma
    kernel.get_anon_vma(own)
    for process in list(kernel.processes.values()):
        process.exit()
    assert list(kernel.live_anon_vmas.values()) == [own]
    assert list(kernel.copy().live_anon_vmas) == [own.id]
    kernel.put_anon_vma(own)
    assert not kernel.live_anon_vmas
    assert kernel.events.take_reports() == []


# --- growth and reuse ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "count"), [("v2.6.32", 1), ("v2.6.34", 13), *((name, 3) for name in (*DEGREE, "v6.0", "v7.0"))]
)
def test_a_line_of_daemons_grows_from_the_first_chains_until_reuse(series, count):
    kernel = kernel_after(series, WRITTEN + DAEMON)
    assert len(kernel.live_anon_vmas) == count
    assert len(chain(kernel, "P12")) == count


@pytest.mark.parametrize("series", DEGREE)
def test_degree_adds_up_vmas_and_children(series):
    kernel = kernel_after(series, WRITTEN + "P0 fork P1\nP0 fork P2\nP2 fork P3\nP2 exit")
    degrees = sorted(anon_vma.degree for anon_vma in kernel.live_anon_vmas.values())
    assert degrees == [1, 1, 1, 4]  # P3's, P1's, the one P2 left with a child, the root
    assert {(av.num_children, av.num_active_vmas) for av in kernel.live_anon_vmas.values()} == {(0, 0)}


def test_joining_a_family_is_not_counted_as_reuse():
    results = {name: replay([shipped_traces()["compileall"]], find(name)) for name in ("v2.6.32", "v2.6.34")}
    assert [result.vma_forks > 0 for result in results.values()] == [True, True]
    assert [result.reuses for result in results.values()] == [0, 0]
    assert results["v2.6.32"].peak.anon_vma_chain == 0
    assert results["v2.6.32"].walk_visits != results["v2.6.34"].walk_visits


# --- merging ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faulted", "merging"),
    [
        ("A", {"v2.6.32", "v2.6.34", "v3.19", "v6.0", "v6.12", "v6.18", "v7.0"}),
        ("B", {"v2.6.32", "v2.6.34", "v6.18", "v7.0"}),
    ],
)
def test_from_3_0_to_6_15_a_faulted_vma_did_not_merge_into_an_unfaulted_one(faulted, merging):
    text = "P0 mmap A 1 at=0x10000000\nP0 mmap B 1 at=0x10001000 prot=rwx\n"
    for series in ("v2.6.32", "v2.6.34", "v3.19", "v6.0", "v6.12", "v6.18", "v7.0"):
        kernel = kernel_after(series, text + f"P0 write {faulted}\nP0 mprotect B rw")
        assert (len(kernel.processes["P0"].mm.vmas) == 1) == (series in merging), series


@pytest.mark.parametrize("series", [*ERAS, "v7.0"])
def test_before_3_0_a_fork_child_merged_with_what_was_unfaulted(series):
    text = "P0 mmap A 1 at=0x10000000\nP0 write A\nP0 fork P1\nP1 mmap B 1 at=0x10001000"
    kernel = kernel_after(series, text)
    assert len(kernel.processes["P1"].mm.vmas) == (1 if series in LISTS else 2)


# --- publication -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("series", "released"), [("v6.12", 0), ("v6.12.112", 2), ("v7.0", 0), ("v7.3", 2)])
def test_the_barrier_is_an_event_of_each_first_fault(series, released):
    text = "P0 mmap A 1\nP0 mmap B 1 prot=rwx\nP0 write A\nP0 write B\nP0 fork P1\nP0 write A"
    events = events_of(series, text, {"publish"})
    assert len(events) == released
    assert all(event.detail.endswith("release") for event in events)
