# SPDX-License-Identifier: GPL-2.0-only
"""Orders to QEMU itself: the QEMU Machine Protocol, a JSON document for a JSON document (docs/interop/qmp-spec)."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

from rmaplab.realkernel.closing import Closing
from rmaplab.realkernel.guest.wire import GuestError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Qmp"]

_PATIENCE = 60.0  # seconds: a dump writes all of a guest's memory


class Qmp(Closing):
    """A connection to the socket of QEMU's ``-qmp`` option; :class:`GuestError` if there is nobody."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(_PATIENCE)
        try:
            self.socket.connect(str(path))
        except OSError as error:
            self.socket.close()
            raise GuestError(f"{path}: QEMU does not listen: {error.strerror or error}") from error
        self.file = self.socket.makefile("rwb")
        try:
            self._receive()  # the greeting
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):  # what was not sent
            self.file.close()
        self.socket.close()

    def execute(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 (JSON)
        """What a command returns; events in between are dropped; :class:`GuestError` for a refusal."""
        order = {"execute": command, "arguments": arguments}
        try:
            self.file.write(json.dumps(order).encode() + b"\n")
            self.file.flush()
        except OSError as error:
            raise GuestError(f"{self.path}: QEMU has hung up: {error.strerror or error}") from error
        while True:
            answer = self._receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise GuestError(f"QEMU refuses {command}: {answer['error'].get('desc', '')}")

    def monitor(self, line: str) -> str:
        """A line for QEMU's human monitor; what it prints."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def _receive(self) -> dict[str, Any]:
        try:
            line = self.file.readline()
        except TimeoutError as error:
            raise GuestError(f"{self.path}: QEMU has not answered for {_PATIENCE:.0f} s") from error
        except OSError:
            line = b""
        if not line:
            raise GuestError(f"{self.path}: QEMU has hung up")
        answer: dict[str, Any] = json.loads(line)
        return answer
