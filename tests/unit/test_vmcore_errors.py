# SPDX-License-Identifier: GPL-2.0-only
"""What cannot be opened as a kernel is told in one line, with what to do about it."""

import contextlib
import os
import signal
import socket
import struct
import sys
from importlib.metadata import entry_points
from multiprocessing import get_context

import pytest

from rmaplab.errors import InputError
from rmaplab.realkernel import drgn_programs
from rmaplab.realkernel.vmcore import check_types, open_core, open_kcore, open_qmp

DRGN = "needs drgn: pip install 'rmaplab[kernel]'"


def elf(width=2, order=1, kind=4, machine=62):
    """The beginning of an ELF file: 64 bits, little-endian, a core of x86-64."""
    return struct.pack("<4sBB10xHHI", b"\x7fELF", width, order, kind, machine, 1) + bytes(40)


def test_without_drgn_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "drgn", None)
    core = tmp_path / "core"
    core.write_bytes(elf())
    for opening in (lambda: open_core(core), open_kcore):
        with pytest.raises(InputError, match=r"pip install 'rmaplab\[kernel\]'"):
            opening()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a core dump: it is neither ELF nor kdump-compressed"),
        (b"#!/bin/sh\n", "not a core dump"),
        (elf(kind=2), r"an ELF file, but not a core dump \(e_type 2\)"),
        (elf(machine=183), r"of another machine \(e_machine 183\): dumps of x86-64 are read"),
        (elf(width=1), "of another machine"),
        (elf()[:30], "there is no VMCOREINFO in it .*: it must be the dump of a Linux kernel"),
        (elf(), "there is no VMCOREINFO in it .*: it must be the dump of a Linux kernel"),
        (b"KDUMP   " + bytes(8192), "drgn cannot read it: "),
        (b"makedumpfile" + bytes(8192), "drgn cannot read it: "),
    ],
)
def test_what_is_no_dump_of_a_kernel(data, message, tmp_path):
    pytest.importorskip("drgn", reason=DRGN)
    core = tmp_path / "core"
    core.write_bytes(data)
    with pytest.raises(InputError, match=f"^{core}: {message}"):
        open_core(core)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="missing: cannot be read: No such file or directory"):
        open_core(tmp_path / "missing")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        open_core(tmp_path)


def test_a_note_alone_makes_no_kernel(tmp_path):
    pytest.importorskip("drgn", reason=DRGN)
    text = b"OSRELEASE=6.12.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff82c22000\nKERNELOFFSET=0\n"
    notes = struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text
    header = struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(notes), len(notes), 4)
    core = tmp_path / "core"
    core.write_bytes(header + segment + notes)
    with pytest.raises(InputError, match=r"VMCOREINFO lacks .*kallsyms_names.*give its vmlinux"):
        open_core(core)


# --- QMP -----------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """Listens where QEMU should, and says something, or waits if it has nothing to say.

    In a process of its own: while drgn waits for an answer, no thread of this one runs.
    """
    processes = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "qmp"))
        listening.listen()

        def serve(words):
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                if words is None:
                    signal.pause()
                else:
                    connection.sendall(words)

        def start(words):
            process = get_context("fork").Process(target=serve, args=(words,))
            process.start()
            processes.append(process)
            return tmp_path / "qmp"

        yield start
    for process in processes:
        process.kill()
        process.join()


def test_qemu_that_talks_to_somebody_else(server, monkeypatch):
    monkeypatch.setattr(drgn_programs, "_PATIENCE", 0.1)
    with pytest.raises(InputError, match=r"QEMU does not answer: it talks to one at a time.*second -qmp socket"):
        open_qmp(server(None))


@pytest.mark.parametrize("words", [b"", b"SSH-2.0-OpenSSH\r\n", b'{"QMP": 1}\r\n'])
def test_what_is_no_qemu(words, server):
    pytest.importorskip("drgn", reason=DRGN)
    with pytest.raises(InputError, match="qmp, the QMP socket: "):
        open_qmp(server(words))


def test_nobody_listens(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for address in (tmp_path / "missing", tmp_path / "file", "localhost:1", "x" * 200):
        with pytest.raises(InputError, match="the QMP socket: cannot be opened: "):
            open_qmp(address)


# --- types that do not fit, and the plugin -------------------------------------------------------------


def test_types_of_another_kernel_are_refused():
    from test_btf import Encoder, integer

    from rmaplab.realkernel.btf import Btf
    from rmaplab.realkernel.guest_symbols import VmcoreInfo

    encoder = Encoder()
    word = integer(encoder, "long", 8)
    encoder.compound(4, "page", 64, [("flags", word, 0), ("lru", word, 64)])
    types = Btf(encoder.made(), "its BTF")
    words = "OSRELEASE=6.12.0\nSIZE(page)=64\nOFFSET(page.lru)=8\nSIZE(zone)=1536\n"
    check_types(types, VmcoreInfo.parse(words), "the dump")
    for wrong in ("SIZE(page)=56", "OFFSET(page.lru)=16"):
        with pytest.raises(
            InputError, match=r"its BTF: the types of another kernel: .* in the dump, which is of 6.12"
        ):
            check_types(types, VmcoreInfo.parse(f"{words}{wrong}\n"), "the dump")


def test_drgn_is_offered_the_plugin():
    (found,) = entry_points(group="drgn.plugins", name="rmaplab")
    assert found.value == "rmaplab.realkernel.plugin"
    assert callable(found.load().drgn_prog_set)


def test_the_plugin_leaves_processes_alone():
    drgn = pytest.importorskip("drgn", reason=DRGN)
    from rmaplab.realkernel.plugin import drgn_prog_set, snapshot

    prog = drgn.Program()
    prog.set_pid(os.getpid())
    drgn_prog_set(prog)
    assert "rmaplab" not in prog.registered_type_finders()
    with pytest.raises(InputError, match="not a Linux kernel"):
        snapshot(prog)
