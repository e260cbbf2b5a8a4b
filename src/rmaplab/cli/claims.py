# SPDX-License-Identifier: GPL-2.0-only
"""The claims of the seed mail, each with what the experiment says about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmaplab.report.demo import Drawing, Verdict
from rmaplab.report.drawing import draw
from rmaplab.series import find

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.check.explore import Exploration
    from rmaplab.kernel import Kernel
    from rmaplab.report.demo import Demo
    from rmaplab.workload.result import ReplayResult

EGREGIOUS = 10  # per cent more allocations
ANON_VMA, ANON_VMA_CHAIN = 104, 64  # bytes in the slab

__all__ = ["fork_drawings", "surprises", "verdicts"]


def verdicts(demo: Demo) -> list[Verdict]:
    """A verdict on each claim, with the figures that decide it."""
    return list(_verdicts(demo))


def _verdicts(demo: Demo) -> Iterator[Verdict]:
    by_series = {result.series: result for result in demo.failing}
    old, asserted, patched = by_series["v6.18"], by_series["v6.18+1"], by_series["v6.18+2"]
    second, final = by_series["v6.18+v2"], by_series["v7.0"]

    half_built = old.failures["half-built"]
    yield Verdict(
        "a fork that runs out of memory hands a half-built VMA to unlink_anon_vmas()",
        _holds(half_built > 0 and not old.findings),
        f"v6.18: {half_built:,} of {old.failures['points']:,} failures did; none left a trace, "
        "because unlink there follows the list and ignores the pointer",
    )
    fired = _count(asserted, "AV-039")
    yield Verdict(
        "that is dangerous: logic that takes the VMA for a valid one goes wrong",
        _holds(fired > 0 and second.failures["dangling"] > 0),
        f"v6.18+1: its new assertion fired in {fired:,} of {asserted.failures['points']:,} failures; v6.18+v2, whose "
        f"unlink returns early: {second.failures['leaked']:,} AVCs leaked, {second.failures['dangling']:,} dangling",
    )
    clean = [result for result in (patched, final) if not result.findings and not result.failures["half-built"]]
    yield Verdict(
        "with the patch no half-built VMA gets there, and a failed fork leaves nothing behind",
        _holds(len(clean) == 2),
        f"v6.18+2: {patched.failures['points']:,} failures, v7.0: {final.failures['points']:,}; half-built "
        f"{patched.failures['half-built'] + final.failures['half-built']}, "
        f"violations {len(patched.findings) + len(final.findings)}",
    )
    before, after = demo.succeeding
    yield Verdict(
        "the success path is unchanged",
        _holds(before.digest == after.digest and all(_same_end(trace.results) for trace in demo.traces)),
        f"without failures {before.series} and {after.series} reach the same {after.states:,} states by "
        f"{after.transitions:,} transitions; every replayed trace ends alike",
    )
    yield from _prices(demo)


def surprises(demo: Demo) -> list[str]:
    """What the mail does not say."""
    points = {result.series: result.failures["points"] for result in demo.failing}
    extra = points["v6.18+2"] - points["v6.18+1"]
    return [
        f"Not in the mail: allocating ahead adds {extra:,} ways to fail within these bounds. A fork that would have "
        "reused an anon_vma can now run out of memory for one that it would have thrown away."
    ]


def _count(result: Exploration, ident: str) -> int:
    return result.findings[ident].count if ident in result.findings else 0


def _holds(condition: bool) -> str:
    return "holds" if condition else "fails"


def _same_end(results: list[ReplayResult]) -> bool:
    return all(result.final == results[0].final for result in results)


def _prices(demo: Demo) -> Iterator[Verdict]:
    """Time as allocations and locks, memory as bytes at the peak, trace by trace."""
    shares, figures, locks, peaks = [], [], True, []
    for trace in demo.traces:
        before, after = trace.results
        shares.append(100 * (after.allocations - before.allocations) / max(1, before.allocations))
        figures.append(
            f"{after.allocations:,} allocations instead of {before.allocations:,} ({shares[-1]:+.1f} %) "
            f"where fork reused {after.reuses:,} of {after.vma_forks:,} times"
        )
        locks &= before.lock_acquisitions == after.lock_acquisitions
        peaks.append((before.peak.bytes, after.peak.bytes))
    yield Verdict(
        "allocating ahead is not egregious in time",
        "fails" if not locks else "holds" if max(shares, default=0) <= EGREGIOUS else "in part",
        "; ".join(figures) + f"; no lock more. The line is drawn at {EGREGIOUS} %",
    )
    worst = max((after - before for before, after in peaks), default=0)
    yield Verdict(
        "nor in memory",
        _holds(worst <= ANON_VMA + ANON_VMA_CHAIN),
        "bytes at the peak: "
        + ", ".join(f"{after:,} instead of {before:,}" for before, after in peaks)
        + "; at most one anon_vma and one AVC more",
    )


def fork_drawings(series: str) -> list[Drawing]:
    """A fork that makes its own anon_vma and one that reuses an ancestor's, before and after."""
    kernel = find(series)()
    parent = kernel.spawn("P0")
    area = parent.mmap(1)
    parent.write(area, 0)
    drawings = [_drawing(kernel, "P0 has written to its page")]
    child = parent.fork("P1")
    drawings.append(_drawing(kernel, "P0 forks P1: P1 gets a link to av1 and an anon_vma of its own"))
    heir = child.fork("P2")
    child.exit()
    drawings.append(_drawing(kernel, "P1 forks P2 and exits: av2 has no VMA left, and one child"))
    heir.fork("P3")
    drawings.append(_drawing(kernel, "P2 forks P3: P3 reuses av2; two objects were allocated in vain"))
    return drawings


def _drawing(kernel: Kernel, title: str) -> Drawing:
    return Drawing(title, draw(kernel.snapshot(canonical=False)))
