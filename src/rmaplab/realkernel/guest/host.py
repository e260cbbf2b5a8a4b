# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel as a guest: the guests' program as an ordinary process, and what it starts.

Only these processes are told anything, and only they are read.  Reading takes
root, for it loads a BPF program into the running kernel.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
from typing import TYPE_CHECKING

from rmaplab.realkernel.guest.cache import init_program
from rmaplab.realkernel.guest.um import die_with_parent
from rmaplab.realkernel.guest.wire import Guest, GuestError

if TYPE_CHECKING:
    from rmaplab.realkernel.live import LiveTarget

__all__ = ["HostGuest"]


class HostGuest(Guest):
    """Starts the family's first process; :class:`GuestError` if that cannot be."""

    process: subprocess.Popen[bytes]

    def __init__(self) -> None:
        super().__init__()
        self.release = platform.release()
        self._target: LiveTarget | None = None
        self.processors = os.sched_getaffinity(0)
        self._start()

    def _start(self) -> None:
        program = init_program()
        try:
            self.process = subprocess.Popen(
                [str(program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            raise GuestError(f"{program}: cannot be started: {error.strerror}") from error
        # On one processor with who tells them: a process that is waited for need not be woken elsewhere, and what a
        # processor still keeps to itself of a page (the batches of the LRU lists) is the same for all.
        processors = sorted(self.processors)
        one = {processors[os.getpid() % len(processors)]}
        os.sched_setaffinity(self.process.pid, one)
        os.sched_setaffinity(0, one)
        self.greet()

    @property
    def channel(self) -> tuple[int, int]:
        """Its standard input and output."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return self.process.stdin.fileno(), self.process.stdout.fileno()

    def target(self) -> LiveTarget:
        """The running kernel, read by BPF programs that are loaded when this is first called."""
        if self._target is None:
            from rmaplab.realkernel.live import LiveTarget

            self._target = LiveTarget()
        return self._target

    def restart(self) -> None:
        """End all of the family's processes and begin another; the BPF programs stay."""
        self._end()
        self._start()

    def close(self) -> None:
        """End all of the family's processes, and forget the BPF programs."""
        self._end()
        os.sched_setaffinity(0, self.processors)
        if self._target is not None:
            self._target.close()
            self._target = None

    def _end(self) -> None:
        """The family is a process group of its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait()
