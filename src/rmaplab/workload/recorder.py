# SPDX-License-Identifier: GPL-2.0-only
"""Recording: run a command under ptrace and write what its tree does to memory.

Works without root on x86_64 and aarch64. The recorder waits for any child of
the calling process, so the caller should have no other children meanwhile.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType

from rmaplab.errors import InputError
from rmaplab.workload.syscalls import ABIS
from rmaplab.workload.trace import Header, TraceWriter
from rmaplab.workload.tracee import launch
from rmaplab.workload.tracer import Tracer

__all__ = ["RecordSummary", "record"]

_PROGRESS = 1024  # events between two calls of progress
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class RecordSummary:
    """What a recording holds.

    ``events`` counts by kind, ``tasks`` is the number of processes and
    threads, ``status`` the command's exit status (128 + N when signal N
    killed it, None when it was not seen to end).
    """

    events: Mapping[str, int]
    tasks: int
    status: int | None
    interrupted: bool


def record(
    command: Sequence[str],
    output: Path,
    *,
    progress: Callable[[int], None] | None = None,
    use_filter: bool = True,
) -> RecordSummary:
    """Run ``command`` and write the trace of its whole process tree to ``output``.

    The command keeps the standard streams. ``progress`` is called with the
    number of events now and then. ``use_filter=False`` stops at every system
    call instead of asking for a seccomp filter, as happens by itself where
    filters are refused.

    SIGUSR1 samples every task and leaves a mark, at which a replay notes how
    many objects there are. SIGINT, SIGTERM and SIGHUP end the recording: the tree is killed, and the
    trace is closed with what there is. Raises InputError when the command
    cannot be run or traced (there is then no output file) or the output
    cannot be written.
    """
    words = _checked(command)
    system = os.uname()
    abi = ABIS.get(system.machine)
    if abi is None:
        raise InputError(f"{words[0]}: cannot record on {system.machine}: use {' or '.join(ABIS)}")
    header = Header(tuple(words), system.machine, system.release, os.sysconf("SC_PAGESIZE"))
    writer = TraceWriter(output, header)
    tracer = Tracer(abi, _emitter(writer, progress))
    try:
        with _stopped_by_signals(tracer):
            started = launch(words, abi, use_filter=use_filter)
            tracer.run(started)
    except BaseException:
        _close_after_error(writer, tracer)
        raise
    if not tracer.started and not tracer.stopping:
        writer.discard()
        raise _not_run(words[0], started.failure())
    writer.close(interrupted=tracer.stopping, status=tracer.status)
    if progress is not None:
        progress(writer.events)
    return RecordSummary(dict(writer.counts), tracer.numbered, tracer.status, tracer.stopping)


def _checked(command: Sequence[str]) -> list[str]:
    if not command or not command[0]:
        raise InputError("record: no command given: name the program to run, and its arguments")
    for word in command:
        if "\0" in word:
            raise InputError(f"{command[0]!a}: a word of the command holds a NUL character: take it out")
    return list(command)


def _emitter(writer: TraceWriter, progress: Callable[[int], None] | None) -> Callable[[list[object]], None]:
    if progress is None:
        return writer.write
    report = progress

    def emit(event: list[object]) -> None:
        writer.write(event)
        if writer.events % _PROGRESS == 0:
            report(writer.events)

    return emit


def _close_after_error(writer: TraceWriter, tracer: Tracer) -> None:
    if tracer.started:
        with suppress(InputError):  # the disk is full, and the caller hears of that already
            writer.close(interrupted=True)
    else:
        writer.discard()


@contextmanager
def _stopped_by_signals(tracer: Tracer) -> Iterator[None]:
    """Turn a signal into the end of the recording; waiting for the tree then comes to its end by itself."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        tracer.kill()

    old: dict[int, object] = {}
    if current_thread() is main_thread():
        old[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda _number, _frame: tracer.mark())
        # One that is ignored (nohup) stays ignored.
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                old[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for caught, handler in old.items():
            signal.signal(caught, handler)  # type: ignore[arg-type]


def _not_run(program: str, error: OSError) -> InputError:
    remedies = {
        "FileNotFoundError": "name a program on PATH or the path of one",
        "PermissionError": "name an executable file (chmod +x)",
    }
    remedy = remedies.get(type(error).__name__, "name a program this machine can run, or its interpreter first")
    return InputError(f"{program}: cannot run it: {error.strerror}: {remedy}")
