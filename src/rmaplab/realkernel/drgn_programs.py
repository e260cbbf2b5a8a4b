# SPDX-License-Identifier: GPL-2.0-only
"""drgn Programs of dumps, of the running kernel and of QEMU's guests, and what goes wrong when they are made.

drgn takes a Program for a kernel if it finds VMCOREINFO where it should be.
What was dumped or runs without it may still have it somewhere in its memory.
"""

from __future__ import annotations

import logging
import mmap
import os
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.realkernel.drgn_here import import_drgn
from rmaplab.realkernel.guest_symbols import find_note

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import drgn

__all__ = ["connect", "core_program", "errors", "kcore_program", "listening", "new_program", "qmp_program"]

_ELF = b"\x7fELF"
_DUMPS = (_ELF, b"KDUMP   ", b"DISKDUMP", b"makedump")  # the last is the first but one in pieces (makedumpfile -F)
_ELF_KIND = struct.Struct("<4sBB10xHH")  # magic, class, byte order; type, machine
_CORE, _X86_64 = 4, 62
# With these words libkdumpfile reads physical memory; nothing is translated by them.
_NOTHING_KNOWN = b"OSRELEASE=6.1.0\nPAGESIZE=4096\nKERNELOFFSET=0\nSYMBOL(swapper_pg_dir)=ffffffff81000000\n"
_PIECE = 1 << 22  # bytes of memory that are searched at a time
_OVERLAP = 1 << 16
_MEMORY_BEGINS = (1 << 20, 1 << 32)
_PHYSICAL = 1 << 52  # bytes that x86-64 can address
_PATIENCE = 10.0  # seconds in which QEMU greets


def new_program() -> drgn.Program:
    """An empty Program; :class:`InputError` without drgn."""
    return import_drgn().Program()


def _x86_program(note: bytes | None = None) -> drgn.Program:
    import drgn

    return drgn.Program(drgn.Platform(drgn.Architecture.X86_64), vmcoreinfo=note)


@contextmanager
def errors(name: str) -> Iterator[None]:
    """Turn what drgn cannot open into :class:`InputError`."""
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{name}: {error.strerror}: ask as root, or as whom it belongs to") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be opened: {error.strerror or error}") from error
    except Exception as error:  # what libkdumpfile and QEMU refuse comes as nothing more special
        raise InputError(f"{name}: drgn cannot read it: {error}") from error


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect what drgn would log: its warnings are part of our errors, or of no interest."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, listener = logging.getLogger("drgn"), Listener(logging.WARNING)
    before = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.propagate = before
        logger.removeHandler(listener)


def _is_kernel(prog: drgn.Program) -> bool:
    import drgn

    return bool(prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL)


def core_program(path: Path) -> drgn.Program:
    """Of a core dump of a kernel; :class:`InputError`."""
    magic = _check_dump(path)
    name, refused = str(path), ""
    with errors(name), listening():
        # The dumps of QEMU do not name the machine, so it is named for those.
        for prog in (new_program(), *([] if magic == _ELF else [_x86_program()])):
            try:
                prog.set_core_dump(name)
            except OSError:
                raise
            except Exception as error:
                refused = f" ({error})"
            else:
                if _is_kernel(prog):
                    return prog
        note = _note_in_file(path) if magic == _ELF else _note_in(_dump_program(name, _NOTHING_KNOWN))
        if note is None:
            raise InputError(
                f"{name}: there is no VMCOREINFO in it{refused}: it must be the dump of a Linux kernel with "
                "CONFIG_VMCORE_INFO (until v6.8 CONFIG_CRASH_CORE), and of all its memory"
            )
        return _dump_program(name, note)


def _dump_program(name: str, note: bytes) -> drgn.Program:
    prog = _x86_program(note)
    prog.set_core_dump(name)
    return prog


def kcore_program() -> drgn.Program:
    """Of the running kernel; :class:`InputError`."""
    prog = new_program()
    with errors("/proc/kcore (the kernel needs CONFIG_PROC_KCORE)"), listening():
        prog.set_kernel()
    return prog


def qmp_program(connection: socket.socket, name: str) -> drgn.Program:
    """Of a guest of QEMU, by a connection to its QMP socket, which is left open; :class:`InputError`."""
    prog = new_program()
    with errors(f"{name}, the QMP socket"), listening():
        prog.set_qemu_qmp(os.dup(connection.fileno()))
        if _is_kernel(prog):
            return prog
        note = _note_in(prog)
    if note is None:
        raise InputError(
            f"{name}: the guest's memory has no VMCOREINFO: it must run Linux with CONFIG_VMCORE_INFO "
            "(until v6.8 CONFIG_CRASH_CORE)"
        )
    # A Program that reads a guest takes no VMCOREINFO that it is given (drgn 0.3.0): read through it.
    import drgn

    guest, prog = prog, _x86_program(note)
    prog.set_linux_kernel_custom(note, True)

    def read(address: int, size: int, offset: int, physical: bool) -> bytes:
        try:
            return bytes(guest.read(address, size, True))
        except drgn.FaultError as error:
            raise drgn.FaultError("there is no memory", error.address) from None

    prog.add_memory_segment(0, _PHYSICAL, read, True)
    return prog


def connect(address: str) -> socket.socket:
    """Connect to the QMP socket at a path or at HOST:PORT; :class:`InputError`, also if QEMU serves another."""
    host, _, port = address.rpartition(":")
    with errors(f"{address}, the QMP socket"):
        if port.isdecimal() and not os.path.lexists(address):
            connection = socket.create_connection((host or "localhost", int(port)), _PATIENCE)
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_PATIENCE)
            try:
                connection.connect(address)
            except BaseException:
                connection.close()
                raise
    try:
        connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        connection.close()
        raise InputError(
            f"{address}: QEMU does not answer: it talks to one at a time, and another is connected; "
            "give it a second -qmp socket"
        ) from None
    connection.settimeout(None)
    return connection


# --- VMCOREINFO where nothing points to it ----------------------------------------------------------------


def _check_dump(path: Path) -> bytes:
    """The first bytes of a dump that may be read."""
    try:
        with path.open("rb") as file:
            start = file.read(_ELF_KIND.size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    magic = next((magic for magic in _DUMPS if start.startswith(magic)), None)
    if magic is None:
        raise InputError(f"{path}: not a core dump: it is neither ELF nor kdump-compressed")
    if magic == _ELF and len(start) == _ELF_KIND.size:
        _, width, order, kind, machine = _ELF_KIND.unpack(start)
        if (width, order, machine) != (2, 1, _X86_64):
            raise InputError(f"{path}: of another machine (e_machine {machine}): dumps of x86-64 are read")
        if kind != _CORE:
            raise InputError(f"{path}: an ELF file, but not a core dump (e_type {kind})")
    return magic


def _note_in_file(path: Path) -> bytes | None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return find_note(data)


def _note_in(prog: drgn.Program) -> bytes | None:
    """Search a PC's physical memory: behind the first MiB, and again from 4 GiB on.

    It ends there once below and once above; what lies between are devices,
    which are not to be read.
    """
    for start in _MEMORY_BEGINS:
        before = b""
        for piece in _pieces(prog, start):
            if (found := find_note(before + piece)) is not None:
                return found
            before = piece[-_OVERLAP:]
    return None


def _pieces(prog: drgn.Program, at: int) -> Iterator[bytes]:
    """Memory from an address on, to its end."""
    import drgn

    for size in (_PIECE, _OVERLAP):  # the last pieces are smaller
        while True:
            try:
                yield bytes(prog.read(at, size, True))
            except drgn.FaultError:
                break
            at += size
