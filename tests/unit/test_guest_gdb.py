# SPDX-License-Identifier: GPL-2.0-only
"""Allocations that fail through a gdb stub, against a stub that plays a guest which allocates."""

from __future__ import annotations

import os
import socket
import struct
import threading

import pytest

from rmaplab.realkernel.guest.gdb import Allocations, Gdb
from rmaplab.realkernel.guest.wire import GuestDiedError, GuestError

FUNCTION, CALLER, STACK = 0xFFFF_FFFF_8130_0000, 0xFFFF_FFFF_8111_2233, 0xFFFF_C900_0000_1000
ANON_VMA, AVC, OTHER = 0xFFFF_8880_0000_1000, 0xFFFF_8880_0000_2000, 0xFFFF_8880_0000_3000


class Stub(threading.Thread):
    """A guest that allocates from ``caches``, one after the other, and then answers on a pipe."""

    def __init__(self, path, caches=(), *, chatty=True):
        super().__init__(daemon=True)
        self.caches, self.chatty = list(caches), chatty
        self.at, self.breaks, self.returned, self.wrong = None, set(), [], []
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(path))
        self.listening.listen()
        self.done, self.writes = os.pipe()
        self.start()

    def run(self):
        self.peer, _ = self.listening.accept()
        data = b""
        with self.peer:
            while part := self.peer.recv(4096):
                data = self.consume(data + part)

    def consume(self, data):
        while data:
            if data[:1] == b"\x03":
                self.say("T02thread:01;")
                data = data[1:]
            elif data[:1] == b"+":
                data = data[1:]
            elif b"#" in data[:-2]:
                text, _, rest = data[1:].partition(b"#")
                if int(rest[:2], 16) != sum(text) & 0xFF:
                    self.wrong.append(text)
                self.peer.sendall(b"+")
                self.obey(text.decode())
                data = rest[2:]
            else:
                return data
        return data

    def say(self, text):
        self.peer.sendall(b"$" + text.encode() + b"#%02x" % (sum(text.encode()) & 0xFF))

    def obey(self, text):
        if text == "qAttached":
            if self.chatty:
                self.say("T02thread:01;")
            self.say("1")
        elif text[:2] in ("Z1", "z1"):
            (self.breaks.add if text[0] == "Z" else self.breaks.discard)(int(text.split(",")[1], 16))
            self.say("OK")
        elif text == "c":
            self.go_on()
        elif text == "s":
            self.returned.append((self.at, "memory"))
            self.say("T05thread:01;")
        elif text == "g":
            self.say(struct.pack("<17Q", 7, 0, 0, 0, 0, self.at, 0, STACK, *range(8), FUNCTION).hex() + "46020000")
        elif text == f"m{STACK:x},8":
            self.say(struct.pack("<Q", CALLER).hex())
        elif text[0] == "G":
            values = struct.unpack("<17Q", bytes.fromhex(text[1:]))
            ok = (values[0], values[7], values[16]) == (0, STACK + 8, CALLER) and values[8:16] == tuple(range(8))
            self.returned.append((self.at, "NULL" if ok else f"nonsense {values}"))
            self.say("OK")
        else:
            self.say("E22")

    def go_on(self):
        if FUNCTION not in self.breaks:
            return
        if self.caches:
            self.at = self.caches.pop(0)
            self.say("T05thread:01;")
        else:
            os.write(self.writes, b"ok 0\n")

    def end(self):
        self.join()
        self.listening.close()
        os.close(self.done)
        os.close(self.writes)


@pytest.fixture
def stub(tmp_path):
    made = []

    def make(*caches, **options):
        made.append(Stub(tmp_path / "gdb", caches, **options))
        return made[-1]

    yield make
    for one in made:
        one.end()


def perform(stub, tmp_path, n, *, both):
    allocations = Allocations(Gdb(tmp_path / "gdb"), FUNCTION)
    try:
        assert not allocations.armed
        allocations.arm((ANON_VMA, AVC), n, both=both)
        assert allocations.armed
        allocations.attend(stub.done, 10.0)
        assert os.read(stub.done, 10) == b"ok 0\n"
        left = allocations.disarm()
        assert not allocations.armed
        assert allocations.gdb.ask("qAttached") == "1"  # what came before has been worked off
        assert stub.breaks == set()
        assert not stub.wrong
        return left
    finally:
        allocations.gdb.close()


@pytest.mark.parametrize("chatty", [True, False])
@pytest.mark.parametrize(
    ("n", "both", "failing", "left"),
    [
        (1, False, {0}, 0),
        (2, False, {2}, 0),
        (3, False, {3}, 0),
        (4, False, set(), 1),
        (1, True, {0, 2}, 0),
        (2, True, {2, 3}, 0),
        (3, True, {3}, 1),
        (4, True, set(), 2),
    ],
)
def test_the_nth_allocation_from_these_caches_fails(stub, tmp_path, chatty, n, both, failing, left):
    caches = [AVC, OTHER, ANON_VMA, AVC, OTHER]
    guest = stub(*caches, chatty=chatty)
    assert perform(guest, tmp_path, n, both=both) == left
    expected = [(cache, "NULL" if at in failing else "memory") for at, cache in enumerate(caches)]
    assert guest.returned == expected


def test_a_refusal_is_an_error(stub, tmp_path):
    stub()
    gdb = Gdb(tmp_path / "gdb")
    with pytest.raises(GuestError, match="refuses 'X1': E22"):
        gdb.ask("X1")
    gdb.close()


def test_a_stub_that_hangs_up_is_noticed(stub, tmp_path):
    guest = stub()
    gdb = Gdb(tmp_path / "gdb")
    guest.peer.shutdown(socket.SHUT_RDWR)
    with pytest.raises(GuestDiedError, match="hung up"):
        gdb.ask("g")
    gdb.close()


def test_nobody_listens(tmp_path):
    with pytest.raises(GuestError, match="does not listen"):
        Gdb(tmp_path / "gdb")
