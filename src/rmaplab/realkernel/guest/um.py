# SPDX-License-Identifier: GPL-2.0-only
"""A user-mode kernel as a guest: an ordinary process, booted in a tenth of a second, and read as one."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING

from rmaplab.realkernel.guest.failslab import Failslab
from rmaplab.realkernel.guest.wire import Guest, GuestError, words_of
from rmaplab.realkernel.memory import ProcessMemory
from rmaplab.realkernel.um_facts import UmFacts

if TYPE_CHECKING:
    from typing import IO

    from rmaplab.realkernel.guest.cache import Kernel
    from rmaplab.realkernel.target import Target

__all__ = ["UmGuest"]

MEMORY = "96M"
_OPTIONS = (
    *("con=null", "con0=null,fd:2", "ssl0=fd:0,fd:1", "GUEST_CHANNEL=/dev/ttyS0"),
    *("slab_nomerge", "quiet", "panic=-1", "panic_on_warn=1"),
)
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Called in a child before it becomes the guest: it shall not outlive us."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class UmGuest(Failslab, Guest):
    """Boots at once; :class:`GuestError` if it cannot."""

    process: subprocess.Popen[bytes]

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.release = kernel.version
        self.facts = UmFacts.load(kernel.facts)
        self._memory: ProcessMemory | None = None
        self.console: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        try:
            self._boot()
        except BaseException:
            self.console.close()
            raise

    def _boot(self) -> None:
        self.console.seek(0)  # the guest writes where we are
        self.console.truncate()
        arguments = (f"mem={MEMORY}", f"initrd={self.kernel.initramfs}", *_OPTIONS)
        try:
            self.process = subprocess.Popen(
                [str(self.kernel.image), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.console,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            raise GuestError(f"{self.kernel.image}: cannot be started: {error.strerror}") from error
        try:
            self.greet()
            if self.facts is None:
                self.facts = UmFacts.learn(self.process.pid, self.kernel.image)
                self.facts.save(self.kernel.facts)
            self._memory = ProcessMemory(self.process.pid)
            self._target = self.facts.target(self._memory, self.release)
            self.set_up_failslab()
        except BaseException:
            self._end()
            raise

    @property
    def channel(self) -> tuple[int, int]:
        """Its first serial line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return self.process.stdin.fileno(), self.process.stdout.fileno()

    def target(self) -> Target:
        """The process's memory."""
        return self._target

    def last_words(self) -> str:
        """What its console says happened."""
        self.console.seek(0)
        return words_of(self.console.read().decode("utf-8", "replace"))

    def restart(self) -> None:
        """Kill it and boot another."""
        self._end()
        self._boot()

    def close(self) -> None:
        """Kill it."""
        self._end()
        self.console.close()

    def _end(self) -> None:
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
