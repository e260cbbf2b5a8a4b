# SPDX-License-Identifier: GPL-2.0-only
"""The driver's side of the line protocol, against guests that only pretend."""

from __future__ import annotations

import errno
import os

import pytest

from rmaplab.errors import InputError
from rmaplab.realkernel.guest import wire
from rmaplab.realkernel.guest.wire import Answer, Guest, GuestDiedError, GuestError, GuestHangsError, words_of


class Canned(Guest):
    """Whatever it is told, its answers are in the pipe already; ``hears`` is what it was told."""

    release = "9.9"

    def __init__(self, answers="", *, ends=False):
        super().__init__()
        self.heard, writes = os.pipe()
        reads, self.speaks = os.pipe()
        self.channel_fds = (writes, reads)
        self.open = [self.heard, writes, reads, self.speaks]
        self.says(answers)
        if ends:
            self.shut(self.speaks)

    def says(self, text):
        os.write(self.speaks, text.encode())

    def hears(self):
        return os.read(self.heard, 1 << 16).decode()

    def shut(self, fd):
        self.open.remove(fd)
        os.close(fd)

    @property
    def channel(self):
        return self.channel_fds

    def target(self):
        raise NotImplementedError

    def restart(self):
        raise NotImplementedError

    def last_words(self):
        return "it smells burnt"

    def close(self):
        for fd in list(self.open):
            self.shut(fd)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("ok 0", Answer(True, 0)),
        ("ok 4096", Answer(True, 4096)),
        ("err 12", Answer(False, errno.ENOMEM)),
        ("err 12 left 0", Answer(False, errno.ENOMEM, 0)),
        ("ok 17 left 3", Answer(True, 17, 3)),
        ("died 9", Answer(False, errno.EIO)),
    ],
)
def test_an_answer_is_read(line, answer):
    assert wire.answer_of(line) == answer


@pytest.mark.parametrize("line", ["", "ok", "ok x", "hello 3", "err", "1 2", "ok 1 left x"])
def test_what_is_no_answer_is_said_to_be_none(line):
    with pytest.raises(GuestError, match="no answer"):
        wire.answer_of(line)


def test_commands_are_lines():
    with Canned("ok 5\nerr 22\n") as guest:
        assert guest.batch(["0 brk 0x1000", "0 munmap 0x1 0x1"]) == [Answer(True, 5), Answer(False, errno.EINVAL)]
        assert guest.hears() == "0 brk 0x1000\n0 munmap 0x1 0x1\n"


def test_the_process_of_each_slot_is_known():
    with Canned("ok 100\nok 101\nerr 12\nok 102\nok 0\n") as guest:
        guest.batch(["spawn 0", "0 fork 1", "0 fork 2", "1 fork 3"])
        assert guest.pids == {0: 100, 1: 101, 3: 102}
        guest.command("1 exit")
        assert guest.pids == {0: 100, 3: 102}
        guest.says("err 3\nok 0\n")
        guest.command("3 exit")
        assert 3 in guest.pids
        guest.command("reset")
        assert guest.pids == {}


class Backlog(Canned):
    """Counts the bytes of commands that wait for their answers."""

    def __init__(self):
        super().__init__()
        self.waiting = []
        self.most = 0

    def _send(self, line):
        self.waiting.append(len(line) + 1)
        self.most = max(self.most, sum(self.waiting))

    def _line(self, patience):
        return f"ok {self.waiting.pop(0)}"


def test_a_batch_keeps_little_ahead_of_the_answers():
    lines = [f"{slot} mmap 0x{0x10000000 + slot:x} 0x1000 3 0x32" for slot in range(60)] * 20
    with Backlog() as guest:
        answers = guest.batch(lines)
        assert [answer.value for answer in answers] == [len(line) + 1 for line in lines]
        assert not guest.waiting
        assert wire.AHEAD / 2 < guest.most < 3072


def test_an_answer_may_come_in_pieces(monkeypatch):
    with Canned() as guest:
        pieces = iter(["o", "k 1", "2\nok", " 3\n"])

        class Speaking:
            def register(self, fd, events):
                assert fd == guest.channel[1]

            def poll(self, patience):
                guest.says(next(pieces))
                return [(guest.channel[1], 1)]

        monkeypatch.setattr(wire.select, "poll", Speaking)
        assert guest.batch(["spawn 0", "spawn 1"]) == [Answer(True, 12), Answer(True, 3)]


def test_whatever_is_printed_before_ready_is_passed_over():
    with Canned("SeaBIOS\nDecompressing Linux...\nready\nok 1\n") as guest:
        guest.pids[3] = 5
        guest.greet()
        assert guest.pids == {}
        assert guest.command("spawn 0").value == 1


def test_a_guest_that_has_ended_is_noticed():
    with Canned("ok 4\n", ends=True) as guest, pytest.raises(GuestDiedError) as caught:
        guest.batch(["spawn 0", "0 fork 1"])
    assert str(caught.value) == "9.9 died at `0 fork 1`; its console said: it smells burnt"
    assert isinstance(caught.value, InputError)
    assert caught.value.told == ("spawn 0", "0 fork 1")
    assert guest.pids == {0: 4}


def test_a_guest_that_does_not_listen_has_died():
    with Canned() as guest:
        guest.shut(guest.heard)
        with pytest.raises(GuestDiedError, match="died at `spawn 0`"):
            guest.command("spawn 0")


def test_a_guest_that_says_nothing_hangs(monkeypatch):
    monkeypatch.setattr(wire, "PATIENCE", 0.01)
    with Canned() as guest, pytest.raises(GuestHangsError, match=r"did not answer for .* at `0 fork 1`"):
        guest.command("0 fork 1")


def test_a_guest_that_cannot_fail_allocations_says_so():
    with Canned() as guest, pytest.raises(GuestError, match="user-mode kernel"):
        guest.arm(0, 1)


@pytest.mark.parametrize(
    ("console", "words"),
    [
        ("", ""),
        ("\n\n", ""),
        ("one\ntwo\n\n", "two"),
        ("[ 1.0] WARNING: CPU: 0 PID: 7 at mm/rmap.c:404\nCall trace\nKernel panic - not syncing\nend",
         "[ 1.0] WARNING: CPU: 0 PID: 7 at mm/rmap.c:404"),
        ("boot\r\nKernel panic - not syncing: sysrq\r\nRebooting\r\n", "Kernel panic - not syncing: sysrq"),
    ],
)  # fmt: skip
def test_the_first_complaint_on_the_console_is_what_counts(console, words):
    assert words_of(console) == words
