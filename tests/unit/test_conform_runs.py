# SPDX-License-Identifier: GPL-2.0-only
"""Programs on the model and on a guest that is a model too: what agrees, what is found, what is told of it."""

import os
import signal
from functools import partial

import pytest
from conform_guests import FAMILY, HUGE, TwinGuest

from rmaplab.errors import InputError
from rmaplab.realkernel.conform.campaign import Campaign, conform
from rmaplab.realkernel.conform.compare import MASKED
from rmaplab.realkernel.conform.failing import failing_programs
from rmaplab.realkernel.conform.given import program_of
from rmaplab.realkernel.conform.programs import CALLS, PROCESSES, draw
from rmaplab.realkernel.conform.run import Pair, shrink
from rmaplab.realkernel.guest.wire import GuestDiedError, GuestError, GuestHangsError
from rmaplab.scenario import Fail, Fork, parse
from rmaplab.series import find
from rmaplab.series.mremap_rules import DontunmapAlone, DontunmapApart

MOVED_AND_WIPED = (
    "P0 mmap A 4 at=0x10000000\nP0 write A\nP0 mremap A[0..1] B at=0x11000000\n"
    "P0 madvise B wipeonfork\nP0 fork P1\nP1 munmap B[0]\nP1 mmap C 1 at=0x12000000\n"
)


def program(text):
    return program_of(parse(text))


def campaign(series, guest=None, *, failing=False):
    return Campaign(series, partial(TwinGuest, guest or series), HUGE, failing)


def told(result):
    return "\n\n".join(found.scenario() + "\n".join(found.what) for found in result.mismatches)


class Dies(TwinGuest):
    """Is gone, so many times, when it is told something."""

    def __init__(self, series, word, error=GuestDiedError, times=1000, says="BUG: sleeping"):
        super().__init__(series)
        self.word, self.error, self.times, self.says = word, error, times, says

    def obey(self, line):
        if self.word in line and self.times and self.kernel.slab.anon_vma.live:
            self.times -= 1
            raise self.error(f"7.3.0-twin died at `{line}`; its console said: {self.says}")
        return super().obey(line)


# --- agreement -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("series", ["v6.1", "v6.12.112", "v6.18", "v7.0", "v7.3"])
def test_a_guest_that_follows_the_series_agrees(series):
    result = conform(campaign(series, failing=True), range(40))
    assert result.mismatches == [], told(result)
    assert (result.programs, result.incomplete, result.deaths, result.interrupted) == (40, 0, [], False)
    assert result.series == series
    assert result.failures > 5
    assert result.snapshots > 500
    assert {call.split()[0] for call in result.calls} >= {"mmap", "write", "fork", "exit", "mremap", "madvise", "brk"}


@pytest.mark.parametrize("series", ["v6.12.112", "v7.3"])
def test_failing_allocations_agree(series):
    pair = Pair(find(series), TwinGuest(series))
    programs = list(failing_programs(find(series)))
    for case, fail, calls in programs[::4]:
        found = pair.run(calls)
        assert found is None, f"{case.what}, {case.chain}, {fail}: {found.what}"
    assert pair.tally.failures == len(programs[::4])


def test_what_is_masked_is_counted():
    text = "P0 mmap A 1 file=f\nP0 mmap B 2 at=0x10000000 file=g\nP0 write B\nP0 mremap B C\nP0 mremap A A pages=1\n"
    result = conform(campaign("v7.0"), [program(text)])
    assert result.mismatches == [], told(result)
    assert set(result.masked) == set(MASKED)
    assert result.masked["slab"] == result.snapshots == 5
    assert result.masked["file"] == 1 + 4 * 2
    assert result.masked["placement"] == 2  # A, and where B went


def test_what_a_stable_release_took_over_is_tried_out():
    """What DONTUNMAP leaves, of v7.2 and also of 6.1.192, and how that one merges."""

    class Backport(DontunmapApart, find("v6.18")):
        pass

    class Alone(DontunmapAlone, find("v6.1")):
        pass

    for series, kernel in (("v6.18", Backport), ("v6.1", Alone)):
        guest = TwinGuest(series)
        guest.series = kernel
        guest.restart()
        pair = Pair(find(series), guest)
        assert issubclass(pair.series, DontunmapApart)
        assert issubclass(pair.series, DontunmapAlone) == (series == "v6.1")
        for place in ("0x10002000", "0x11000000"):
            found = pair.run(program(f"P0 mmap A 4 at=0x10000000\nP0 mremap A[1] B at={place} dontunmap\n"))
            assert found is None, found.what
    assert Pair(find("v7.0"), TwinGuest("v7.0")).series is find("v7.0")


# --- differences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "kernel"), [("v7.0", "v6.18"), ("v6.18", "v7.0"), ("v7.3", "v7.0")])
def test_another_logic_is_found_out_and_the_program_shortened(model, kernel):
    result = conform(campaign(model, kernel), range(20))
    assert result.mismatches
    for found in result.mismatches[:3]:
        assert len(found.program) <= 6
        assert found.seed in range(20)
        assert found.model != found.kernel
        again = conform(campaign(model, kernel), [found.program])
        assert again.mismatches[0].what == found.what


def test_shrinking_keeps_a_program_that_parts_the_two():
    pair = Pair(find("v7.0"), TwinGuest("v6.18"))
    found = next(
        found for seed in range(20) if (found := pair.run(tuple(draw(pair.series, seed, without=HUGE)), seed))
    )
    shortest = shrink(found, pair.run)
    assert (shortest.seed, len(shortest.program)) <= (found.seed, len(found.program))
    for left_out in range(len(shortest.program)):
        fewer = shortest.program[:left_out] + shortest.program[left_out + 1 :]
        assert pair.run(fewer) is None


def test_another_errno_is_a_difference():
    class Refuses(TwinGuest):
        def obey(self, line):
            return "err 12" if " fork " in line else super().obey(line)

    found = Pair(find("v7.0"), Refuses("v7.0")).run(program(FAMILY))
    assert found.what == ("P0 fork P1: model ok, kernel ENOMEM",)
    assert isinstance(found.program[-1], Fork)


def test_an_allocation_that_the_kernel_does_not_make_is_a_difference():
    class Thrifty(TwinGuest):
        def disarm(self):
            return 1

    found = Pair(find("v7.0"), Thrifty("v7.0")).run(program("P0 mmap A 1\nfail 1\nP0 write A[0]\n"))
    assert found.what == ("P0 write A[0]: the kernel makes 1 allocations less than the model",)
    assert any(isinstance(statement, Fail) for statement in found.program)


def test_what_cannot_be_read_is_no_agreement():
    class Holes(TwinGuest):
        def target(self):
            target = super().target()
            if len(self.slots) > 1:
                for number in list(target.memory.pages)[len(target.memory.pages) // 2 :]:
                    del target.memory.pages[number]
            return target

    pair = Pair(find("v7.0"), Holes("v7.0"))
    found = pair.run(program(FAMILY))
    assert found.what
    assert pair.tally.incomplete == 1


# --- guests that are gone ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [GuestDiedError, GuestHangsError])
def test_a_guest_that_dies_is_started_again_and_its_program_reported(error):
    guest = Dies("v7.0", "fork", error)
    pair = Pair(find("v7.0"), guest)
    found = pair.run(program(FAMILY), 7)
    assert found.seed == 7
    assert found.what[0].startswith("the guest is gone: 7.3.0-twin died at `0 fork 1`")
    assert found.scenario() == "P0 mmap A 2 at=0x10000000\nP0 write A[0..1]\nP0 fork P1\n"
    assert (guest.restarts, len(pair.tally.deaths)) == (1, 1)
    assert pair.run(program("P0 mmap A 1\nP0 write A\n")) is None


def test_a_death_that_does_not_come_again_is_kept():
    result = conform(Campaign("v7.0", lambda: Dies("v7.0", "fork", times=1)), [program(FAMILY)])
    (found,) = result.mismatches
    assert found.what[0] == "not seen again:"
    assert len(result.deaths) == 1


def test_an_assertion_that_the_model_foresees_is_agreement():
    """MADV_WIPEONFORK on a moved VMA: the child's is unfaulted, at an offset that v7.3 takes for wrong."""
    text = MOVED_AND_WIPED
    pair = Pair(find("v7.3"), Dies("v7.3", "munmap 0x11000000", says="Kernel panic: panic_on_warn set"))
    assert pair.run(program(text)) is None
    assert (pair.tally.asserted, pair.tally.deaths, pair.guest.guest.restarts) == (1, [], 1)
    assert Pair(find("v7.3"), TwinGuest("v7.3")).run(program(text)) is None  # a kernel without assertions goes on
    other = Pair(find("v7.3"), Dies("v7.3", "munmap 0x11000000", says="BUG: bad rss-counter"))
    assert other.run(program(text)).what[0].startswith("the guest is gone")
    unforeseen = Pair(find("v7.3"), Dies("v7.3", "fork", says="Kernel panic: panic_on_warn set"))
    assert unforeseen.run(program(text)).what[0].startswith("the guest is gone")


def test_a_guest_that_cannot_begin_is_an_error():
    class Full(TwinGuest):
        def obey(self, line):
            return "err 11" if line.startswith("0 heap") and self.started > 1 else super().obey(line)

    with pytest.raises(OSError, match="the guest cannot begin: EAGAIN"):
        Pair(find("v7.0"), Full("v7.0"))


# --- several workers -----------------------------------------------------------------------------------------


def test_workers_do_together_what_one_does_alone():
    alone = conform(campaign("v7.0", failing=True), range(45))
    seen = []
    together = conform(
        campaign("v7.0", failing=True), range(45), workers=2, progress=lambda so: seen.append(so.programs)
    )
    for one in (alone, together):
        assert one.mismatches == []
    assert together.calls == alone.calls
    assert together.masked == alone.masked
    assert (together.programs, together.snapshots) == (alone.programs, alone.snapshots)
    assert seen == sorted(seen)
    assert seen[-1] == 45


def test_enough_is_enough():
    for workers in (1, 2):
        result = conform(campaign("v7.0"), range(10_000), workers=workers, enough=lambda: True)
        assert 10 <= result.programs <= 60


def test_a_guest_that_does_not_open_is_an_error():
    def opener():
        raise GuestError("no such kernel")

    for workers in (1, 2):
        with pytest.raises(GuestError, match="no such kernel"):
            conform(Campaign("v7.0", opener), range(5), workers=workers)


def test_a_worker_that_is_killed_is_an_error():
    class Kills(TwinGuest):
        def obey(self, line):
            if " fork " in line:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().obey(line)

    with pytest.raises(GuestError, match="--jobs"):
        conform(Campaign("v7.0", lambda: Kills("v7.0")), range(40), workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_keeps_what_was_done(workers):
    def interrupt(so_far):
        if so_far.programs >= 20:
            raise KeyboardInterrupt

    try:
        result = conform(campaign("v7.0"), range(10_000), workers=workers, progress=interrupt)
    except KeyboardInterrupt:
        pytest.fail("what was done is lost")
    assert result.interrupted
    assert 20 <= result.programs <= 100


# --- programs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_programs_keep_to_their_bounds_and_depend_on_the_seed_alone(seed):
    drawn = draw(find("v7.0"), seed, failing=True)
    assert drawn == draw(find("v7.0"), seed, failing=True)
    calls = [statement for statement in drawn if not isinstance(statement, Fail)]
    assert CALLS // 4 <= len(calls) <= CALLS
    names = {"P0"}
    for call in calls:
        names |= {call.child} if isinstance(call, Fork) else set()
    assert len(names) <= 40
    assert PROCESSES == 8


def test_given_programs_are_shifted_to_where_there_is_room():
    calls = program(
        "P0 mmap A 1 at=0x7f0000000000\nP0 mmap B 2 at=0x7f0000400000\nP0 write A\nsnapshot x\nexpect anon_vmas 1\n"
    )
    assert [getattr(call, "at", None) for call in calls] == [0x1000_0000, 0x1040_0000, None]
    assert program("P0 mmap A 1 at=0x10001000\n")[0].at == 0x1000_1000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "P0 mmap A 1\nP0 write A\nP0 swapout A[0]\n",
            ":3: `P0 swapout A.0.`: a real kernel does that when it likes",
        ),
        ("".join(f"P0 mmap A{n} 1 file=f{n}\n" for n in range(9)), "a guest has 8 files; map fewer"),
        ("P0 mmap A 1 at=0x10000000\nP0 mmap B 1 at=0x7f0000000000\n", "its areas are more than 256 MiB apart"),
    ],
)
def test_what_cannot_be_performed_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        program(text)
