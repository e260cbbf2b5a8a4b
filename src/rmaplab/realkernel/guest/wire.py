# SPDX-License-Identifier: GPL-2.0-only
"""What a guest is told, and what it answers: a line for a line.

Slots 0 to 63 are a process each.  Numbers are decimal, addresses and lengths
are bytes in hexadecimal.

=============================  ==================================================
``spawn S``                    a fresh process; answers its id
``S mmap ADDR LEN PROT FLAGS`` FLAGS as for mmap(2); ``file0`` to ``file7`` behind
                               them: of a file that all slots share, not anonymous
``S munmap ADDR LEN``          likewise ``mlock``, ``munlock``
``S mprotect ADDR LEN PROT``
``S mremap OLD LEN LEN FLAGS NEW``  answers the new address
``S madvise ADDR LEN ADVICE``
``S read ADDR``, ``S write ADDR``   one byte; EFAULT instead of a signal
``S heap ADDR``                lets the heap begin there
``S brk ADDR``                 ENOMEM if it does not end there then
``S fork T``                   the child is slot T; answers its id
``S exit``                     answers when its address space is gone
``S fail N``                   the N-th allocation of the slot's next command that
                               failslab watches fails; its answer says what is left of N
``reset``, ``quit``            all slots end; the guest ends
``sys PATH VALUE``, ``cat PATH``   files of the guest
``symbols NAME ...``           their addresses in decimal, 0 for what kallsyms has not
=============================  ==================================================

An answer is ``ok VALUE``, ``err ERRNO`` or ``died SIGNAL``, with `` left K``
behind it after an order to fail.
"""

from __future__ import annotations

import os
import select
from abc import ABC, abstractmethod
from collections import deque
from errno import EIO
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.errors import InputError
from rmaplab.realkernel.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmaplab.realkernel.target import Target

__all__ = ["Answer", "Guest", "GuestDiedError", "GuestError", "GuestHangsError", "answer_of", "words_of"]

PATIENCE = 30.0  # seconds that a command may take
BOOT_PATIENCE = 120.0
AHEAD = 2048  # bytes of commands that are sent before the first is answered
_CHUNK = 1 << 16
_TOLD = 40  # commands that are remembered
_COMPLAINTS = ("Kernel panic", "BUG:", "kernel BUG at", "Oops", "WARNING:")


class GuestError(InputError):
    """A guest cannot be booted, or does not answer as it should.

    ``told``: what a guest that is gone was told last, the command it did not answer among it.
    """

    told: tuple[str, ...] = ()


class GuestDiedError(GuestError):
    """The guest is gone, in the middle of something."""


class GuestHangsError(GuestError):
    """The guest does not answer any more."""


class Answer(NamedTuple):
    """``value``: what a command gave, or the errno; ``left``: of the order to fail, 0 if it was carried out."""

    ok: bool
    value: int
    left: int | None = None


def answer_of(line: str) -> Answer:
    """Read a line; a process that died of a signal has ended with EIO."""
    words = line.split()
    try:
        if words[0] == "died":
            return Answer(False, EIO)
        left = int(words[3]) if len(words) > 3 and words[2] == "left" else None
        return Answer({"ok": True, "err": False}[words[0]], int(words[1]), left)
    except (KeyError, IndexError, ValueError) as error:
        raise GuestError(f"the guest answers {line!r}, which is no answer") from error


def words_of(console: str) -> str:
    """The line of a guest's console that says best what happened: its first complaint, or else its last line."""
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    complaints = (line for line in lines if any(word in line for word in _COMPLAINTS))
    return next(complaints, lines[-1] if lines else "")


class Guest(Closing, ABC):
    """A kernel that obeys.  ``pids``: the process of each slot, as the guest numbers them."""

    release: str = ""

    def __init__(self) -> None:
        self.pids: dict[int, int] = {}
        self.told: deque[str] = deque(maxlen=_TOLD)
        self._buffer = b""

    # --- what each kind of guest does in its way ---------------------------------------------

    @property
    @abstractmethod
    def channel(self) -> tuple[int, int]:
        """Descriptors to write commands to and to read answers from."""

    @abstractmethod
    def target(self) -> Target:
        """The guest as a kernel to be read; the same object until :meth:`restart`."""

    @abstractmethod
    def restart(self) -> None:
        """Begin again from nothing, whatever has happened."""

    @abstractmethod
    def close(self) -> None:
        """End the guest and everything that was started for it."""

    def last_words(self) -> str:
        """What its console said last; empty if it has none."""
        return ""

    # --- commands -------------------------------------------------------------------------------

    def command(self, line: str) -> Answer:
        """One command; :class:`GuestDiedError`, :class:`GuestHangsError`."""
        return self.batch((line,))[0]

    def text(self, line: str) -> str:
        """One command whose answer is a text (``cat``): its newlines have become ``|``."""
        self._send(line)
        return self._line(PATIENCE)

    def batch(self, lines: Sequence[str]) -> list[Answer]:
        """Several commands, sent ahead of their answers as far as a guest can take."""
        answers: list[Answer] = []
        waiting: deque[str] = deque()
        ahead = 0
        for line in lines:
            while waiting and ahead + len(line) > AHEAD:
                ahead -= len(waiting[0])
                answers.append(self._answer(waiting.popleft()))
            self._send(line)
            waiting.append(line)
            ahead += len(line)
        answers += [self._answer(line) for line in waiting]
        return answers

    def _answer(self, line: str) -> Answer:
        answer = answer_of(self._line(PATIENCE))
        match line.split():
            case ["reset"]:
                self.pids.clear()
            case ["spawn", slot] if answer.ok:
                self.pids[int(slot)] = answer.value
            case [_, "fork", slot] if answer.ok:
                self.pids[int(slot)] = answer.value
            case [slot, "exit"] if answer.ok:
                self.pids.pop(int(slot), None)
        return answer

    def _send(self, line: str) -> None:
        self.told.append(line)
        try:
            os.write(self.channel[0], line.encode() + b"\n")
        except OSError as error:
            raise self._gone(GuestDiedError, "died") from error

    def _line(self, patience: float) -> str:
        while (end := self._buffer.find(b"\n")) < 0:
            fd = self.channel[1]
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if not poll.poll(patience * 1000):
                raise self._gone(GuestHangsError, f"did not answer for {patience:.0f} s")
            try:
                part = os.read(fd, _CHUNK)
            except OSError:
                part = b""
            if not part:
                raise self._gone(GuestDiedError, "died")
            self._buffer += part
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line.decode("ascii", "replace").strip()

    def _gone(self, kind: type[GuestError], what: str) -> GuestError:
        when = f"at `{self.told[-1]}`" if self.told else "while it booted"
        words = self.last_words()
        error = kind(
            f"{self.release or 'the guest'} {what} {when}" + (f"; its console said: {words}" if words else "")
        )
        error.told = tuple(self.told)
        return error

    def greet(self) -> None:
        """Wait for the guest to be ready."""
        self._buffer = b""
        self.pids.clear()
        self.told.clear()
        while self._line(BOOT_PATIENCE) != "ready":
            pass  # what firmware and kernel print on the same line

    # --- failing allocations (fault-inject.c, failslab.c) -----------------------------------------

    def arm(self, slot: int, n: int, *, both: bool = True, kind: str = "rmap") -> None:
        """Let the n-th allocation of a slot's next command fail; ``both``: and its retry, where there is one."""
        raise GuestError(f"{self.release}: allocations cannot be made to fail here; take a user-mode kernel")

    def disarm(self) -> int:
        """Let nothing fail any longer; how many failures are left over."""
        return 0
