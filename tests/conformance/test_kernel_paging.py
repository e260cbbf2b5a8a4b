# SPDX-License-Identifier: GPL-2.0-only
"""Swap and KSM on the running kernel: which pages go, and who shares those that come back.

What a page that was swapped in names cannot be seen from outside, nor can
migration be asked for on a machine with one node of memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import machine
import pytest
from differential import HERE, PROGRAMS, first_difference
from programs import MERGED, SWAPPED
from running import RunningKernel, unusable

from rmaplab.kernel.objects import Folio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmaplab.kernel.objects import Vma

REASON = unusable() or machine.forbidden()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKernel]:
    """Puppets on one CPU, whose new pages the kernel finds at once, and somewhere to swap."""
    try:
        with machine.swap_space(tmp_path_factory.mktemp("swap")), one_cpu() as kernel:
            yield kernel
    except OSError as error:
        pytest.skip(f"no swap space: {error}")


@pytest.fixture(scope="module")
def merged() -> Iterator[RunningKernel]:
    """Puppets, and ksmd to hand."""
    try:
        with machine.ksmd() as ksmd, one_cpu() as kernel:
            kernel.ksmd = ksmd
            yield kernel
    except OSError as error:
        pytest.skip(f"no KSM: {error}")


def one_cpu() -> RunningKernel:
    return RunningKernel(cpu=min(os.sched_getaffinity(0)))


def test_swap(paged: RunningKernel) -> None:
    found = first_difference(paged, HERE, SWAPPED, range(PROGRAMS))
    assert found is None, f"program {found[0]}:\n{found[1]}"


def test_ksm(merged: RunningKernel) -> None:
    found = first_difference(merged, HERE, MERGED, range(PROGRAMS))
    assert found is None, f"program {found[0]}:\n{found[1]}"


# --- wrong models are found ------------------------------------------------------------------


class ForkForgetsSwapEntries(HERE):
    """A child starts without the pages that are in swap."""

    def copy_page_range(self, dst: Vma, src: Vma) -> int:
        rc = super().copy_page_range(dst, src)
        table = dst.vm_mm.page_table
        for address, entry in table.range(dst.vm_start, dst.vm_end):
            if not entry.present and hasattr(entry, "slot"):
                self.swap_free(entry.slot)
                table.clear(address)
        return rc


class EverySwapInIsAPage(HERE):
    """A page that comes back is one for each process."""

    def swapin_readahead(self, slot: object) -> Folio | None:
        return Folio(self.new_ident(Folio))

    def ksm_might_need_to_copy(self, folio: Folio, vma: Vma, address: int) -> Folio | None:
        return folio if folio.mapping is None or folio.mapcount == 0 else Folio(self.new_ident(Folio))


class MergedPagesMove(HERE):
    """mremap takes merged pages along."""

    def unmerge_ksm_pages(self, vma: Vma, start: int, end: int) -> int:
        return 0


def test_wrong_models_of_swap_are_found(paged: RunningKernel) -> None:
    for series in (ForkForgetsSwapEntries, EverySwapInIsAPage):
        assert first_difference(paged, series, SWAPPED, range(500)) is not None, series


def test_a_wrong_model_of_ksm_is_found(merged: RunningKernel) -> None:
    assert first_difference(merged, MergedPagesMove, MERGED, range(200)) is not None
