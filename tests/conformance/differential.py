# SPDX-License-Identifier: GPL-2.0-only
"""Search for a program that parts a model from the running kernel."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from model import Model
from programs import Difference, Mix, generate, run, shrink
from running import release, series_here

if TYPE_CHECKING:
    from collections.abc import Iterable

    from calls import Call
    from running import RunningKernel

    from rmaplab.kernel import Kernel

__all__ = ["HERE", "PROGRAMS", "first_difference", "impossible", "performable"]

PROGRAMS = int(os.environ.get("RMAPLAB_CONFORMANCE_PROGRAMS", "40"))
"""How many programs of each mix are tried; more find more."""

HERE = series_here()
"""The model of the running kernel."""

_HUGE = ("hugepage", "nohugepage")
_KSM = ("mergeable", "unmergeable")


def _without() -> tuple[str, ...]:
    """Advice that this kernel was built without, or that ksmd would act upon in the middle of a program."""
    without: tuple[str, ...] = ()
    ksmd = Path("/sys/kernel/mm/ksm/run")
    if not ksmd.exists() or ksmd.read_text().strip() != "0":
        without += _KSM
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        without += _HUGE
    return without


def impossible(kernel: RunningKernel, mix: Mix) -> str | None:
    """Why a mix cannot be tried, or None."""
    if "uffd_move" in mix.weights and not kernel.has_uffdio_move:
        return "UFFDIO_MOVE is younger than this kernel, or not allowed"
    if "pin" in mix.weights and not kernel.has_pins:
        return "io_uring, whose buffers are pinned, is not allowed"
    if "mremap" in mix.weights and release() < (6, 17):
        return "until 6.17 a move stays within one VMA"
    return None


def performable(kernel: RunningKernel, mix: Mix) -> Mix:
    """The mix without what cannot be compared here."""
    without = _without()
    advice = tuple(one for one in mix.advice if one not in without)
    weights = {verb: weight for verb, weight in mix.weights.items() if verb != "brk" or kernel.has_heap}
    return dataclasses.replace(mix, advice=advice, weights=weights)


def first_difference(
    kernel: RunningKernel, series: type[Kernel], mix: Mix, seeds: Iterable[int]
) -> tuple[int, Difference] | None:
    """The first seed whose program parts the two, and its program, shortened.

    Twice the same: the kernel may move or swap out a page for reasons of its own.
    """

    def again(program: Iterable[Call]) -> Difference | None:
        return run(program, Model(series), kernel.start())[1]

    reason = impossible(kernel, mix)
    if reason is not None:
        pytest.skip(reason)
    mix = performable(kernel, mix)
    for seed in seeds:
        found = again(generate(mix, seed))
        if found is not None and again(found.program) is not None:
            return seed, shrink(found, again)
    return None
