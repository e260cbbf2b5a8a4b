# SPDX-License-Identifier: GPL-2.0-only
"""Guests: what their processes do when told, what becomes of kernels that die or hang, allocations that fail."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from importlib.util import find_spec

import pytest

from rmaplab.errors import InputError
from rmaplab.realkernel.conform.lowering import ARENA, ARENA_END, HEAP_AT
from rmaplab.realkernel.conform.run import Pair
from rmaplab.realkernel.guest import cache, wire
from rmaplab.realkernel.guest.qemu import EMULATOR
from rmaplab.realkernel.guest.wire import Answer, GuestDiedError, GuestError, GuestHangsError
from rmaplab.realkernel.guests import HOST, open_guest, series_of
from rmaplab.realkernel.reader import read_graph
from rmaplab.scenario import parse
from rmaplab.series import find as find_series

USER_MODE = ("um-6.12", "um-7.3")
DEBIAN = "deb-6.12"
PAGE = 4096
OK = Answer(True, 0)
RW, PRIVATE, SHARED = 3, 0x32, 0x31  # PROT_READ | PROT_WRITE; MAP_FIXED | MAP_ANONYMOUS and so on
SHARED_FILE = 0x11


def lacking(name):
    """Why a guest cannot be had."""
    if name == HOST:
        try:
            cache.init_program()
        except InputError as error:
            return str(error)
        return None
    kernel = cache.find(name)
    if kernel is None:
        return cache.missing(name)
    if kernel.kind == "qemu" and shutil.which(EMULATOR) is None:
        return f"{EMULATOR} is not installed"
    if kernel.kind == "um" and not kernel.facts.exists() and find_spec("drgn") is None:
        return "drgn is not installed, and nobody has learnt the kernel's types with it"
    return None


@pytest.fixture(scope="module")
def guests():
    """Guests by name, each booted once."""
    opened = {}

    def get(name):
        if name not in opened:
            reason = lacking(name)
            if reason is not None:
                pytest.skip(reason)
            opened[name] = open_guest(name)
        return opened[name]

    yield get
    for guest in opened.values():
        guest.close()


@pytest.fixture(params=[HOST, *USER_MODE, DEBIAN])
def guest(request, guests):
    """A guest with one process in slot 0."""
    guest = guests(request.param)
    assert guest.command("reset") == OK
    assert guest.command("spawn 0").ok
    return guest


@pytest.fixture(params=USER_MODE)
def um(request, guests):
    guest = guests(request.param)
    guest.command("reset")
    return guest


@pytest.fixture
def debian(guests):
    guest = guests(DEBIAN)
    guest.command("reset")
    return guest


def mappings(guest, slot):
    """Ranges of a slot's VMAs, and the rest of their lines."""
    text = guest.text(f"cat /proc/{guest.pids[slot]}/maps")
    found = [re.match(r"(\w+)-(\w+) (.*)", line) for line in text.split("|") if line]
    return [(int(line[1], 16), int(line[2], 16), line[3]) for line in found]


def in_arena(guest, slot):
    return [(start, end, rest[:4]) for start, end, rest in mappings(guest, slot) if ARENA <= start < ARENA_END]


def mmap(slot, at, pages, prot=RW, flags=PRIVATE, *words):
    return " ".join([f"{slot} mmap {at:#x} {pages * PAGE:#x} {prot} {flags}", *words])


def test_calls_do_what_they_are_called(guest):
    assert in_arena(guest, 0) == []
    lines = [
        mmap(0, ARENA, 8),
        f"0 munmap {ARENA + PAGE:#x} {PAGE:#x}",
        f"0 mprotect {ARENA + 2 * PAGE:#x} {PAGE:#x} 1",
        f"0 madvise {ARENA + 3 * PAGE:#x} {PAGE:#x} 10",
        mmap(0, ARENA + 32 * PAGE, 2),
        f"0 mlock {ARENA + 32 * PAGE:#x} {2 * PAGE:#x}",
        f"0 munlock {ARENA + 32 * PAGE:#x} {2 * PAGE:#x}",
    ]
    assert guest.batch(lines) == [OK] * len(lines)
    moved = guest.command(f"0 mremap {ARENA + 7 * PAGE:#x} {PAGE:#x} {2 * PAGE:#x} 3 {ARENA + 16 * PAGE:#x}")
    assert moved == Answer(True, ARENA + 16 * PAGE)
    pages = [((start - ARENA) // PAGE, (end - ARENA) // PAGE, rest) for start, end, rest in in_arena(guest, 0)]
    assert pages == [
        (0, 1, "rw-p"),
        (2, 3, "r--p"),
        (3, 4, "rw-p"),
        (4, 7, "rw-p"),
        (16, 18, "rw-p"),
        (32, 34, "rw-p"),
    ]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (f"0 munmap {ARENA + 1:#x} {PAGE:#x}", errno.EINVAL),
        (f"0 mprotect {ARENA:#x} {PAGE:#x} 1", errno.ENOMEM),
        (f"0 mremap {ARENA:#x} {PAGE:#x} {PAGE:#x} 0 0x0", errno.EFAULT),
        (f"0 madvise {ARENA:#x} {PAGE:#x} 9999", errno.EINVAL),
        ("5 read 0x0", errno.ESRCH),
        ("64 read 0x0", errno.ESRCH),
        ("x read 0x0", errno.ESRCH),
        ("0 jump 0x0", errno.ENOSYS),
        ("nonsense", errno.ENOSYS),
        ("0 fork 0", errno.EINVAL),
        ("0 fork 64", errno.EINVAL),
        ("0 fork", errno.EINVAL),
        ("sys /nowhere 1", errno.ENOENT),
    ],
)
def test_errors_are_told(guest, command, error):
    assert guest.command(command) == Answer(False, error)


def test_a_fault_is_an_answer_and_no_death(guest):
    read_only = mmap(0, ARENA + PAGE, 1, prot=1)
    none = mmap(0, ARENA + 2 * PAGE, 1, prot=0)
    assert guest.batch([read_only, none]) == [OK, OK]
    fault = Answer(False, errno.EFAULT)
    for page, read, write in ((0, fault, fault), (1, OK, fault), (2, fault, fault)):
        at = ARENA + page * PAGE
        assert guest.batch([f"0 read {at:#x}", f"0 write {at:#x}"]) == [read, write]
    assert guest.batch([mmap(0, ARENA, 1), f"0 write {ARENA:#x}"]) == [OK, OK]


def test_a_family_is_known_by_its_process_ids(guest):
    child = guest.command("0 fork 1")
    grandchild = guest.command("1 fork 63")
    assert guest.pids == {0: guest.pids[0], 1: child.value, 63: grandchild.value}
    assert len(set(guest.pids.values())) == 3
    pid = guest.pids[1]
    assert guest.text(f"cat /proc/{pid}/comm").strip("|")
    assert guest.command("1 exit") == OK
    assert guest.command(f"cat /proc/{pid}/maps") == Answer(False, errno.ENOENT)
    assert guest.command("63 read 0x0") == Answer(False, errno.EFAULT)
    gone = list(guest.pids.values())
    assert guest.command("reset") == OK
    assert [guest.command(f"cat /proc/{pid}/maps").ok for pid in gone] == [False, False]


def test_a_child_inherits_the_areas(guest):
    guest.batch([mmap(0, ARENA, 4), f"0 write {ARENA:#x}", mmap(0, ARENA + 8 * PAGE, 1, RW, SHARED), "0 fork 1"])
    assert in_arena(guest, 1) == in_arena(guest, 0) != []
    assert guest.command(f"1 munmap {ARENA:#x} {4 * PAGE:#x}") == OK
    assert len(in_arena(guest, 0)) == 2
    assert len(in_arena(guest, 1)) == 1


def test_one_file_is_shared_by_all_slots(guest):
    assert guest.command("spawn 1").ok
    lines = [mmap(slot, ARENA, 64, RW, SHARED_FILE, "file0") for slot in (0, 1)]
    lines += [f"{slot} write {ARENA + 63 * PAGE:#x}" for slot in (0, 1)]
    assert guest.batch(lines) == [OK] * 4
    files = [rest.split()[3] for slot in (0, 1) for start, _, rest in mappings(guest, slot) if start == ARENA]
    assert len(files) == 2
    assert len(set(files)) == 1
    assert guest.batch([mmap(0, ARENA, 65, RW, SHARED_FILE, "file0")]) == [OK]
    assert guest.batch([mmap(0, ARENA, 4, RW, SHARED_FILE, "file7")]) == [OK]
    (rest,) = [rest for start, _, rest in mappings(guest, 0) if start == ARENA]
    assert rest.split()[3] not in files
    (answer,) = guest.batch([mmap(0, ARENA, 4, RW, SHARED_FILE, "file8")])
    assert (answer.ok, answer.value) == (False, errno.EINVAL)
    assert guest.command(f"0 read {ARENA + 64 * PAGE:#x}") == Answer(False, errno.EFAULT)


def test_the_heap_begins_where_it_is_told(guest):
    assert guest.batch([f"0 heap {HEAP_AT:#x}", f"0 brk {HEAP_AT + 3 * PAGE:#x}"]) == [OK, OK]
    heap = [(start, end) for start, end, _ in in_arena(guest, 0)]
    assert heap == [(HEAP_AT, HEAP_AT + 3 * PAGE)]
    assert guest.command(f"0 brk {HEAP_AT + PAGE:#x}") == OK
    assert guest.command(f"0 brk {HEAP_AT - PAGE:#x}") == Answer(False, errno.ENOMEM)
    assert [end for _, end, _ in in_arena(guest, 0)] == [HEAP_AT + PAGE]


def test_a_process_leaves_its_own_areas_alone(guest):
    def own():
        return [one for one in mappings(guest, 0) if not ARENA <= one[0] < ARENA_END]

    guest.command(mmap(0, ARENA, 4))
    before = own()
    lines = [f"0 {what} {ARENA + page * PAGE:#x}" for page in range(6) for what in ("read", "write")]
    guest.batch([*lines, "0 fork 1", f"0 munmap {ARENA:#x} {PAGE:#x}", "0 read 0x0", "1 exit", "0 munmap 0x1 0x1"])
    assert own() == before


def test_a_process_that_dies_in_a_call_is_an_answer(guest):
    """It unmaps its own program."""
    assert all(answer.ok for answer in guest.batch(["reset", "reset", "spawn 0"]))
    (text,) = ((start, end) for start, end, rest in mappings(guest, 0) if " r-xp " in f" {rest}" and "init" in rest)
    answer = guest.command(f"0 munmap {text[0]:#x} {text[1] - text[0]:#x}")
    assert answer == Answer(False, errno.EIO)
    assert guest.command("0 read 0x0") == Answer(False, errno.ESRCH)
    assert guest.command("spawn 0").ok
    assert guest.command("0 read 0x0") == Answer(False, errno.EFAULT)


def test_many_commands_may_be_sent_at_once(guest):
    lines = [mmap(0, ARENA, 4)] + [f"0 write {ARENA + number % 5 * PAGE:#x}" for number in range(500)]
    answers = guest.batch(lines)
    assert [answer.value for answer in answers] == [0] + [errno.EFAULT * (n % 5 == 4) for n in range(500)]


def test_answers_come_in_the_order_of_commands(guest):
    """Those of the controller do not overtake those of a slot."""
    expected = [OK, Answer(False, errno.ENOENT), Answer(False, errno.EFAULT), Answer(False, errno.ENOSYS)]
    lines = [f"0 write {ARENA:#x}", "sys /nowhere 1", "0 read 0x0", "0 jump"]
    assert guest.command(mmap(0, ARENA, 1)) == OK
    assert guest.batch(lines * 200) == expected * 200


def test_several_symbols_are_looked_up_at_once(um):
    init_task, nothing, text = map(int, um.text("symbols init_task no_such_symbol init_mm").split())
    assert init_task == um.target().init_task
    assert nothing == 0
    assert text not in (0, init_task)


# Kernels that die, and kernels that hang.


@pytest.mark.parametrize("name", [HOST, *USER_MODE])
def test_a_guest_that_is_killed_is_noticed_and_begins_again(guests, name):
    guest = guests(name)
    guest.batch(["reset", "spawn 0"])
    os.kill(guest.process.pid, signal.SIGKILL)
    with pytest.raises(GuestDiedError, match="died at `0 fork 1`"):
        guest.batch(["0 fork 1"])
    guest.restart()
    assert guest.pids == {}
    assert guest.command("spawn 0").ok
    assert in_arena(guest, 0) == []


@pytest.mark.parametrize("name", [HOST, *USER_MODE, DEBIAN])
def test_a_guest_that_stands_still_is_noticed_and_begins_again(guests, name, monkeypatch):
    guest = guests(name)
    guest.batch(["reset", "spawn 0"])
    monkeypatch.setattr(wire, "PATIENCE", 0.3)
    os.kill(guest.process.pid, signal.SIGSTOP)
    with pytest.raises(GuestHangsError, match="did not answer"):
        guest.command("0 fork 1")
    monkeypatch.undo()
    guest.restart()
    assert guest.command("spawn 0").ok


def test_the_console_of_a_kernel_that_panics_is_quoted(debian):
    with pytest.raises(GuestDiedError, match=r"console said: .*Kernel panic - not syncing: sysrq triggered crash"):
        debian.command("sys /proc/sysrq-trigger c")
    debian.restart()
    assert debian.command("spawn 0").ok


def test_the_console_of_a_user_mode_kernel_that_panics_is_quoted(um):
    os.kill(um.process.pid, signal.SIGFPE)
    with pytest.raises(GuestDiedError, match="console said: Kernel panic - not syncing: Kernel mode signal 8"):
        um.batch(["spawn 0", "0 fork 1"])
    um.restart()
    assert um.last_words() == ""
    assert um.command("spawn 0").ok


def test_a_program_that_kills_the_kernel_is_reported(um, monkeypatch):
    series = find_series(series_of(um.kernel.name))
    program = parse("P0 mmap A 2\nP0 write A\nP0 fork P1\nP1 write A\nP1 exit\n", name="fatal").statements
    pair, batch = Pair(series, um), um.batch

    def fatal(lines):
        if any("fork" in line for line in lines):
            os.kill(um.process.pid, signal.SIGKILL)
        return batch(lines)

    monkeypatch.setattr(um, "batch", fatal)
    found = pair.run(program)
    assert found.program == program[:3]
    assert "the guest is gone" in found.what[0]
    assert len(pair.tally.deaths) == 1
    monkeypatch.undo()
    assert pair.run(program) is None


# Allocations that fail.


def tree(guest):
    """VMAs and anon_vmas of the family.  Not its pages: a fork that fails has made some of them read-only."""
    names = {pid: str(slot) for slot, pid in guest.pids.items()}
    snapshot = read_graph(guest.target(), names, ARENA, ARENA_END).snapshot(names)
    return snapshot.processes, snapshot.anon_vmas


def family(guest):
    """Two generations with a page of each; slot 1 has a chain of two."""
    lines = ["reset", "spawn 0", mmap(0, ARENA, 4), f"0 write {ARENA:#x}", "0 fork 1", f"1 write {ARENA + PAGE:#x}"]
    assert all(answer.ok for answer in guest.batch(lines))
    return tree(guest)


def outcomes(guest, command, *, both):
    """What a command comes to when its first allocation fails, its second, and so on until none fails.

    A fork that fails leaves nothing; of two splits the first may stay.
    """
    found = []
    for n in range(1, 100):
        before = family(guest)
        guest.arm(1, n, both=both)
        answer = guest.command(command)
        left = guest.disarm() + (answer.left or 0)
        if answer.ok and left:
            return found
        assert left == 0 or both
        assert answer.ok or answer.value == errno.ENOMEM
        assert answer.ok or tree(guest) == before or command == SPLIT
        found.append(answer.ok)
    raise AssertionError("there is no end of it")


SPLIT = f"1 munmap {ARENA + PAGE:#x} {PAGE:#x}"


def test_failing_allocations_of_a_user_mode_kernel(um):
    """Until v7.0 links are tried for with GFP_NOWAIT first, then with GFP_KERNEL."""
    retried = um.kernel.name == "um-6.12"
    assert outcomes(um, SPLIT, both=False) == [retried] * 4
    assert outcomes(um, SPLIT, both=True) == [False] * 4
    fork = outcomes(um, "1 fork 2", both=False)
    assert len(fork) > 5
    assert fork[:2] == [retried] * 2
    assert False in fork
    assert set(outcomes(um, "1 fork 2", both=True)) == {False}


def test_failing_allocations_through_the_gdb_stub(debian):
    """Two splits of a VMA with a chain of two: four links, each tried with GFP_NOWAIT first, then with GFP_KERNEL."""
    assert outcomes(debian, SPLIT, both=False) == [True] * 4
    assert outcomes(debian, SPLIT, both=True) == [False] * 4
    family(debian)
    debian.arm(1, 1, both=True)
    assert debian.command("1 fork 2") == Answer(False, errno.ENOMEM)
    assert debian.disarm() == 0
    assert debian.command("1 fork 2").ok


def test_an_emulator_that_ends_while_allocations_are_counted_is_reported(debian):
    assert debian.command("spawn 1").ok
    debian.arm(1, 1)
    os.kill(debian.process.pid, signal.SIGKILL)
    with pytest.raises(GuestDiedError, match=r"is gone .*QEMU's exit code: -9"):
        debian.command("1 fork 2")
    debian.restart()
    assert debian.command("spawn 1").ok


def test_kinds_that_cannot_fail_are_named(um):
    um.command("spawn 0")
    with pytest.raises(GuestError, match="nonsense"):
        um.arm(0, 1, kind="nonsense")


def test_a_core_of_a_guest_can_be_written(debian, tmp_path):
    debian.dump(tmp_path / "core")
    with (tmp_path / "core").open("rb") as file:
        head = file.read(1 << 16)
    assert head.startswith(b"\x7fELF")
    assert b"VMCOREINFO" in head
    assert debian.command("spawn 0").ok


# Large folios.


@pytest.mark.parametrize("name", [name for name in cache.KERNELS if not name.startswith("um")])
def test_huge_pages_are_read_with_their_order_and_all_their_entries(name):
    """One huge entry, two after a fork, and single ones where a child has split its own."""
    if cache.find(name) is None or shutil.which(EMULATOR) is None:
        pytest.skip(cache.missing(name))
    size = 2 << 20
    with open_guest(name) as guest:
        guest.batch(["sys /sys/kernel/mm/transparent_hugepage/enabled always", "spawn 0"])
        mib = [mmap(0, ARENA, 512), f"0 write {ARENA:#x}"]
        assert guest.batch(mib) == [OK, OK]

        def folios():
            names = {pid: str(slot) for slot, pid in guest.pids.items()}
            graph = read_graph(guest.target(), names, ARENA, ARENA_END)
            assert graph.remarks == []
            found = graph.snapshot(names).folios
            return [(folio.order, folio.mapcount, folio.exclusive, len(folio.ptes)) for folio in found]

        assert folios() == [(9, 1, True, 1)]
        assert guest.command("0 fork 1").ok
        assert folios() == [(9, 2, False, 2)]
        assert guest.command(f"1 munmap {ARENA:#x} {size // 2:#x}") == OK
        assert folios() == [(9, 257, False, 257)]
        assert guest.command("0 exit").ok
        assert folios() == [(9, 256, False, 256)]
