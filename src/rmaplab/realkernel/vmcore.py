# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that drgn opens: core dumps, the running kernel, QEMU's guests.

Each needs types: those of a vmlinux with debug symbols, or BTF, from a file or
out of the kernel's own memory.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR
from typing import TYPE_CHECKING

from rmaplab.errors import InputError
from rmaplab.realkernel.btf import Btf
from rmaplab.realkernel.drgn_programs import connect, core_program, errors, kcore_program, listening, qmp_program
from rmaplab.realkernel.drgn_target import DrgnMemory, DrgnTarget, target_of, vmcore_info
from rmaplab.realkernel.drgn_types import register, silence
from rmaplab.realkernel.guest_symbols import VmcoreInfo, btf_in, read_symbols
from rmaplab.realkernel.layout import Layout

if TYPE_CHECKING:
    import drgn

__all__ = ["check_types", "open_core", "open_kcore", "open_qmp"]

_RUNNING_BTF = Path("/sys/kernel/btf/vmlinux")


def open_core(core: Path | str, vmlinux: Path | str | None = None, btf: Path | str | None = None) -> DrgnTarget:
    """A core dump of a kernel: ELF or kdump-compressed, as kdump, makedumpfile or QEMU write them.

    ``vmlinux``: the kernel with debug symbols; ``btf``: a file with its BTF.
    Without both the BTF is taken from the dump.  :class:`InputError` if it is
    no such dump, not of this kernel, or has not got what is needed.
    """
    return _open(core_program(Path(core)), str(core), vmlinux, btf)


def open_kcore(vmlinux: Path | str | None = None, btf: Path | str | None = None) -> DrgnTarget:
    """The running kernel through /proc/kcore, as root; types as for :func:`open_core`, or else its own BTF."""
    prog = kcore_program()
    if vmlinux is None and btf is None and _RUNNING_BTF.exists():
        btf = _RUNNING_BTF
    return _open(prog, "/proc/kcore", vmlinux, btf)


def open_qmp(socket: Path | str, vmlinux: Path | str | None = None, btf: Path | str | None = None) -> DrgnTarget:
    """A guest of QEMU by the socket of its ``-qmp`` option; types as for :func:`open_core`.

    The guest may run on meanwhile.  Without ``-device vmcoreinfo`` the
    note that describes the kernel is searched for in the guest's memory.
    """
    name = str(socket)
    connection = connect(name)

    def hang_up() -> None:
        with suppress(OSError):
            connection.shutdown(SHUT_RDWR)  # drgn has a copy of it
        connection.close()

    try:
        target = _open(qmp_program(connection, name), name, vmlinux, btf)
    except BaseException:
        hang_up()
        raise
    target.when_closed = hang_up
    return target


def _open(prog: drgn.Program, name: str, vmlinux: Path | str | None, btf: Path | str | None) -> DrgnTarget:
    import drgn

    if prog.platform.arch != drgn.Architecture.X86_64:
        raise InputError(f"{name}: a kernel for {prog.platform.arch.name}: those for x86-64 are read")
    silence(prog)
    info = vmcore_info(prog)
    if vmlinux is not None:
        _load_vmlinux(prog, name, Path(vmlinux), info)
        return target_of(prog)
    memory = DrgnMemory(prog)
    symbols = read_symbols(memory, info)
    types = Btf.of_file(btf) if btf is not None else btf_in(memory, symbols, name)
    check_types(types, info, name)
    register(prog, lambda _: (types, symbols))
    return target_of(prog, Layout.of_btf(types))


def _load(prog: drgn.Program, path: str) -> str:
    """Let drgn take debug symbols from a file; what it says about that, which is no error to it."""
    import drgn

    with errors(path), listening() as said:
        try:
            prog.load_debug_info([path])
        except drgn.MissingDebugInfoError as error:
            said.append(str(error).splitlines()[0])
    return "; ".join(said)


def _load_vmlinux(prog: drgn.Program, name: str, vmlinux: Path, info: VmcoreInfo) -> None:
    import drgn

    if not vmlinux.is_file():
        raise InputError(f"{vmlinux}: there is no such file; a vmlinux with debug symbols is needed")
    said = _load(prog, str(vmlinux))
    try:
        fits = prog.main_module().debug_file_status == drgn.ModuleFileStatus.HAVE
    except LookupError:
        fits = False
    if not fits:
        raise InputError(
            f"{vmlinux}: not the debug symbols of {name}, which is of {info.release} with the build id "
            f"{info.values.get('BUILD-ID', 'unknown')}" + (f" (drgn: {said})" if said else "")
        )


def check_types(types: Btf, info: VmcoreInfo, name: str) -> None:
    """:class:`InputError` for the types of another kernel: VMCOREINFO knows some sizes and offsets."""
    for kind, find in (("SIZE", types.size), ("OFFSET", types.offset)):
        for of, told in info.known(kind).items():
            try:
                found = find(of)
            except KeyError:
                continue
            if found != told:
                raise InputError(
                    f"{types.name}: the types of another kernel: {kind.lower()} of {of} is {found} there and "
                    f"{told} in {name}, which is of {info.release}"
                )
