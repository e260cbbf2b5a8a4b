# SPDX-License-Identifier: GPL-2.0-only
"""Orders to QEMU, against a socket that answers like one."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from rmaplab.realkernel.guest.qmp import Qmp
from rmaplab.realkernel.guest.wire import GuestError

GREETING = {"QMP": {"version": {}, "capabilities": []}}


@pytest.fixture
def emulator(tmp_path):
    """A function that lets a listener give these answers; it returns what the listener is told."""
    threads = []

    def listen(*answers):
        told = []
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "qmp"))
        server.listen()

        def serve():
            with server, server.accept()[0] as peer, peer.makefile("rwb") as file:
                file.write(json.dumps(GREETING).encode() + b"\r\n")
                file.flush()
                for answer in ({"return": {}}, *answers):
                    told.append(json.loads(file.readline()))
                    for document in answer if isinstance(answer, list) else [answer]:
                        file.write(json.dumps(document).encode() + b"\r\n")
                    file.flush()

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return told

    yield listen
    for thread in threads:
        thread.join()


def test_a_command_has_arguments_and_a_result(emulator, tmp_path):
    told = emulator({"return": {"status": "running"}}, {"return": "a line\r\n"})
    with Qmp(tmp_path / "qmp") as qmp:
        assert qmp.execute("query-status", verbose=True) == {"status": "running"}
        assert qmp.monitor("gdbserver none") == "a line\r\n"
    assert told == [
        {"execute": "qmp_capabilities", "arguments": {}},
        {"execute": "query-status", "arguments": {"verbose": True}},
        {"execute": "human-monitor-command", "arguments": {"command-line": "gdbserver none"}},
    ]


def test_events_are_no_answers(emulator, tmp_path):
    emulator([{"event": "STOP"}, {"event": "RESUME"}, {"return": 5}])
    with Qmp(tmp_path / "qmp") as qmp:
        assert qmp.execute("stop") == 5


def test_a_refusal_is_an_error(emulator, tmp_path):
    emulator({"error": {"class": "GenericError", "desc": "no space left"}})
    with Qmp(tmp_path / "qmp") as qmp, pytest.raises(GuestError, match="refuses dump: no space left"):
        qmp.execute("dump")


def test_an_emulator_that_ends_is_noticed(emulator, tmp_path):
    emulator()
    with Qmp(tmp_path / "qmp") as qmp, pytest.raises(GuestError, match="hung up"):
        qmp.execute("query-status")


def test_nobody_listens(tmp_path):
    with pytest.raises(GuestError, match="does not listen"):
        Qmp(tmp_path / "qmp")
