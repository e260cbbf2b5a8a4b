# SPDX-License-Identifier: GPL-2.0-only
"""Starting a command under ptrace, and the few ptrace requests a recording needs.

The requests go through python-ptrace's binding; those it has no name for are
numbered here after include/uapi/linux/ptrace.h. The command is seized
(PTRACE_SEIZE), so new tasks start with an event instead of a SIGSTOP and job
control works as without a tracer.
"""

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from ptrace import PtraceError
from ptrace.binding.func import PTRACE_CONT, PTRACE_GETEVENTMSG, PTRACE_SYSCALL, ptrace

from rmaplab.errors import InputError
from rmaplab.workload.syscalls import Abi, filter_program

__all__ = ["Launch", "Stop", "event_message", "launch", "listen", "read_word", "resume", "stop_info"]

_SEIZE, _LISTEN, _GET_SYSCALL_INFO = 0x4206, 0x4208, 0x420E
# TRACESYSGOOD, FORK, VFORK, CLONE, EXEC, EXIT, SECCOMP, EXITKILL
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x40 | 0x80 | 0x100000

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ADDR_NO_RANDOMIZE, _GET_PERSONALITY = 0x0040000, 0xFFFFFFFF
_FILTERED, _UNFILTERED = b"f", b"u"


class Stop(NamedTuple):
    """A stop at a system call: at its entry (number, arguments) or exit (result)."""

    entry: bool
    audit: int
    number: int
    arguments: tuple[int, ...]
    result: int
    failed: bool


class Launch:
    """A command that has been started and seized, and waits inside our child."""

    def __init__(self, pid: int, report: int) -> None:
        self.pid = pid
        self._report = report

    def filtered(self) -> bool:
        """Say, once the exec happened, whether the seccomp filter was accepted."""
        return self._read() == _FILTERED

    def failure(self) -> OSError:
        """Say, once the child ended without an exec, why."""
        code = self._read()[1:]
        return OSError(int(code), os.strerror(int(code))) if code else OSError(errno.EINTR, "killed before it ran")

    def _read(self) -> bytes:
        data = os.read(self._report, 64)
        os.close(self._report)
        return data


def launch(command: Sequence[str], abi: Abi, *, use_filter: bool = True) -> Launch:
    """Fork, seize the child and let it run ``command``.

    The child switches off address randomisation for itself, restores the
    signals Python ignores and installs the filter. Raises InputError when
    the system refuses to fork or to trace.
    """
    go_out, go_in = os.pipe()
    report_out, report_in = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        for fd in (go_out, go_in, report_out, report_in):
            os.close(fd)
        raise InputError(f"{command[0]}: cannot start it: {error.strerror}: end other processes first") from None
    if pid == 0:
        os.close(go_in)
        _become(command, abi, use_filter, go_out, report_in)
    os.close(go_out)
    os.close(report_in)
    try:
        ptrace(_SEIZE, pid, 0, _OPTIONS)
        os.write(go_in, b"!")
    except PtraceError as error:
        os.close(report_out)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise _refused(command[0], error.errno) from None
    finally:
        os.close(go_in)
    return Launch(pid, report_out)


def resume(pid: int, to_next_call: bool, sig: int = 0) -> None:
    """Let a stopped task run on, with a signal or none; a task killed meanwhile is left alone."""
    _unless_killed(PTRACE_SYSCALL if to_next_call else PTRACE_CONT, pid, sig)


def listen(pid: int) -> None:
    """Leave a task in its job-control stop, but hear of its SIGCONT."""
    _unless_killed(_LISTEN, pid, 0)


def event_message(pid: int) -> int | None:
    """Return the number that goes with an event stop, None when the task was killed meanwhile."""
    # A long of our own: the binding's helper passes the kernel an int to fill.
    word = ctypes.c_ulong()
    try:
        ptrace(PTRACE_GETEVENTMSG, pid, 0, ctypes.addressof(word))
    except PtraceError as error:
        _pass_if_killed(error)
        return None
    return word.value


def stop_info(pid: int) -> Stop | None:
    """Return what a task at a system-call or seccomp stop is about, None when it was killed meanwhile."""
    try:
        ptrace(_GET_SYSCALL_INFO, pid, len(_info), ctypes.addressof(_info))
    except PtraceError as error:
        _pass_if_killed(error)
        return None
    operation, audit = _INFO_HEAD.unpack_from(_info)
    if operation == 2:  # PTRACE_SYSCALL_INFO_EXIT
        result, failed = _INFO_EXIT.unpack_from(_info, _INFO_HEAD.size)
        return Stop(False, audit, 0, (), result, bool(failed))
    number, *arguments = _INFO_ENTRY.unpack_from(_info, _INFO_HEAD.size)
    return Stop(operation != 0, audit, number, tuple(arguments), 0, False)


def read_word(pid: int, address: int) -> int:
    """Return the eight bytes at ``address`` of a stopped task; raises OSError where there are none."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        data = os.pread(memory.fileno(), 8, address) if address < 1 << 63 else b""
    if len(data) != 8:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return int.from_bytes(data, "little")


# struct ptrace_syscall_info; the tracer is one thread, so one buffer serves.
_info = (ctypes.c_char * 88)()
_INFO_HEAD = struct.Struct("=B3xI16x")
_INFO_ENTRY = struct.Struct("=7Q")
_INFO_EXIT = struct.Struct("=qB")


def _unless_killed(request: int, pid: int, sig: int) -> None:
    try:
        ptrace(request, pid, 0, sig)
    except PtraceError as error:
        _pass_if_killed(error)


def _pass_if_killed(error: PtraceError) -> None:
    if error.errno == errno.ESRCH:
        return
    if error.errno == errno.EIO:
        raise InputError("ptrace: this kernel cannot describe system calls: Linux 5.3 or newer is needed") from None
    raise error


def _refused(program: str, code: int | None) -> InputError:
    why = os.strerror(code or 0)
    return InputError(
        f"{program}: tracing it is refused ({why}): set kernel.yama.ptrace_scope to 1 or 0, in a container"
        " allow ptrace (--cap-add=SYS_PTRACE), and do not record from within a debugger or another recording"
    )


def _become(command: Sequence[str], abi: Abi, use_filter: bool, go: int, report: int) -> NoReturn:
    """Turn the child into the command; never returns."""
    try:
        if os.read(go, 1):
            _prepare()
            accepted = use_filter and _install(filter_program(abi))
            os.write(report, _FILTERED if accepted else _UNFILTERED)
            os.execvp(command[0], list(command))
    except OSError as error:
        os.write(report, str(error.errno).encode())
    finally:
        os._exit(127)


def _prepare() -> None:
    libc = ctypes.CDLL(None)
    persona = libc.personality(ctypes.c_ulong(_GET_PERSONALITY))
    if persona >= 0:
        libc.personality(ctypes.c_ulong(persona | _ADDR_NO_RANDOMIZE))
    for sig in (signal.SIGPIPE, signal.SIGXFSZ):
        with suppress(OSError):
            signal.signal(sig, signal.SIG_DFL)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _install(program: bytes) -> bool:
    libc = ctypes.CDLL(None)
    unused = ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), unused, unused, unused):
        return False
    loaded = _Program(len(program) // 8, program)
    mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
    return not libc.prctl(_PR_SET_SECCOMP, mode, ctypes.byref(loaded), unused, unused)
