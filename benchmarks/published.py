# SPDX-License-Identifier: GPL-2.0-only
"""Figures that others published about this code, and the same figures taken from the model.

Sources are in the rows.  An experiment builds the smallest machine that has
the published shape; where no size was published, the one here is told.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from rmaplab.kernel.flags import PAGE_SIZE
from rmaplab.series import find
from rmaplab.workload.replay import replay
from rmaplab.workload.synthetic import Synthetic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rmaplab.kernel import Kernel, Process
    from rmaplab.kernel.objects import Folio

__all__ = ["Claim", "claims", "shortest_excess"]

Results = dict[str, dict[str, dict[str, Any]]]  # by workload, then by series


class Claim(NamedTuple):
    """What was published, where, what came out here, and what to make of it."""

    claim: str
    source: str
    here: str
    verdict: str


def claims(results: Results) -> list[Claim]:
    """All of them; ``results`` are those of benchmarks/designs.toml."""
    return [
        ksm_walk(),
        ksm_splits(),
        ksm_by_address(),
        deferred(results),
        growth(),
        twice_the_vmas(),
        one_anon_vma(),
        under_the_lock(results),
        reused(results),
    ]


# --- KSM -------------------------------------------------------------------------------


def ksm_machine(vmas: int, children: int = 0) -> tuple[Kernel, Folio]:
    """One mapping cut into VMAs by mprotect, one page of it KSM's; children inherit that page's VMA alone."""
    kernel = find("v7.0")()
    kernel.anon_orders = ()
    parent = kernel.spawn("P0")
    area = parent.mmap(vmas)
    parent.write(area)
    parent.madvise(area, "mergeable")
    for page in range(1, vmas, 2):
        parent.mprotect(area.part(page, page), "r")
    place = area.part(vmas // 2, vmas // 2)
    parent.madvise(area, "dontfork")
    parent.madvise(place, "dofork")
    for child in range(children):
        parent.fork(f"P{child + 1}")
    parent.ksm_merge(place, "x")
    return kernel, page_at(parent, place.start)


def page_at(process: Process, address: int) -> Folio:
    """The page that is mapped there."""
    entry = process.mm.page_table.present(address)
    assert entry is not None
    return entry.folio


def looked_at(kernel: Kernel, folio: Folio, by: str) -> int:
    """VMAs that a walk of a KSM page looks at for its first item."""
    assert folio.stable_node is not None
    return len(kernel.ksm_vmas(folio.stable_node.items[0], by))


def ksm_walk() -> Claim:
    kernel, folio = ksm_machine(22_167, children=2)
    before, after = (looked_at(kernel, folio, by) for by in ("whole", "offset"))
    return Claim(
        "a KSM walk meets 22,169 VMAs; 3 when it searches by page offset",
        "xu xin, v1 of January 2026, an embedded system",
        f"{before:,} and {after:,}, on one mapping in 22,167 VMAs and two children that inherit the page's VMA",
        "reproduced" if (before, after) == (22_169, 3) else "not reproduced",
    )


def ksm_splits() -> Claim:
    kernel, folio = ksm_machine(20_000)
    before, after = (looked_at(kernel, folio, by) for by in ("whole", "offset"))
    found = [len([visit for visit in kernel.rmap_walk_ksm(folio, by=by) if visit.maps]) for by in ("whole", "offset")]
    return Claim(
        "20,000 VMAs on one anon_vma without any fork, by mprotect of every other page: a small constant after",
        "xu xin's benchmark of May 2026",
        f"{before:,} VMAs met and {after:,}; both find the page ({found[0]} and {found[1]} place)",
        "reproduced" if before == 20_000 and after == 1 and found == [1, 1] else "not reproduced",
    )


def ksm_by_address() -> Claim:
    kernel = find("v7.0")()
    process = kernel.spawn("P0")
    area = process.mmap(1)
    process.write(area)
    moved = process.mremap(area, at=area.start + 64 * PAGE_SIZE)
    process.madvise(moved, "mergeable")
    process.ksm_merge(moved, "x")
    folio = page_at(process, moved.start)
    found = {by: sum(visit.maps for visit in kernel.rmap_walk_ksm(folio, by=by)) for by in ("offset", "address")}
    return Claim(
        "the first versions searched by address >> 12, which is wrong after mremap",
        "review of v3 (H. Dickins and others, April and May 2026)",
        f"mmap, write, mremap, then ksmd: by offset a walk finds {found['offset']}, by address {found['address']}",
        "reproduced" if found == {"offset": 1, "address": 0} else "not reproduced",
    )


# --- deferred creation ---------------------------------------------------------------------


def deferred(results: Results) -> Claim:
    told, anon_vmas, avcs = [], [], []
    for workload in ("zygote", "postgres", "prefork", "browser"):
        eager, lazy = (results[workload][series]["peak"] for series in ("v7.0", "lazy"))
        anon_vmas.append(change(eager["anon_vma"], lazy["anon_vma"]))
        avcs.append(change(eager["anon_vma_chain"], lazy["anon_vma_chain"]))
        told.append(f"{workload} {avcs[-1]:+.0f} % and {anon_vmas[-1]:+.0f} %")
    return Claim(
        "deferred creation saves 50 to 57 % of the AVCs and 92 to 97 % of the anon_vmas",
        "ANON_VMA_LAZY, cover of May 2026: a phone after boot, and with 24 apps open",
        f"`lazy` against v7.0 at the peak, AVCs and anon_vmas: {', '.join(told)}",
        "reproduced where processes are forked from one and do not exec (zygote, generated; PostgreSQL, recorded); "
        "less where programs are loaded, whose VMAs mprotect has split",
    )


def change(before: float, after: float) -> float:
    """Per cent."""
    return 100 * (after - before) / before if before else 0.0


# --- growth ----------------------------------------------------------------------------------


def growth() -> Claim:
    lengths = {}
    for series in ("v2.6.34", "v3.19", "v7.0", "cow_context"):
        result = replay([Synthetic("daemon", {"generations": 200})], find(series), reclaim="none")
        lengths[series] = max(result.chain_length)
        contexts = result.peak.anon_vma
    grew = lengths["v2.6.34"] == 201
    return Claim(
        "a daemon that forks and lets the parent exit adds an AVC to each VMA and an anon_vma with every generation; "
        "bounded since anon_vmas are reused",
        "7a3ef208e662 (v3.19); reported by D. Forrest in 2012",
        f"200 generations: longest chain {lengths['v2.6.34']} on v2.6.34, {lengths['v3.19']} on v3.19, "
        f"{lengths['v7.0']} on v7.0. `cow_context` grows again: {contexts} contexts, one a generation",
        "reproduced" if grew and max(lengths["v3.19"], lengths["v7.0"]) < 5 else "not reproduced",
    )


def twice_the_vmas() -> Claim:
    history, anon_vmas, vmas = shortest_excess("v7.0")
    tall = excess("v7.0", 50)
    return Claim(
        "there are at most twice as many anon_vmas as VMAs",
        "7a3ef208e662, in its reasoning: each anon_vma has a VMA or two descendants",
        f"broken by {len(history)} calls after the first page, {', '.join(history)}: {anon_vmas} anon_vmas, {vmas} "
        f"VMA; the same with 50 generations alive at once: {tall[0]} anon_vmas, {tall[1]} VMA. Only forks reuse: "
        "what exits leaves a chain as long as the family was deep "
        "([finding](findings/more-anon-vmas-than-twice.md))",
        "does not hold; it holds where each generation forks after the one before has gone",
    )


def excess(series: str, generations: int) -> tuple[int, int]:
    """Anon_vmas and VMAs when all of a row of generations but the last have exited."""
    kernel = find(series)()
    processes = [kernel.spawn("P0")]
    processes[0].write(processes[0].mmap(1))
    for generation in range(generations):
        processes.append(processes[-1].fork(f"P{generation + 1}"))
    for process in processes[:-1]:
        process.exit()
    return counts(kernel)


def counts(kernel: Kernel) -> tuple[int, int]:
    """Anon_vmas and VMAs."""
    return kernel.slab.anon_vma.in_use, sum(len(process.mm.vmas) for process in kernel.processes.values())


def shortest_excess(series: str, longest: int = 6) -> tuple[list[str], int, int]:
    """The first of the shortest histories of forks and exits after which anon_vmas are more than twice the VMAs."""
    for length in range(1, longest + 1):
        for history in product(*[("fork", "exit")] * length):
            for told, kernel in played(series, history):
                anon_vmas, vmas = counts(kernel)
                if vmas and anon_vmas > 2 * vmas:
                    return told, anon_vmas, vmas
    raise ValueError(f"no history of up to {longest} calls")


def played(series: str, kinds: Sequence[str]) -> list[tuple[list[str], Kernel]]:
    """Every way to choose the processes that make these calls, one process with one page to begin with."""
    found = []
    for choice in product(range(len(kinds) + 1), repeat=len(kinds)):
        kernel = find(series)()
        first = kernel.spawn("P0")
        first.write(first.mmap(1))
        told = []
        for number, (kind, who) in enumerate(zip(kinds, choice, strict=True), 1):
            process = kernel.processes.get(f"P{who}")
            if process is None:
                break
            told.append(f"P{who} {kind}{f' P{number}' if kind == 'fork' else ''}")
            process.fork(f"P{number}") if kind == "fork" else process.exit()
        else:
            found.append((told, kernel))
    return found


def one_anon_vma(children: int = 1000, pages: int = 1000) -> Claim:
    told: dict[str, tuple[int, int]] = {}
    for series in ("v2.6.32", "v2.6.34"):
        kernel = find(series)()
        kernel.anon_orders = ()
        parent = kernel.spawn("P0")
        area = parent.mmap(pages)
        parent.write(area)
        for number in range(1, children):
            parent.fork(f"P{number}").write(area)
        parent.write(area)
        names: dict[object, int] = {}
        for process in kernel.processes.values():
            for _, entry in process.mm.page_table.range(area.start, area.end):
                mapping = entry.folio.mapping  # type: ignore[union-attr]
                names[mapping] = names.get(mapping, 0) + 1
        last = page_at(process, area.start)
        told[series] = max(names.values()), len(kernel.rmap_walk_anon(last))
    (pages_before, walk_before), (pages_after, walk_after) = told["v2.6.32"], told["v2.6.34"]
    return Claim(
        "1,000 processes of 1,000 pages each: 10^6 pages on one anon_vma, each mapped once; a walk meets 1,000 VMAs",
        "5beb49305251 (v2.6.34), R. van Riel, on AIM7",
        f"v2.6.32: {pages_before:,} pages name one anon_vma, a walk meets {walk_before:,}; "
        f"v2.6.34: {pages_after:,}, and a child's page is found with {walk_after}",
        "reproduced" if (pages_before, walk_before, walk_after) == (10**6, 1000, 1) else "not reproduced",
    )


# --- the series of January 2026 ------------------------------------------------------------------


def recorded(results: Results, figure: Callable[[dict[str, Any]], int], *series: str) -> list[tuple[str, list[int]]]:
    """A figure of every workload on some series, where it is not nought for all."""
    rows = [(workload, [figure(found[name]) for name in series]) for workload, found in results.items()]
    return [(workload, values) for workload, values in rows if any(values)]


def under_the_lock(results: Results) -> Claim:
    rows = recorded(results, lambda result: result["lock"]["allocations_under_lock"], "v6.18", "v7.0")
    taken = recorded(results, lambda result: result["lock"]["acquisitions"], "v6.18", "v7.0")
    return Claim(
        "patch 8 allocates with no anon_vma lock held (no figure was published)",
        "bfc2b13b05a1, v7.0",
        "allocations under the lock: "
        + "; ".join(f"{workload} {before:,} before, {after:,} after" for workload, (before, after) in rows)
        + f"; nought before and after on the other {len(results) - len(rows)}. The lock is taken as often: "
        + ("on all" if all(before == after for _, (before, after) in taken) else "not on all"),
        "as said" if not any(after for _, (_, after) in rows) else "not as said",
    )


def reused(results: Results) -> Claim:
    rows = recorded(results, lambda result: result["reuses"], "v6.18", "v7.0")
    peaks = {
        name: [found[series]["peak"]["anon_vma"] for series in ("v6.18", "v7.0")] for name, found in results.items()
    }
    return Claim(
        "patch 8 turns the order round in which a fork looks for an anon_vma to reuse (not said in the mail)",
        "bfc2b13b05a1; see [order-of-reuse](findings/order-of-reuse.md)",
        "reuses, and anon_vmas at the peak: "
        + "; ".join(
            f"{workload} {before:,} then {after:,}, {peaks[workload][0]} then {peaks[workload][1]}"
            for workload, (before, after) in rows
        ),
        "which one is reused differs, how many hardly",
    )
