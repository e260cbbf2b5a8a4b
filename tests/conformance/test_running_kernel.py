# SPDX-License-Identifier: GPL-2.0-only
"""The model against the kernel that runs these tests.

Random programs are performed on both.  After each call every process must
have the same VMAs with the same flags, and the same pages must be anonymous
and shared.  No privileges are needed: which VMAs merge shows what the reverse
map is like, for that is what the kernel decides it by.  The number of anon_vma
objects, which tells more, is compared where root may read it.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import statistics
from typing import TYPE_CHECKING

import counters
import pytest
from programs import FAMILY, MOVES, PLAIN, Call, Difference, Mix, Model, generate, run, shrink
from running import RunningKernel, release, series_of_release, unusable

from rmaplab.kernel.flags import VM_ACCOUNT
from rmaplab.kernel.rmap import Operation
from rmaplab.kernel.vma import CopiedVma
from rmaplab.scenario import parse
from rmaplab.series import SERIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rmaplab.kernel import Kernel
    from rmaplab.kernel.mremap import VmaRemap
    from rmaplab.kernel.objects import AnonVma, Pte, Vma

REASON = unusable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

PROGRAMS = int(os.environ.get("RMAPLAB_CONFORMANCE_PROGRAMS", "300"))  # of each mix; more find more
HERE = SERIES[series_of_release(release())]
FILES = dataclasses.replace(PLAIN, name="files", file_share=0.5, shared_share=0.3)
MOVED_FILES = dataclasses.replace(MOVES, name="moved files", file_share=0.5, shared_share=0.3)
SCRIPTS = 4
MARGIN = 0.1


@pytest.fixture(scope="module")
def kernel() -> Iterator[RunningKernel]:
    with RunningKernel() as running:
        yield running


def first_difference(
    kernel: RunningKernel, series: type[Kernel], mix: Mix, seeds: Iterable[int]
) -> tuple[int, Difference] | None:
    """The first seed whose program parts the two, and its program, shortened."""

    def again(program: Iterable[Call]) -> Difference | None:
        return run(program, Model(series), kernel.start())[1]

    for seed in seeds:
        found = again(generate(mix, seed))
        if found is not None:
            return seed, shrink(found, again)
    return None


SINCE_6_17 = pytest.mark.skipif(release() < (6, 17), reason="until 6.17 a move stays within one VMA")
MIXES = [PLAIN, FAMILY, FILES, pytest.param(MOVES, marks=SINCE_6_17), pytest.param(MOVED_FILES, marks=SINCE_6_17)]


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: mix.name)
def test_the_model_does_what_the_kernel_does(kernel: RunningKernel, mix: Mix) -> None:
    found = first_difference(kernel, HERE, mix, range(PROGRAMS))
    if found is not None:
        seed, difference = found
        pytest.fail(
            f"{HERE.name} is not this kernel: {mix.name} program {seed}, shortened:\n{difference}", pytrace=False
        )


# --- wrong models are found ------------------------------------------------------------------


class NobodySharesAnonVmas(HERE):
    """The first fault of a VMA does not ask its neighbours."""

    def find_mergeable_anon_vma(self, vma: Vma) -> AnonVma | None:
        return None


class ForkChildrenShareAnonVmas(HERE):
    """A neighbour's anon_vma is shared though the neighbour has others, inherited."""

    def reusable_anon_vma(self, old: Vma, lower: Vma, upper: Vma) -> AnonVma | None:
        return old.anon_vma if self.anon_vma_compatible(lower, upper) else None


class PreviousFirst(HERE):
    """Of two neighbours, the one below lends its anon_vma."""

    def find_mergeable_anon_vma(self, vma: Vma) -> AnonVma | None:
        prev, following = vma.vm_mm.neighbours(vma.vm_start, vma.vm_end)
        lent = None if prev is None else self.reusable_anon_vma(prev, prev, vma)
        if lent is None and following is not None:
            lent = self.reusable_anon_vma(following, vma, following)
        return lent


class AccountIsForEver(HERE):
    """mprotect never takes VM_ACCOUNT away."""

    def vma_modify_flags(self, vma: Vma, start: int, end: int, flags: int) -> Vma | int:
        return super().vma_modify_flags(vma, start, end, flags | vma.vm_flags & VM_ACCOUNT)


class ReadsTakeAnonVmas(HERE):
    """A read fault prepares the VMA, too."""

    def handle_pte_fault(self, vma: Vma, address: int, write: bool, *, unshare: bool = False) -> int:
        return self.anon_vma_prepare(vma) or super().handle_pte_fault(vma, address, write, unshare=unshare)


class CopiedPagesStayMapped(HERE):
    """Copy on write forgets that the writer maps the old page no more."""

    def do_wp_page(self, vma: Vma, address: int, pte: Pte, *, unshare: bool = False) -> int:
        mapcount = pte.folio.mapcount
        rc = super().do_wp_page(vma, address, pte, unshare=unshare)
        pte.folio.mapcount = mapcount
        return rc


class LeftBehindVmasStayFaulted(HERE):
    """A VMA whose pages have all been moved away keeps its anon_vma."""

    def dontunmap_complete(self, vrm: VmaRemap, vma: Vma, new: Vma) -> None:
        """Nothing is done."""


class UnfaultedVmasKeepTheirOffset(HERE):
    """A VMA without pages does not take the page offset of the place it is moved to."""

    def copy_vma(self, vma: Vma, start: int, end: int, pgoff: int, keep_source: bool) -> CopiedVma | None:
        new = self.vm_area_dup(vma)
        assert new is not None
        self.vma_set_range(new, start, end, pgoff)
        self.anon_vma_clone(new, vma, Operation.REMAP)
        self.vma_link(new)
        return CopiedVma(new, vma, False)


class InheritedVmasDoNotGrow(HERE):
    """A VMA inherited by fork does not grow in place."""

    def vma_merge_extend(self, vma: Vma, delta: int) -> Vma | None:
        return None if self.vma_is_fork_child(vma) else super().vma_merge_extend(vma, delta)


WRONG = [
    *((wrong, MOVES) for wrong in (LeftBehindVmasStayFaulted, UnfaultedVmasKeepTheirOffset, InheritedVmasDoNotGrow)),
    (SERIES["v6.12" if HERE.name != "v6.12" else "v6.18"], PLAIN),
    (NobodySharesAnonVmas, PLAIN),
    (ForkChildrenShareAnonVmas, FAMILY),
    (PreviousFirst, FAMILY),
    (AccountIsForEver, PLAIN),
    (ReadsTakeAnonVmas, PLAIN),
    (CopiedPagesStayMapped, FAMILY),
]


@pytest.mark.parametrize(("series", "mix"), WRONG, ids=lambda value: getattr(value, "__name__", value.name))
def test_a_wrong_model_is_told_from_the_kernel(kernel: RunningKernel, series: type[Kernel], mix: Mix) -> None:
    found = first_difference(kernel, series, mix, range(PROGRAMS))
    assert found is not None
    difference = found[1]
    assert len(difference.program) <= 12
    assert len(parse(str(difference)).statements) == len(difference.program) + 2


# --- objects ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counted() -> Iterator[RunningKernel]:
    """Puppets on one CPU, whose slabs are then all that blurs the count."""
    reason = counters.uncountable()
    if reason is not None:
        pytest.skip(reason)
    noise = counters.noise()
    if noise > MARGIN * counters.vmas_needed() / 2:
        pytest.skip(f"the number of anon_vma objects wanders by {noise}: something else is busy")
    with RunningKernel(processes=10, cpu=min(os.sched_getaffinity(0))) as running:
        yield running


@pytest.mark.parametrize("script", [counters.ROWS, counters.DAEMON], ids=["rows", "daemon"])
def test_as_many_anon_vmas_as_the_kernel_has(counted: RunningKernel, script: tuple[str, ...]) -> None:
    runs = [counters.count_in_kernel(counted, script, counters.vmas_needed()) for _ in range(3)]
    measured = [statistics.median(counts) for counts in zip(*runs, strict=True)]
    expected = counters.count_in_model(HERE, script)
    assert agree(expected, measured, MARGIN), counters.table(script, expected, measured)


def agree(expected: list[float], measured: list[float], margin: float) -> bool:
    """Whether counts per VMA are equal but for the margin, relative above 1."""
    return all(abs(ours - got) <= margin * max(ours, 1) for ours, got in zip(expected, measured, strict=True))


def test_the_kernel_reuses_the_anon_vmas_that_the_model_does(counted: RunningKernel) -> None:
    """Scripts after which the order of chains before and since v7.0 leaves different counts."""
    old, new = SERIES["v6.18"], SERIES["v7.0"]
    telling = (
        script
        for script in map(counters.random_script, itertools.count())
        if counters.count_in_model(old, script, 1) != counters.count_in_model(new, script, 1)
    )
    for script in itertools.islice(telling, SCRIPTS):
        expected = counters.count_in_model(HERE, script)
        for _ in range(3):  # another process may disturb a count, but not make a wrong one right
            measured = counters.count_in_kernel(counted, script, 2 * counters.vmas_needed())
            if all(abs(ours - got) < 0.5 for ours, got in zip(expected, measured, strict=True)):
                break
        else:
            pytest.fail(counters.table(script, expected, measured), pytrace=False)


# --- differences that were bugs of the model -----------------------------------------------


def test_two_shared_anonymous_areas_never_merge(kernel: RunningKernel) -> None:
    program = [Call("P0", "mmap", 0, 6, "rw", shared=True), Call("P0", "mmap", 0, 5, "rw", shared=True)]
    difference = run(program, Model(HERE), kernel.start())[1]
    assert difference is None, str(difference)
