# SPDX-License-Identifier: GPL-2.0-only
"""What came out of holding the model against a kernel: text, with both graphs side by side, and JSON."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from rmaplab.realkernel.conform.compare import MASKED
from rmaplab.report.drawing import draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.realkernel.conform.run import Conformance, Mismatch

__all__ = ["conformance_document", "conformance_text"]

_WIDTH = 76  # of each side
_MOST = 5  # mismatches told in full


def conformance_text(result: Conformance, seconds: float) -> str:
    """The verdict, what was done, and each mismatch with its shortest program."""
    return "\n".join(_lines(result, seconds)) + "\n"


def _lines(result: Conformance, seconds: float) -> Iterator[str]:
    count = len(result.mismatches)
    yield f"Linux {result.kernel} and {result.series}: {f'{count:,}' if count else 'no'} mismatch{'es' * (count > 1)}"
    yield ""
    rate = f", {result.programs / seconds:,.0f} programs/s" if seconds > 0 else ""
    yield f"  {result.programs:,} programs, {sum(result.calls.values()):,} calls, {result.failures:,} with an"
    yield f"  allocation failing, {result.snapshots:,} graphs compared{rate}"
    if result.skipped:
        yield f"  {result.skipped:,} calls left out: what they were about was not there any longer"
    if result.incomplete:
        yield f"  {result.incomplete:,} snapshots could not be read completely"
    if result.asserted:
        yield f"  {result.asserted:,} programs ended as the model says: with an assertion of the kernel"
    for death in result.deaths:
        yield f"  the guest was started again: {death}"
    if result.interrupted:
        yield "  interrupted: these are the programs that were finished"
    yield ""
    yield "Calls by outcome"
    yield from (f"  {number:>9,}  {call}" for call, number in sorted(result.calls.items()))
    yield ""
    yield "Not compared, or not as it is"
    yield from (f"  {result.masked[what]:>9,}  {what}: {why}" for what, why in MASKED.items())
    for mismatch in result.mismatches[:_MOST]:
        yield from _mismatch(mismatch)
    if count > _MOST:
        yield f"\n{count - _MOST:,} more mismatches are in the JSON document"


def _mismatch(mismatch: Mismatch) -> Iterator[str]:
    yield ""
    yield "Mismatch" if mismatch.seed is None else f"Mismatch, program {mismatch.seed}"
    yield from (f"  | {line}" for line in mismatch.scenario().splitlines())
    yield from (f"  {line}" for line in mismatch.what)
    if mismatch.model is not None and mismatch.kernel is not None:
        yield ""
        yield f"  {'model':<{_WIDTH}}  kernel"
        for ours, theirs in zip_longest(draw(mismatch.model), draw(mismatch.kernel), fillvalue=""):
            mark = " " if ours == theirs else "|"
            yield f"  {ours:<{_WIDTH}}{mark} {theirs}".rstrip()


def conformance_document(result: Conformance, seconds: float) -> dict[str, Any]:
    """The same for programs; ``seconds`` is how long it took."""
    return {
        "series": result.series,
        "kernel": result.kernel,
        "programs": result.programs,
        "snapshots": result.snapshots,
        "seconds": round(seconds, 3),
        "calls": dict(sorted(result.calls.items())),
        "failures": result.failures,
        "skipped": result.skipped,
        "incomplete": result.incomplete,
        "asserted": result.asserted,
        "interrupted": result.interrupted,
        "deaths": result.deaths,
        "masked": {what: {"reason": why, "count": result.masked[what]} for what, why in MASKED.items()},
        "mismatches": [
            {
                "seed": mismatch.seed,
                "scenario": mismatch.scenario(),
                "what": list(mismatch.what),
                "model": None if mismatch.model is None else mismatch.model.as_dict(),
                "kernel": None if mismatch.kernel is None else mismatch.kernel.as_dict(),
            }
            for mismatch in result.mismatches
        ],
    }
